//! What a one-shot asks its databases, request by request: over a long way each costs its time.

use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{Fault, FaultyPeer, Server};

/// A server whose `src` has so many documents, and an empty `tgt`; a peer before each.
async fn bench(docs: usize) -> (Server, FaultyPeer, FaultyPeer) {
    let server = Server::start().await;
    let source = server.database("src").await;
    if docs > 0 {
        source.fill("doc", docs).await;
    }
    server.database("tgt").await;
    let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
    (server, source, target)
}

async fn replicate(server: &Server, source: &FaultyPeer, target: &FaultyPeer) {
    server.replicate(json!({ "source": source.url("/src"), "target": target.url("/tgt") })).await;
}

/// The requests from the `from`th on without queries and names of logs, sorted, each kind with its count.
fn kinds(peer: &FaultyPeer, from: usize) -> Vec<String> {
    let kind = |request: &String| {
        let path = request.split('?').next().unwrap();
        let (path, log) = path.split_once("_local/").map_or((path, ""), |(path, log)| (path, log));
        let local = match log {
            "" => "",
            list if list.contains("failures") => "_local/failures",
            _ => "_local/log",
        };
        format!("{path}{local}")
    };
    let mut kinds: Vec<_> = peer.requests()[from..].iter().map(kind).collect();
    kinds.sort();
    let counted = kinds.chunk_by(|one, other| one == other).map(|same| format!("{} × {}", same.len(), same[0]));
    counted.collect()
}

#[tokio::test]
async fn a_one_shot_asks_for_no_more_than_it_needs() {
    // Logs may stand under the ids of four versions.
    const OPENING: [&str; 2] = ["1 × GET /src/", "4 × GET /src/_local/log"];
    let (server, source, target) = bench(0).await;
    replicate(&server, &source, &target).await;
    // Two questions at once find out which failures stand.
    const FAILURES: [&str; 2] = ["1 × GET /src/_local/failures", "1 × GET /src/_local_docs"];
    let expected = [OPENING[0], "1 × GET /src/_changes", FAILURES[0], OPENING[1], FAILURES[1]];
    assert_eq!(kinds(&source, 0), expected, "empty");
    assert_eq!(kinds(&target, 0), ["1 × GET /tgt/", "4 × GET /tgt/_local/log"], "empty");

    let (server, source, target) = bench(500).await;
    replicate(&server, &source, &target).await;
    let expected = [
        "1 × GET /src/",
        "1 × GET /src/_changes",
        FAILURES[0],
        // Once more before a checkpoint is written.
        "5 × GET /src/_local/log",
        FAILURES[1],
        "1 × POST /src/_bulk_get",
        // Once more after it: the database may be another.
        "2 × POST /src/_ensure_full_commit",
        "1 × PUT /src/_local/log",
    ];
    assert_eq!(kinds(&source, 0), expected, "500 documents");
    // A target that was empty needn't be asked what it lacks.
    let expected = [
        "1 × GET /tgt/",
        "5 × GET /tgt/_local/log",
        "1 × POST /tgt/_bulk_docs",
        "2 × POST /tgt/_ensure_full_commit",
        "1 × PUT /tgt/_local/log",
    ];
    let mut asked = kinds(&target, 0);
    // About rows that look as if they had come before (`replicate/seen.rs`).
    asked.retain(|request| request != "1 × POST /tgt/_revs_diff");
    assert_eq!(asked, expected, "500 documents");

    let (read, written) = (source.requests().len(), target.requests().len());
    replicate(&server, &source, &target).await;
    let expected = [OPENING[0], "1 × GET /src/_changes", FAILURES[0], "1 × GET /src/_local/log", FAILURES[1]];
    assert_eq!(kinds(&source, read), expected, "caught up");
    assert_eq!(kinds(&target, written), ["1 × GET /tgt/", "1 × GET /tgt/_local/log"], "caught up");
}

/// Each request is held back until the other one, which needn't wait for it, has arrived.
#[tokio::test]
async fn what_needs_no_answer_of_another_request_is_asked_at_once() {
    let (server, source, target) = bench(10).await;
    let held = |peer: &FaultyPeer, method, part| {
        let signal = Arc::new(Notify::new());
        peer.fail(method, part, Fault::Until(signal.clone(), None));
        signal
    };
    // How both databases are; the source's first log is asked for twice before its commit is answered; both logs.
    let (info, commit) = (held(&source, Method::GET, "/src/$"), held(&source, Method::POST, "_ensure_full_commit"));
    let log = held(&source, Method::PUT, "_local");
    let watching = async {
        target.saw("GET /tgt/").await;
        info.notify_one();
        source.saw("_ensure_full_commit").await;
        let logs = || source.requests().iter().filter(|request| request.starts_with("GET /src/_local")).count();
        while logs() < 5 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        commit.notify_one();
        target.saw("PUT /tgt/_local").await;
        log.notify_one();
    };
    tokio::join!(replicate(&server, &source, &target), watching);
    assert_eq!(source.faults_left(), 0);
    assert_eq!(server.leaves("src").await, server.leaves("tgt").await);
}
