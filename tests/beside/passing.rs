//! What passes through is what was sent.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::beside;
use super::raw::{RawCouchDb, Wire, lines};
use crate::support::{Server, client};

/// A request is sent, answered, and what came of it at either end is told.
async fn exchange(request: &str, answer: &str) -> (String, String) {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send(request.replace("{here}", &server.addr().to_string())).await;
    let mut wire = couchdb.accept().await;
    let sent = wire.head().await;
    wire.send(answer).await;
    drop(wire);
    let got = client.rest().await;
    let told = |text: String| {
        text.replace(&server.addr().to_string(), "{here}").replace(&couchdb.addr().to_string(), "{there}")
    };
    (told(sent), told(got))
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test]
async fn a_request_arrives_byte_for_byte_but_for_what_concerns_its_connection() {
    let target = "/a%2Fb//c+d/_design/x/_view/%C3%A9?key=%22a%22&q=a+b&x=[{}]|^~!$'()*,;:@";
    let request = format!(
        "COPY {target} HTTP/1.1\r\nHost: {{here}}\r\nDestination: b\r\nX-MiXed: 1\r\nx-two: 1\r\nX-Two: 2\r\n\
         Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\nUpgrade: h2c\r\nAccept-Encoding: gzip\r\n\r\n"
    );
    let (sent, _) = exchange(&request, NO_CONTENT).await;
    let expected = [
        &format!("COPY {target} HTTP/1.1"),
        "Accept-Encoding: gzip",
        "Destination: b",
        "Host: {there}",
        "X-MiXed: 1",
        "X-Two: 2",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: {here}",
        "x-forwarded-proto: http",
        "x-two: 1",
    ];
    assert_eq!(lines(&sent), expected);
}

#[tokio::test]
async fn what_people_type_arrives_encoded_as_couchdb_reads_it() {
    let (sent, _) = exchange("GET /db/_all_docs?key=\"<a>`\" HTTP/1.1\r\nConnection: close\r\n\r\n", NO_CONTENT).await;
    assert_eq!(lines(&sent)[0], "GET /db/_all_docs?key=%22%3Ca%3E%60%22 HTTP/1.1");
}

#[tokio::test]
async fn an_answer_arrives_byte_for_byte_but_for_what_concerns_its_connection() {
    let answer = "HTTP/1.1 201 Made It\r\nX-CouchDB-Body-Time: 0\r\nset-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: CouchDB/3.5.0\r\n\
                  Date: Fri, 27 Nov 2026 00:50:05 GMT\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\nConnection: close, X-Mine\r\n\
                  X-Mine: 1\r\nKeep-Alive: 5\r\n\r\nabcd";
    let (_, got) = exchange("GET /db HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", answer).await;
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    let expected = [
        "HTTP/1.1 201 Made It",
        "Connection: close",
        "Content-Encoding: gzip",
        "Content-Length: 4",
        "Date: Fri, 27 Nov 2026 00:50:05 GMT",
        "Server: CouchDB/3.5.0",
        "Set-Cookie: b=2",
        "X-CouchDB-Body-Time: 0",
        "set-Cookie: a=1",
    ];
    assert_eq!((lines(head), body), (expected.map(str::to_owned).to_vec(), "abcd"));
}

