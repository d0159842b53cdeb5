//! Attachments: inline, by themselves, behind their document, as a CouchDB 3.5.0 answered.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::asking::{ask, get, request, send, with_db};
use crate::support::{Process, Server, client};

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

/// The attachments of `db/doc` with their data, and what they say of themselves.
async fn attachments(server: &Server, db: &str) -> Value {
    get(server, &format!("/{db}/doc?attachments=true")).await.json()["_attachments"].clone()
}

/// An edit that brought new data together with the `revpos` that its author had read kept that: a target that had the
/// earlier revision was told that it had the data, and kept the old for ever under the new `_rev`. CouchDB 3.5.0 makes
/// it 2, whatever the author says.
#[tokio::test]
async fn new_data_is_of_the_new_revision_and_replicates() {
    let old = json!({ "x.bin": { "content_type": "image/png", "data": "b2xk", "revpos": 1 } });
    let new = json!({ "content_type": "image/png", "data": "bmV3", "revpos": 1 });
    for way in ["PUT", "_bulk_docs", "multipart"] {
        let server = with_db().await;
        server.database("tgt").await;
        let first = server.put("/db/doc", json!({ "_attachments": old }), 201).await["rev"].clone();
        server.replicate(json!({ "source": "db", "target": "tgt" })).await;
        match way {
            "PUT" => {
                let doc = json!({ "_rev": first, "_attachments": { "x.bin": new } });
                server.put("/db/doc", doc, 201).await;
            }
            "_bulk_docs" => {
                let doc = json!({ "_id": "doc", "_rev": first, "_attachments": { "x.bin": new } });
                let answer = server.post("/db/_bulk_docs", json!({ "docs": [doc] }), 201).await;
                assert_eq!(answer[0]["ok"], true, "{answer}");
            }
            _ => {
                let follows = json!({ "content_type": "image/png", "length": 3, "follows": true, "revpos": 1 });
                let doc = json!({ "_rev": first, "_attachments": { "x.bin": follows } });
                let body = format!("--b\r\nContent-Type: application/json\r\n\r\n{doc}\r\n--b\r\n\r\nnew\r\n--b--");
                let put = request(&server, "PUT", "/db/doc");
                let put = send(put.header("Content-Type", "multipart/related; boundary=b").body(body)).await;
                assert_eq!(put.status, 201, "{}", put.text());
            }
        }
        let here = attachments(&server, "db").await;
        assert_eq!((&here["x.bin"]["revpos"], &here["x.bin"]["data"]), (&json!(2), &json!("bmV3")), "{way}");
        server.replicate(json!({ "source": "db", "target": "tgt" })).await;
        assert_eq!(attachments(&server, "tgt").await, here, "{way}");
        // By URL, the source's own server decides what follows.
        server.database("far").await;
        let earlier = json!({ "_id": "doc", "_rev": first, "_attachments": old });
        server.post("/far/_bulk_docs", json!({ "docs": [earlier], "new_edits": false }), 201).await;
        server.replicate(json!({ "source": server.url("/db"), "target": server.url("/far") })).await;
        assert_eq!(attachments(&server, "far").await, here, "{way}");
    }
}

