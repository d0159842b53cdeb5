//! `COPY`, as CouchDB 3.5.0 answers it.

use serde_json::json;

use crate::asking::{Answer, ask, get, request, send, with_db};
use crate::support::Server;

async fn copy(server: &Server, path: &str, destination: &str) -> Answer {
    send(request(server, "COPY", path).header("Destination", destination)).await
}

#[tokio::test]
async fn a_copy_is_a_first_revision_of_its_own() {
    let server = with_db().await;
    ask(&server, "PUT", "/db/a", r#"{"x":1.0}"#).await;
    let answer = copy(&server, "/db/a", "copy%20of%2Fa").await;
    let rev = "1-547fe06a2f74b387df8e7434bb3e4068";
    let body = format!("{{\"ok\":true,\"id\":\"copy of/a\",\"rev\":\"{rev}\"}}\n");
    assert_eq!((answer.status, answer.text()), (201, body.as_str()));
    assert_eq!(answer.header("etag"), format!("\"{rev}\""));
    assert_eq!(answer.header("location"), server.url("/db/copy%20of%2Fa"));
    let text = format!("{{\"_id\":\"copy of/a\",\"_rev\":\"{rev}\",\"x\":1.0}}\n");
    assert_eq!(get(&server, "/db/copy%20of%2Fa").await.text(), text);
    assert_eq!(copy(&server, "/db/a", "copy%20of%2Fa").await.status, 409);
    assert_eq!(copy(&server, "/db/a", &format!("copy%20of%2Fa?rev={rev}")).await.rev().split('-').next(), Some("2"));
}

#[tokio::test]
async fn a_named_revision_is_copied_and_a_deleted_document_is_written_over() {
    let server = with_db().await;
    let body = r#"{"new_edits":false,"docs":[{"_id":"a","_rev":"1-a","v":"a"},{"_id":"a","_rev":"1-b","v":"b"}]}"#;
    ask(&server, "POST", "/db/_bulk_docs", body).await;
    let gone = ask(&server, "PUT", "/db/gone", "{}").await.rev();
    ask(&server, "DELETE", &format!("/db/gone?rev={gone}"), "").await;
    let answer = copy(&server, "/db/a?rev=1-a", "gone").await;
    assert_eq!((answer.status, answer.rev().starts_with("3-")), (201, true));
    assert_eq!(get(&server, "/db/gone").await.json()["v"], "a");
    let named = request(&server, "COPY", "/db/a").header("If-Match", "\"1-b\"").header("Destination", "b");
    assert_eq!(send(named).await.status, 201);
    assert_eq!(get(&server, "/db/b").await.json()["v"], "b");
    for (path, destination, status, reason) in [
        ("/db/none", "c", 404, "missing"),
        ("/db/a?rev=9-x", "c", 404, "missing"),
        ("/db/a?rev=zz", "c", 400, "Invalid rev format"),
        ("/db/a", "_bad", 400, "Only reserved document ids may start with underscore."),
        ("/db/a", "http://127.0.0.1:5984/db/c", 400, "Destination URL must be relative."),
    ] {
        let answer = copy(&server, path, destination).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (status, &json!(reason)), "{path} to {destination}");
    }
    let answer = ask(&server, "COPY", "/db/a", "").await;
    assert_eq!((answer.status, &answer.json()["reason"]), (400, &json!("Destination header is mandatory for COPY.")));
}

/// CouchDB's copies keep the `revpos` of the original, which tells a replication that a target has what it hasn't.
#[tokio::test]
async fn attachments_come_along_and_stay_when_the_original_goes() {
    let server = with_db().await;
    let body = r#"{"_attachments":{"a.png":{"content_type":"image/png","data":"aGVsbG8="}}}"#;
    let first = ask(&server, "PUT", "/db/a", body).await.rev();
    let body = r#"{"_rev":"1-x","_revisions":{"start":1,"ids":["x"]}}"#;
    ask(&server, "PUT", "/db/b?new_edits=false", body).await;
    let copied = copy(&server, "/db/a", "b?rev=1-x").await;
    assert_eq!(copied.status, 201, "{}", copied.text());
    ask(&server, "DELETE", &format!("/db/a?rev={first}"), "").await;
    let doc = get(&server, "/db/b").await.json();
    assert_eq!(doc["_attachments"]["a.png"]["revpos"], 2);
    assert_eq!(get(&server, "/db/b/a.png").await.text(), "hello");
    server.database("target").await;
    server.replicate(json!({ "source": "db", "target": "target" })).await;
    assert_eq!(get(&server, "/target/b/a.png").await.text(), "hello");
}

#[tokio::test]
async fn design_documents_and_local_ones_are_copied_too() {
    let server = with_db().await;
    ask(&server, "PUT", "/db/_design/d", r#"{"language":"x"}"#).await;
    let answer = copy(&server, "/db/_design/d", "_design%2Fd2").await;
    assert_eq!((answer.status, answer.header("location")), (201, server.url("/db/_design%2Fd2").as_str()));
    assert_eq!(get(&server, "/db/_design/d2").await.json()["language"], "x");
    ask(&server, "PUT", "/db/_local/l", r#"{"y":1}"#).await;
    assert_eq!(copy(&server, "/db/_local/l", "shown").await.status, 201);
    assert_eq!(get(&server, "/db/shown").await.json()["y"], 1);
    let local = copy(&server, "/db/shown", "_local/m").await;
    assert_eq!((local.status, local.header("etag")), (201, "\"0-1\""));
    assert_eq!(get(&server, "/db/_local/m").await.json(), json!({ "_id": "_local/m", "_rev": "0-1", "y": 1 }));
    for (path, allowed) in
        [("/db/shown", "DELETE,GET,HEAD,POST,PUT,COPY"), ("/db/_local/m", "DELETE,GET,HEAD,PUT,COPY")]
    {
        let answer = ask(&server, "PATCH", path, "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, allowed));
    }
}
