//! The feed, as a CouchDB 3.5.0 answered.

use futures::StreamExt;
use serde_json::json;

use crate::asking::{ask, get, request, send, with_db};
use crate::support::Server;

/// Puts a database and starts a longpoll on it, which has given its first sign of life.
async fn waiting(server: &Server, db: &'static str) -> impl futures::Stream<Item = String> + Unpin + use<> {
    server.put(&format!("/{db}"), json!({}), 201).await;
    let path = format!("/{db}/_changes?feed=longpoll&since=0&heartbeat=10");
    let pieces = request(server, "GET", &path).send().await.unwrap().bytes_stream();
    let mut pieces = pieces.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap());
    while pieces.next().await.unwrap() != "\n" {}
    pieces
}

async fn with_changes() -> Server {
    let server = with_db().await;
    let body = r#"{"new_edits":false,"docs":[
        {"_id":"doc2","_rev":"1-aaaa"},
        {"_id":"doc3","_rev":"2-cccc","_deleted":true,"_revisions":{"start":2,"ids":["cccc","c0c0"]}}]}"#;
    assert_eq!(ask(&server, "POST", "/db/_bulk_docs", body).await.status, 201);
    let conflict = r#"{"_rev":"1-bbbb"}"#;
    assert_eq!(ask(&server, "PUT", "/db/doc2?new_edits=false", conflict).await.status, 201);
    server
}

#[tokio::test]
async fn a_feed_tells_each_document_once_where_it_changed_last() {
    let server = with_changes().await;
    let expected = concat!(
        "{\"results\":[\n",
        "{\"seq\":2,\"id\":\"doc3\",\"changes\":[{\"rev\":\"2-cccc\"}],\"deleted\":true},\n",
        "{\"seq\":3,\"id\":\"doc2\",\"changes\":[{\"rev\":\"1-bbbb\"},{\"rev\":\"1-aaaa\"}]}\n",
        "],\n\"last_seq\":3,\"pending\":0}\n"
    );
    let answer = get(&server, "/db/_changes?feed=normal&style=all_docs&since=0&timeout=10000").await;
    assert_eq!((answer.status, answer.text()), (200, expected));
    let now = get(&server, "/db/_changes?since=now").await;
    assert_eq!(now.text(), "{\"results\":[\n\n],\n\"last_seq\":3,\"pending\":0}\n");
}

/// Every piece came from a fresh snapshot, and so a writer that moved more rows than a piece has kept the feed going for ever.
#[tokio::test]
async fn a_feed_that_is_read_once_ends_although_it_is_written_to_faster() {
    let server = Server::start().await;
    server.database("db").await.fill("doc", 3000).await;
    let mut feed = server.client().get(server.url("/db/_changes")).send().await.unwrap();
    let mut text = String::new();
    for round in 0..60 {
        let Some(piece) = feed.chunk().await.unwrap() else { break };
        text += std::str::from_utf8(&piece).unwrap();
        let moved = (0..2000).map(|n| json!({"_id": format!("doc{n:04}"), "_rev": format!("2-{round}")}));
        let edits = json!({"new_edits": false, "docs": moved.collect::<Vec<_>>()});
        server.post("/db/_bulk_docs", edits, 201).await;
    }
    let feed: serde_json::Value = serde_json::from_str(&text).expect("it ends");
    let ids: std::collections::HashSet<_> =
        feed["results"].as_array().unwrap().iter().map(|row| row["id"].as_str()).collect();
    assert_eq!((ids.len(), &feed["pending"]), (3000, &json!(0)));
}

#[tokio::test]
async fn pages_tell_what_is_pending() {
    let server = with_changes().await;
    let page = get(&server, "/db/_changes?limit=0").await.json();
    assert_eq!(
        (page["results"].as_array().unwrap().len(), &page["last_seq"], &page["pending"]),
        (1, &json!(2), &json!(1))
    );
    let rest = get(&server, "/db/_changes?since=2&include_docs=true").await.json();
    assert_eq!(rest["results"][0]["doc"], json!({ "_id": "doc2", "_rev": "1-bbbb" }));
    let newest = get(&server, "/db/_changes?descending=true&limit=1").await.json();
    assert_eq!(newest["results"][0]["id"], "doc2");
}