/// Such a stub stands for another attachment than the one that is there. CouchDB 3.5.0 answers so, written anew or
/// replicated.
#[tokio::test]
async fn a_stub_of_another_revpos_is_412() {
    let server = with_db().await;
    let doc = json!({ "_attachments": { "x": { "content_type": "image/png", "data": "b2xk" } } });
    let first = server.put("/db/doc", doc, 201).await["rev"].as_str().unwrap().to_owned();
    let refused = json!({ "error": "missing_stub", "reason": "Invalid attachment stub in doc for x" });
    let stub =
        |revpos: u64| json!({ "x": { "stub": true, "revpos": revpos, "digest": "md5-FJYD5sA1FjYqjaI/Yk25RQ==" } });
    let digest = get(&server, "/db/doc").await.json()["_attachments"]["x"]["digest"].clone();
    assert_eq!(digest, stub(1)["x"]["digest"], "else the stub is refused for its digest");
    let answer = server.put("/db/doc", json!({ "_rev": first, "_attachments": stub(2) }), 412).await;
    assert_eq!(answer, refused);
    let edit = json!({ "_id": "doc", "_rev": first, "_attachments": { "x": { "stub": true, "revpos": 2 } } });
    let answer = server.post("/db/_bulk_docs", json!({ "docs": [edit] }), 201).await;
    assert_eq!(answer[0]["error"], "missing_stub");
    let path = json!({ "start": 2, "ids": ["b", &first[2..]] });
    let replicated =
        json!({ "_id": "doc", "_revisions": path, "_attachments": { "x": { "stub": true, "revpos": 2 } } });
    let answer = server.post("/db/_bulk_docs", json!({ "docs": [replicated], "new_edits": false }), 201).await;
    assert_eq!(answer[0]["error"], "missing_stub");
    server.put("/db/doc", json!({ "_rev": first, "_attachments": stub(1) }), 201).await;
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

/// A document put with an attachment named `a"b` was refused: "A part follows that the document doesn't announce".
/// CouchDB 3.5.0 takes all of these, inline, as multipart (as it writes it: names as they are) and by URL, but for a name
/// with both line ends as multipart, and what is too long for its request line.
#[tokio::test]
async fn attachments_with_odd_names_are_stored_and_served() {
    let server = with_db().await;
    let long = "x".repeat(20_000);
    let names =
        ["a\"b", "a\\b", "a\\\"b", "a\r\nb", "a\nb", "a\x7fb", "a\0b", " a ", "a\"", "Zoë/1", "b\r\nA: b\r\nc", &long];
    for (number, name) in names.into_iter().enumerate() {
        let shown = &name[..name.len().min(10)];
        let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        let inline = json!({ "_attachments": { name: { "content_type": "a/b", "data": "YWJj" } } });
        server.put(&format!("/db/inline{number}"), inline, 201).await;
        let url = format!("/db/url{number}/{encoded}");
        let put = send(request(&server, "PUT", &url).header("Content-Type", "a/b").body("abc")).await;
        assert_eq!(put.status, 201, "{shown:?}: {}", put.text());
        // Another one first, since a part that names nothing known is the next one.
        let follows = json!({ "content_type": "a/b", "length": 3, "follows": true });
        let doc = json!({ "_attachments": { "first": follows, name: follows } });
        let body = format!(
            "--b\r\nContent-Type: application/json\r\n\r\n{doc}\r\n--b\r\n\
             Content-Disposition: attachment; filename=\"first\"\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\n1st\r\n--b\r\n\
             Content-Disposition: attachment; filename=\"{name}\"\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nabc\r\n--b--"
        );
        let put = request(&server, "PUT", &format!("/db/parts{number}"));
        let put = send(put.header("Content-Type", "multipart/related; boundary=b").body(body)).await;
        assert_eq!(put.status, 201, "{shown:?}: {}", put.text());
        for how in ["inline", "url", "parts"] {
            let read = get(&server, &format!("/db/{how}{number}/{encoded}")).await;
            assert_eq!((read.status, read.text()), (200, "abc"), "{how} {shown:?}");
        }
    }
    server.database("tgt").await;
    server.replicate(json!({ "source": server.url("/db"), "target": server.url("/tgt") })).await;
    assert_eq!(server.leaves("tgt").await, server.leaves("db").await);
    server.database("near").await;
    server.replicate(json!({ "source": "tgt", "target": "near" })).await;
    assert_eq!(server.leaves("near").await, server.leaves("db").await);
}

/// Clients that show how far a download has come, or ask again only for what is new, had nothing to go by. CouchDB 3.5.0
/// tells both.
#[tokio::test]
async fn a_document_in_parts_tells_its_length_and_tag() {
    let (server, rev) = with_hello().await;
    let ask = |tag: &str| {
        let ask = request(&server, "GET", "/db/doc2?attachments=true").header("Accept", "multipart/related");
        ask.header("If-None-Match", tag.to_owned())
    };
    let answer = send(ask("\"1-x\"")).await;
    assert!(answer.header("content-type").starts_with("multipart/related; boundary="));
    assert_eq!(answer.header("content-length"), answer.bytes.len().to_string());
    assert_eq!(answer.header("etag"), format!("\"{rev}\""));
    assert_eq!(send(ask(answer.header("etag"))).await.status, 304);
}

/// CouchDB 3.5.0 doesn't look into it: of 37 bytes that come as 36, it tells 36. It travels so too.
#[tokio::test]
async fn an_attachment_that_is_uploaded_gzipped_counts_as_it_came() {
    let server = with_db().await;
    let text = b"hello world, hello world, hello world, and once more";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text).unwrap();
    let gzip = gzip.finish().unwrap();
    let put = request(&server, "PUT", "/db/doc/t.txt").header("Content-Type", "text/plain");
    assert_eq!(send(put.header("Content-Encoding", "gzip").body(gzip.clone())).await.status, 201);
    for target in ["near", "far"] {
        server.database(target).await;
        let url = |name: &str| if target == "near" { name.to_owned() } else { server.url(&format!("/{name}")) };
        server.replicate(json!({ "source": url("db"), "target": url(target) })).await;
    }
    for db in ["db", "near", "far"] {
        let told =
            get(&server, &format!("/{db}/doc?att_encoding_info=true")).await.json()["_attachments"]["t.txt"].clone();
        assert_eq!((&told["length"], &told["encoded_length"]), (&json!(gzip.len()), &json!(gzip.len())), "{db}");
        let plain =
            send(request(&server, "GET", &format!("/{db}/doc/t.txt")).header("Accept-Encoding", "identity")).await;
        assert_eq!((plain.header("content-length"), &plain.bytes[..]), (&*text.len().to_string(), &text[..]), "{db}");
        let stored = send(request(&server, "GET", &format!("/{db}/doc/t.txt")).header("Accept-Encoding", "gzip")).await;
        assert!(stored.bytes == gzip, "{db}");
    }
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

/// Text that repeats, but with a period that fits neither pieces nor base64.
fn text(bytes: usize) -> Vec<u8> {
    (0..).flat_map(|n: u32| format!("{n}\n").into_bytes()).take(bytes).collect()
}

#[tokio::test]
async fn large_attachments_stand_inline_wherever_they_are_asked_for() {
    let server = with_db().await;
    // Stored gzipped and as it came; both are larger than what is rendered at once.
    let (gzipped, plain) = (text(700_001), text(400_000));
    let put = |name: &str, rev: String, content_type: &str, data: &[u8]| {
        let path = format!("/db/doc/{name}?rev={rev}").trim_end_matches("?rev=").to_owned();
        request(&server, "PUT", &path).header("Content-Type", content_type.to_owned()).body(data.to_vec())
    };
    let rev = send(put("a.txt", String::new(), "text/plain", &gzipped)).await.rev();
    let rev = send(put("b.bin", rev, "application/octet-stream", &plain)).await.rev();
    let rev = send(put("c.bin", rev, "application/octet-stream", b"small")).await.rev();
    ask(&server, "PUT", "/db/zlast", "{}").await;

    let body = json!({ "docs": [{ "id": "doc", "rev": rev }, { "id": "zlast" }] }).to_string();
    let bulk = request(&server, "POST", "/db/_bulk_get?attachments=true").header("Content-Type", "application/json");
    for (answer, at) in [
        (get(&server, "/db/doc?attachments=true").await, ""),
        (get(&server, "/db/doc?attachments=true&open_revs=all").await, "/0/ok"),
        (send(bulk.body(body)).await, "/results/0/docs/0/ok"),
        (get(&server, "/db/_changes?include_docs=true&attachments=true").await, "/results/0/doc"),
        (get(&server, "/db/_all_docs?include_docs=true&attachments=true").await, "/rows/0/doc"),
    ] {
        assert_eq!(answer.status, 200, "{at}");
        let json = answer.json();
        let attachments = json.pointer(at).unwrap()["_attachments"].as_object().unwrap();
        let data = |name: &str| STANDARD.decode(attachments[name]["data"].as_str().unwrap()).unwrap();
        assert!(data("a.txt") == gzipped && data("b.bin") == plain && data("c.bin") == b"small", "{at}");
    }
    let stored = get(&server, "/db/doc?attachments=true&att_encoding_info=true").await.json();
    let stored = &stored["_attachments"]["a.txt"];
    let data = STANDARD.decode(stored["data"].as_str().unwrap()).unwrap();
    assert_eq!((&stored["encoding"], &stored["encoded_length"]), (&json!("gzip"), &json!(data.len())));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(data.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == gzipped);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_large_attachment_inline_takes_no_more_memory_than_a_small_one() {
    const LENGTH: usize = 128 << 20;
    const LIMIT_KIB: u64 = 100 << 10;
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path());
    let client = client();
    assert_eq!(client.put(server.url("/db")).send().await.unwrap().status(), 201);
    let pieces = futures::stream::repeat(Ok::<_, Infallible>(Bytes::from(vec![7; 1 << 20]))).take(LENGTH >> 20);
    let put = client.put(server.url("/db/doc/large.bin")).header("Content-Type", "application/octet-stream");
    assert_eq!(put.body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap().status(), 201);

    let answer = client.get(server.url("/db/doc?attachments=true")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut pieces = answer.bytes_stream();
    let mut length = 0;
    while let Some(piece) = pieces.next().await {
        length += piece.unwrap().len();
    }
    assert!(length > LENGTH / 3 * 4, "{length}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    let peak: u64 = peak.parse().unwrap();
    assert!(peak < LIMIT_KIB, "{peak} KiB");
}

#[tokio::test]
async fn an_upload_that_stands_still_is_ended() {
    let server = Server::with_config(|config| config.http.body_pause = Duration::from_millis(100)).await;
    server.database("db").await;
    let begun = || {
        let related = "--b\r\nContent-Type: application/json\r\n\r\n{\"_attachments\":{\"a\":{\"length\":9,\"follows\":true}}}\r\n\
                       --b\r\n\r\n12345";
        let first = futures::stream::once(async move { Ok::<_, Infallible>(Bytes::from(related)) });
        reqwest::Body::wrap_stream(first.chain(futures::stream::pending()))
    };
    for (path, content_type) in [
        ("/db/doc/a", "application/octet-stream"),
        ("/db/doc", "multipart/related; boundary=b"),
        ("/db/doc", "application/json"),
    ] {
        let put = request(&server, "PUT", path).header("Content-Type", content_type).body(begun());
        let answer = send(put).await;
        assert_eq!((answer.status, &answer.json()["error"]), (408, &json!("timeout")), "{path} {content_type}");
    }
    assert_eq!(get(&server, "/db/doc").await.status, 404);
}

/// A CouchDB gives `revpos` 0 to an attachment that was written without one (`new_edits:false`). couchrep took it for one
/// that whoever asks has already, and showed a stub: its data could be read by its own URL, and was never replicated on.
#[tokio::test]
async fn an_attachment_of_revpos_0_is_given_with_its_data() {
    let server = Server::start().await;
    for name in ["db", "copy"] {
        server.database(name).await;
    }
    let attachment = json!({ "content_type": "text/plain", "revpos": 0, "data": STANDARD.encode("hello") });
    let doc = json!({ "_id": "doc", "_rev": "1-a", "_attachments": { "a": attachment } });
    let written = server.post("/db/_bulk_docs", json!({ "docs": [doc], "new_edits": false }), 201).await;
    assert_eq!(written, json!([]));
    let doc = server.get("/db/doc?attachments=true", 200).await;
    assert_eq!(doc["_attachments"]["a"]["data"], json!(STANDARD.encode("hello")), "{doc}");
    let ask = json!({ "docs": [{ "id": "doc", "rev": "1-a" }] });
    let bulk = server.post("/db/_bulk_get?attachments=true", ask, 200).await;
    assert_eq!(bulk["results"][0]["docs"][0]["ok"], doc);
    let copied = server.replicate(json!({ "source": server.url("/db"), "target": server.url("/copy") })).await;
    assert_eq!(copied["history"][0]["docs_written"], 1, "{copied}");
    assert_eq!(server.leaves("copy").await, server.leaves("db").await);
}
