//! `couchrep replicate`: exit codes, output, checkpoints, and what it doesn't print.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::ChildStdout;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Process, Server, signal, without_times};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The JSON lines of this event.
    fn events(&self, name: &str) -> Vec<Value> {
        let events = self.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["event"] == name).collect()
    }
}

fn couchrep(args: &[&str]) -> Ran {
    let output = Process::run(args, &[]);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: without_times(&text(output.stdout)), err: text(output.stderr) }
}

/// Reads JSON lines until this event comes.
fn until(name: &str, lines: &mut BufReader<ChildStdout>) -> Value {
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before {name}");
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == name {
            return event;
        }
    }
}

async fn two_databases() -> Server {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 3).await;
    server.database("tgt").await;
    server
}

fn forbidden(id: &str) -> Fault {
    let refused = json!([{ "id": id, "error": "forbidden", "reason": "not here" }]);
    Fault::Answer(201, vec![("content-type", "application/json".into())], refused.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_runs_without_a_server_and_goes_on_from_its_checkpoint() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 3).await;
    let (source, target) = (server.url("/src"), server.url("/new"));
    let first = couchrep(&["replicate", &source, &target, "--create-target"]);
    assert_eq!((first.code, first.out.as_str()), (0, "done: 3 documents written\n"), "{}", first.err);
    assert_eq!(server.leaves("new").await, server.leaves("src").await);

    let second = couchrep(&["replicate", &source, &target, "--json"]);
    assert_eq!(second.code, 0, "{}", second.err);
    assert_eq!(second.events("started")[0]["target"], format!("{target}/"));
    let result = &second.events("result")[0];
    assert_eq!((&result["ok"], &result["exit_code"], &result["docs_written"]), (&json!(true), &json!(0), &json!(0)));
    // Without `create_target` it has another id, yet the same base id and so the same checkpoint.
    assert_eq!(result["answer"]["no_changes"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_documents_are_copied_alone_under_the_ids_as_written() {
    let server = two_databases().await;
    server.put("/src/a%252Fb", json!({}), 201).await;
    let ran =
        couchrep(&["replicate", &server.url("/src"), &server.url("/tgt"), "--doc-id", "doc0001", "--doc-id", "a%2Fb"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ids: Vec<_> = server.leaves("tgt").await.into_iter().map(|leaf| leaf.id).collect();
    assert_eq!(ids, ["a%2Fb", "doc0001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_a_selector_matches_are_copied_alone() {
    let server = two_databases().await;
    server.put("/src/soup", json!({ "kind": "soup" }), 201).await;
    let ran = couchrep(&[
        "replicate",
        &server.url("/src"),
        &server.url("/tgt"),
        "--selector",
        r#"{"kind": {"$in": ["soup"]}}"#,
    ]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "done: 1 document written\n"), "{}", ran.err);
    assert_eq!(server.get("/tgt/soup", 200).await["kind"], "soup");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_tells_how_long_it_took_and_how_fast_it_was() {
    let server = two_databases().await;
    let args = ["replicate", &server.url("/src"), &server.url("/tgt")];
    let out = String::from_utf8(Process::run(&args, &[]).stdout).unwrap();
    let told = fancy_regex::Regex::new(r"^done in [0-9]+\.[0-9] s: 3 documents written \([0-9,]+/s\)\n$").unwrap();
    assert!(told.is_match(&out).unwrap(), "{out}");
    let result = &couchrep(&[&args[..], &["--json"]].concat()).events("result")[0];
    assert!(result["seconds"].as_f64().unwrap() > 0.0 && result["docs_per_second"] == 0, "{result}");
}

#[test]
fn names_are_databases_of_the_data_dir_which_is_not_made_for_a_source() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let there_is_no_store = couchrep(&["replicate", "a", "b", "--data-dir", data_dir]);
    assert_eq!(there_is_no_store.code, 1);
    assert!(there_is_no_store.err.contains("there is no store in"), "{}", there_is_no_store.err);

    let missing = couchrep(&["replicate", "a", "b", "--data-dir", data_dir, "--create-target"]);
    assert_eq!((missing.code, missing.err.as_str()), (1, "couchrep: there is no database a\n"));
}

#[test]
fn the_data_dir_may_stand_in_a_servers_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("couchrep.toml");
    let missing = dir.path().join("missing");
    std::fs::write(&file, format!("data_dir = '{}'\nadmin = ['root:secret']\n", missing.display())).unwrap();
    let ran = couchrep(&["replicate", "a", "b", "--config", file.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains(&format!("there is no store in {}", missing.display())), "{}", ran.err);
}

#[tokio::test]
async fn a_store_that_a_server_has_open_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path());
    let ran = couchrep(&["replicate", "a", "b", "--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("while a server has it open, give the server's URLs"), "{}", ran.err);
    server.kill();
}

#[test]
fn wrong_usage_ends_with_2_and_shows_no_password() {
    for (args, told) in [
        (&["replicate", "root:hunter2@host/db", "tgt"] as &[&str], "endpoint has an invalid url"),
        (&["replicate", "http://root:hunter2@host:port/db", "tgt"], "endpoint has an invalid url"),
        (&["verify", "http://root:hunter2@host:port/db", "tgt"], "endpoint has an invalid url"),
        (&["replicate", "hunter2!", "tgt"], "SOURCE and TARGET must be URLs"),
        (&["replicate", "a", "b", "--filter", "x"], "Invalid filter. Must match `ddocname/filtername`."),
        (&["replicate", "a", "b", "--filter", "x/y", "--query", "z"], "expected KEY=VALUE"),
        (&["replicate", "a", "b", "--filter", "x/y", "--doc-id", "z"], "cannot be used with"),
        (&["replicate", "a", "b", "--query", "z=1"], "--filter <DDOC/NAME>"),
        (&["replicate", "a", "b", "--selector", r#"{"a": 1, b: 2}"#], "key must be a string at line 1 column 10"),
        (&["replicate", "a", "b", "--selector", "[]"], "a selector must be a JSON object"),
        (&["replicate", "a", "b", "--selector", r#"{"a": {"$near": 1}}"#], "unsupported operator: $near"),
        (&["replicate", "a", "b", "--selector", r#"{"a": {"$in": 1}}"#], "operator $in: it must be an array"),
        (&["replicate", "a", "b", "--selector", "{}", "--doc-id", "z"], "cannot be used with"),
        (&["replicate", "a", "b", "--selector", "{}", "--filter", "x/y"], "cannot be used with"),
        (
            &["replicate", "http://h/a", "http://h/b", "--worker-processes", "0"],
            "--worker-processes must be at least 1",
        ),
        (&["replicate", "a"], "<TARGET>"),
    ] {
        let ran = couchrep(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(told), "{args:?}: {}", ran.err);
        assert!(!ran.err.contains("hunter2"), "{args:?}: {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_ends_with_1_and_says_why_without_credentials() {
    let server = Server::with_admin("root", "hunter2").await;
    server.database("tgt").await;
    let (source, target) = (server.url("/nosuch"), server.url("/tgt"));
    let ran = couchrep(&["replicate", &source, &target, "--json", "--log", "trace"]);
    assert_eq!(ran.code, 1);
    let why = format!("there is no database {}/", server.anonymous_url("/nosuch"));
    assert!(ran.err.contains(&format!("couchrep: {why}\n")), "{}", ran.err);
    let result = &ran.events("result")[0];
    assert_eq!((&result["ok"], &result["error"]), (&json!(false), &json!(why)));
    assert!(!ran.err.contains("hunter2") && !ran.out.contains("hunter2"), "{}{}", ran.err, ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_documents_are_listed_and_the_exit_code_is_3() {
    let server = two_databases().await;
    let target = FaultyPeer::before(&server).await;
    target.fail(Method::POST, "/tgt/_bulk_docs", forbidden("doc0001"));
    target.fail(Method::POST, "/tgt/_bulk_docs", forbidden("doc0001"));
    let args = ["replicate", &server.url("/src"), &target.url("/tgt"), "--uuid", &"1".repeat(32)];
    let ran = couchrep(&args);
    assert_eq!(ran.code, 3, "{}", ran.err);
    let rev = server.get("/src/doc0001", 200).await["_rev"].as_str().unwrap().to_owned();
    assert!(ran.out.starts_with(&format!("refused: doc0001 {rev}: forbidden: not here\n")), "{}", ran.out);
    assert!(ran.out.ends_with("done: 2 documents written, 1 refused\n"), "{}", ran.out);

    let other_id = "2".repeat(32);
    let ran = couchrep(&["replicate", args[1], args[2], "--uuid", &other_id, "--json"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert_eq!(ran.events("refused")[0]["reason"], "not here");
    assert_eq!(ran.events("result")[0]["doc_write_failures"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_records_a_checkpoint_of_what_is_done() {
    let server = two_databases().await;
    let source = FaultyPeer::before(&server).await;
    source.keep_failing_with(Method::POST, "/src/_bulk_get", "doc0002", Fault::Hang);
    let (source_url, target_url) = (source.url("/src"), server.url("/tgt"));
    let mut child =
        Process::spawn_command(&["replicate", &source_url, &target_url, "--json", "--worker-batch-size", "1"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let id = until("started", &mut lines)["replication_id"].as_str().unwrap().to_owned();
    while until("progress", &mut lines)["through_seq"] != 2 {}

    signal(child.id(), "INT");
    let result = until("result", &mut lines);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!((&result["docs_written"], &result["checkpointed_source_seq"]), (&json!(2), &json!(2)));
    assert_eq!(server.get(&format!("/tgt/_local/{id}"), 200).await["source_last_seq"], 2);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(err.contains("run again, it goes on from there"), "{err}");

    // Neither was a failure: who asked for the end needn't hear of the batch that it ended.
    assert!(!err.contains("a part of a batch failed"), "{err}");

    source.heal();
    let again = couchrep(&["replicate", &source_url, &target_url]);
    assert_eq!(again.out, "done: 1 document written\n", "{}", again.err);
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_continuous_replication_ends_well_by_an_interrupt() {
    let server = two_databases().await;
    let mut child =
        Process::spawn_command(&["replicate", &server.url("/src"), &server.url("/tgt"), "--continuous", "--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let up_to_date = |event: &Value| event["changes_pending"] == 0 && event["progress"] == 100;
    while !up_to_date(&until("progress", &mut lines)) {}
    signal(child.id(), "INT");
    let result = until("result", &mut lines);
    assert_eq!(child.wait().unwrap().code(), Some(0), "{result}");
    assert_eq!((&result["docs_written"], &result["checkpointed_source_seq"]), (&json!(3), &json!(3)));
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}

/// The command kept none: it ended with 3, then with 0 for ever, and nothing could try them again.
#[tokio::test(flavor = "multi_thread")]
async fn refused_documents_are_listed_until_they_are_there_however_many_they_are() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 2500).await;
    server.database("tgt").await;
    let target = FaultyPeer::before(&server).await;
    target.refuse(|_| true);
    let (source_url, target_url) = (server.url("/src"), target.url("/tgt"));
    let run = |more: &[&str]| {
        let ran = couchrep(&[&["replicate", &source_url, &target_url, "--json"], more].concat());
        let ids: BTreeSet<_> =
            ran.events("refused").iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        let result = ran.events("result").remove(0);
        assert_eq!(result["failures"], ids.len());
        (ran.code, ids.len(), result["docs_written"].as_u64().unwrap())
    };
    assert_eq!(run(&[]), (3, 2500, 0));
    assert_eq!(run(&[]), (3, 2500, 0));
    assert_eq!(run(&["--retry-failures"]), (3, 2500, 0));
    target.refuse(|id| id < "doc1000");
    assert_eq!(run(&["--retry-failures"]), (3, 1000, 1500));
    assert_eq!(run(&[]), (3, 1000, 0));
    target.refuse(|_| false);
    assert_eq!(run(&["--retry-failures"]), (0, 0, 1000));
    assert_eq!(run(&[]), (0, 0, 0));
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_dir_lists_refused_documents_if_the_source_takes_no_list() {
    let server = two_databases().await;
    let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
    target.refuse(|id| id == "doc0001");
    let dir = tempfile::tempdir().unwrap();
    let (source_url, target_url) = (source.url("/src"), target.url("/tgt"));
    let args = ["replicate", &source_url, &target_url, "--state-dir", dir.path().to_str().unwrap()];
    source.fail(Method::PUT, "-failures-", Fault::status(403));
    assert_eq!(couchrep(&args).code, 3);
    assert_eq!(source.faults_left(), 0);
    assert!(!server.get("/src/_local_docs", 200).await.to_string().contains("failures"));
    assert_eq!(couchrep(&args).code, 3);
    target.refuse(|_| false);
    let retried = couchrep(&[&args[..], &["--retry-failures"]].concat());
    assert_eq!((retried.code, retried.out.as_str()), (0, "done: 1 document written\n"), "{}", retried.err);
    assert_eq!(couchrep(&args).code, 0);
}

/// `verify` showed a directory for lists that it never makes, and took one without effect.
#[test]
fn no_command_offers_a_directory_that_it_makes_no_use_of() {
    let offers = |command| couchrep(&[command, "--help"]).out.contains("--state-dir");
    assert_eq!((offers("replicate"), offers("verify")), (true, false));
    assert_eq!(couchrep(&["verify", "http://h/a", "http://h/b", "--state-dir", "x"]).code, 2);
}

/// Without any place for the list, a checkpoint would pass over documents that nothing names.
#[tokio::test(flavor = "multi_thread")]
async fn no_checkpoint_passes_refused_documents_that_nothing_can_list() {
    let server = two_databases().await;
    let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
    target.refuse(|id| id == "doc0001");
    source.fail(Method::PUT, "-failures-", Fault::status(403));
    source.fail(Method::PUT, "-failures-", Fault::status(403));
    let (source_url, target_url) = (source.url("/src"), target.url("/tgt"));
    let args = ["replicate", &source_url, &target_url];
    let nowhere = [("HOME", ""), ("XDG_STATE_HOME", "")];
    let ran = Process::run(&args, &nowhere);
    assert_eq!(ran.status.code(), Some(1));
    let out = String::from_utf8(ran.stdout).unwrap();
    assert!(out.starts_with("refused: doc0001 "), "{out}");
    assert!(!server.get("/tgt/_local_docs", 200).await.to_string().contains("_local/"));
    target.refuse(|_| false);
    // It was met again.
    assert_eq!(Process::run(&args, &nowhere).status.code(), Some(0));
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_the_list_and_its_checkpoint_loses_none() {
    let server = Server::start().await;
    server.database("src").await;
    server.database("tgt").await;
    let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
    let (source_url, target_url) = (source.url("/src"), target.url("/tgt"));
    // A pipe that nobody reads must not fill up.
    let args = ["replicate", &source_url, &target_url, "--json", "--log", "error"];
    let id = couchrep(&args).events("started")[0]["replication_id"].as_str().unwrap().to_owned();
    server
        .post("/src/_bulk_docs", json!({ "docs": (0..1200).map(|n| json!({ "n": n })).collect::<Vec<_>>() }), 201)
        .await;
    target.refuse(|_| true);
    source.fail(Method::PUT, &format!("/_local/{id}$"), Fault::Hang);
    let mut child = Process::spawn_command(&args);
    source.saw(&format!("PUT /src/_local/{id}-failures-")).await;
    source.met_all().await;
    child.kill().unwrap();
    child.wait().unwrap();
    let ran = couchrep(&args);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert_eq!(ran.events("result")[0]["failures"], 1200);
    target.refuse(|_| false);
    let retried = couchrep(&[&args[..], &["--retry-failures"]].concat());
    assert_eq!((retried.code, &retried.events("result")[0]["docs_written"]), (0, &json!(1200)), "{}", retried.err);
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}