#[tokio::test]
async fn a_filter_counts_as_progress_even_where_it_lets_nothing_through() {
    let server = with_changes().await;
    let path = "/db/_changes?filter=_doc_ids";
    let some = ask(&server, "POST", path, r#"{"doc_ids":["doc3"]}"#).await.json();
    assert_eq!((some["results"].as_array().unwrap().len(), &some["last_seq"]), (1, &json!(3)));
    let none = ask(&server, "POST", path, r#"{"doc_ids":["doc9"]}"#).await.json();
    assert_eq!((none["results"].as_array().unwrap().len(), &none["last_seq"]), (0, &json!(3)));
}

#[tokio::test]
async fn a_longpoll_ends_with_the_first_change() {
    let server = with_changes().await;
    let waiting = get(&server, "/db/_changes?feed=longpoll&since=3&heartbeat=1000");
    let writing = ask(&server, "PUT", "/db/new", "{}");
    let (answer, _) = tokio::join!(waiting, writing);
    assert_eq!((&answer.json()["results"][0]["id"], &answer.json()["last_seq"]), (&json!("new"), &json!(4)));
    let idle = get(&server, "/db/_changes?feed=longpoll&since=4&timeout=1").await;
    assert_eq!(idle.text(), "{\"results\":[\n\n],\n\"last_seq\":4,\"pending\":0}\n");
}

/// Whoever was further in a database of the same name that was deleted waited until this one had as many changes, and never saw the first ones.
#[tokio::test]
async fn a_feed_after_a_place_beyond_its_end_begins_anew() {
    let server = with_changes().await;
    for feed in ["normal", "longpoll"] {
        let answer = get(&server, &format!("/db/_changes?feed={feed}&since=4")).await.json();
        assert_eq!((answer["results"].as_array().unwrap().len(), &answer["last_seq"]), (2, &json!(3)), "{feed}");
    }
}

#[tokio::test]
async fn a_continuous_feed_goes_on_with_signs_of_life() {
    let server = with_changes().await;
    let path = "/db/_changes?feed=continuous&since=3&heartbeat=20&limit=1";
    let mut lines = request(&server, "GET", path).send().await.unwrap().bytes_stream();
    assert_eq!(lines.next().await.unwrap().unwrap(), "\n");
    let rev = ask(&server, "PUT", "/db/new", "{}").await.rev();
    let mut text = String::new();
    while let Some(chunk) = lines.next().await {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    let row = format!("{{\"seq\":4,\"id\":\"new\",\"changes\":[{{\"rev\":\"{rev}\"}}]}}\n");
    assert_eq!(text.trim_start(), format!("{row}{{\"last_seq\":4,\"pending\":0}}\n"));
}

#[tokio::test]
async fn a_feed_that_waits_leaves_its_place_to_other_requests() {
    let server = Server::with_config(|config| config.http.max_requests = 1).await;
    let feeds = [waiting(&server, "a").await, waiting(&server, "b").await];
    for (db, feed) in ["a", "b"].into_iter().zip(feeds) {
        server.put(&format!("/{db}/doc"), json!({}), 201).await;
        let text: Vec<_> = feed.collect().await;
        assert!(text.concat().contains(r#""id":"doc""#), "{text:?}");
    }
}

#[tokio::test]
async fn a_feed_that_waits_needs_no_open_database() {
    let server = Server::with_config(|config| config.store.open_databases = 1).await;
    let feeds = [waiting(&server, "a").await, waiting(&server, "b").await];
    // Closes what nobody uses.
    server.put("/c", json!({}), 201).await;
    for (db, feed) in ["a", "b"].into_iter().zip(feeds) {
        server.put(&format!("/{db}/doc"), json!({}), 201).await;
        let text: Vec<_> = feed.collect().await;
        assert!(text.concat().contains(r#""id":"doc""#), "{text:?}");
    }
}

#[tokio::test]
async fn a_feed_that_waits_ends_when_its_database_is_deleted() {
    let server = Server::start().await;
    let feed = waiting(&server, "a").await;
    server.delete("/a", 200).await;
    server.put("/a", json!({}), 201).await;
    let text: Vec<_> = feed.collect().await;
    assert!(text.concat().ends_with("\n],\n\"last_seq\":0,\"pending\":0}\n"), "{text:?}");
}

#[tokio::test]
async fn a_descending_feed_longer_than_a_piece_shows_each_document_once() {
    let server = Server::start().await;
    server.database("db").await.fill("d", 1500).await;
    let feed = get(&server, "/db/_changes?descending=true&include_docs=true").await.json();
    let seqs = feed["results"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs, (1..=1500).rev().collect::<Vec<_>>());
    let limited = get(&server, "/db/_changes?descending=true&limit=2").await.json();
    assert_eq!((limited["results"].as_array().unwrap().len(), &limited["last_seq"]), (2, &json!(1499)));
}

/// Clients that take each line for a row stumbled over it. CouchDB 3.5.0 sends one where there is nothing to send yet.
#[tokio::test]
async fn a_continuous_feed_starts_with_its_rows() {
    let server = Server::start().await;
    server.database("db").await.fill("d", 2).await;
    let feed = get(&server, "/db/_changes?feed=continuous&timeout=50").await;
    let lines: Vec<_> = feed.text().split_inclusive('\n').collect();
    assert!(lines[0].starts_with("{\"seq\":1,") && lines[1].starts_with("{\"seq\":2,"), "{lines:?}");
    assert_eq!(lines[2..], ["{\"last_seq\":2,\"pending\":0}\n"]);
    let idle = get(&server, "/db/_changes?feed=continuous&timeout=50&since=now").await;
    assert_eq!(idle.text(), "\n{\"last_seq\":2,\"pending\":0}\n");
}

/// As CouchDB 3.5.0 sends them, but for the seqs.
#[tokio::test]
async fn events_come_one_by_one_and_a_browser_goes_on_where_it_was() {
    let server = with_changes().await;
    let body = "{\n \"text\": \"a\\nb\",\r\n \"n\": 1 }";
    assert_eq!(send(request(&server, "PUT", "/db/lines").body(body)).await.status, 201);
    let rev = get(&server, "/db/lines").await.json()["_rev"].as_str().unwrap().to_owned();
    let path = "/db/_changes?feed=eventsource&timeout=1";
    let answer = get(&server, path).await;
    assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("text/event-stream", "no-cache"));
    let expected = [
        "data: {\"seq\":2,\"id\":\"doc3\",\"changes\":[{\"rev\":\"2-cccc\"}],\"deleted\":true}\nid: 2\n\n",
        "data: {\"seq\":3,\"id\":\"doc2\",\"changes\":[{\"rev\":\"1-bbbb\"}]}\nid: 3\n\n",
        &format!("data: {{\"seq\":4,\"id\":\"lines\",\"changes\":[{{\"rev\":\"{rev}\"}}]}}\nid: 4\n\n"),
    ];
    assert_eq!(answer.text(), expected.concat());
    let resumed = send(request(&server, "GET", &format!("{path}&since=0")).header("Last-Event-ID", "3")).await;
    assert_eq!(resumed.text(), expected[2]);
    let nothing = send(request(&server, "GET", path).header("Last-Event-ID", "now")).await;
    assert_eq!(nothing.text(), "\n");
    let refused = send(request(&server, "GET", path).header("Last-Event-ID", "x")).await;
    assert_eq!(refused.status, 400);
    // A line end would end the event, or a continuous feed's row: the document stands on one line, whatever it came in.
    let events = get(&server, &format!("{path}&since=3&include_docs=true")).await;
    let row = events.text().strip_prefix("data: ").unwrap().strip_suffix("\nid: 4\n\n").unwrap();
    assert!(!row.contains(['\n', '\r']), "{row}");
    let row: serde_json::Value = serde_json::from_str(row).unwrap();
    assert_eq!((&row["doc"]["text"], &row["doc"]["n"]), (&json!("a\nb"), &json!(1)));
    let lines = get(&server, "/db/_changes?feed=continuous&timeout=1&since=3&include_docs=true").await;
    assert_eq!(lines.text().lines().count(), 2, "{}", lines.text());
}

#[tokio::test]
async fn events_have_a_heartbeat_of_their_own() {
    let server = with_changes().await;
    let path = "/db/_changes?feed=eventsource&since=now&heartbeat=5";
    let pieces = request(&server, "GET", path).send().await.unwrap().bytes_stream();
    let mut pieces = pieces.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap());
    let mut text = String::new();
    while !text.contains("event: heartbeat\ndata: \n\nevent: heartbeat\n") {
        text += &pieces.next().await.unwrap();
    }
}
