//! `couchrep jobs`: what it lists and shows, what it does to jobs, and what it doesn't print.

use serde_json::{Value, json};

use crate::support::{FaultyPeer, Process, Server};

/// Exit code, stdout, stderr.
fn jobs(args: &[&str], envs: &[(&str, &str)]) -> (i32, String, String) {
    let output = Process::run(&[&["jobs"], args].concat(), envs);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The same, of this server; it must succeed.
#[track_caller]
fn done(server: &Server, args: &[&str]) -> String {
    let (code, out, err) = jobs(args, &[("COUCHREP_SERVER", &server.url(""))]);
    assert_eq!(code, 0, "{args:?}: {out}{err}");
    out
}

#[track_caller]
fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A server with a job of a document (`on`), a document of the same replication (`twin`), a job that fails (`missing`), and one
/// without a document.
async fn start() -> Server {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 10).await;
    server.database("tgt").await;
    let described = json!({"source": "src", "target": "tgt", "continuous": true});
    server.put("/_replicator/on", described.clone(), 201).await;
    server.put("/_replicator/missing", json!({"source": "nosuch", "target": "tgt"}), 201).await;
    let asked = json!({"source": "src", "target": "other", "create_target": true, "continuous": true});
    server.post("/_replicate", asked, 202).await;
    server.until_equal("src", "tgt").await;
    server.until_equal("src", "other").await;
    for (document, state) in [("on", "running"), ("missing", "crashing"), ("twin", "failed")] {
        if document == "twin" {
            server.put("/_replicator/twin", described.clone(), 201).await;
        }
        until(&server, &format!("/_scheduler/docs/_replicator/{document}"), |entry| entry["state"] == state).await;
    }
    server
}

async fn until(server: &Server, path: &str, is: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let answer = server.client().get(server.url(path)).send().await.unwrap();
            let answer = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            if is(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), asked).await.expect(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_and_documents_without_jobs_are_listed() {
    let server = start().await;
    let table = done(&server, &[]);
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["JOB", "STATE", "SOURCE", "→", "TARGET", "WRITTEN", "PENDING", "ERROR"], "{table}");
    assert_eq!(rows.len(), 5, "{table}");
    let row = |name: &str| rows.iter().find(|row| row.contains(&name)).unwrap_or_else(|| panic!("{name}: {table}"));
    let [source, target, other] = ["src", "tgt", "other"].map(|name| format!("{}/{name}", server.addr()));
    assert_eq!(row("_replicator/on")[..6], ["_replicator/on", "running", &source, "→", &target, "10"], "{table}");
    assert_eq!(row("_replicator/missing")[1], "crashing");
    assert!(table.contains(&format!("could not open {}\n", server.anonymous_url("/nosuch/"))), "{table}");
    assert_eq!(row("_replicator/twin")[1], "failed");
    let transient = row(&other);
    assert_eq!((transient[0].len(), transient[1]), (8, "running"));
    assert!(done(&server, &["show", transient[0]]).contains(&server.anonymous_url("/other/")));

    let of_state = |states: &str| lines(&done(&server, &["list", "--json", "--state", states]));
    let crashing = of_state("crashing");
    assert_eq!((crashing.len(), &crashing[0]["doc_id"]), (1, &json!("missing")));
    assert_eq!(
        crashing[0]["error_count"],
        server.get(&format!("/_scheduler/jobs/{}", id(&crashing[0])), 200).await["error_count"]
    );
    assert_eq!(of_state("failed,crashing").len(), 2);
    assert_eq!(of_state("completed"), Vec::<Value>::new());
    assert_eq!(done(&server, &["list", "--state", "paused"]), "no jobs\n");
}

