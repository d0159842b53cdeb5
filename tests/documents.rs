//! Documents, one at a time (transcripts 01, 02-verify, 08-wire).

use serde_json::json;

use crate::asking::{ask, get, request, send, with_db};

#[tokio::test]
async fn a_document_is_written_read_updated_and_deleted() {
    let server = with_db().await;
    let first = ask(&server, "PUT", "/db/doc1", r#"{"v":1,"title":"first"}"#).await;
    assert_eq!((first.status, &first.json()["id"]), (201, &json!("doc1")));
    assert_eq!(first.header("etag"), format!("\"{}\"", first.rev()));
    assert_eq!(first.header("location"), server.url("/db/doc1"));
    let read = get(&server, "/db/doc1").await;
    let expected = format!("{{\"_id\":\"doc1\",\"_rev\":\"{}\",\"v\":1,\"title\":\"first\"}}\n", first.rev());
    assert_eq!((read.status, read.text()), (200, expected.as_str()));
    let known = send(request(&server, "GET", "/db/doc1").header("If-None-Match", read.header("etag"))).await;
    assert_eq!((known.status, known.text()), (304, ""));
    let conflict = ask(&server, "PUT", "/db/doc1", "{}").await;
    assert_eq!(conflict.status, 409);
    assert_eq!(conflict.text(), "{\"error\":\"conflict\",\"reason\":\"Document update conflict.\"}\n");
    let second = ask(&server, "PUT", &format!("/db/doc1?rev={}", first.rev()), r#"{"v":2}"#).await;
    assert!(second.rev().starts_with("2-"));
    let deleted = ask(&server, "DELETE", &format!("/db/doc1?rev={}", second.rev()), "").await;
    assert_eq!((deleted.status, deleted.rev().starts_with("3-")), (200, true));
    let gone = get(&server, "/db/doc1").await;
    assert_eq!((gone.status, gone.text()), (404, "{\"error\":\"not_found\",\"reason\":\"deleted\"}\n"));
    let named = get(&server, &format!("/db/doc1?rev={}", deleted.rev())).await.json();
    assert_eq!(named["_deleted"], true);
    assert_eq!(get(&server, "/db/none").await.text(), "{\"error\":\"not_found\",\"reason\":\"missing\"}\n");
}

#[tokio::test]
async fn a_body_comes_back_digit_for_digit() {
    let server = with_db().await;
    let body = r#"{"z":1.0,"big":12345678901234567890123,"a":[1e5, "\u00e9"]}"#;
    let rev = ask(&server, "PUT", "/db/n", body).await.rev();
    let expected = format!("{{\"_id\":\"n\",\"_rev\":\"{rev}\",{}\n", &body[1..]);
    assert_eq!(get(&server, "/db/n").await.text(), expected);
}

#[tokio::test]
async fn bad_documents_are_refused_in_couchdbs_words() {
    let server = with_db().await;
    let cases = [
        ("/db/a", "{", "bad_request", "invalid UTF-8 JSON"),
        ("/db/a", "[]", "bad_request", "Document must be a JSON object"),
        ("/db/a", r#"{"_x":1}"#, "doc_validation", "Bad special document member: _x"),
        ("/db/a?rev=x", "{}", "bad_request", "Invalid rev format"),
        ("/db/_a", "{}", "illegal_docid", "Only reserved document ids may start with underscore."),
    ];
    for (path, body, error, reason) in cases {
        let answer = ask(&server, "PUT", path, body).await;
        assert_eq!((answer.status, answer.json()), (400, json!({ "error": error, "reason": reason })));
    }
}

#[tokio::test]
async fn a_document_without_an_id_gets_one() {
    let server = with_db().await;
    let made = ask(&server, "POST", "/db/", r#"{"a":1}"#).await;
    assert_eq!((made.status, made.json()["id"].as_str().unwrap().len()), (201, 32));
}

#[tokio::test]
async fn design_documents_are_reached_by_either_slash() {
    let server = with_db().await;
    let made = ask(&server, "PUT", "/db/_design/d", r#"{"language":"javascript"}"#).await;
    assert_eq!((made.status, made.header("location")), (201, server.url("/db/_design%2Fd").as_str()));
    assert_eq!(get(&server, "/db/_design/d").await.text(), get(&server, "/db/_design%2Fd").await.text());
}

#[tokio::test]
async fn ids_with_slashes_spaces_and_umlauts_come_back() {
    let server = with_db().await;
    for (path, id) in [("/db/a%2Fb", "a/b"), ("/db/a%20b", "a b"), ("/db/Zo%C3%AB", "Zoë"), ("/db/a+b", "a+b")] {
        assert_eq!(ask(&server, "PUT", path, "{}").await.json()["id"], id);
        assert_eq!(get(&server, path).await.json()["_id"], id);
    }
}

#[tokio::test]
async fn open_revs_tells_all_leaves_and_what_is_missing() {
    let server = with_db().await;
    for (body, path) in [
        (r#"{"_rev":"1-aaaa","v":"a"}"#, "/db/d?new_edits=false"),
        (r#"{"_rev":"1-bbbb","v":"b"}"#, "/db/d?new_edits=false"),
    ] {
        assert_eq!(ask(&server, "PUT", path, body).await.status, 201);
    }
    let all = get(&server, "/db/d?open_revs=all").await;
    let expected = r#"[{"ok":{"_id":"d","_rev":"1-bbbb","v":"b"}},{"ok":{"_id":"d","_rev":"1-aaaa","v":"a"}}]"#;
    assert_eq!(all.text(), format!("{expected}\n"));
    let some = get(&server, "/db/d?open_revs=%5B%221-aaaa%22,%222-cccc%22%5D&revs=true").await.json();
    assert_eq!(some[0]["ok"]["_revisions"], json!({ "start": 1, "ids": ["aaaa"] }));
    assert_eq!(some[1], json!({ "missing": "2-cccc" }));
    let conflicts = get(&server, "/db/d?conflicts=true").await.json();
    assert_eq!(conflicts["_conflicts"], json!(["1-aaaa"]));
}

#[tokio::test]
async fn local_documents_keep_checkpoints() {
    let server = with_db().await;
    let body = r#"{"_id":"_local/x","session_id":"s","source_last_seq":"8-g1"}"#;
    let made = ask(&server, "PUT", "/db/_local/x", body).await;
    assert_eq!((made.status, made.text()), (201, "{\"ok\":true,\"id\":\"_local/x\",\"rev\":\"0-1\"}\n"));
    let read = "{\"_id\":\"_local/x\",\"_rev\":\"0-1\",\"session_id\":\"s\",\"source_last_seq\":\"8-g1\"}\n";
    assert_eq!(get(&server, "/db/_local/x").await.text(), read);
    assert_eq!(get(&server, "/db/_local%2Fx").await.text(), read);
    let again = ask(&server, "PUT", "/db/_local/x", r#"{"_rev":"0-1","n":2}"#).await;
    assert_eq!(again.rev(), "0-2");
    let rows = get(&server, "/db/_local_docs").await;
    let row = "{\"id\":\"_local/x\",\"key\":\"_local/x\",\"value\":{\"rev\":\"0-2\"}}";
    assert_eq!(rows.text(), format!("{{\"total_rows\":null,\"offset\":null,\"rows\":[\n{row}\n]}}\n"));
    assert_eq!(ask(&server, "DELETE", "/db/_local/x?rev=0-2", "").await.status, 200);
    assert_eq!(get(&server, "/db/_local/x").await.text(), "{\"error\":\"not_found\",\"reason\":\"missing\"}\n");
}
