//! Filters of local databases: design documents' functions in the feed and in replications.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::Server;

/// A server with `src` (five documents, a conflict, a deletion, filters) and `tgt`.
async fn with_filters() -> Server {
    let server = Server::start().await;
    server.put("/src", json!({}), 201).await;
    server.put("/tgt", json!({}), 201).await;
    let design = json!({
        "_id": "_design/d",
        "filters": {
            "min": "function (doc, req) { return doc.n >= req.query.min }",
            "deleted": "function (doc) { return doc._deleted }",
            "left": "function (doc) { return doc.side == 'left' }",
            "req": "function (doc, req) { throw {forbidden: toJSON(req)} }",
            "lib": "function (doc) { return require('lib/even')(doc.n) }",
            "late": "function (doc) { if (doc.n == 3) throw {forbidden: 'no threes'}; return true }",
            "forever": "function () { for (;;) {} }",
            "bad": "function (",
        },
        "views": { "odd": { "map": "function (doc) { if (doc.n % 2) emit(doc.n) }" } },
        "lib": { "even": "module.exports = function (n) { return n % 2 == 0 }" },
    });
    let docs: Vec<Value> = (0..5).map(|n| json!({ "_id": format!("doc{n}"), "n": n })).collect();
    let conflict = |side, rev| json!({ "_id": "both", "_rev": rev, "side": side });
    let gone = json!({ "_id": "gone", "_rev": "1-aa", "_deleted": true });
    let revisions = [conflict("left", "1-aaaa"), conflict("right", "1-bbbb"), gone];
    server.post("/src/_bulk_docs", json!({ "docs": docs }), 201).await;
    server.post("/src/_bulk_docs", json!({ "docs": revisions, "new_edits": false }), 201).await;
    server.put("/src/_design/d", design, 201).await;
    server
}

async fn passing(server: &Server, query: &str) -> Vec<String> {
    let feed = server.get(&format!("/src/_changes?{query}"), 200).await;
    ids(&feed)
}

