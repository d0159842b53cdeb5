//! Every fault at every stage: the replication ends in bounded time, by its own retries or by being asked again, leaves
//! equal leaves on both sides, and does nothing twice but the batch in hand.
//!
//! One test for each stage; its cases run beside each other, each with databases and a faulty peer of its own.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Server};

/// Silence that is taken for death; long enough that a busy machine isn't, since what it delays would be done twice.
const SILENCE: Duration = Duration::from_secs(5);
/// Cases at once.
const AT_ONCE: usize = 10;
/// A case with two hangs and an exhausted first contact ends well before.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a replication that ended with an error is asked for again.
const ASKED: usize = 4;
const BATCHES: usize = 4;
const BATCH: usize = 6;

fn faults() -> Vec<Fault> {
    let retry_after = vec![("retry-after", "1".to_owned()), ("content-type", "text/plain".into())];
    let page = vec![("content-type", "text/html".to_owned())];
    vec![
        Fault::Down(Duration::from_millis(150)),
        Fault::Disconnect,
        Fault::Cut(7),
        Fault::ApplyThenDisconnect,
        Fault::ApplyThenFail(500),
        Fault::Hang,
        Fault::status(500),
        Fault::Answer(503, retry_after, "busy".into()),
        Fault::status(429),
        Fault::Truncate(7),
        Fault::Answer(200, page, "<html>Please log in</html>".into()),
        Fault::WrongLength(5),
        Fault::WrongLength(-2),
        Fault::Drip(5, Duration::from_millis(40)),
    ]
}

/// Documents for the batches: plain ones, conflicts, a deletion, a small attachment and one that streams, since it is stored
/// gzipped, a design document.
async fn fill(server: &Server, database: &str) {
    let mut docs: Vec<Value> =
        (0..BATCHES * BATCH - 5).map(|n| json!({"_id": format!("doc/{n:02}"), "_rev": "1-a", "n": n})).collect();
    for hash in ["b", "c"] {
        docs.push(
            json!({"_id": "conflict", "_rev": format!("2-{hash}"), "_revisions": {"start": 2, "ids": [hash, "a"]}}),
        );
    }
    docs.push(json!({"_id": "deleted", "_rev": "1-d", "_deleted": true}));
    docs.push(json!({"_id": "_design/x", "_rev": "1-x", "views": {}}));
    for (id, content_type) in [("attached", "text/plain"), ("small", "image/png")] {
        let attachment = json!({"data": "YWJjZGVm", "content_type": content_type});
        docs.push(json!({"_id": id, "_rev": "1-e", "_attachments": {"a.png": attachment}}));
    }
    server.post(&format!("/{database}/_bulk_docs"), json!({"docs": docs, "new_edits": false}), 201).await;
}

