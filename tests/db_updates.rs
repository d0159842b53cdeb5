//! What happens to databases, as `_db_updates` of a CouchDB 3.5.0 tells it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::asking::{Answer, ask, get, request, send};
use crate::support::Server;

/// Databases `a` (with a document) and `b`.
async fn with_two() -> Server {
    let server = Server::start().await;
    for path in ["/a", "/b", "/a/doc"] {
        server.put(path, json!({}), 201).await;
    }
    server
}

/// The life that the server's seqs carry.
async fn life(server: &Server) -> String {
    let last_seq = get(server, "/_db_updates?since=now").await.json()["last_seq"].clone();
    last_seq.as_str().unwrap().split_once('-').unwrap().1.to_owned()
}

async fn text(server: &Server, query: &str) -> String {
    let answer = get(server, &format!("/_db_updates?{query}")).await;
    assert_eq!(answer.status, 200, "{query}");
    answer.text().replace(&life(server).await, "L")
}

/// A row of the event of this number after the first, which is that `_replicator` was made at the start.
fn row(name: &str, event: &str, number: u64) -> String {
    format!("{{\"db_name\":\"{name}\",\"type\":\"{event}\",\"seq\":\"{}-L\"}}", number + 1)
}

fn rows(answer: &Value) -> Vec<(&str, &str)> {
    let rows = answer["results"].as_array().unwrap();
    rows.iter().map(|row| (row["db_name"].as_str().unwrap(), row["type"].as_str().unwrap())).collect()
}

