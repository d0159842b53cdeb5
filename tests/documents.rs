//! Documents, one at a time, as a CouchDB 3.5.0 answered.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::asking::{ask, get, request, send, with_db};
use crate::support::Server;

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
        ("/db/a", r#"{"a":"\ud800"}"#, "bad_request", "invalid UTF-8 JSON"),
        ("/db/a", r#"{"a":"\ud800\u0041"}"#, "bad_request", "invalid UTF-8 JSON"),
        ("/db/a", r#"{"\udc00":1}"#, "bad_request", "invalid UTF-8 JSON"),
        ("/db/a", r#"{"a":1e999}"#, "bad_request", "invalid UTF-8 JSON"),
        ("/db/a", r#"{"a":-1e999}"#, "bad_request", "invalid UTF-8 JSON"),
        ("/db/_local/a/b", "{}", "bad_request", "_local documents do not accept attachments."),
        ("/db/_local%2Fa/b", "{}", "bad_request", "_local documents do not accept attachments."),
        (
            "/db/a?new_edits=false",
            "{}",
            "bad_request",
            "When `new_edits: false`, the document needs `_rev` or `_revisions` specified",
        ),
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

/// CouchDB 3.5.0 takes a million levels; a document of more than 512 was refused, and stopped a replication. The revision
/// is CouchDB's.
#[tokio::test]
async fn deep_json_is_taken_and_travels_and_a_million_levels_are_refused() {
    let server = with_db().await;
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    for depth in [513, 2000, 10_000, 99_999] {
        let put = request(&server, "PUT", &format!("/db/deep{depth}")).header("Content-Type", "application/json");
        let put = send(put.body(nested(depth))).await;
        assert_eq!(put.status, 201, "{depth}: {}", put.text());
    }
    let tag = get(&server, "/db/deep10000").await.header("etag").to_owned();
    assert_eq!(tag, "\"1-6d2757793ff44526ed8b0230b870df0d\"");
    for (target, more) in
        [("near", json!({})), ("far", json!({})), ("chosen", json!({ "selector": { "a": { "$type": "array" } } }))]
    {
        server.database(target).await;
        let url = |name: &str| if target == "near" { name.to_owned() } else { server.url(&format!("/{name}")) };
        let mut job = json!({ "source": url("db"), "target": url(target) });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.replicate(job).await;
        for depth in [513, 2000, 10_000, 99_999] {
            let copy = get(&server, &format!("/{target}/deep{depth}")).await;
            assert!(copy.text() == get(&server, &format!("/db/deep{depth}")).await.text(), "{target} {depth}");
        }
    }
    for (method, path, text) in [
        ("PUT", "/db/hostile", nested(1_000_000)),
        ("PUT", "/db/hostile?new_edits=false", nested(1_000_000).replacen('{', "{\"_rev\":\"1-a\",", 1)),
        ("POST", "/db/_bulk_docs", format!("{{\"docs\":[{}]}}", nested(1_000_000))),
        ("POST", "/db/_bulk_docs", format!("{{\"docs\":{}}}", "[".repeat(1_000_000))),
        ("POST", "/db/_bulk_get", format!("{{\"docs\":{}}}", "[".repeat(1_000_000))),
        ("POST", "/db/_revs_diff", format!("{{\"a\":{}}}", "[".repeat(1_000_000))),
        ("POST", "/db/_all_docs", nested(1_000_000)),
        ("POST", "/db/_changes?filter=_selector", format!("{{\"selector\":{}}}", nested(1_000_000))),
        ("PUT", "/db/_local/hostile", nested(1_000_000)),
        ("POST", "/_replicate", nested(1_000_000)),
    ] {
        let answer = send(request(&server, method, path).header("Content-Type", "application/json").body(text)).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("bad_request")), "{method} {path}");
    }
    assert_eq!(get(&server, "/db").await.json()["doc_count"], 4);
}

/// A filter's function is given documents as QuickJS can take them.
#[tokio::test]
async fn deep_json_passes_a_function() {
    let server = with_db().await;
    let design = r#"{"filters":{"all":"function(doc) { return doc.n === 1; }"}}"#;
    assert_eq!(ask(&server, "PUT", "/db/_design/d", design).await.status, 201);
    let deep = format!("{{\"n\":1,\"a\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    let put = request(&server, "PUT", "/db/deep").header("Content-Type", "application/json").body(deep);
    assert_eq!(send(put).await.status, 201);
    let feed = get(&server, "/db/_changes?filter=d/all").await;
    assert_eq!(feed.json()["results"][0]["id"], "deep", "{}", feed.text());
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(data).unwrap();
    gzip.finish().unwrap()
}

/// couchbackup sends its restores so: they were "invalid UTF-8 JSON", and the copy stayed empty. The words are those of
/// CouchDB 3.5.0.
#[tokio::test]
async fn gzipped_bodies_are_unpacked_and_other_codings_refused() {
    let server = with_db().await;
    let ask = |method: &str, path: &str, coding: &str, body: Vec<u8>| {
        let request = request(&server, method, path).header("Content-Type", "application/json");
        send(request.header("Content-Encoding", coding.to_owned()).body(body))
    };
    let bulk = ask("POST", "/db/_bulk_docs", "gzip", gzip(br#"{"docs":[{"_id":"a","n":1}]}"#)).await;
    assert_eq!((bulk.status, &bulk.json()[0]["ok"]), (201, &json!(true)));
    assert_eq!(get(&server, "/db/a").await.json()["n"], 1);
    for (method, path, body, status) in [
        ("PUT", "/db/b", "{}", 201),
        ("POST", "/db", "{}", 201),
        ("PUT", "/db/_local/l", "{}", 201),
        ("POST", "/db/_all_docs", r#"{"keys":["a"]}"#, 200),
        ("POST", "/db/_revs_diff", r#"{"a":["1-a"]}"#, 200),
        ("POST", "/db/_bulk_get", r#"{"docs":[{"id":"a"}]}"#, 200),
        ("POST", "/db/_changes?filter=_doc_ids", r#"{"doc_ids":["a"]}"#, 200),
    ] {
        let answer = ask(method, path, "gzip", gzip(body.as_bytes())).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    let two = [gzip(b"{\"a\":"), gzip(b"1}")].concat();
    assert_eq!(ask("PUT", "/db/two", "gzip", two).await.status, 201);
    assert_eq!(ask("PUT", "/db/plain", "identity", b"{}".to_vec()).await.status, 201);
    for coding in ["deflate", "br", "x-gzip", "GZIP"] {
        let answer = ask("PUT", "/db/c", coding, b"{}".to_vec()).await;
        let reason = format!("{coding} is not a supported content encoding.");
        assert_eq!((answer.status, answer.json()), (415, json!({ "error": "bad_content_type", "reason": reason })));
    }
    let cut = gzip(b"{}");
    for body in [b"{}".to_vec(), cut[..cut.len() - 4].to_vec(), [cut.as_slice(), b"junk"].concat()] {
        let answer = ask("PUT", "/db/c", "gzip", body).await;
        let reason = "Request body is not properly gzipped.";
        assert_eq!((answer.status, answer.json()), (400, json!({ "error": "bad_request", "reason": reason })));
    }
}

/// What a body unpacks to counts, and no more of it is unpacked than fits.
#[tokio::test]
async fn a_gzipped_body_that_unpacks_to_too_much_is_refused() {
    let server = Server::with_config(|config| config.http.max_body_bytes = 1 << 20).await;
    server.database("db").await;
    let bomb = gzip(&[b"{\"a\":\"".to_vec(), vec![b'x'; 64 << 20], b"\"}".to_vec()].concat());
    assert!(bomb.len() < 1 << 17);
    let put = request(&server, "PUT", "/db/bomb").header("Content-Type", "application/json");
    let answer = send(put.header("Content-Encoding", "gzip").body(bomb)).await;
    assert_eq!((answer.status, &answer.json()["error"]), (413, &json!("too_large")));
    assert_eq!(ask(&server, "PUT", "/db/a", "{}").await.status, 201);
}

/// CouchDB 3.5.0 answers so; it was 201.
#[tokio::test]
async fn a_put_that_deletes_is_200() {
    let server = with_db().await;
    let rev = server.put("/db/a", json!({}), 201).await["rev"].clone();
    server.put("/db/a", json!({ "_rev": rev, "_deleted": true }), 200).await;
    server.put("/db/b?new_edits=false", json!({ "_rev": "1-a", "_deleted": true }), 200).await;
    server.put("/db/_local/l", json!({ "_deleted": true }), 200).await;
}

#[tokio::test]
async fn bodies_that_memory_has_no_room_for_are_refused_and_the_next_are_not() {
    let server = Server::with_config(|config| config.http.max_bodies_bytes = 20).await;
    server.database("db").await;
    let refused = ask(&server, "PUT", "/db/a", r#"{"text":"more than there is room for"}"#).await;
    assert_eq!((refused.status, &refused.json()["error"]), (503, &json!("service_unavailable")));
    assert_eq!(ask(&server, "PUT", "/db/a", r#"{"text":"x"}"#).await.status, 201);
}

/// What a replication's request is made into takes many times its length, and minutes where it held one long number.
#[tokio::test]
async fn a_replication_request_of_more_than_four_mebibytes_is_refused() {
    let server = with_db().await;
    for (length, status) in [(4 << 20, 400), ((4 << 20) + 1, 413)] {
        let post = request(&server, "POST", "/_replicate").header("Content-Type", "application/json");
        let answer = send(post.header("Content-Encoding", "gzip").body(gzip(&vec![b' '; length]))).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}

/// Taken apart on a thread that serves connections, each large document kept all other clients waiting.
#[tokio::test]
async fn large_documents_are_taken_apart_where_nobody_waits() {
    let server = with_db().await;
    let doc = format!(r#"{{"a":[0{}]}}"#, ",0".repeat(4 << 20));
    let started = Instant::now();
    couchrep::json::check(doc.as_bytes()).unwrap();
    let parsing = started.elapsed();
    let related = format!("--b\r\nContent-Type: application/json\r\n\r\n{doc}\r\n--b--");
    for (method, path, content_type, body) in [
        ("PUT", "/db/plain", "application/json", &doc),
        ("POST", "/db", "application/json", &doc),
        ("PUT", "/db/_local/l", "application/json", &doc),
        ("PUT", "/db/related", "multipart/related; boundary=b", &related),
    ] {
        let put = send(request(&server, method, path).header("Content-Type", content_type).body(body.clone()));
        tokio::pin!(put);
        // The server runs on this thread too: a wait that ends late is one of its connections' as well.
        let (mut longest, mut before) = (Duration::ZERO, Instant::now());
        let answer = loop {
            tokio::select! {
                answer = &mut put => break answer,
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
            longest = longest.max(before.elapsed());
            before = Instant::now();
        };
        assert_eq!(answer.status, 201, "{path}: {}", answer.text());
        assert!(longest < parsing / 2, "{method} {path}: {longest:?} of {parsing:?}");
    }
}