/// One case: the fault, once or twice, at the requests with this method and path (`{s}`, `{t}` stand for the databases).
async fn case(server: &Server, name: String, method: Method, path: &str, fault: Fault, times: usize) {
    let (source, target) = (format!("s{name}"), format!("t{name}"));
    server.database(&source).await;
    server.database(&target).await;
    fill(server, &source).await;
    // A target that is empty isn't asked what it lacks.
    let there = json!({"docs": [{"_id": "doc/00", "_rev": "1-a", "n": 0}], "new_edits": false});
    server.post(&format!("/{target}/_bulk_docs"), there, 201).await;
    let peer = FaultyPeer::before(server).await;
    let path = path.replace("{s}", &source).replace("{t}", &target);
    for _ in 0..times {
        peer.fail(method.clone(), &path, fault.clone());
    }
    let told = format!("{fault:?} × {times} at {method} {path}");
    let job = json!({
        "source": peer.url(&format!("/{source}")),
        "target": peer.url(&format!("/{target}")),
        "worker_batch_size": BATCH,
        "worker_processes": 2,
    });
    let start = Instant::now();
    let mut answers = Vec::new();
    while !answers.last().is_some_and(|answer: &Value| answer["ok"] == true) {
        assert!(answers.len() < ASKED, "{told}: {answers:?}");
        let request = server.client().post(server.url("/_replicate")).header("Content-Type", "application/json");
        let asked = tokio::time::timeout(LIMIT, request.body(job.to_string()).send()).await;
        let answer = asked.unwrap_or_else(|_| panic!("{told}: no end")).unwrap().bytes().await.unwrap();
        answers.push(serde_json::from_slice(&answer).unwrap());
    }
    assert!(start.elapsed() < LIMIT, "{told}: took {:?}", start.elapsed());
    // A second one stays where the first did no harm, as a slow answer, or where the request's work was done all the same.
    assert!(peer.faults_left() < times, "{told}: wasn't met");
    assert_eq!(server.leaves(&source).await, server.leaves(&target).await, "{told}");

    let requests = peer.requests();
    let count = |part: &str| requests.iter().filter(|request| request.contains(part)).count();
    // One more for the small attachment, there and back. Two batches are under way at once, and a peer that goes down breaks
    // what is being written beside the failing one, too; what is being fetched beside it is fetched again.
    let most = BATCHES + 1 + 2 * times;
    assert!(count("/_bulk_docs") <= most, "{told}: batches were written again: {requests:#?}");
    assert!(count("/_bulk_get") <= most, "{told}: batches were fetched again: {requests:#?}");
    let one_by_one = count("new_edits=false");
    assert!(one_by_one <= 2 + 2 * times, "{told}: documents were written again: {requests:#?}");
    let logs = count("PUT") - one_by_one;
    assert!(logs <= 2 * answers.len() + times, "{told}: logs were written again: {requests:#?}");
}

async fn every_fault(method: Method, path: &str) {
    let server = Server::with_config(|config| {
        config.replicator.connection_timeout = SILENCE;
        config.replicator.retries_per_request = 5;
        // Logs are counted: none but the one at the end, however slow the machine.
        config.replicator.checkpoint_interval = Duration::from_secs(3600);
    })
    .await;
    let cases = faults().into_iter().enumerate().flat_map(|(number, fault)| {
        [1, 2].map(|times| case(&server, format!("{number}x{times}"), method.clone(), path, fault.clone(), times))
    });
    stream::iter(cases).buffer_unordered(AT_ONCE).collect::<()>().await;
}

macro_rules! stages {
    ($($name:ident: $method:ident $path:literal;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            every_fault(Method::$method, $path).await;
        })*
    };
}

stages! {
    faults_at_the_sources_info_are_survived: GET "/{s}/$";
    faults_at_the_targets_info_are_survived: GET "/{t}/$";
    faults_at_reading_the_sources_log_are_survived: GET "/{s}/_local/";
    faults_at_reading_the_targets_log_are_survived: GET "/{t}/_local/";
    faults_at_the_feed_are_survived: GET "/{s}/_changes";
    faults_at_the_diff_are_survived: POST "/{t}/_revs_diff";
    faults_at_the_bulk_fetch_are_survived: POST "/{s}/_bulk_get";
    faults_at_the_bulk_fetch_of_attachments_are_survived: POST "/{s}/_bulk_get?revs=true&attachments=true";
    faults_at_open_revs_are_survived: GET "/{s}/attached?";
    faults_at_the_bulk_write_are_survived: POST "/{t}/_bulk_docs";
    faults_at_the_attachment_write_are_survived: PUT "/{t}/attached?";
    faults_at_the_sources_commit_are_survived: POST "/{s}/_ensure_full_commit";
    faults_at_the_targets_commit_are_survived: POST "/{t}/_ensure_full_commit";
    faults_at_writing_the_sources_log_are_survived: PUT "/{s}/_local/";
    faults_at_writing_the_targets_log_are_survived: PUT "/{t}/_local/";
}
