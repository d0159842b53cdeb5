//! Who waits for a replication, and what they get when it ends, is cancelled or fails.

use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::join;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Server};

async fn bench() -> (Server, FaultyPeer) {
    bench_with(|_| ()).await
}

async fn bench_with(change: impl FnOnce(&mut couchrep::config::Config)) -> (Server, FaultyPeer) {
    let server = Server::with_config(change).await;
    server.database("src").await.fill("doc-", 10).await;
    server.database("tgt").await;
    let peer = FaultyPeer::before(&server).await;
    (server, peer)
}

/// Two callers of one replication: the second asks, and writes before, when the first has copied and not yet ended.
async fn starter_and_joiner(server: &Server, peer: &FaultyPeer, job: &Value) -> (Value, Value) {
    peer.fail(Method::POST, "/tgt/_ensure_full_commit", Fault::Slow(Duration::from_secs(3)));
    join!(server.replicate(job.clone()), async {
        peer.saw("POST /tgt/_ensure_full_commit").await;
        server.put("/src/late", json!({}), 201).await;
        server.replicate(job.clone()).await
    })
}

#[tokio::test]
async fn a_joiner_behind_a_local_source_that_moved_on_runs_again_and_gets_its_own_result() {
    let (server, peer) = bench().await;
    let job = json!({"source": "src", "target": peer.url("/tgt")});
    let (starter, joiner) = starter_and_joiner(&server, &peer, &job).await;
    assert_eq!(starter["history"][0]["docs_written"], 10);
    assert_eq!(joiner["history"][0]["docs_written"], 1, "{joiner}");
    assert_eq!(joiner["history"][1]["session_id"], starter["session_id"]);
    server.get("/tgt/late", 200).await;
}

