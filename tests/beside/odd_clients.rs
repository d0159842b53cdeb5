//! Clients that do what few do, and what CouchDB takes.

use std::time::Duration;

use serde_json::json;

use super::beside;
use super::raw::{RawCouchDb, Wire};
use crate::support::Server;

/// As `printf … | nc -N` does: it got nothing.
#[tokio::test]
async fn a_client_that_closes_its_half_after_its_request_gets_the_whole_answer() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    for (request, body) in [
        ("GET /db HTTP/1.1\r\nHost: x\r\n\r\n", ""),
        ("GET /db HTTP/1.0\r\n\r\n", ""),
        ("POST /db HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", "{}"),
        ("POST /db HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "0\r\n\r\n"),
    ] {
        let mut client = Wire::connect(server.addr()).await;
        client.send(request).await;
        client.end().await;
        let mut wire = couchdb.accept().await;
        wire.until(&format!("\r\n\r\n{}", if body == "{}" { body } else { "" })).await;
        if body.starts_with('0') {
            wire.until(body).await;
        }
        assert!(wire.is_silent().await, "it was given up: {request}");
        // More than any buffer holds, so that much of it isn't written when the last of it is read.
        let large = "x".repeat(20 << 20);
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{large}", large.len());
        let (answer, ()) = tokio::join!(client.rest(), wire.send(answer));
        assert!(answer.ends_with(&large), "{request}: {} bytes", answer.len());
    }
}

#[tokio::test]
async fn a_client_that_sends_requests_at_once_and_closes_its_half_gets_every_answer() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.end().await;
    let mut wire = couchdb.accept().await;
    for path in ["/first", "/second"] {
        assert!(wire.head().await.starts_with(&format!("GET {path} ")));
        // The end is found late, since nobody reads while a request waits.
        assert!(wire.is_silent_for(Duration::from_millis(1500)).await);
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
        client.until(path).await;
    }
    assert_eq!(client.rest().await, "", "it is closed when all is answered");
}

/// It holds for the embedded store's answers as well.
#[tokio::test]
async fn a_server_with_databases_of_its_own_answers_clients_that_have_closed_their_half() {
    let server = Server::start().await;
    server.put("/db", json!(null), 201).await;
    server.put("/db/doc", json!({ "text": "x".repeat(1 << 20) }), 201).await;
    for path in ["/db", "/db/doc", "/db/_changes?feed=longpoll&since=now&timeout=1500"] {
        let mut client = Wire::connect(server.addr()).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        client.end().await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("}"), "{path}: {answer}");
    }
}

/// hyper's own limit is 100.
#[tokio::test]
async fn hundreds_of_headers_pass_both_ways() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let headers: String = (0..900).map(|number| format!("X-{number}: {number}\r\n")).collect();
    let mut client = Wire::connect(server.addr()).await;
    client.send(format!("GET /db?key=\"a\" HTTP/1.1\r\n{headers}\r\nGET /db?key=\"b\" HTTP/1.1\r\n\r\n")).await;
    let mut wire = couchdb.accept().await;
    let head = wire.head().await;
    assert!(head.starts_with("GET /db?key=%22a%22 "), "{head}");
    assert_eq!(head.matches("\r\nX-").count(), 900);
    wire.send(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n")).await;
    assert_eq!(client.head().await.matches("\r\nX-").count(), 900);
    // Where the next one begins is known.
    assert!(wire.head().await.starts_with("GET /db?key=%22b%22 "));
}

#[tokio::test]
async fn a_client_of_http_1_0_may_keep_its_connection() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    let mut wire = None;
    for path in ["/first", "/second"] {
        client.send(format!("GET {path} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")).await;
        if wire.is_none() {
            wire = Some(couchdb.accept().await);
        }
        let wire = wire.as_mut().unwrap();
        assert!(wire.head().await.starts_with(&format!("GET {path} HTTP/1.1\r\n")));
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let head = client.until("\r\n\r\nok").await.to_lowercase();
        assert!(head.starts_with("http/1.0 200 ok\r\n") && head.contains("connection: keep-alive\r\n"), "{head}");
    }
}
