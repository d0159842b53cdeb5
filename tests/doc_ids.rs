//! Replications of named documents: no feed, no checkpoint, and nothing passed over.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{Fault, FaultyPeer, Server};

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
        target.met_all().await;
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
    assert!(target.count("POST /tgt/_bulk_docs") > 1);
}