fn ids(feed: &Value) -> Vec<String> {
    feed["results"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_feed_shows_what_its_filter_lets_through() {
    let server = with_filters().await;
    assert_eq!(passing(&server, "filter=d/min&min=3").await, ["doc3", "doc4"]);
    assert_eq!(passing(&server, "filter=d/min&min=3&descending=true").await, ["doc4", "doc3"]);
    assert_eq!(passing(&server, "filter=d/deleted").await, ["gone"]);
    assert_eq!(passing(&server, "filter=d/lib").await, ["doc0", "doc2", "doc4"]);
    assert_eq!(passing(&server, "filter=_view&view=d/odd").await, ["doc1", "doc3"]);
    assert_eq!(passing(&server, "filter=_design").await, ["_design/d"]);
    let posted = server.post("/src/_changes?filter=d/min&min=4", json!({}), 200).await;
    assert_eq!((ids(&posted), &posted["last_seq"], &posted["pending"]), (vec!["doc4".into()], &json!(9), &json!(0)));
}

#[tokio::test]
async fn only_leaves_that_pass_are_shown() {
    let server = with_filters().await;
    let left = server.get("/src/_changes?filter=d/left&style=all_docs", 200).await;
    assert_eq!(left["results"][0]["changes"], json!([{ "rev": "1-aaaa" }]));
    // The winner alone is asked about where it alone would be shown.
    assert!(passing(&server, "filter=d/left").await.is_empty());
}

#[tokio::test]
async fn a_filter_sees_the_request_without_its_credentials() {
    let server = Server::with_admin("admin", "se-cret").await;
    server.put("/src", json!({}), 201).await;
    server
        .put(
            "/src/_design/d",
            json!({ "filters": { "req": "function (d, req) { throw {forbidden: toJSON(req)} }" } }),
            201,
        )
        .await;
    let answer = server.get("/src/_changes?filter=d/req&a=b%20c", 403).await;
    let req: Value = serde_json::from_str(answer["reason"].as_str().unwrap()).unwrap();
    assert_eq!(req["query"], json!({ "filter": "d/req", "a": "b c" }));
    assert_eq!(req["userCtx"], json!({ "db": "src", "name": "admin", "roles": ["_admin"] }));
    assert_eq!((&req["method"], &req["path"], &req["id"]), (&json!("GET"), &json!(["src", "_changes"]), &Value::Null));
    assert_eq!(
        (&req["peer"], &req["info"]["db_name"], &req["secObj"]),
        (&json!("127.0.0.1"), &json!("src"), &json!({}))
    );
    assert_eq!(req["headers"]["accept"], "application/json");
    assert_eq!(req["headers"].get("authorization"), None);
}

#[tokio::test]
async fn filters_that_cant_be_used_are_answered_as_couchdb_does() {
    let server = with_filters().await;
    let expected = [
        ("filter=nosuch/f", 404, "not_found", "missing"),
        ("filter=d/nosuch", 404, "not_found", "missing json key: nosuch"),
        ("filter=_view&view=d/nosuch", 404, "not_found", "missing json key: nosuch"),
        ("filter=_nosuch", 400, "bad_request", "unknown builtin filter name"),
        ("filter=d/late", 403, "forbidden", "no threes"),
        ("filter=d/forever", 500, "os_process_error", "OS process timed out."),
    ];
    for (query, status, error, reason) in expected {
        let answer = server.get(&format!("/src/_changes?{query}"), status).await;
        assert_eq!(answer, json!({ "error": error, "reason": reason }), "{query}");
    }
    assert_eq!(server.get("/src/_changes?filter=d/bad", 500).await["error"], "compilation_error");
    assert_eq!(passing(&server, "filter=d/min&min=3").await, ["doc3", "doc4"]);
}

#[tokio::test]
async fn a_filter_that_fails_later_ends_the_feed_with_its_error() {
    let server = with_filters().await;
    let path = server.url("/src/_changes?feed=continuous&filter=d/late&since=9&heartbeat=1000");
    let mut pieces = server.client().get(path).send().await.unwrap().bytes_stream();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "\n");
    server.put("/src/three", json!({ "n": 3 }), 201).await;
    let mut text = String::new();
    while let Some(Ok(piece)) = pieces.next().await {
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert_eq!(text.trim_start(), "{\"error\":\"forbidden\",\"reason\":\"no threes\"}\n");
}

#[tokio::test]
async fn a_feed_goes_on_with_the_function_that_it_began_with() {
    let server = with_filters().await;
    let waiting = server.get("/src/_changes?feed=longpoll&filter=d/min&min=7&since=9&heartbeat=1000", 200);
    let writing = async {
        server.put("/src/six", json!({ "n": 6 }), 201).await;
        server.put("/src/seven", json!({ "n": 7 }), 201).await;
    };
    let (feed, ()) = tokio::join!(waiting, writing);
    assert_eq!(ids(&feed), ["seven"]);
}

#[tokio::test]
async fn a_replication_copies_what_the_sources_filter_lets_through() {
    let server = with_filters().await;
    let body = json!({ "source": "src", "target": "tgt", "filter": "d/min", "query_params": { "min": "2" } });
    assert_eq!(server.replicate(body).await["history"][0]["docs_written"], 3);
    let map = json!({ "source": "src", "target": "tgt", "filter": "_view", "query_params": { "view": "d/odd" } });
    assert_eq!(server.replicate(map).await["history"][0]["docs_written"], 1);
    let found = server.get("/tgt/_all_docs", 200).await;
    let found: Vec<_> = found["rows"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    assert_eq!(json!(found), json!(["doc1", "doc2", "doc3", "doc4"]));
}

/// A local source told its filters that a nameless admin asks, whoever had started the replication.
#[tokio::test]
async fn a_local_sources_filter_sees_who_asked_for_the_replication() {
    let server = Server::with_admin("ann", "se-cret").await;
    let filters = json!({ "mine": "function (doc, req) { return doc.owner == req.userCtx.name }" });
    server.put("/src", json!({}), 201).await;
    server.put("/src/_design/d", json!({ "filters": filters }), 201).await;
    for owner in ["ann", "bob"] {
        server.put(&format!("/src/{owner}s"), json!({ "owner": owner }), 201).await;
    }
    server.replicate(json!({ "source": "src", "target": "tgt", "create_target": true, "filter": "d/mine" })).await;
    assert_eq!(server.get("/tgt", 200).await["doc_count"], 1);
    server.get("/tgt/anns", 200).await;
}

#[tokio::test]
async fn a_replication_ends_with_its_filters_error() {
    let server = with_filters().await;
    let expected = [("d/late", 403, "forbidden"), ("d/nosuch", 404, "not_found"), ("d/bad", 500, "compilation_error")];
    for (filter, status, error) in expected {
        let body = json!({ "source": "src", "target": "tgt", "filter": filter });
        let answer = server.post("/_replicate", body, status).await;
        assert_eq!(answer["error"], error, "{answer}");
    }
}

/// Sixty feeds whose filters never end took all interpreters, five seconds each: a good filter waited for 33 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_filter_is_answered_beside_sixty_endless_ones() {
    let server = Server::with_config(|config| config.store.javascript.call_time = Duration::from_secs(600)).await;
    server.put("/src", json!({}), 201).await;
    for n in 0..30 {
        let filters = json!({ "forever": format!("function () {{ for (;;) {{ {n} }} }}") });
        server.put(&format!("/src/_design/d{n}"), json!({ "filters": filters }), 201).await;
    }
    let good = json!({ "filters": { "all": "function () { return true }" } });
    server.put("/src/_design/good", good, 201).await;
    let endless = |n: usize| server.get(&format!("/src/_changes?filter=d{}/forever", n % 30), 200);
    let mut endless: futures::stream::FuturesUnordered<_> = (0..60).map(endless).collect();
    let good = server.get("/src/_changes?filter=good/all", 200);
    tokio::select! {
        _ = endless.next() => panic!("an endless one is answered"),
        feed = tokio::time::timeout(Duration::from_secs(60), good) => {
            assert_eq!(feed.expect("it waits")["results"].as_array().unwrap().len(), 31);
        }
    }
}
