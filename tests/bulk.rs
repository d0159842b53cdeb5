//! Many documents at once: `_bulk_docs`, `_bulk_get`, `_all_docs`, `_revs_diff`, as a CouchDB 3.5.0 answered.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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

/// CouchDB 3.5.0 takes them; they were refused with the whole request. It never finds a conflict there, which we do: a
/// checkpoint that somebody else wrote isn't overwritten. Replicated, they are written over whatever there is, as there.
#[tokio::test]
async fn local_documents_may_be_among_the_others() {
    let server = with_db().await;
    let body = r#"{"docs":[{"_id":"_local/x","n":1},{"_id":"a"},{"_id":"_local/y","n":1},{"_id":"_local/x","n":2}]}"#;
    let answer = ask(&server, "POST", "/db/_bulk_docs", body).await;
    assert_eq!(answer.status, 201);
    let rows = answer.json();
    assert_eq!(rows[0], json!({ "ok": true, "id": "_local/x", "rev": "0-1" }));
    assert_eq!((&rows[1]["id"], &rows[2]["id"]), (&json!("a"), &json!("_local/y")));
    assert_eq!(rows[3], json!({ "id": "_local/x", "error": "conflict", "reason": "Document update conflict." }));
    let next = ask(&server, "POST", "/db/_bulk_docs", r#"{"docs":[{"_id":"_local/x","_rev":"0-1","n":3}]}"#).await;
    assert_eq!(next.json()[0]["rev"], "0-2");
    let body = r#"{"new_edits":false,"docs":[{"_id":"_local/x","_rev":"0-7","n":4},{"_id":"b","_rev":"1-b"}]}"#;
    assert_eq!(ask(&server, "POST", "/db/_bulk_docs", body).await.text(), "[]\n");
    assert_eq!(get(&server, "/db/_local/x").await.json()["n"], 4);
    let body = r#"{"new_edits":false,"docs":[{"_id":"_local/z"}]}"#;
    assert_eq!(ask(&server, "POST", "/db/_bulk_docs", body).await.status, 400);
    let deleted =
        ask(&server, "POST", "/db/_bulk_docs", r#"{"docs":[{"_id":"_local/y","_rev":"0-1","_deleted":true}]}"#);
    assert_eq!(deleted.await.json()[0], json!({ "ok": true, "id": "_local/y", "rev": "0-0" }));
    let made = ask(&server, "POST", "/db", r#"{"_id":"_local/p","n":1}"#).await;
    assert_eq!((made.status, made.text()), (201, "{\"ok\":true,\"id\":\"_local/p\",\"rev\":\"0-1\"}\n"));
    let ids = ask(&server, "POST", "/db/_bulk_docs", r#"{"docs":[{"_id":"_local/"}]}"#).await.json();
    assert_eq!(ids, json!({ "error": "illegal_docid", "reason": "Illegal document id `_local/`" }));
    // None of them ever becomes one that replicates.
    assert_eq!(ask(&server, "PUT", "/db/_%6Cocal%2Fq", "{}").await.json()["error"], "illegal_docid");
    assert_eq!(get(&server, "/db").await.json()["doc_count"], 2);
}

/// It was null where a range began; so say the answers of CouchDB 3.5.0, and null only for `keys`.
#[tokio::test]
async fn an_offset_tells_how_many_documents_stand_before_the_first_row() {
    let server = with_db().await;
    server.database("many").await.fill("doc-", 3000).await;
    let offset = async |query: &str| get(&server, &format!("/many/_all_docs?{query}")).await.json()["offset"].clone();
    for (query, expected) in [
        ("limit=1", 0),
        ("skip=7&limit=1", 7),
        ("startkey=%22doc-0000%22&limit=1", 0),
        ("startkey=%22doc-2500%22&limit=1", 2500),
        ("startkey=%22doc-2500%22&skip=2&limit=0", 2502),
        ("startkey=%22doc-1000x%22&limit=1", 1001),
        ("key=%22nope%22", 3000),
        ("skip=9999", 3000),
        ("descending=true&skip=2&limit=1", 2),
        ("descending=true&startkey=%22doc-2500%22&limit=1", 499),
        ("descending=true&startkey=%22a%22", 3000),
    ] {
        assert_eq!(offset(query).await, expected, "{query}");
    }
    assert!(offset("keys=[%22doc-0001%22]").await.is_null());
    let rev = get(&server, "/many/doc-0005").await.json()["_rev"].as_str().unwrap().to_owned();
    assert_eq!(ask(&server, "DELETE", &format!("/many/doc-0005?rev={rev}"), "").await.status, 200);
    assert_eq!(offset("startkey=%22doc-2500%22&limit=1").await, 2499);
}

/// As in every curl example of CouchDB's: they were answered 400 without a word. CouchDB 3.5.0 takes them all, control
/// characters too.
#[tokio::test]
async fn raw_quotes_and_their_kin_in_a_target_are_taken() {
    let server = with_db().await;
    let mut connection = TcpStream::connect(server.url("").trim_start_matches("http://")).await.unwrap();
    let doc = r#"{"_id":"a","text":"GET /\" < > ` HTTP/1.1"}"#;
    let requests = [
        format!("POST /db HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{doc}", doc.len()),
        "GET /db/_all_docs?key=\"a\"&include_docs=true HTTP/1.1\r\nHost: x\r\n\r\n".into(),
        "PUT /db/q\"<`>\x01\x7f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"b\":\"<\"\r\n1\r\n}\r\n0\r\n\r\n".into(),
        "GET /db/_all_docs?startkey=\"b\"&include_docs=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
    ];
    connection.write_all(requests.concat().as_bytes()).await.unwrap();
    let mut answers = String::new();
    connection.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 20").count(), 4, "{answers}");
    assert!(answers.contains(r#""text":"GET /\" < > ` HTTP/1.1""#), "{answers}");
    assert!(answers.contains(r#""_id":"q\"<`>\u0001"#) && answers.contains(r#""b":"<""#), "{answers}");
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
    assert_eq!(answer.text(), format!("{{\"total_rows\":2,\"offset\":1,\"rows\":[\n{row}\n]}}\n"));
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