/// A feed that goes on, in pieces of text.
async fn open(server: &Server, query: &str) -> impl futures::Stream<Item = String> + Unpin + use<> {
    let feed = request(server, "GET", &format!("/_db_updates?{query}")).send().await.unwrap();
    assert_eq!(feed.status(), 200, "{query}");
    feed.bytes_stream().map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn each_database_s_newest_events_are_told_in_their_order() {
    let server = with_two().await;
    let read = |rows: &[String], last: u64| {
        format!("{{\"results\":[\n{}\n],\n\"last_seq\":\"{}-L\"}}\n", rows.join(",\n"), last + 1)
    };
    let own = row("_replicator", "created", 0);
    let (a, b, doc) = (row("a", "created", 1), row("b", "created", 2), row("a", "updated", 3));
    assert_eq!(text(&server, "").await, read(&[own.clone(), a.clone(), b.clone(), doc.clone()], 3));
    assert_eq!(text(&server, "limit=3").await, read(&[own.clone(), a.clone(), b.clone()], 2));
    assert_eq!(text(&server, "limit=1").await, read(std::slice::from_ref(&own), 0));
    assert_eq!(text(&server, "since=now").await, read(&[], 3));
    assert_eq!(text(&server, "descending=true&limit=2").await, read(&[doc.clone(), b.clone()], 3));
    let since = format!("since=3-{}", life(&server).await);
    assert_eq!(text(&server, &since).await, read(&[doc], 3));

    for number in 0..200 {
        server.put(&format!("/b/{number}"), json!({}), 201).await;
    }
    let newest = get(&server, &format!("/_db_updates?{since}")).await.json();
    assert_eq!(rows(&newest), [("a", "updated"), ("b", "updated")]);
    server.delete("/a", 200).await;
    let (updated, deleted) = (row("b", "updated", 203), row("a", "deleted", 204));
    assert_eq!(text(&server, "").await, read(&[own.clone(), b.clone(), updated.clone(), deleted], 204));
    server.put("/a", json!({}), 201).await;
    assert_eq!(text(&server, "").await, read(&[own, b, updated, row("a", "created", 205)], 205));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_as_by_couchdb() {
    let server = with_two().await;
    for query in ["since=x", "since=5", "limit=-1", "feed=x", "timeout=x", "heartbeat=x", "descending=1"] {
        let answer = get(&server, &format!("/_db_updates?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    let malformed = json!({ "error": "bad_request", "reason": "Malformed sequence supplied in 'since' parameter." });
    assert_eq!(get(&server, "/_db_updates?since=x").await.json(), malformed);
    assert_eq!(ask(&server, "POST", "/_db_updates", "{}").await.status, 405);
    assert_eq!(send(request(&server, "HEAD", "/_db_updates")).await.status, 200);
}

#[tokio::test]
async fn a_longpoll_waits_for_the_next_event() {
    let server = with_two().await;
    assert_eq!(rows(&get(&server, "/_db_updates?feed=longpoll").await.json()).len(), 4);
    let nothing = get(&server, "/_db_updates?feed=longpoll&since=now&timeout=1").await.json();
    assert_eq!((rows(&nothing).len(), nothing["last_seq"].as_str().unwrap().split_once('-').unwrap().0), (0, "4"));
    let mut feed = open(&server, "feed=longpoll&since=now&heartbeat=10").await;
    while feed.next().await.unwrap() != "\n" {}
    server.put("/b/doc", json!({}), 201).await;
    let text: Vec<_> = feed.collect().await;
    assert!(text.concat().contains(r#"{"db_name":"b","type":"updated""#), "{text:?}");
}

#[tokio::test]
async fn a_continuous_feed_tells_a_row_a_line_until_its_limit_or_its_timeout() {
    let server = with_two().await;
    let own = row("_replicator", "created", 0);
    let lines = [own.clone(), row("a", "created", 1), row("b", "created", 2), row("a", "updated", 3)].join("\n");
    let ended = text(&server, "feed=continuous&timeout=1").await;
    assert_eq!(ended, format!("{lines}\n{{\"last_seq\":\"4-L\"}}\n"));
    let limited = text(&server, "feed=continuous&limit=1&heartbeat=true").await;
    assert_eq!(limited, format!("{own}\n{{\"last_seq\":\"1-L\"}}\n"));
    let mut feed = open(&server, "feed=continuous&since=now&heartbeat=10&limit=2").await;
    // A sign that it has begun.
    assert!(feed.next().await.unwrap().starts_with('\n'));
    server.put("/c", json!({}), 201).await;
    let mut text = String::new();
    while !text.contains("created") {
        text += &feed.next().await.unwrap();
    }
    server.delete("/c", 200).await;
    text += &feed.collect::<Vec<_>>().await.concat();
    let text = text.replace(&life(&server).await, "L");
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0] == row("c", "created", 4) && lines[1] == row("c", "deleted", 5), "{text}");
    assert_eq!(lines[2], "{\"last_seq\":\"6-L\"}");
}

#[tokio::test]
async fn a_browser_follows_events_and_goes_on_where_they_broke_off() {
    let server = with_two().await;
    let path = "/_db_updates?feed=eventsource&timeout=1";
    let answer = get(&server, path).await;
    assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("text/event-stream", "no-cache"));
    let life = life(&server).await;
    let event = |row: String, number: u64| format!("data: {row}\nid: {}-L\n\n", number + 1);
    let own = event(row("_replicator", "created", 0), 0);
    let last = event(row("a", "updated", 3), 3);
    let expected = [own, event(row("a", "created", 1), 1), event(row("b", "created", 2), 2), last.clone()].concat();
    assert_eq!(answer.text().replace(&life, "L"), expected);
    let resumed = request(&server, "GET", path).header("Last-Event-ID", format!("3-{life}"));
    assert_eq!(send(resumed).await.text().replace(&life, "L"), last);
    let mut feed = open(&server, "feed=eventsource&since=now&heartbeat=5").await;
    let mut text = String::new();
    while !text.contains("event: heartbeat\ndata: \n\nevent: heartbeat\n") {
        text += &feed.next().await.unwrap();
    }
}

/// A reader whose seq was told before a restart misses nothing: he is told everything that is there.
#[tokio::test]
async fn a_feed_ends_with_its_server_and_after_a_restart_everything_is_told_anew() {
    let server = with_two().await;
    let feed = open(&server, "feed=continuous&heartbeat=true").await;
    let (server, text) = tokio::join!(server.restart(), feed.collect::<Vec<_>>());
    let last = text.concat().lines().last().unwrap().to_owned();
    let last_seq = serde_json::from_str::<Value>(&last).unwrap()["last_seq"].as_str().unwrap().to_owned();
    assert!(last_seq.starts_with("4-"), "{last}");
    let all = get(&server, &format!("/_db_updates?feed=longpoll&since={last_seq}")).await.json();
    assert_eq!(rows(&all), [("_replicator", "created"), ("a", "created"), ("b", "created")]);
    let next = format!("/_db_updates?feed=longpoll&timeout=1&since={}", all["last_seq"].as_str().unwrap());
    assert_eq!(rows(&get(&server, &next).await.json()), []);
}

#[tokio::test]
async fn the_feed_is_for_server_admins() {
    let server = Server::with_admin("root", "secret").await;
    let stranger = send(server.client().get(server.anonymous_url("/_db_updates"))).await;
    let reason = json!({ "error": "unauthorized", "reason": "You are not a server admin." });
    assert_eq!((stranger.status, stranger.json()), (401, reason));
    assert_eq!(rows(&get(&server, "/_db_updates").await.json()), [("_users", "created"), ("_replicator", "created")]);
}

#[tokio::test]
async fn feeds_that_wait_leave_their_places_to_other_requests() {
    let server = Server::with_config(|config| config.http.max_requests = 1).await;
    let mut feeds = Vec::new();
    for _ in 0..3 {
        let mut feed = open(&server, "feed=longpoll&since=now&heartbeat=10").await;
        while feed.next().await.unwrap() != "\n" {}
        feeds.push(feed);
    }
    server.put("/a", json!({}), 201).await;
    for feed in feeds {
        assert!(feed.collect::<Vec<_>>().await.concat().contains(r#""db_name":"a""#));
    }
}

/// Whoever looks at a database whenever its event comes, and reads on from each `last_seq`, ends with what is there,
/// however fast others write, and whatever pages he reads.
#[tokio::test]
async fn a_reader_who_reads_on_misses_nothing_while_others_write() {
    for seed in 0..4 {
        let server = Server::start().await;
        let written = AtomicBool::new(false);
        let writers = async {
            join_all((0..4).map(|writer| write_at_random(&server, seed, writer))).await;
            written.store(true, Ordering::Release);
            // Wakes the reader if he waits.
            server.put("/last", json!({}), 201).await;
        };
        let (known, ()) = tokio::join!(read_on(&server, seed, &written), writers);
        let mut there = BTreeMap::new();
        for name in get(&server, "/_all_dbs").await.json().as_array().unwrap() {
            let name = name.as_str().unwrap();
            there.insert(name.to_owned(), update_seq(&server, name).await.unwrap());
        }
        assert_eq!(known, there, "seed {seed}");
    }
}

async fn write_at_random(server: &Server, seed: u64, writer: u64) {
    let mut random = StdRng::seed_from_u64(seed << 8 | writer);
    let mut there = [false; 3];
    for step in 0..60 {
        let database = random.random_range(0..there.len());
        let path = format!("/db{writer}{database}");
        match (there[database], random.random_range(0..8)) {
            (false, _) => drop(server.put(&path, json!({}), 201).await),
            (true, 0) => drop(server.delete(&path, 200).await),
            (true, _) => {
                server.put(&format!("{path}/{step}"), json!({}), 201).await;
                continue;
            }
        }
        there[database] = !there[database];
    }
}

/// What a reader knows of each database when nobody writes any more: its update seq.
async fn read_on(server: &Server, seed: u64, written: &AtomicBool) -> BTreeMap<String, u64> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut known, mut since) = (BTreeMap::new(), "0".to_owned());
    loop {
        let was_written = written.load(Ordering::Acquire);
        let feed = match was_written {
            true => "normal",
            false => ["longpoll", "normal", "continuous&timeout=5"][random.random_range(0..3)],
        };
        let limit = random.random_range(1..9);
        let answer: Answer = get(server, &format!("/_db_updates?feed={feed}&limit={limit}&since={since}")).await;
        let text = answer.text().replace("{\"results\":[", "").replace("],\n\"last_seq\"", "\n{\"last_seq\"");
        let lines = text.lines().map(|line| line.trim_end_matches(',')).filter(|line| !line.is_empty());
        let mut count = 0;
        for line in lines.map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            if let Some(last_seq) = line["last_seq"].as_str() {
                since = last_seq.to_owned();
                continue;
            }
            count += 1;
            let name = line["db_name"].as_str().unwrap();
            match update_seq(server, name).await {
                Some(seq) if line["type"] != "deleted" => drop(known.insert(name.to_owned(), seq)),
                _ => drop(known.remove(name)),
            }
        }
        if was_written && count == 0 && known.contains_key("last") {
            return known;
        }
    }
}

async fn update_seq(server: &Server, name: &str) -> Option<u64> {
    let answer = get(server, &format!("/{name}")).await;
    (answer.status == 200).then(|| answer.json()["update_seq"].as_u64().unwrap())
}