#[tokio::test]
async fn answers_without_a_body_tell_the_length_that_couchdb_tells_or_none() {
    let head = |status: &str, headers: &str| format!("HTTP/1.1 {status}\r\nDate: x\r\n{headers}\r\n");
    for (method, status, headers, expected) in [
        ("HEAD", "200 OK", "Content-Length: 12345\r\n", &["Content-Length: 12345"][..]),
        ("HEAD", "200 OK", "Transfer-Encoding: chunked\r\n", &[]),
        ("GET", "304 Not Modified", "ETag: \"1-a\"\r\n", &["ETag: \"1-a\""]),
        ("GET", "304 Not Modified", "Content-Length: 0\r\n", &["Content-Length: 0"]),
        ("HEAD", "200 OK", "Content-Length: 0\r\n", &["Content-Length: 0"]),
        ("PUT", "204 No Content", "", &[]),
        ("GET", "200 OK", "Content-Length: 0\r\n", &["Content-Length: 0"]),
    ] {
        let request = format!("{method} /db/doc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (_, got) = exchange(&request, &head(status, headers)).await;
        let mut found = lines(&got);
        found.retain(|line| !line.starts_with("Date") && !line.to_lowercase().starts_with("connection"));
        assert_eq!(found[0], format!("HTTP/1.1 {status}"));
        assert_eq!(found[1..], *expected, "{method} {status} {headers}");
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_an_answer_without_chunks() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (sent, got) = exchange("GET /db HTTP/1.0\r\n\r\n", chunked).await;
    assert_eq!(lines(&sent)[0], "GET /db HTTP/1.1");
    assert!(got.starts_with("HTTP/1.0 200 OK\r\n") && got.ends_with("\r\n\r\nabc"), "{got}");
    let closed = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc";
    let (_, got) = exchange("GET /db HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", closed).await;
    assert!(got.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{got}");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client
        .send("PUT /db/doc HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n")
        .await;
    let mut wire = couchdb.accept().await;
    let head = wire.head().await.to_lowercase();
    assert!(head.contains("\r\nte: trailers\r\n") && head.contains("\r\ntrailer: x-sum\r\n"), "{head}");
    let body = wire.until("\r\n\r\n").await.to_lowercase();
    assert_eq!(body, "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
    wire.send(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\nX-Sum: 8\r\n\r\n",
    )
    .await;
    assert!(client.head().await.to_lowercase().contains("\r\ntrailer: x-sum\r\n"));
    assert_eq!(client.until("\r\n\r\n").await.to_lowercase(), "2\r\nde\r\n0\r\nx-sum: 8\r\n\r\n");
}

/// A feed is of no use if its rows come in lots.
#[tokio::test]
async fn each_piece_of_a_feed_comes_when_it_is_sent() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("GET /db/_changes?feed=continuous HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut wire = couchdb.accept().await;
    wire.head().await;
    wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await;
    for row in ["{\"seq\":1}\n", "\n", "{\"seq\":2}\n"] {
        wire.send(format!("{:x}\r\n{row}\r\n", row.len())).await;
        client.until(&format!("{row}\r\n")).await;
    }
    wire.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    // Both connections serve the next one.
    client.send("GET /db HTTP/1.1\r\nHost: x\r\n\r\n").await;
    wire.head().await;
}

#[tokio::test]
async fn requests_that_are_sent_at_once_are_answered_one_after_the_other() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut wire = couchdb.accept().await;
    for path in ["/first", "/second"] {
        assert!(wire.head().await.starts_with(&format!("GET {path} ")));
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
        client.until(path).await;
    }
}

#[tokio::test]
async fn a_couchdb_below_another_servers_path_is_asked_there() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&format!("{}/couch/", couchdb.url())).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("GET /a%2Fb?x=1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(couchdb.accept().await.head().await.starts_with("GET /couch/a%2Fb?x=1 HTTP/1.1\r\n"));
}

/// What stands before both CouchDB and something else takes dots for the directory above.
#[tokio::test]
async fn no_path_leads_out_of_the_one_that_couchdb_is_below() {
    let couchdb = RawCouchDb::start().await;
    let server = beside(&format!("{}/couch/", couchdb.url())).await;
    let mut client = Wire::connect(server.addr()).await;
    for path in ["/../admin", "/db/..", "/./x?y", "/a/.%2E/%2e%2E/admin", "/a%2F..%2f..%2Fadmin"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{path} {head}");
        client.until("}\n").await;
    }
    client.send("POST /db/..a/.../x?q=/../ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(couchdb.accept().await.head().await.starts_with("POST /couch/db/..a/.../x?q=/../ HTTP/1.1\r\n"));
    // As it came, where there is nothing else.
    let server = beside(&couchdb.url()).await;
    let mut client = Wire::connect(server.addr()).await;
    client.send("GET /db/../x HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(couchdb.accept().await.head().await.starts_with("GET /db/../x HTTP/1.1\r\n"));
}

/// Ours would answer 413 and 503.
#[tokio::test]
async fn no_limit_of_ours_meets_what_passes_through() {
    let couchdb = Server::start().await;
    let url = couchdb.url("");
    let server = Server::with_config(|config| {
        config.couchdb = Some(couchrep::config::couchdb::CouchDb::parse(&url).unwrap());
        config.http.max_body_bytes = 100;
        config.http.max_bodies_bytes = 100;
        config.http.max_requests = 1;
        config.http.max_slow_readers = 1;
    })
    .await;
    server.put("/db", json!(null), 201).await;
    server.put("/db/doc", json!({ "text": "x".repeat(1000) }), 201).await;
    let feed = || client().get(server.url("/db/_changes?feed=continuous&since=now&heartbeat=1000")).send();
    let (first, second) = (feed().await.unwrap(), feed().await.unwrap());
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(server.get("/db", 200).await["doc_count"], 1);
}

#[tokio::test]
async fn a_couchdb_is_seen_through_it_whole() {
    let couchdb = Server::start().await;
    let server = Server::with_config(|config| {
        config.couchdb = Some(couchrep::config::couchdb::CouchDb::parse(&couchdb.url("")).unwrap());
    })
    .await;
    assert_eq!(server.get("/", 200).await, couchdb.get("/", 200).await);
    server.put("/db", json!(null), 201).await;
    server.put("/db/doc", json!({ "a": 1 }), 201).await;
    let answer = client().put(server.url("/db/doc2")).body("{}").header("content-type", "application/json").send();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["location"].to_str().unwrap(), server.url("/db/doc2"));
    let copied =
        client().request(Method::from_bytes(b"COPY").unwrap(), server.url("/db/doc")).header("destination", "copy");
    assert_eq!(copied.send().await.unwrap().status(), StatusCode::CREATED);
    let part = client().put(server.url("/db/att/a.txt")).body("0123456789").header("content-type", "image/png").send();
    assert_eq!(part.await.unwrap().status(), StatusCode::CREATED);
    let part = client().get(server.url("/db/att/a.txt")).header("range", "bytes=2-4").send().await.unwrap();
    assert_eq!((part.status(), part.text().await.unwrap().as_str()), (StatusCode::PARTIAL_CONTENT, "234"));
    assert_eq!(server.get("/_up", 200).await["status"], "ok");
    assert_eq!(server.get("/_all_dbs", 200).await, couchdb.get("/_all_dbs", 200).await);
    server.get("/_scheduler/docs", 200).await;
}
