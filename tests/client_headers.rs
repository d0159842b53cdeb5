//! What clients and the proxies before them say in headers and parameters, as CouchDB 3.5.0 understands it.

use serde_json::json;

use crate::asking::{ask, get, request, send, with_db};
use crate::support::{Process, client, json as asked};

#[tokio::test]
async fn a_post_becomes_the_method_that_it_names() {
    let server = with_db().await;
    let named = |method: &'static str, path: &str, meant: &'static str| {
        let headers =
            [("X-HTTP-Method-Override", meant), ("Content-Type", "application/json"), ("Destination", "copy")];
        let request = headers
            .into_iter()
            .fold(request(&server, method, path), |request, (name, value)| request.header(name, value));
        send(request.body(r#"{"z":1}"#))
    };
    let put = named("POST", "/db/doc", "PUT").await;
    assert_eq!(put.status, 201, "{}", put.text());
    for meant in ["GET", "HEAD"] {
        let read = named("POST", "/db/doc", meant).await;
        assert_eq!((read.status, &read.json()["z"]), (200, &json!(1)), "{meant}");
    }
    assert_eq!(named("POST", "/db/doc", "COPY").await.status, 201);
    assert_eq!(named("POST", "/db/doc", "DELETE").await.status, 409);
    assert_eq!(named("POST", &format!("/db/doc?rev={}", put.rev()), "DELETE").await.status, 200);
    let post = named("POST", "/db/doc", "put").await;
    assert_eq!(
        (post.status, &post.json()["reason"]),
        (400, &json!("Referer header required.")),
        "names are in capitals"
    );
    assert_eq!(named("PUT", "/db/other", "GET").await.status, 201, "only a POST is another request");
    assert_eq!(named("GET", "/db/other", "DELETE").await.status, 200);
}

/// Rights are those of the method that is meant.
#[tokio::test]
async fn a_stranger_gains_nothing_by_another_method() {
    let server = crate::support::Server::with_admin("root", "hunter2").await;
    let request = server.client().post(server.anonymous_url("/new")).header("X-HTTP-Method-Override", "PUT");
    assert_eq!(send(request).await.status, 401);
}

#[tokio::test]
async fn a_location_is_where_the_client_found_the_proxy() {
    let server = with_db().await;
    for (number, (headers, start)) in [
        (&[("X-Forwarded-Host", "example.org")][..], "http://example.org"),
        (&[("X-Forwarded-Host", "example.org:99"), ("X-Forwarded-Proto", "https")], "https://example.org:99"),
        (&[("Host", "nearby"), ("X-Forwarded-Ssl", "on")], "https://nearby"),
        (&[("Host", "nearby"), ("X-Forwarded-Ssl", "off"), ("X-Forwarded-Proto", "https")], "https://nearby"),
        (&[("Host", "nearby"), ("X-Forwarded-Proto", "ftp")], "http://nearby"),
        (&[("Host", "nearby"), ("X-Forwarded-Proto", "HTTPS")], "http://nearby"),
    ]
    .into_iter()
    .enumerate()
    {
        let put = request(&server, "PUT", &format!("/db/f{number}")).body("{}");
        let answer = send(headers.iter().fold(put, |put, (name, value)| put.header(*name, *value))).await;
        assert_eq!(answer.header("location"), format!("{start}/db/f{number}"));
    }
}

#[tokio::test]
async fn a_batch_is_accepted_whatever_becomes_of_it() {
    let server = with_db().await;
    for (method, path, body, id) in [
        ("PUT", "/db/b1?batch=ok", r#"{"x":1}"#, "b1"),
        ("PUT", "/db/b1?batch=ok", r#"{"x":2}"#, "b1"),
        ("POST", "/db?batch=ok", r#"{"_id":"b2"}"#, "b2"),
        ("PUT", "/db/_local/l?batch=ok", "{}", "_local/l"),
        ("POST", "/db?batch=ok", r#"{"_id":"_local/m"}"#, "_local/m"),
    ] {
        let answer = ask(&server, method, path, body).await;
        assert_eq!(
            (answer.status, answer.text()),
            (202, format!("{{\"ok\":true,\"id\":\"{id}\"}}\n").as_str()),
            "{path}"
        );
        assert_eq!((answer.header("location"), answer.header("etag")), ("", ""));
    }
    let doc = get(&server, "/db/b1").await.json();
    assert_eq!(doc["x"], 1, "the second was a conflict");
    assert_eq!(ask(&server, "PUT", "/db/b3?batch=ok", "{x").await.status, 400);
    assert_eq!(ask(&server, "PUT", "/db/b3?batch=false", "{}").await.status, 201);
    let rev = doc["_rev"].as_str().unwrap();
    assert_eq!(ask(&server, "DELETE", &format!("/db/b1?batch=ok&rev={rev}"), "").await.status, 200);
    let put = request(&server, "PUT", "/db/b4/a.png?batch=ok").header("Content-Type", "image/png").body("x");
    assert_eq!(send(put).await.status, 201);
}

#[tokio::test]
async fn a_shutdown_loses_no_batch() {
    let data_dir = tempfile::tempdir().unwrap();
    let mut process = Process::with_args(data_dir.path(), &["--sync-interval=1h"]);
    asked(&client(), reqwest::Method::PUT, process.url("/db"), None, 201).await;
    for number in 0..20 {
        let url = process.url(&format!("/db/doc{number}?batch=ok"));
        asked(&client(), reqwest::Method::PUT, url, Some(&json!({})), 202).await;
    }
    process.signal("TERM");
    assert_eq!(process.ended_within(std::time::Duration::from_secs(60)).code(), Some(0));
    let process = Process::start(data_dir.path());
    let info = asked(&client(), reqwest::Method::GET, process.url("/db"), None, 200).await;
    assert_eq!(info["doc_count"], 20);
}
