//! `_purge`, as CouchDB 3.5.0 answers it.

use serde_json::json;

use crate::asking::{ask, get, with_db};
use crate::support::Server;

/// A document with three leaves, one of them deleted, and another document with an attachment.
async fn with_branches() -> Server {
    let server = with_db().await;
    let body = r#"{"new_edits":false,"docs":[
        {"_id":"t","_rev":"3-c","_revisions":{"start":3,"ids":["c","b","a"]}},
        {"_id":"t","_rev":"3-d","_revisions":{"start":3,"ids":["d","b","a"]}},
        {"_id":"t","_rev":"2-e","_deleted":true,"_revisions":{"start":2,"ids":["e","a"]}},
        {"_id":"u","_rev":"1-u","_attachments":{"a.png":{"content_type":"image/png","data":"aGVsbG8="}}}]}"#;
    assert_eq!(ask(&server, "POST", "/db/_bulk_docs", body).await.status, 201);
    server
}

async fn purge(server: &Server, body: &'static str, expected: &'static str) {
    let answer = ask(server, "POST", "/db/_purge", body).await;
    let expected = format!("{{\"purge_seq\":null,\"purged\":{expected}}}\n");
    assert_eq!((answer.status, answer.text()), (201, expected.as_str()), "{body}");
}

async fn counts(server: &Server) -> (u64, u64, u64) {
    let info = get(server, "/db").await.json();
    let number = |name: &str| info[name].as_u64().unwrap();
    (number("purge_seq"), number("doc_count"), number("doc_del_count"))
}

#[tokio::test]
async fn leaves_go_one_after_the_other_and_the_document_with_the_last() {
    let server = with_branches().await;
    purge(&server, r#"{"t":["3-d"]}"#, r#"{"t":["3-d"]}"#).await;
    let feed = get(&server, "/db/_changes?style=all_docs").await.json();
    let last = &feed["results"][1];
    assert_eq!((&last["id"], &last["changes"]), (&json!("t"), &json!([{ "rev": "3-c" }, { "rev": "2-e" }])));
    purge(&server, r#"{"t":["2-b"]}"#, r#"{"t":[]}"#).await;
    purge(&server, r#"{"z":["1-z"],"t":["3-c","1-a","3-c"]}"#, r#"{"z":[],"t":["3-c"]}"#).await;
    assert_eq!(counts(&server).await, (4, 1, 1), "what is left of the document is its deletion");
    let left = get(&server, "/db/t?rev=2-e&revs=true").await.json();
    assert_eq!(left["_revisions"], json!({ "start": 2, "ids": ["e", "a"] }));
    purge(&server, r#"{"t":["2-e"]}"#, r#"{"t":["2-e"]}"#).await;
    assert_eq!(counts(&server).await, (5, 1, 0));
    let gone = get(&server, "/db/t").await;
    assert_eq!((gone.status, &gone.json()["reason"]), (404, &json!("missing")));
    let feed = get(&server, "/db/_changes").await.json();
    assert_eq!((feed["results"].as_array().unwrap().len(), &feed["pending"]), (1, &json!(0)));
    assert_eq!(ask(&server, "PUT", "/db/t", "{}").await.rev().split('-').next(), Some("1"), "nothing is remembered");
    for (body, reason) in [
        ("[]", "Request body must be a JSON object"),
        (r#"{"t":"1-a"}"#, "Invalid list of revisions"),
        (r#"{"t":["zz"]}"#, "Invalid rev format"),
        (r#"{"t":[1]}"#, "Invalid rev format"),
    ] {
        let answer = ask(&server, "POST", "/db/_purge", body).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (400, &json!(reason)), "{body}");
    }
}

/// The bytes of its attachments are free, and a replication that knows nothing of the purge brings it back.
#[tokio::test]
async fn a_purged_document_is_gone_from_here_and_may_come_back_from_elsewhere() {
    let server = with_branches().await;
    server.database("copy").await;
    server.replicate(json!({ "source": "db", "target": "copy" })).await;
    let before = get(&server, "/db").await.json()["sizes"]["active"].as_u64().unwrap();
    purge(&server, r#"{"u":["1-u"]}"#, r#"{"u":["1-u"]}"#).await;
    let after = get(&server, "/db").await.json()["sizes"]["active"].as_u64().unwrap();
    assert_eq!(before - after, "hello{}".len() as u64);
    assert_eq!(get(&server, "/db/u/a.png").await.status, 404);
    server.replicate(json!({ "source": "copy", "target": "db" })).await;
    assert_eq!(get(&server, "/db/u/a.png").await.text(), "hello");
    assert_eq!(server.leaves("db").await, server.leaves("copy").await);
}

#[tokio::test]
async fn what_waits_for_a_change_hears_of_a_purge() {
    let server = with_branches().await;
    let seq = get(&server, "/db").await.json()["update_seq"].as_u64().unwrap();
    purge(&server, r#"{"t":["3-d","3-c"]}"#, r#"{"t":["3-d","3-c"]}"#).await;
    let feed = get(&server, &format!("/db/_changes?feed=longpoll&since={seq}")).await.json();
    assert_eq!((&feed["results"][0]["id"], &feed["results"][0]["deleted"]), (&json!("t"), &json!(true)));
}

#[tokio::test]
async fn the_number_of_purges_to_remember_is_set() {
    let server = with_db().await;
    assert_eq!(get(&server, "/db/_purged_infos_limit").await.text(), "1000\n");
    assert_eq!(ask(&server, "PUT", "/db/_purged_infos_limit", "500").await.text(), "{\"ok\":true}\n");
    assert_eq!(get(&server, "/db/_purged_infos_limit").await.text(), "500\n");
    for (body, reason) in [
        ("0", "`purged_infos_limit` must be positive integer"),
        ("\"5\"", "`purged_infos_limit` must be positive integer"),
        ("1.5", "`purged_infos_limit` must be positive integer"),
        ("x", "invalid UTF-8 JSON"),
        ("", "Missing request body"),
    ] {
        let answer = ask(&server, "PUT", "/db/_purged_infos_limit", body).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (400, &json!(reason)), "{body}");
    }
}
