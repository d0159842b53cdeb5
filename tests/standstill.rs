//! A peer that keeps every limit of time and yet gives next to nothing: the watchdog's case.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::{Fault, FaultyPeer, Server};

/// A byte at a time, each well within the limit of silence: half a minute for a small document, days for a large one.
const DRIP: Fault = Fault::Drip(usize::MAX, Duration::from_millis(100));

/// A server that counts a second without progress as a standstill, and a database behind a faulty peer.
async fn bench() -> (Server, FaultyPeer) {
    let server = Server::with_config(|config| {
        let settings = &mut config.replicator;
        settings.connection_timeout = Duration::from_secs(3);
        settings.retry_time_limit = Duration::from_millis(10);
        settings.heartbeat = Duration::from_millis(500);
        settings.stall_limit = Duration::from_millis(10);
        settings.restart_pause = Duration::from_millis(10);
    })
    .await;
    server.database("src").await.fill("doc", 3).await;
    server.database("tgt").await;
    let peer = FaultyPeer::before(&server).await;
    (server, peer)
}

#[tokio::test]
async fn a_one_shot_ends_when_a_peer_drips() {
    let (server, peer) = bench().await;
    peer.fail(Method::POST, "/src/_bulk_get", DRIP);
    let job = json!({"source": peer.url("/src"), "target": "tgt"});
    let answer = server.post("/_replicate", job.clone(), 504).await;
    assert_eq!(answer["error"], "timeout");
    assert_eq!(answer["reason"], "the replication stood still for 6.02s");
    server.replicate(job).await;
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}

/// Line ends before the JSON counted as a feed's signs of life while nothing else was at work, in pages that don't wait too.
#[tokio::test]
async fn a_one_shot_ends_when_a_peer_gives_line_ends_for_ever() {
    let (server, peer) = bench().await;
    peer.fail(Method::GET, "/src/_changes", Fault::LineEnds(Duration::from_millis(20)));
    let job = json!({"source": peer.url("/src"), "target": "tgt"});
    let answer = server.post("/_replicate", job, 504).await;
    assert_eq!(answer["reason"], "the replication stood still for 6.02s");
}

#[tokio::test]
async fn a_continuous_replication_starts_again_when_its_feed_drips() {
    let (server, peer) = bench().await;
    peer.fail(Method::GET, "/src/_changes", DRIP);
    server.replicate(json!({"source": peer.url("/src"), "target": "tgt", "continuous": true})).await;
    server.until_equal("src", "tgt").await;
}

#[tokio::test]
async fn a_continuous_replication_that_waits_for_changes_does_not_stand_still() {
    let (server, peer) = bench().await;
    for source in [peer.url("/src"), "src".to_owned()] {
        server.replicate(json!({"source": source, "target": "tgt", "continuous": true})).await;
    }
    peer.saw("feed=longpoll").await;
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(peer.lives("src"), 1, "it was started again: {:?}", peer.requests());
    assert_eq!(server.get("/_active_tasks", 200).await.as_array().unwrap().len(), 2);
}

/// The feed's heartbeats, or its rest in the embedded store, once counted as the whole job's life.
#[tokio::test]
async fn a_batch_that_hangs_does_not_hide_behind_a_feed_that_has_caught_up() {
    let (server, peer) = bench().await;
    let more: Vec<_> = (0..100).map(|n| json!({"_id": format!("more{n}")})).collect();
    server.post("/src/_bulk_docs", json!({"docs": more}), 201).await;
    server.database("other").await;
    for (source, target) in [("src".to_owned(), "tgt"), (peer.url("/src"), "other")] {
        // A target that is empty isn't asked what it lacks.
        server.replicate(json!({"source": "src", "target": target, "doc_ids": ["more0"]})).await;
        peer.fail(Method::POST, &format!("/{target}/_revs_diff"), DRIP);
        let target = peer.url(&format!("/{target}"));
        server.replicate(json!({"source": source, "target": target, "continuous": true})).await;
    }
    let arrived = async {
        for target in ["tgt", "other"] {
            server.until_equal("src", target).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), arrived)
        .await
        .expect("an answer that drips for minutes is given up");
}
