//! What could make a replication pass over a document, or do more again than it must: each test tells how it once did.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{Fault, FaultyPeer, Gateway, Server};

/// Writes revisions as they are.
async fn write(server: &Server, database: &str, docs: Value) {
    server.post(&format!("/{database}/_bulk_docs"), json!({"new_edits": false, "docs": docs}), 201).await;
}

fn requests(peer: &FaultyPeer, request: &str) -> usize {
    peer.requests().iter().filter(|seen| seen.starts_with(request)).count()
}

/// A batch whose fetching broke off is repeated without what was refused. It was done by document, so a conflicting
/// revision that hadn't come yet was left out, and the checkpoint went past it.
#[tokio::test]
async fn a_refused_revision_takes_no_other_of_its_document_with_it() {
    let server = Server::start().await;
    let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
    server.database("src").await;
    server.database("tgt").await;
    let large = "x".repeat(10_000);
    write(&server, "src", json!([{"_id": "a", "_rev": "1-b"}, {"_id": "a", "_rev": "1-a", "text": large}])).await;
    source.fail(Method::POST, "_bulk_get", Fault::Cut(1000));
    let refusal = r#"[{"id":"a","rev":"1-b","error":"forbidden","reason":"no"}]"#;
    target.fail(Method::POST, "_bulk_docs", Fault::Answer(201, vec![], refusal.into()));
    let answer = server.replicate(json!({"source": source.url("/src"), "target": target.url("/tgt")})).await;
    assert_eq!((source.faults_left(), target.faults_left()), (0, 0));
    assert_eq!(answer["history"][0]["doc_write_failures"], 1, "{answer}");
    let revs: Vec<_> = server.leaves("tgt").await.into_iter().map(|leaf| leaf.rev).collect();
    assert_eq!(revs, ["1-a"]);
}

/// Design documents were always left for `open_rev`, by their revisions, of which a request for `doc_ids` names none.
#[tokio::test]
async fn doc_ids_bring_design_documents_from_a_remote_source() {
    let server = Server::start().await;
    server.database("src").await;
    server.database("tgt").await;
    server.put("/src/_design/d", json!({"language": "javascript"}), 201).await;
    let ids = json!(["_design/d"]);
    let request = json!({"source": server.url("/src"), "target": server.url("/tgt"), "doc_ids": ids});
    assert_eq!(server.replicate(request).await["docs_written"], 1);
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}

/// The other batches were dropped where they stood: in the middle of a write, which the target then saw break off.
#[tokio::test]
async fn a_copy_of_doc_ids_that_fails_lets_its_other_batches_end_their_writes() {
    let server = Server::start().await;
    let target = FaultyPeer::before(&server).await;
    server.database("src").await.fill("doc", 2).await;
    server.database("tgt").await;
    let (failing, writing) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let gone = r#"{"error":"not_found","reason":"Database does not exist."}"#;
    target.fail(Method::POST, "_bulk_docs", Fault::Until(failing.clone(), Some((404, gone))));
    target.fail(Method::POST, "_bulk_docs", Fault::Until(writing.clone(), None));
    let ids = ["doc0000", "doc0001"];
    let request = json!({"source": "src", "target": target.url("/tgt"), "doc_ids": ids, "worker_batch_size": 1});
    let copying = server.client().post(server.url("/_replicate")).header("content-type", "application/json");
    let mut copying = std::pin::pin!(copying.body(request.to_string()).send());
    let both_write = async {
        while target.faults_left() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        answer = &mut copying => panic!("{answer:?}"),
        () = both_write => {}
    }
    failing.notify_one();
    let ended = tokio::time::timeout(Duration::from_millis(300), &mut copying).await;
    assert!(ended.is_err(), "one still writes: {ended:?}");
    writing.notify_one();
    assert!(!copying.await.unwrap().status().is_success());
    assert_eq!(server.get("/tgt", 200).await["doc_count"], 1);
}

/// Nobody looked at what the commit told: writes that a crash had undone were answered with `ok`.
#[tokio::test]
async fn doc_ids_are_copied_again_where_the_target_was_restarted_before_its_commit() {
    let server = Server::start().await;
    let target = FaultyPeer::before(&server).await;
    server.database("src").await.fill("doc", 1).await;
    server.database("tgt").await;
    let restarted = Fault::Answer(201, vec![], r#"{"ok":true,"instance_start_time":"7"}"#.into());
    target.fail(Method::POST, "_ensure_full_commit", restarted);
    server.replicate(json!({"source": "src", "target": target.url("/tgt"), "doc_ids": ["doc0000"]})).await;
    assert!(requests(&target, "POST /tgt/_bulk_docs") > 1);
}

/// An idle feed that a proxy cuts was a failure: the job ended and started again after a pause, each longer than the last.
#[tokio::test]
async fn a_waiting_feed_that_breaks_off_is_asked_again_within_the_same_session() {
    let server = Server::start().await;
    let source = FaultyPeer::before(&server).await;
    source.fail(Method::GET, "feed=longpoll", Fault::Cut(0));
    let src = server.database("src").await;
    server.database("tgt").await;
    src.fill("first", 1).await;
    let job =
        json!({"source": source.url("/src"), "target": "tgt", "continuous": true, "checkpoint_interval": 3_600_000});
    server.replicate(job).await;
    let arrived = async |since: u64| {
        let path = format!("/tgt/_changes?feed=longpoll&since={since}&timeout=20000");
        assert_eq!(server.get(&path, 200).await["results"].as_array().unwrap().len(), 1);
    };
    arrived(0).await;
    // What ends the wait is this document; the answer that tells of it is cut.
    src.fill("second", 1).await;
    arrived(1).await;
    assert_eq!(source.faults_left(), 0);
    // A session starts with one look for its log, under the ids of all versions.
    assert_eq!(requests(&source, "GET /src/_local/"), 4, "{:?}", source.requests());
}

/// The error that ended the job was the one of the batches that were dropped with it, or none at all.
#[tokio::test]
async fn a_checkpoint_that_cannot_be_written_ends_a_one_shot_with_its_own_error() {
    let server = Server::with_config(|config| config.replicator.retries_per_request = 2).await;
    let target = FaultyPeer::before(&server).await;
    server.database("src").await.fill("doc", 300).await;
    server.database("tgt").await;
    target.keep_failing(Method::PUT, "_local", Fault::gateway(403, Gateway::Page), None);
    let request =
        json!({"source": "src", "target": target.url("/tgt"), "worker_batch_size": 1, "checkpoint_interval": 1});
    let answer = server.client().post(server.url("/_replicate")).header("content-type", "application/json");
    let answer = answer.body(request.to_string()).send().await.unwrap();
    assert!(answer.status().is_server_error() || answer.status().is_client_error());
    let reason = answer.text().await.unwrap();
    assert!(reason.contains("_local") && reason.contains("403"), "{reason}");
}