#[tokio::test]
async fn a_joiner_behind_a_remote_source_gets_the_starters_result() {
    let (server, peer) = bench().await;
    let job = json!({"source": peer.url("/src"), "target": peer.url("/tgt")});
    let (starter, joiner) = starter_and_joiner(&server, &peer, &job).await;
    assert_eq!(starter, joiner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_join_while_the_task_ends_are_all_served() {
    let (server, _peer) = bench().await;
    // Nothing to copy: tasks end as fast as they can, and nearly every caller meets an end.
    let ask = async |_| {
        for _ in 0..40 {
            let asked = server.replicate(json!({"source": "src", "target": "tgt"}));
            let answer = tokio::time::timeout(Duration::from_secs(60), asked).await.expect("a caller hangs");
            assert_eq!(answer["ok"], true);
        }
    };
    join_all((0..16).map(ask)).await;
    assert_eq!(server.get("/_active_tasks", 200).await, json!([]));
}

#[tokio::test]
async fn cancel_tells_everyone_who_waits_within_about_a_second_even_while_a_peer_hangs() {
    for (method, part) in [
        (Method::GET, "/src/$"),
        (Method::GET, "/tgt/_local/"),
        (Method::GET, "/src/_changes"),
        (Method::POST, "/tgt/_revs_diff"),
        (Method::POST, "/src/_bulk_get"),
        (Method::POST, "/tgt/_bulk_docs"),
        (Method::POST, "/tgt/_ensure_full_commit"),
    ] {
        let (server, peer) = bench().await;
        // A target that is empty isn't asked what it lacks.
        server.put("/tgt/there", json!({}), 201).await;
        let job = json!({"source": peer.url("/src"), "target": peer.url("/tgt")});
        peer.fail(method.clone(), part, Fault::Hang);
        let waiting = || server.post("/_replicate", job.clone(), 500);
        let cancelling = async {
            peer.saw(&format!("{method} {}", part.trim_end_matches('$'))).await;
            let mut cancel = job.clone();
            cancel["cancel"] = json!(true);
            let start = Instant::now();
            server.replicate(cancel).await;
            start
        };
        let (starter, joiner, start) = join!(waiting(), waiting(), cancelling);
        // A second, on a machine that is busy; a peer that hangs would be given up after 30.
        assert!(start.elapsed() < Duration::from_secs(15), "{part}: {:?}", start.elapsed());
        for answer in [starter, joiner] {
            assert_eq!(answer["error"], "replication_cancelled", "{part}");
        }
        assert_eq!(server.get("/_active_tasks", 200).await, json!([]));
    }
}

#[tokio::test]
async fn a_document_that_the_target_refuses_is_counted_and_the_rest_is_written() {
    let (server, peer) = bench().await;
    let job = json!({"source": "src", "target": peer.url("/tgt")});
    let refusal = json!([{"id": "doc-0003", "error": "forbidden", "reason": "no"}]).to_string();
    peer.fail(
        Method::POST,
        "/tgt/_bulk_docs",
        Fault::Answer(201, vec![("content-type", "application/json".into())], refusal),
    );
    let answer = server.replicate(job).await;
    let counters = ["missing_found", "docs_read", "docs_written", "doc_write_failures"];
    assert_eq!(counters.map(|key| answer["history"][0][key].clone()), [json!(10), json!(10), json!(9), json!(1)]);
}

#[tokio::test]
async fn a_remote_target_decides_itself_whether_it_is_created() {
    let (server, peer) = bench().await;
    let job = json!({"source": "src", "target": peer.url("/new"), "create_target": true});
    peer.fail(Method::PUT, "/new/", Fault::status(401));
    let refused = server.post("/_replicate", job.clone(), 401).await;
    let reason = format!("unauthorized to access or create database {}: scripted 401", peer.url("/new/"));
    assert_eq!(refused, json!({"error": "unauthorized", "reason": reason}));
    server.replicate(job).await;
    assert_eq!(server.get("/new", 200).await["doc_count"], 10);
}

#[tokio::test]
async fn a_continuous_replication_that_fails_starts_again_after_growing_pauses() {
    let (server, peer) = bench_with(|config| config.replicator.restart_pause = Duration::from_millis(200)).await;
    for _ in 0..3 {
        peer.fail(Method::GET, "/src/_changes", Fault::status(403));
    }
    let start = Instant::now();
    server.replicate(json!({"source": peer.url("/src"), "target": "tgt", "continuous": true})).await;
    let arrived = async { while server.get("/tgt", 200).await["doc_count"] != 10 {} };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
    // At least three quarters of 200, 400 and 800 ms; three equal pauses took 750 ms at most.
    assert!(start.elapsed() >= Duration::from_millis(1050), "{:?}", start.elapsed());
    assert_eq!(peer.faults_left(), 0);
}

#[tokio::test]
async fn a_waiting_feed_that_is_silent_or_breaks_off_is_opened_again_without_a_restart() {
    let (server, peer) = bench_with(|config| {
        config.replicator.heartbeat = Duration::from_millis(200);
        config.replicator.restart_pause = Duration::from_secs(600);
    })
    .await;
    // Else the feed of all databases would wait in its place.
    peer.keep_failing(Method::GET, "/_db_updates", Fault::status(404), None);
    for fault in [Fault::Silence, Fault::BreakOff, Fault::Hang, Fault::Silence] {
        peer.fail(Method::GET, "_changes?feed=longpoll", fault);
    }
    server.replicate(json!({"source": peer.url("/src"), "target": "tgt", "continuous": true})).await;
    let reopened = async { while server.get("/tgt", 200).await["doc_count"] != 10 || peer.faults_left() > 0 {} };
    tokio::time::timeout(Duration::from_secs(60), reopened).await.expect("the feed isn't opened again");
    server.put("/src/late", json!({}), 201).await;
    let arrived = async { while server.get("/tgt", 200).await["doc_count"] != 11 {} };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("a change doesn't arrive");
}

/// As many clients as there are places, all waiting for one long replication, and even its cancel was answered 503.
#[tokio::test]
async fn whoever_waits_for_a_replication_takes_nobodys_place() {
    let (server, peer) = bench_with(|config| config.http.max_requests = 2).await;
    peer.fail(Method::POST, "/tgt/_ensure_full_commit", Fault::Slow(Duration::from_secs(3)));
    let job = json!({"source": "src", "target": peer.url("/tgt")});
    let waiting = join_all((0..5).map(|_| server.replicate(job.clone())));
    let (answers, ()) = join!(waiting, async {
        peer.saw("POST /tgt/_ensure_full_commit").await;
        server.get("/", 200).await;
    });
    assert!(answers.iter().all(|answer| answer["ok"] == true), "{answers:?}");
}
