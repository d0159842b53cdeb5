//! Credentials stay where they were given: in no log, answer or task, whatever happens and however much is logged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Process, Server, client, json as ask};

const ADMIN: &str = "pw-of-the-admin";
const SECRETS: [&str; 7] = [
    ADMIN,
    "pw-in-the-url",
    "pw-in-the-object",
    "pw-in-a-header",
    "token-in-a-header",
    "pw-in-the-settings",
    "token-in-the-settings",
];
/// Everything that tells of replications, or of settings.
const SHOWN: [&str; 6] = [
    "/_active_tasks",
    "/_scheduler/jobs",
    "/_scheduler/docs",
    "/_metrics",
    "/_node/_local/_stats",
    "/_node/_local/_config",
];

/// What somebody's function throws, and the name of a document, were written as they came: with line ends, as lines of their own.
#[tokio::test]
async fn nobody_writes_lines_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let process = Process::logging(&dir.path().join("data"), &[], &log);
    let put = async |path: &str, body: Value| {
        let request = client().put(process.url(path)).header("Content-Type", "application/json").body(body.to_string());
        assert_eq!(request.send().await.unwrap().status(), 201, "{path}");
    };
    let code = "function(doc) { if (doc._replication_state) throw({forbidden: 'no\\nFORGED by a function'}) }";
    put("/_replicator/_design/no", json!({ "validate_doc_update": code })).await;
    put("/_replicator/a%0AFORGED%20by%20a%20name", json!({ "source": "nosuch", "target": "other" })).await;
    let logged = || std::fs::read_to_string(&log).unwrap();
    let all = async {
        while !logged().contains("a replication's state can't be written") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await.unwrap();
    let logged = logged();
    assert!(logged.contains("FORGED by a function") && !logged.contains("\nFORGED"), "{logged}");
}

