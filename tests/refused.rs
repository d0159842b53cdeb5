//! Documents that a peer doesn't give or take: which failures are theirs, and which are the replication's.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Server};

/// A server whose `src` has one plain document and one with an attachment, a `tgt`, and a peer before it.
async fn bench() -> (Server, FaultyPeer) {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 1).await;
    // Too large to travel in bulk.
    let data = "YWJj".repeat(50_000);
    let attached = json!({ "_attachments": { "a": { "data": data, "content_type": "image/png" } } });
    server.put("/src/attached", attached, 201).await;
    server.database("tgt").await;
    let peer = FaultyPeer::before(&server).await;
    (server, peer)
}

/// Lets the request for, or of, the document with an attachment be answered this, twice; and if `revoked`, the database,
/// asked after the first time, this too.
async fn refused(side: &str, method: Method, status: u16, revoked: bool) -> (Value, Vec<String>, FaultyPeer) {
    let (server, peer) = bench().await;
    let at = |own: &str| if own == side { peer.url(&format!("/{own}")) } else { own.to_owned() };
    let times = if revoked { 1 } else { 2 };
    for _ in 0..times {
        peer.fail(method.clone(), &format!("/{side}/attached?"), Fault::status(status));
    }
    if revoked {
        // The first question is how the database is, before anything is copied.
        let database = format!("/{side}/$");
        peer.fail(Method::GET, &database, Fault::Slow(Default::default()));
        peer.fail(Method::GET, &database, Fault::status(status));
    }
    let job = json!({ "source": at("src"), "target": at("tgt") });
    let answer = server.post("/_replicate", job, if revoked { 401 } else { 200 }).await;
    assert_eq!(peer.faults_left(), 0);
    let ids = server.leaves("tgt").await.into_iter().map(|leaf| leaf.id).collect();
    (answer, ids, peer)
}

#[tokio::test]
async fn a_document_that_we_may_not_read_or_write_is_a_failure_and_the_rest_is_copied() {
    for (side, method) in [("src", Method::GET), ("tgt", Method::PUT)] {
        for status in [401, 403] {
            let (answer, ids, _) = refused(side, method.clone(), status, false).await;
            assert_eq!(answer["history"][0]["doc_write_failures"], 1, "{side} {status}");
            assert_eq!(ids, ["doc0000"], "{side} {status}");
        }
    }
}

#[tokio::test]
async fn credentials_that_were_revoked_end_the_replication_and_record_nothing() {
    for (side, method) in [("src", Method::GET), ("tgt", Method::PUT)] {
        for status in [401, 403] {
            let (answer, _, peer) = refused(side, method.clone(), status, true).await;
            assert_eq!(answer["error"], "unauthorized", "{side} {status}");
            assert!(!peer.requests().iter().any(|request| request.starts_with("PUT") && request.contains("_local")));
        }
    }
}

#[tokio::test]
async fn a_revision_that_meets_a_clusters_trouble_is_asked_for_until_it_comes() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 1).await;
    server.database("tgt").await;
    let source = FaultyPeer::before(&server).await;
    let rev = server.get("/src/doc0000", 200).await["_rev"].clone();
    for _ in 0..4 {
        let error = json!({ "id": "doc0000", "rev": rev, "error": "timeout", "reason": "one node" });
        let trouble = json!({ "results": [{ "id": "doc0000", "docs": [{ "error": error }] }] }).to_string();
        source.fail(Method::POST, "_bulk_get", Fault::Answer(200, Vec::new(), trouble));
    }
    let answer = server.replicate(json!({ "source": source.url("/src"), "target": "tgt" })).await;
    assert_eq!(source.faults_left(), 0);
    assert_eq!(
        (&answer["history"][0]["docs_written"], &answer["history"][0]["doc_write_failures"]),
        (&json!(1), &json!(0))
    );
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
    let docs = json!([{"_id": "a", "_rev": "1-b"}, {"_id": "a", "_rev": "1-a", "text": large}]);
    server.post("/src/_bulk_docs", json!({"new_edits": false, "docs": docs}), 201).await;
    source.fail(Method::POST, "_bulk_get", Fault::Cut(1000));
    let refusal = r#"[{"id":"a","rev":"1-b","error":"forbidden","reason":"no"}]"#;
    target.fail(Method::POST, "_bulk_docs", Fault::Answer(201, vec![], refusal.into()));
    let answer = server.replicate(json!({"source": source.url("/src"), "target": target.url("/tgt")})).await;
    assert_eq!((source.faults_left(), target.faults_left()), (0, 0));
    assert_eq!(answer["history"][0]["doc_write_failures"], 1, "{answer}");
    let revs: Vec<_> = server.leaves("tgt").await.into_iter().map(|leaf| leaf.rev).collect();
    assert_eq!(revs, ["1-a"]);
}

/// A job with a wrong password failed eight logins in forty seconds: CouchDB locks an account after five in five minutes.
#[tokio::test]
async fn a_wrong_password_is_tried_once_an_attempt_and_seldom_by_a_continuous_replication() {
    let server = Server::with_config(|config| {
        config.replicator.restart_pause = Duration::from_millis(1);
        config.replicator.refused_pause = Duration::from_millis(1000);
    })
    .await;
    let peer = FaultyPeer::before(&server).await;
    peer.keep_failing(Method::POST, "/_session", Fault::status(401), None);
    let at = |name: &str| peer.url(name).replace("://", "://ann:wrong@");

    let answer = server.post("/_replicate", json!({ "source": at("/src"), "target": at("/tgt") }), 401).await;
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.starts_with("unauthorized to access") && reason.ends_with(": scripted 401"), "{answer}");
    assert_eq!(peer.requests(), ["POST /_session"]);

    let start = Instant::now();
    server.replicate(json!({ "source": at("/src"), "target": at("/tgt"), "continuous": true })).await;
    while peer.requests().len() < 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(start.elapsed() >= Duration::from_millis(750), "{:?}", start.elapsed());
    assert!(peer.requests().iter().all(|request| request == "POST /_session"), "{:?}", peer.requests());
}
