//! Clients that stop reading: what they hold, and that they don't keep others out.

use std::time::Duration;

use serde_json::json;

use crate::support::{Server, StillReader};

/// A server with few places, and a database that is more than the kernel's buffers take.
async fn with_few_places(slow_readers: usize) -> Server {
    let server = Server::with_config(|config| {
        config.http.max_requests = 3;
        config.http.max_slow_readers = slow_readers;
    })
    .await;
    server.database("db").await;
    for n in 0..16 {
        server.put(&format!("/db/doc{n}"), json!({ "text": "x".repeat(1 << 20) }), 201).await;
    }
    server
}

/// A client that stands still as soon as it gets a place.
async fn still(server: &Server) -> StillReader {
    loop {
        let reader = StillReader::of(server.addr(), "GET /db/_changes?include_docs=true", "*/*", "").await;
        match reader.status() {
            200 => return reader,
            // Those before it aren't known to be slow yet.
            503 => tokio::time::sleep(Duration::from_millis(20)).await,
            status => panic!("{status}: {}", reader.head),
        }
    }
}

/// 2,100 clients that had stopped reading their feeds took all places, and everything else was answered 503.
#[tokio::test]
async fn readers_that_stand_still_leave_their_places_to_others() {
    let server = with_few_places(100).await;
    let mut readers = Vec::new();
    for _ in 0..12 {
        readers.push(still(&server).await);
    }
    tokio::time::timeout(Duration::from_secs(60), answered(&server)).await.expect("their places aren't left");
    let last = readers.pop().unwrap().rest();
    let last = tokio::time::timeout(Duration::from_secs(60), last).await.expect("one that reads on gets all of it");
    assert!(last.len() > 16 << 20, "{}", last.len());
}

#[tokio::test]
async fn readers_beyond_those_that_may_stand_still_are_broken_off() {
    let server = with_few_places(2).await;
    let mut readers = Vec::new();
    for _ in 0..12 {
        readers.push(still(&server).await);
    }
    tokio::time::timeout(Duration::from_secs(60), answered(&server)).await.expect("none is broken off");
    let rests = futures::future::join_all(readers.into_iter().map(StillReader::rest)).await;
    let broken_off = rests.iter().filter(|rest| rest.len() < 16 << 20).count();
    assert!(broken_off >= 7, "{broken_off}");
}

/// Waits until a request is answered.
async fn answered(server: &Server) {
    while server.client().get(server.url("/db")).send().await.unwrap().status() != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Where slow readers have used up the memory for large documents, further ones are read from the store in pieces.
#[tokio::test]
async fn a_document_that_finds_no_memory_is_the_same_read_in_pieces() {
    let server = Server::with_config(|config| config.http.max_answers_bytes = 0).await;
    server.database("db").await;
    let text = |byte: &str| byte.repeat(2 << 20);
    let rev = server.put("/db/doc", json!({ "a": text("x"), "b": [1.0, "ü"] }), 201).await["rev"].clone();
    server.put("/db/small", json!({ "a": 1 }), 201).await;
    server.put("/db/_local/doc", json!({ "a": text("y") }), 201).await;
    let expected = json!({ "_id": "doc", "_rev": rev, "a": text("x"), "b": [1.0, "ü"] });
    let local = json!({ "_id": "_local/doc", "_rev": "0-1", "a": text("y") });
    assert_eq!(server.get("/db/doc", 200).await, expected);
    assert_eq!(server.get("/db/doc?open_revs=all", 200).await, json!([{ "ok": expected }]));
    let rows = server.get("/db/_all_docs?include_docs=true", 200).await["rows"].clone();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["doc"], &rows[1]["doc"]["a"]), (2, &expected, &json!(1)));
    let feed = server.get("/db/_changes?include_docs=true", 200).await["results"].clone();
    assert_eq!((&feed[0]["doc"], &feed[1]["doc"]["a"]), (&expected, &json!(1)));
    let docs = json!({ "docs": [{ "id": "small" }, { "id": "doc", "rev": rev }, { "id": "none" }] });
    let got = server.post("/db/_bulk_get", docs, 200).await["results"].clone();
    assert_eq!((&got[0]["docs"][0]["ok"]["a"], &got[1]["docs"][0]["ok"]), (&json!(1), &expected));
    assert_eq!(got[2]["docs"][0]["error"]["error"], "not_found");
    assert_eq!(server.get("/db/_local/doc", 200).await, local);
    assert_eq!(server.get("/db/_local_docs?include_docs=true", 200).await["rows"][0]["doc"], local);
}