#[tokio::test]
async fn no_password_appears_in_logs_answers_or_tasks_at_trace_level() {
    // A peer that takes any credentials: it has no admins.
    let server = Server::start().await;
    server.database("src").await.fill("doc-", 5).await;
    server.database("tgt").await;
    let peer = FaultyPeer::before(&server).await;
    let dir = tempfile::tempdir().unwrap();
    let (log, config, token) = (dir.path().join("log"), dir.path().join("couchrep.toml"), dir.path().join("token"));
    std::fs::write(&token, SECRETS[6]).unwrap();
    let rights = format!("origins = ['{}']\nusers = ['admin']\n", peer.url(""));
    let declared = format!(
        "[secrets.carrier]\nusername = 'bob'\npassword = '{}'\n{rights}\n[secrets.cloud]\ntoken_file = '{}'\n{rights}",
        SECRETS[5],
        token.display(),
    );
    std::fs::write(&config, declared).unwrap();
    let admin = format!("admin:{ADMIN}");
    let options = ["--admin", &admin, "--retries-per-request", "2", "--config", config.to_str().unwrap()];
    let process = Process::tracing(&dir.path().join("data"), &options, &log);
    let in_url = |path: &str| peer.url(path).replace("http://", &format!("http://ann:{}@", SECRETS[1]));
    let mut told = Vec::new();
    let admins =
        |method: Method, path: &str| client().request(method, process.url(path)).basic_auth("admin", Some(ADMIN));
    let mut replicate = async |job: Value| {
        let request = admins(Method::POST, "/_replicate").header("Content-Type", "application/json");
        let answer = request.body(job.to_string()).send().await.unwrap();
        told.push(format!("{:?}", answer.headers()));
        let status = answer.status().as_u16();
        told.push(answer.text().await.unwrap());
        for path in SHOWN {
            told.push(admins(Method::GET, path).send().await.unwrap().text().await.unwrap());
        }
        status
    };

    let auth = json!({"basic": {"username": "bob", "password": SECRETS[2]}});
    let basic = format!("Basic {}", STANDARD.encode(format!("eve:{}", SECRETS[3])));
    let headers = json!({"Authorization": basic, "X-Token": SECRETS[4], "Cookie": SECRETS[4]});
    let bearer = json!({"Authorization": format!("Bearer {}", SECRETS[4])});
    let endpoints = |path: &str| {
        [
            json!(in_url(path)),
            json!({"url": peer.url(path), "auth": auth}),
            json!({"url": peer.url(path), "headers": headers}),
            json!({"url": in_url(path), "headers": bearer}),
            json!({"url": peer.url(path), "auth": {"secret": "carrier"}}),
            json!({"url": peer.url(path), "auth": {"secret": "cloud"}}),
        ]
    };
    for (source, target) in std::iter::zip(endpoints("/src"), endpoints("/tgt")) {
        assert_eq!(replicate(json!({"source": source, "target": target})).await, 200);
    }
    let continuous = json!({"source": in_url("/src"), "target": endpoints("/tgt")[2], "continuous": true});
    assert_eq!(replicate(continuous).await, 202);

    let elsewhere = vec![("location", in_url("/elsewhere/"))];
    let page = || vec![("content-type", "text/html".to_owned())];
    for (fault, status) in [
        (Fault::status(401), 401),
        (Fault::status(404), 404),
        (Fault::status(400), 502),
        (Fault::Answer(307, elsewhere, String::new()), 404),
        (Fault::Answer(200, page(), "<html>".into()), 502),
        (Fault::Disconnect, 200),
        (Fault::Cut(3), 200),
    ] {
        for source in endpoints("/failing") {
            server.client().put(server.url("/failing")).send().await.unwrap();
            match status {
                200 => peer.fail(Method::GET, "/failing/$", fault.clone()),
                _ => peer.keep_failing(Method::GET, "/failing/$", fault.clone(), None),
            };
            assert_eq!(replicate(json!({"source": source, "target": in_url("/tgt")})).await, status, "{fault:?}");
            peer.heal();
        }
    }
    let nowhere = format!("http://ann:{}@127.0.0.1:1/db", SECRETS[1]);
    assert_eq!(replicate(json!({"source": nowhere, "target": in_url("/tgt")})).await, 502);
    let invalid = format!("ftp://ann:{}@127.0.0.1/db", SECRETS[1]);
    assert_eq!(replicate(json!({"source": invalid, "target": in_url("/tgt")})).await, 400);
    let elsewhere = json!({"url": "http://127.0.0.1:1/db", "auth": {"secret": "carrier"}});
    assert_eq!(replicate(json!({"source": elsewhere, "target": in_url("/tgt")})).await, 401);

    // The same in documents: first those that copy, then those that can't, whose refused logins all others would wait for.
    peer.keep_failing(Method::GET, "/failing/$", Fault::status(401), None);
    let failing = endpoints("/failing").into_iter().chain([elsewhere, json!(nowhere)]).collect::<Vec<_>>();
    for (sources, states) in [(endpoints("/src").to_vec(), ["completed", "running"]), (failing, ["crashing", "error"])]
    {
        for (n, source) in sources.into_iter().enumerate() {
            let target = if n % 2 == 0 { json!(in_url("/tgt")) } else { endpoints("/tgt")[2].clone() };
            let job = json!({"source": source, "target": target, "continuous": n == 0, "doc_ids": [n.to_string()]});
            let request = admins(Method::POST, "/_replicator").header("Content-Type", "application/json");
            let answer = request.body(job.to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 201);
            told.push(answer.text().await.unwrap());
        }
        let told_of = |state: &str, text: &str| text.contains(&format!("\"state\":\"{state}\""));
        let mut seen = [false; 2];
        while seen != [true; 2] {
            for path in SHOWN {
                let text = admins(Method::GET, path).send().await.unwrap().text().await.unwrap();
                (0..2).for_each(|n| seen[n] |= path == "/_scheduler/docs" && told_of(states[n], &text));
                told.push(text);
            }
        }
    }
    let last = told.iter().rev().find(|text| text.contains("may not be sent to http://127.0.0.1:1"));
    assert!(last.is_some(), "nobody was told of the secret that is for another server");
    ask(&client(), Method::GET, process.url("/_up"), None, 200).await;
    drop(process);

    assert!(told.iter().any(|text| text.contains("couchrep_job_docs_read_total{")), "no job was told of");
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("TRACE") && logged.contains("replication started"), "nothing was logged");
    told.push(logged);
    for secret in SECRETS {
        let encoded = ["ann", "bob", "eve", "admin"].map(|user| STANDARD.encode(format!("{user}:{secret}")));
        for text in &told {
            for form in encoded.iter().map(String::as_str).chain([secret]) {
                let place = text.find(form);
                assert!(place.is_none(), "{form} appears: {}", place.map_or("", |place| around(text, place)));
            }
        }
    }
}

/// The line at a place.
fn around(text: &str, place: usize) -> &str {
    let start = text[..place].rfind('\n').map_or(0, |line_end| line_end + 1);
    text[start..].lines().next().unwrap_or_default()
}
