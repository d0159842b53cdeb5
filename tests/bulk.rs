//! Many documents at once: `_bulk_docs`, `_bulk_get`, `_all_docs`, `_revs_diff` (transcripts 01, 02-verify, 08-wire).

use serde_json::json;

use crate::asking::{ask, get, with_db};
use crate::support::Server;

async fn with_conflict() -> Server {
    let server = with_db().await;
    let body = r#"{"new_edits":false,"docs":[
        {"_id":"doc1","_rev":"2-bbbb","v":2,"_revisions":{"start":2,"ids":["bbbb","a0a0"]}},
        {"_id":"doc1","_rev":"1-aaaa","v":"conflict","_revisions":{"start":1,"ids":["aaaa"]}},
        {"_id":"doc3","_rev":"2-cccc","_deleted":true,"_revisions":{"start":2,"ids":["cccc","c0c0"]}}]}"#;
    let answer = ask(&server, "POST", "/db/_bulk_docs", body).await;
    assert_eq!((answer.status, answer.text()), (201, "[]\n"));
    server
}

#[tokio::test]
async fn new_edits_are_answered_one_by_one() {
    let server = with_db().await;
    let body = r#"{"docs":[{"_id":"a","n":1},{"_id":"a","n":2},{"n":3}]}"#;
    let answer = ask(&server, "POST", "/db/_bulk_docs", body).await;
    assert_eq!(answer.status, 201);
    let rows = answer.json();
    assert_eq!((&rows[0]["ok"], &rows[0]["id"]), (&json!(true), &json!("a")));
    assert_eq!(rows[1], json!({ "id": "a", "error": "conflict", "reason": "Document update conflict." }));
    assert_eq!(rows[2]["id"].as_str().unwrap().len(), 32);
}

