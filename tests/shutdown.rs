//! SIGINT and SIGTERM: everything is put away, in order and in time.

use std::time::Duration;

use couchrep::tasks::Tasks;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Process, client, json as ask};

/// What the issue promises.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_signal_ends_the_server_with_exit_code_0_and_the_data_is_there_after() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client());
    for (number, signal) in ["TERM", "INT"].into_iter().enumerate() {
        let mut process = Process::start(dir.path());
        if number == 0 {
            ask(&client, Method::PUT, process.url("/recipes"), None, 201).await;
        }
        // Unsynced: only an orderly end keeps it for certain.
        let put = client.put(process.url(&format!("/recipes/doc{number}"))).body("{\"salt\":1.0}");
        let put = put.header("X-Couch-Full-Commit", "false").send().await.unwrap();
        assert!(put.status().is_success(), "{put:?}");

        process.signal(signal);
        assert_eq!(process.ended_within(LIMIT).code(), Some(0));
    }
    let process = Process::start(dir.path());
    for number in 0..2 {
        let doc = ask(&client, Method::GET, process.url(&format!("/recipes/doc{number}")), None, 200).await;
        assert_eq!(doc["salt"].to_string(), "1.0");
    }
}

/// A terminal that closes took a server in the background with it.
#[tokio::test]
async fn a_hangup_ends_nothing() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client());
    let mut process = Process::start(dir.path());
    process.signal("HUP");
    let _: Value = ask(&client, Method::GET, process.url("/_up"), None, 200).await;
    process.signal("TERM");
    assert_eq!(process.ended_within(LIMIT).code(), Some(0), "it ended by the hangup");
}

#[tokio::test]
async fn waiting_feeds_are_told_to_end() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client());
    let mut process = Process::start(dir.path());
    ask(&client, Method::PUT, process.url("/recipes"), None, 201).await;
    let feed = process.url("/recipes/_changes?feed=continuous&since=0&heartbeat=60000&include_docs=true");
    // A feed answers at once, even if it has nothing to tell yet.
    let mut feed = tokio::time::timeout(LIMIT, client.get(feed).send()).await.unwrap().unwrap();
    ask(&client, Method::PUT, process.url("/recipes/doc"), Some(&json!({})), 201).await;
    assert!(feed.chunk().await.unwrap().is_some());

    process.signal("TERM");
    assert_eq!(process.ended_within(LIMIT).code(), Some(0));
}

#[tokio::test]
async fn a_running_replication_is_checkpointed() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client());
    // No checkpoint but the one at the end.
    let mut process = Process::with_args(dir.path(), &["--checkpoint-interval", "1h"]);
    for name in ["/source", "/target"] {
        ask(&client, Method::PUT, process.url(name), None, 201).await;
    }
    let docs: Vec<_> = (0..100).map(|n| json!({ "_id": format!("doc{n:03}") })).collect();
    ask(&client, Method::POST, process.url("/source/_bulk_docs"), Some(&json!({ "docs": docs })), 201).await;
    let job = json!({ "source": process.url("/source"), "target": process.url("/target"), "continuous": true });
    let started = ask(&client, Method::POST, process.url("/_replicate"), Some(&job), 202).await;
    let last_doc =
        process.url("/target/_changes?feed=longpoll&filter=_doc_ids&doc_ids=%5B%22doc099%22%5D&timeout=30000");
    let arrived = ask(&client, Method::GET, last_doc, None, 200).await;
    assert_eq!(arrived["results"][0]["id"], "doc099");
    // The batch isn't done with its last write: it reads on to the end of the source's answer, and a stop ends reads.
    let seq = ask(&client, Method::GET, process.url("/source"), None, 200).await["update_seq"].clone();
    while ask(&client, Method::GET, process.url("/_active_tasks"), None, 200).await[0]["through_seq"] != seq {
        // Nothing signals that a batch is done; a test that waits for ever is ended by its runner.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    process.signal("TERM");
    assert_eq!(process.ended_within(LIMIT).code(), Some(0));

    let process = Process::start(dir.path());
    let id = started["_local_id"].as_str().unwrap().strip_suffix("+continuous").unwrap();
    for name in ["source", "target"] {
        let log = ask(&client, Method::GET, process.url(&format!("/{name}/_local/{id}")), None, 200).await;
        assert_eq!(log["history"][0]["docs_written"], 100, "{log}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client());
    let mut process = Process::with_args(dir.path(), &["--drain-deadline", "1h"]);
    ask(&client, Method::PUT, process.url("/recipes"), None, 201).await;
    // A request whose body never ends keeps the server from ending in order.
    let stuck = client.post(process.url("/recipes/_bulk_docs")).header("Content-Type", "application/json");
    let stuck = stuck.body(reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>()));
    let tasks = Tasks::default();
    let stuck = tasks.spawn("stuck", stuck.send());
    let _: Value = ask(&client, Method::GET, process.url("/"), None, 200).await;

    process.signal("TERM");
    process.signal("INT");
    assert!(!process.ended_within(LIMIT).success());
    assert!(stuck.await.unwrap().is_err());
}

/// A feed that the stop met before its first row ended well, and said that nothing was pending: whoever copied thought he had all.
#[tokio::test]
async fn a_feed_that_the_stop_cuts_short_does_not_end_well() {
    let (dir, client) = (tempfile::tempdir().unwrap(), client());
    let mut process = Process::start(dir.path());
    ask(&client, Method::PUT, process.url("/recipes"), None, 201).await;
    let slow = "function (doc) { for (var n = 0; n < 3e6; n++); return true; }";
    ask(&client, Method::PUT, process.url("/recipes/_design/d"), Some(&json!({ "filters": { "slow": slow } })), 201)
        .await;
    let docs: Vec<_> = (0..50).map(|n| json!({ "_id": format!("doc{n:03}") })).collect();
    ask(&client, Method::POST, process.url("/recipes/_bulk_docs"), Some(&json!({ "docs": docs })), 201).await;
    let asked = client.get(process.url("/recipes/_changes?filter=d%2Fslow"));
    let feed = Tasks::default().spawn("feed", async move {
        let answer = asked.send().await.ok()?.bytes().await.ok()?;
        serde_json::from_slice::<Value>(&answer).ok()
    });
    let _: Value = ask(&client, Method::GET, process.url("/"), None, 200).await;

    process.signal("TERM");
    assert_eq!(process.ended_within(LIMIT).code(), Some(0));
    if let Some(answer) = feed.await.unwrap() {
        assert!(answer["error"] == "service_unavailable" || answer["results"][50]["id"] == "doc049", "{answer}");
    }
}
