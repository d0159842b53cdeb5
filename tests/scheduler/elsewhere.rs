//! Jobs whose sources are at another server: who wakes them.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{arrived, start};
use crate::support::{Fault, FaultyPeer, Server};

/// Another server's databases `db0` to `db2`, as sources of documents behind a peer that tells what it was asked.
async fn from_elsewhere(database: &str) -> (Server, Server, FaultyPeer) {
    let (source, server) = (Server::start().await, start().await);
    let peer = FaultyPeer::before(&source).await;
    for n in 0..3 {
        source.database(&format!("{database}{n}")).await.fill("doc", 2).await;
        server.database(&format!("copy{n}")).await;
        let from = peer.url(&format!("/{database}{n}"));
        let body = json!({"source": from, "target": format!("copy{n}"), "continuous": true});
        server.put(&format!("/_replicator/job{n}"), body, 201).await;
    }
    (source, server, peer)
}

#[tokio::test]
async fn parked_jobs_of_another_server_are_woken_by_one_feed() {
    let (source, server, peer) = from_elsewhere("db").await;
    for n in 0..3 {
        arrived(&server, &format!("copy{n}"), 2).await;
    }
    peer.saw("/_db_updates?feed=longpoll").await;
    for round in 0..5 {
        for n in 0..3 {
            source.put(&format!("/db{n}/late{round}"), json!({}), 201).await;
            arrived(&server, &format!("copy{n}"), 3 + round).await;
        }
    }
    // Busy jobs wait by themselves for a while.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let before = peer.requests().len();
    source.put("/db1/last", json!({}), 201).await;
    arrived(&server, "copy1", 8).await;
    let later = peer.requests().split_off(before);
    assert!(!later.iter().any(|request| request.contains("_changes?feed=longpoll")), "{later:#?}");
    assert_eq!(later.iter().filter(|request| request.contains("/db0/")).count(), 0, "{later:#?}");
}

#[tokio::test]
async fn where_there_is_no_feed_of_all_databases_each_job_waits_by_itself() {
    let (source, server, peer) = from_elsewhere("db").await;
    peer.keep_failing(Method::GET, "/_db_updates", Fault::status(404), None);
    for n in 0..3 {
        arrived(&server, &format!("copy{n}"), 2).await;
    }
    for round in 0..5 {
        source.put(&format!("/db1/late{round}"), json!({}), 201).await;
        arrived(&server, "copy1", 3 + round).await;
    }
    assert!(peer.requests().iter().any(|request| request.contains("/db1/_changes?feed=longpoll")));
}

#[tokio::test]
async fn a_feed_that_breaks_off_loses_no_change() {
    let (source, server, peer) = from_elsewhere("db").await;
    peer.saw("/_db_updates?feed=longpoll").await;
    for n in 0..3 {
        arrived(&server, &format!("copy{n}"), 2).await;
    }
    for round in 0..10 {
        peer.fail(Method::GET, "/_db_updates", Fault::Disconnect);
        source.put(&format!("/db{}/late{round}", round % 3), json!({}), 201).await;
    }
    arrived(&server, "copy0", 6).await;
    arrived(&server, "copy1", 5).await;
    arrived(&server, "copy2", 5).await;
}