/// It was a conflict. CouchDB 3.5.0 made these very revisions: the edit goes over the revision that its author names,
/// with the ancestors that he knows, if the document was never there.
#[tokio::test]
async fn an_edit_of_a_document_that_was_never_here_goes_over_the_revision_it_names() {
    let server = with_db().await;
    let body = r#"{"docs":[{"_id":"a","_rev":"1-abc","a":1},{"_id":"b","_rev":"5-abc","a":1},
        {"_id":"c","_rev":"1-abc","_deleted":true},{"_id":"d","_revisions":{"start":3,"ids":["c","b","a"]}}]}"#;
    let answer = ask(&server, "POST", "/db/_bulk_docs", body).await.json();
    let revs: Vec<_> = answer.as_array().unwrap().iter().map(|row| row["rev"].as_str().unwrap()).collect();
    let couchdbs = [
        "2-662a61caf479e571df4eb8cf54542802",
        "6-692a1cda8193aee13e6f94ee4c39d331",
        "2-b34b7cad4d3f7c99b2295bf95436bb1e",
        "4-e4ffab8032dc9b6bba3b11467023843b",
    ];
    assert_eq!(revs, couchdbs);
    let path = get(&server, "/db/d?revs=true").await.json()["_revisions"].clone();
    assert_eq!(path, json!({ "start": 4, "ids": ["e4ffab8032dc9b6bba3b11467023843b", "c", "b", "a"] }));
    assert_eq!(ask(&server, "PUT", "/db/e?rev=1-abc", r#"{"a":1}"#).await.rev(), couchdbs[0]);
    let known = ask(&server, "POST", "/db/_bulk_docs", r#"{"docs":[{"_id":"a","_rev":"1-abc","a":2}]}"#).await.json();
    assert_eq!(known[0]["error"], "conflict");
    let gone = ask(&server, "POST", "/db/_bulk_docs", r#"{"docs":[{"_id":"c","_rev":"1-abc","a":1}]}"#).await.json();
    assert_eq!(gone[0]["error"], "conflict");
}

/// CouchDB 3.5.0 takes and shows such a revision; a request that brought one was refused whole.
#[tokio::test]
async fn a_revision_without_a_hash_is_one() {
    let server = with_db().await;
    let body = r#"{"new_edits":false,"docs":[{"_id":"a","_rev":"1-","a":1},{"_id":"b","_rev":"1-b"}]}"#;
    let answer = ask(&server, "POST", "/db/_bulk_docs", body).await;
    assert_eq!((answer.status, answer.text()), (201, "[]\n"));
    let read = get(&server, "/db/a?rev=1-&revs=true").await;
    assert_eq!(read.text(), "{\"_id\":\"a\",\"_rev\":\"1-\",\"a\":1,\"_revisions\":{\"start\":1,\"ids\":[\"\"]}}\n");
    server.database("tgt").await;
    server.replicate(json!({ "source": server.url("/db"), "target": "tgt" })).await;
    assert_eq!(server.leaves("tgt").await, server.leaves("db").await);
}

#[tokio::test]
async fn a_bulk_request_that_makes_no_sense_is_told_why() {
    let server = with_db().await;
    for (body, reason) in [
        ("{", "invalid UTF-8 JSON"),
        ("{}", "POST body must include `docs` parameter."),
        (r#"{"docs":1}"#, "`docs` parameter must be an array."),
        (r#"{"docs":[1]}"#, "Document must be a JSON object"),
    ] {
        let answer = ask(&server, "POST", "/db/_bulk_docs", body).await;
        assert_eq!((answer.status, answer.json()), (400, json!({ "error": "bad_request", "reason": reason })));
    }
}

#[tokio::test]
async fn bulk_get_gives_documents_in_the_order_asked_for() {
    let server = with_conflict().await;
    let body = r#"{"docs":[{"id":"doc1","rev":"1-aaaa"},{"id":"doc1","rev":"1-a0a0"},{"id":"no","rev":"1-a"}]}"#;
    let answer = ask(&server, "POST", "/db/_bulk_get?latest=true&revs=true&attachments=false", body).await;
    let expected = concat!(
        r#"{"results":[{"id":"doc1","docs":[{"ok":{"_id":"doc1","_rev":"1-aaaa","v":"conflict","#,
        r#""_revisions":{"start":1,"ids":["aaaa"]}}}]},"#,
        r#"{"id":"doc1","docs":[{"ok":{"_id":"doc1","_rev":"2-bbbb","v":2,"#,
        r#""_revisions":{"start":2,"ids":["bbbb","a0a0"]}}}]},"#,
        r#"{"id":"no","docs":[{"error":{"id":"no","rev":"1-a","error":"not_found","reason":"missing"}}]}]}"#,
        "\n"
    );
    assert_eq!((answer.status, answer.text()), (200, expected));
    assert_eq!(ask(&server, "POST", "/db/_bulk_get", r#"{"docs":[]}"#).await.text(), "{\"results\":[]}\n");
}

#[tokio::test]
async fn revs_diff_tells_what_is_missing() {
    let server = with_conflict().await;
    let body = r#"{"doc1":["2-bbbb","1-a0a0","3-dddd"],"doc9":["1-a"],"doc3":["2-cccc"]}"#;
    let answer = ask(&server, "POST", "/db/_revs_diff", body).await.json();
    assert_eq!(answer["doc9"], json!({ "missing": ["1-a"] }));
    assert_eq!(answer["doc1"]["missing"], json!(["3-dddd"]));
    assert_eq!(answer["doc1"]["possible_ancestors"], json!(["1-aaaa", "2-bbbb"]));
    assert_eq!(answer.get("doc3"), None);
    let older = ask(&server, "POST", "/db/_missing_revs", body).await.json();
    assert_eq!(older, json!({ "missing_revs": { "doc1": ["3-dddd"], "doc9": ["1-a"] } }));
}

#[tokio::test]
async fn all_docs_lists_what_isnt_deleted_in_the_order_of_ids() {
    let server = with_conflict().await;
    assert_eq!(ask(&server, "PUT", "/db/B", "{}").await.status, 201);
    let answer = get(&server, "/db/_all_docs?startkey=%22a%22&include_docs=true&conflicts=true").await;
    let row = r#"{"id":"doc1","key":"doc1","value":{"rev":"2-bbbb"},"doc":{"_id":"doc1","_rev":"2-bbbb","v":2,"_conflicts":["1-aaaa"]}}"#;
    assert_eq!(answer.text(), format!("{{\"total_rows\":2,\"offset\":null,\"rows\":[\n{row}\n]}}\n"));
    let ids = |answer: serde_json::Value| {
        answer["rows"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(get(&server, "/db/_all_docs").await.json()), ["B", "doc1"]);
    assert_eq!(ids(get(&server, "/db/_all_docs?descending=true&limit=1").await.json()), ["doc1"]);
    let keys = ask(&server, "POST", "/db/_all_docs", r#"{"keys":["doc3","doc9","doc1"]}"#).await.json();
    assert_eq!(
        keys["rows"],
        json!([
            { "id": "doc3", "key": "doc3", "value": { "rev": "2-cccc", "deleted": true } },
            { "key": "doc9", "error": "not_found" },
            { "id": "doc1", "key": "doc1", "value": { "rev": "2-bbbb" } }
        ])
    );
}
