//! Connections that break, on either side.

use std::time::Duration;

use couchrep::config::couchdb::CouchDb;
use serde_json::json;
use tokio::net::TcpListener;

use super::beside;
use super::raw::{RawCouchDb, Wire};
use crate::support::Server;

#[tokio::test]
async fn a_client_that_hangs_up_ends_couchdbs_request_at_once() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    for answered in [false, true] {
        let mut client = Wire::connect(server.addr()).await;
        client.send("GET /db/_changes?feed=continuous HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut wire = couchdb.accept().await;
        wire.head().await;
        if answered {
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n").await;
            client.until("1\r\n\n\r\n").await;
        }
        // Within a second it might be one that closed its half, and waits for its answer.
        assert!(wire.is_silent_for(Duration::from_millis(1100)).await);
        drop(client);
        // The feed is silent, and yet it ends.
        assert_eq!(wire.rest().await, "", "answered: {answered}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_in_its_own_body_ends_couchdbs_request_too() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("PUT /db/doc HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc").await;
    let mut wire = couchdb.accept().await;
    wire.head().await;
    wire.until("abc").await;
    drop(client);
    assert_eq!(wire.rest().await, "");
}

/// Half an answer that ends well is taken for a whole one.
#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    for (head, body) in [("Transfer-Encoding: chunked", "3\r\nabc\r\n"), ("Content-Length: 10", "abc")] {
        let mut client = Wire::connect(server.addr()).await;
        client.send("GET /db HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let mut wire = couchdb.accept().await;
        wire.head().await;
        wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}")).await;
        client.until(body).await;
        drop(wire);
        assert_eq!(client.rest().await, "", "{head}");
    }
}

#[tokio::test]
async fn at_a_stop_a_feed_breaks_off_on_both_sides() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("GET /db/_changes?feed=continuous HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut wire = couchdb.accept().await;
    wire.head().await;
    wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n").await;
    client.until("1\r\n\n\r\n").await;
    server.stop().await;
    assert_eq!((client.rest().await.as_str(), wire.rest().await.as_str()), ("", ""));
}

/// Whoever sends one more request over a connection that was used before finds it closed.
async fn on_a_stale_connection(request: &str) -> (RawCouchDb, Wire, crate::support::Server) {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut wire = couchdb.accept().await;
    wire.head().await;
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.head().await;
    client.send(request).await;
    // It was written there, and CouchDB closes as if it had never seen it.
    wire.head().await;
    drop(wire);
    (couchdb, client, server)
}

#[tokio::test]
async fn a_get_that_a_stale_connection_swallowed_is_sent_again_once() {
    let (couchdb, mut client, _server) = on_a_stale_connection("GET /second HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut wire = couchdb.accept().await;
    assert!(wire.head().await.starts_with("GET /second "));
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    client.until("\r\n\r\nok").await;

    let (couchdb, mut client, _server) = on_a_stale_connection("GET /second HTTP/1.1\r\nHost: x\r\n\r\n").await;
    couchdb.accept().await.head().await;
    assert!(client.head().await.starts_with("HTTP/1.1 502 "), "it was sent a third time, or nobody was told");
}

#[tokio::test]
async fn what_may_have_been_carried_out_is_never_sent_again() {
    for request in [
        "POST /db HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        "PUT /db HTTP/1.1\r\nHost: x\r\n\r\n",
        "DELETE /db HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /db HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let (couchdb, mut client, _server) = on_a_stale_connection(request).await;
        assert!(client.head().await.starts_with("HTTP/1.1 502 "), "{request}");
        let next = tokio::time::timeout(Duration::from_millis(200), couchdb.accept()).await;
        assert!(next.is_err(), "it was sent again: {request}");
    }
}

#[tokio::test]
async fn a_couchdb_that_is_away_is_told_in_its_own_json() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let server = beside(&url).await;
    for path in ["/", "/db/doc", "/_up", "/_active_tasks"] {
        let told = server.get(path, 502).await;
        assert_eq!(told["error"], "bad_gateway", "{path}");
        assert!(told["reason"].as_str().unwrap().starts_with("CouchDB can't be reached: "), "{told}");
    }
    server.post("/_replicate", json!({ "source": "a", "target": "b" }), 502).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let head = client.rest().await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn whether_a_body_is_wanted_couchdb_says() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let request = "PUT /db/doc HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let mut client = Wire::connect(server.addr()).await;
    client.send(request).await;
    let mut wire = couchdb.accept().await;
    assert!(wire.head().await.to_lowercase().contains("\r\nexpect: 100-continue\r\n"));
    assert!(client.is_silent().await, "it was told to go on by somebody else");
    wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("abc").await;
    wire.until("abc").await;
    wire.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 201 "));

    let mut client = Wire::connect(server.addr()).await;
    client.send(request).await;
    // The connection of before is used again.
    wire.head().await;
    wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
    assert!(client.until("\r\n\r\nno").await.starts_with("HTTP/1.1 401 "));
    assert_eq!(wire.rest().await, "", "it waits for a body that doesn't come");
}

/// curl sends a large body though the answer is there already.
#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_sent_gets_through() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("PUT /db/doc HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc").await;
    let mut wire = couchdb.accept().await;
    wire.until("abc").await;
    wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
    assert!(client.until("\r\n\r\nno").await.starts_with("HTTP/1.1 413 "));
}

/// CouchDB says so to whoever may not write, and closes: the client was told that CouchDB broke off.
#[tokio::test]
async fn an_answer_gets_through_though_couchdb_closes_before_the_body_is_written() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    for body in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut client = Wire::connect(server.addr()).await;
        client.send(format!("PUT /db/doc HTTP/1.1\r\nHost: x\r\n{body}\r\n\r\n1\r\na\r\n")).await;
        let mut wire = couchdb.accept().await;
        wire.head().await;
        wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
        // What it was sent and hasn't read makes the system reset the connection.
        drop(wire);
        for _ in 0..20 {
            client.send("10000\r\n".to_owned() + &"x".repeat(0x10000) + "\r\n").await;
        }
        assert!(client.until("\r\n\r\nno").await.starts_with("HTTP/1.1 401 "), "{body}");
    }
}

/// Whoever starts both of them may start couchrep first.
#[tokio::test]
async fn a_couchdb_that_isnt_there_yet_is_waited_for() {
    let couchdb = RawCouchDb::start().await;
    let settings = CouchDb::parse(&couchdb.url()).unwrap();
    let starting = Server::with_config(|config| config.couchdb = Some(settings));
    let welcome = r#"{"couchdb":"Welcome","uuid":"0123456789abcdef0123456789abcdef"}"#;
    let appearing = async {
        // The first question is sent twice, since it may be sent again.
        for _ in 0..2 {
            couchdb.accept().await.head().await;
        }
        let mut wire = couchdb.accept().await;
        assert!(wire.head().await.starts_with("GET / HTTP/1.1\r\n"));
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{welcome}", welcome.len())).await;
        wire
    };
    let (_server, _wire) = tokio::join!(starting, appearing);
}
