//! What a review of the HTTP face found.

use serde_json::json;

use crate::asking::{ask, get, with_db};
use crate::support::Server;

#[tokio::test]
async fn a_descending_feed_longer_than_a_piece_shows_each_document_once() {
    let server = Server::start().await;
    server.database("db").await.fill("d", 1500).await;
    let feed = get(&server, "/db/_changes?descending=true&include_docs=true").await.json();
    let seqs = feed["results"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs, (1..=1500).rev().collect::<Vec<_>>());
    let limited = get(&server, "/db/_changes?descending=true&limit=2").await.json();
    assert_eq!((limited["results"].as_array().unwrap().len(), &limited["last_seq"]), (2, &json!(1499)));
}

#[tokio::test]
async fn a_local_document_never_becomes_one_that_replicates() {
    let server = with_db().await;
    let body = r#"{"docs":[{"_id":"_local/x","a":1}]}"#;
    assert_eq!(ask(&server, "POST", "/db/_bulk_docs", body).await.json()["error"], "illegal_docid");
    assert_eq!(ask(&server, "POST", "/db", r#"{"_id":"_local/x"}"#).await.json()["error"], "illegal_docid");
    assert_eq!(get(&server, "/db").await.json()["doc_count"], 0);
}

#[tokio::test]
async fn bodies_that_memory_has_no_room_for_are_refused_and_the_next_are_not() {
    let server = Server::with_config(|config| config.http.max_bodies_bytes = 20).await;
    server.database("db").await;
    let refused = ask(&server, "PUT", "/db/a", r#"{"text":"more than there is room for"}"#).await;
    assert_eq!((refused.status, &refused.json()["error"]), (503, &json!("service_unavailable")));
    assert_eq!(ask(&server, "PUT", "/db/a", r#"{"text":"x"}"#).await.status, 201);
}
