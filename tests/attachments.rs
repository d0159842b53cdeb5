//! Attachments: inline, by themselves, behind their document (transcripts 01, 02-verify, 08-wire).

use std::io::Write;

use serde_json::json;

use crate::asking::{ask, get, request, send, with_db};
use crate::support::Server;

async fn with_hello() -> (Server, String) {
    let server = with_db().await;
    let body = r#"{"v":1,"_attachments":{"hello.txt":{"content_type":"text/plain","data":"aGVsbG8gd29ybGQ="}}}"#;
    let rev = ask(&server, "PUT", "/db/doc2", body).await.rev();
    (server, rev)
}

#[tokio::test]
async fn text_is_stored_gzipped_and_given_as_the_client_likes_it() {
    let (server, _) = with_hello().await;
    let plain = send(request(&server, "GET", "/db/doc2/hello.txt").header("Accept-Encoding", "identity")).await;
    assert_eq!((plain.status, plain.text()), (200, "hello world"));
    assert_eq!((plain.header("content-length"), plain.header("content-type")), ("11", "text/plain"));
    assert_eq!(plain.header("content-security-policy"), "sandbox");
    let known = send(request(&server, "GET", "/db/doc2/hello.txt").header("If-None-Match", plain.header("etag"))).await;
    assert_eq!(known.status, 304);
    let doc = get(&server, "/db/doc2?att_encoding_info=true").await.json();
    assert_eq!(doc["_attachments"]["hello.txt"]["encoding"], "gzip");
    let inline = get(&server, "/db/doc2?attachments=true").await.json();
    assert_eq!(inline["_attachments"]["hello.txt"]["data"], "aGVsbG8gd29ybGQ=");
}

#[tokio::test]
async fn one_is_put_beside_others_and_deleted_again() {
    let (server, first) = with_hello().await;
    let path = format!("/db/doc2/sub/blob.bin?rev={first}");
    let put = request(&server, "PUT", &path).header("Content-Type", "application/octet-stream").body(vec![7; 4096]);
    let put = send(put).await;
    assert_eq!((put.status, put.rev().starts_with("2-")), (201, true));
    assert_eq!(put.header("location"), server.url("/db/doc2/sub/blob.bin"));
    assert_eq!(get(&server, "/db/doc2/sub/blob.bin").await.bytes, vec![7; 4096]);
    let doc = get(&server, "/db/doc2").await.json();
    assert_eq!(doc["v"], 1);
    assert_eq!(doc["_attachments"]["hello.txt"]["revpos"], 1);
    assert_eq!(doc["_attachments"]["sub/blob.bin"]["revpos"], 2);
    let stale = send(request(&server, "PUT", &path).body("x")).await;
    assert_eq!(stale.status, 409);
    let deleted = ask(&server, "DELETE", &format!("/db/doc2/hello.txt?rev={}", put.rev()), "").await;
    assert_eq!((deleted.status, deleted.rev().starts_with("3-")), (200, true));
    let gone = get(&server, "/db/doc2/hello.txt").await;
    assert_eq!((gone.status, &gone.json()["reason"]), (404, &json!("Document is missing attachment")));
}

#[tokio::test]
async fn a_stub_without_its_attachment_is_412() {
    let server = with_db().await;
    let body = r#"{"_attachments":{"a.txt":{"content_type":"text/plain","stub":true,"revpos":1}}}"#;
    let answer = ask(&server, "PUT", "/db/d", body).await;
    assert_eq!((answer.status, &answer.json()["error"]), (412, &json!("missing_stub")));
}

#[tokio::test]
async fn a_document_travels_with_its_attachments_behind_it() {
    let server = with_db().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"hello world").unwrap();
    let gzip = gzip.finish().unwrap();
    let doc = json!({
        "_id": "d", "_rev": "1-aaaa", "_revisions": { "start": 1, "ids": ["aaaa"] },
        "_attachments": {
            "blob.bin": { "content_type": "application/octet-stream", "revpos": 1, "length": 3, "follows": true },
            "hello.txt": {
                "content_type": "text/plain", "revpos": 1, "length": 11, "follows": true,
                "encoding": "gzip", "encoded_length": gzip.len()
            }
        }
    });
    let mut body = format!(
        "--b\r\nContent-Type: application/json\r\n\r\n{doc}\r\n--b\r\n\
         Content-Disposition: attachment; filename=\"blob.bin\"\r\nContent-Length: 3\r\n\r\n\0\r\n\r\n--b\r\n\
         Content-Disposition: attachment; filename=\"hello.txt\"\r\nContent-Encoding: gzip\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(&gzip);
    body.extend_from_slice(b"\r\n--b--");
    let put = request(&server, "PUT", "/db/d?new_edits=false");
    let put = send(put.header("Content-Type", "multipart/related; boundary=\"b\"").body(body)).await;
    assert_eq!((put.status, put.text()), (201, "{\"ok\":true,\"id\":\"d\",\"rev\":\"1-aaaa\"}\n"));
    assert_eq!(get(&server, "/db/d/blob.bin").await.bytes, b"\0\r\n");
    let plain = send(request(&server, "GET", "/db/d/hello.txt").header("Accept-Encoding", "identity")).await;
    assert_eq!(plain.text(), "hello world");

    let open = request(&server, "GET", "/db/d?revs=true&open_revs=%5B%221-aaaa%22%5D&latest=true");
    let open = send(open.header("Accept", "multipart/mixed")).await;
    assert!(open.header("content-type").starts_with("multipart/mixed; boundary=\""));
    let text = String::from_utf8_lossy(&open.bytes).into_owned();
    assert!(text.contains("\r\nContent-Type: multipart/related; boundary=\""));
    assert!(text.contains("\"follows\":true"));
    assert!(
        text.contains("\r\nContent-Disposition: attachment; filename=\"hello.txt\"\r\nContent-Type: text/plain\r\n")
    );
    assert!(text.contains("\r\nContent-Encoding: gzip\r\n\r\n"));
    assert!(open.bytes.windows(gzip.len()).any(|window| window == gzip));
}

#[tokio::test]
async fn a_document_whose_attachment_doesnt_follow_is_refused() {
    let server = with_db().await;
    let doc = json!({ "_attachments": { "a": { "content_type": "text/plain", "length": 1, "follows": true } } });
    let body = format!("--b\r\nContent-Type: application/json\r\n\r\n{doc}\r\n--b--");
    let put = request(&server, "PUT", "/db/d").header("Content-Type", "multipart/related; boundary=b").body(body);
    assert_eq!(send(put).await.status, 400);
    assert_eq!(get(&server, "/db/d").await.status, 404);
}