fn id(entry: &Value) -> &str {
    entry["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_shown_by_its_id_the_beginning_of_it_or_its_document() {
    let server = start().await;
    let by_document = done(&server, &["show", "_replicator/missing"]);
    for told in
        ["document              _replicator/missing\n", "state                 crashing\n", "  crashed: ", "  added\n"]
    {
        assert!(by_document.contains(told), "{told}: {by_document}");
    }
    let entry = &lines(&done(&server, &["show", "_replicator/on", "--json"]))[0];
    assert_eq!(lines(&done(&server, &["show", &id(entry)[..8], "--json"]))[0]["id"], entry["id"]);
    assert!(done(&server, &["show", id(entry)]).contains("docs written             10\n"));
    assert!(done(&server, &["show", "_replicator/twin"]).contains("  failed\n"));

    let failed = |name: &str| jobs(&["show", name, "--server", &server.url("")], &[]);
    let not_found = |said: &str| (1, String::new(), format!("couchrep: there is no {said}\n"));
    assert_eq!(failed("nosuch"), not_found("job nosuch"));
    assert_eq!(failed("_replicator/nosuch"), not_found("document _replicator/nosuch"));
    assert_eq!(failed("").0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_document_is_paused_resumed_and_tried_again() {
    let server = start().await;
    assert_eq!(done(&server, &["pause", "_replicator/on"]), "_replicator/on paused\n");
    assert_eq!(server.get("/_replicator/on", 200).await["paused"], true);
    assert!(done(&server, &["list", "--state", "paused"]).contains("_replicator/on"));
    server.put("/src/late", json!({}), 201).await;
    assert_eq!(lines(&done(&server, &["resume", "_replicator/on", "--json"]))[0]["paused"], false);
    server.until_equal("src", "tgt").await;

    server.database("nosuch").await.fill("doc", 3).await;
    assert_eq!(done(&server, &["retry", "_replicator/missing"]), "_replicator/missing is tried now\n");
    until(&server, "/_replicator/missing", |document| document["_replication_state"] == "completed").await;

    let (code, _, err) = jobs(&["pause", "_replicator/twin", "--server", &server.url("")], &[]);
    assert_eq!(code, 1);
    assert!(err.starts_with("couchrep: _replicator/twin has no job, its state is failed: "), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_and_its_document_goes() {
    let server = start().await;
    for document in ["twin", "on"] {
        let name = format!("_replicator/{document}");
        assert_eq!(done(&server, &["cancel", &name]), format!("{name} cancelled\n"));
        server.get(&format!("/{name}"), 404).await;
    }
    let jobs = until(&server, "/_scheduler/jobs", |jobs| jobs["total_rows"] == 2).await;
    let transient = jobs["jobs"].as_array().unwrap().iter().find(|job| job["doc_id"].is_null()).unwrap();
    assert_eq!(done(&server, &["cancel", id(transient)]), format!("{} cancelled\n", id(transient)));
    until(&server, "/_scheduler/jobs", |jobs| jobs["total_rows"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_stands_in_the_url_or_in_the_settings_and_is_never_shown() {
    let server = Server::with_admin("root", "hunter2").await;
    let address = server.anonymous_url("");
    assert_eq!(done(&server, &[]), "no jobs\n");
    // As in a container, whose environment the server and its commands share.
    let beside = [("COUCHREP_LISTEN", address.strip_prefix("http://").unwrap()), ("COUCHREP_ADMIN", "root:hunter2")];
    assert_eq!(jobs(&[], &beside), (0, "no jobs\n".into(), String::new()));

    let (code, out, err) = jobs(&["list", "--server", &address], &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("You are not a server admin") && err.contains("COUCHREP_SERVER"), "{err}");
    let (code, _, err) = jobs(&["list", "--server", &address.replace("//", "//root:hunter3@")], &[]);
    assert_eq!(code, 1);
    assert!(err.contains("Name or password is incorrect.") && !err.contains("hunter"), "{err}");
}

/// While the server was down, whoever listened in its place was sent the administrator's password.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_the_settings_is_sent_to_the_server_of_the_data_directory_alone() {
    let server = Server::with_admin("root", "hunter2").await;
    let peer = FaultyPeer::before(&server).await;
    let (address, data) = (peer.url(""), server.data_dir().to_str().unwrap().to_owned());
    let dir = tempfile::tempdir().unwrap();
    let asked = |data: &str| {
        let listen = address.strip_prefix("http://").unwrap();
        jobs(&[], &[("COUCHREP_LISTEN", listen), ("COUCHREP_ADMIN", "root:hunter2"), ("COUCHREP_DATA_DIR", data)])
    };
    assert_eq!(asked(&data), (0, "no jobs\n".into(), String::new()));
    assert_eq!(peer.requests()[0], "GET /");
    assert!(!peer.credentials().is_empty() && !peer.credentials().iter().any(|told| told.starts_with("GET / ")));

    std::fs::write(dir.path().join("server.uuid"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let before = peer.credentials();
    let (code, out, err) = asked(dir.path().to_str().unwrap());
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("isn't the server of the data directory") && !err.contains("hunter2"), "{err}");
    assert_eq!(peer.credentials(), before);
    // Whom the user names himself gets his own.
    let named = address.replace("//", "//root:hunter2@");
    let envs = [("COUCHREP_SERVER", named.as_str()), ("COUCHREP_DATA_DIR", dir.path().to_str().unwrap())];
    assert_eq!(jobs(&[], &envs), (0, "no jobs\n".into(), String::new()));
}

#[test]
fn wrong_usage_ends_with_2_and_an_absent_server_with_1() {
    for (args, told) in [
        (&["list", "--server", "root:hunter2@host"] as &[&str], "URL must be http://HOST:PORT"),
        (&["list", "--state", "dancing"], "it may be initializing, error, failed, running"),
        (&["pause"], "<ID|DB/DOC>"),
        (&["dance"], "unrecognized subcommand"),
    ] {
        let (code, _, err) = jobs(args, &[]);
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(err.contains(told) && !err.contains("hunter2"), "{args:?}: {err}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let (code, _, err) = jobs(&["--server", &format!("http://root:hunter2@{address}")], &[]);
    assert_eq!(code, 1);
    assert!(err.starts_with(&format!("couchrep: http://{address} doesn't answer: ")), "{err}");
    assert!(!err.contains("hunter2"), "{err}");

    let (_, help, _) =
        jobs(&["--help"], &[("COUCHREP_SERVER", "http://root:hunter2@host"), ("COUCHREP_ADMIN", "root:hunter2")]);
    assert!(help.contains("retry") && help.contains("COUCHREP_SERVER") && !help.contains("hunter2"), "{help}");
}
