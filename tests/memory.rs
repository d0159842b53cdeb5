//! The memory budget holds whatever replications do, and nothing gets stuck by it (`effort/budget.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use couchrep::tasks::Tasks;
use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::memory::peak_bytes;
use crate::support::{Fault, FaultyPeer, Process, Server, client};

const MIB: usize = 1 << 20;

/// Takes whatever it gets, notes of whom, and forgets it: a target without memory or disk of its own.
#[derive(Clone, Default)]
struct Sink {
    /// Database and text of each document that came.
    taken: Arc<Mutex<Vec<(String, usize)>>>,
    /// The documents that may come.
    texts: Arc<Vec<String>>,
    /// Checkpoints, by database and id.
    logs: Arc<Mutex<HashMap<(String, String), Value>>>,
}

impl Sink {
    /// Serves; answers the URL of its root.
    async fn serve(&self, tasks: &Tasks) -> String {
        let info = || async { json!({ "update_seq": 0, "instance_start_time": "0" }).to_string() };
        let committed = || async { (StatusCode::CREATED, r#"{"ok":true,"instance_start_time":"0"}"#) };
        let router = Router::new()
            .route("/{db}/", get(info))
            .route("/{db}/_local/{id}", get(log).put(keep_log))
            .route("/{db}/_ensure_full_commit", post(committed))
            .route("/{db}/_revs_diff", post(all_missing))
            .route("/{db}/_bulk_docs", post(take))
            .layer(DefaultBodyLimit::disable())
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tasks.spawn("sink", async move { axum::serve(listener, router).await });
        url
    }
}

async fn all_missing(body: Bytes) -> String {
    let asked: serde_json::Map<String, Value> = serde_json::from_slice(&body).unwrap();
    let missing = asked.into_iter().map(|(id, revs)| (id, json!({ "missing": revs })));
    Value::Object(missing.collect()).to_string()
}

async fn log(State(sink): State<Sink>, UrlPath(name): UrlPath<(String, String)>) -> (StatusCode, String) {
    match sink.logs.lock().unwrap().get(&name) {
        Some(log) => (StatusCode::OK, log.to_string()),
        None => (StatusCode::NOT_FOUND, r#"{"error":"not_found","reason":"missing"}"#.into()),
    }
}

async fn keep_log(
    State(sink): State<Sink>,
    UrlPath(name): UrlPath<(String, String)>,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let mut log: Value = serde_json::from_slice(&body).unwrap();
    log["_rev"] = json!("0-1");
    sink.logs.lock().unwrap().insert(name, log);
    (StatusCode::CREATED, r#"{"ok":true,"rev":"0-1"}"#)
}

async fn take(State(sink): State<Sink>, UrlPath(db): UrlPath<String>, body: Bytes) -> (StatusCode, &'static str) {
    // Compared as text: parsing takes long where nothing is optimised.
    let mut rest = body.strip_prefix(br#"{"new_edits":false,"docs":["#).unwrap();
    while rest != b"]}" {
        rest = rest.strip_prefix(b",").unwrap_or(rest);
        let came = sink.texts.iter().position(|text| rest.starts_with(text.as_bytes())).expect("a document as it was");
        rest = &rest[sink.texts[came].len()..];
        sink.taken.lock().unwrap().push((db.clone(), came));
    }
    (StatusCode::CREATED, "[]")
}

/// Replicates documents of these sizes to `jobs` targets at once, and answers by how many bytes that has raised the peak
/// memory of the process that does it, when all has arrived as it was.
async fn peak_of(jobs: usize, sizes: &[usize], budget: &str) -> usize {
    let source = Server::start().await;
    source.database("src").await;
    for (number, size) in sizes.iter().enumerate() {
        source.put(&format!("/src/doc{number}"), json!({ "text": "x".repeat(*size) }), 201).await;
    }
    let read = async |number: usize| {
        let url = source.url(&format!("/src/doc{number}?revs=true"));
        client().get(url).send().await.unwrap().text().await.unwrap().trim_end().to_owned()
    };
    let texts = stream::iter(0..sizes.len()).then(read).collect::<Vec<_>>().await;
    let (sink, tasks) = (Sink { texts: Arc::new(texts), ..Sink::default() }, Tasks::default());
    let targets = sink.serve(&tasks).await;
    let data_dir = tempfile::tempdir().unwrap();
    let process = Process::with_args(data_dir.path(), &["--memory-budget", budget]);
    let idle = peak_bytes(process.id());
    let ask = |job: usize| {
        let body = json!({ "source": source.url("/src"), "target": format!("{targets}/tgt{job}") });
        let request = client().post(process.url("/_replicate")).header("content-type", "application/json");
        async move {
            let answer = request.body(body.to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        }
    };
    stream::iter(0..jobs).map(ask).buffer_unordered(jobs).collect::<()>().await;
    let mut taken = std::mem::take(&mut *sink.taken.lock().unwrap());
    taken.sort();
    let mut expected: Vec<_> =
        (0..jobs).flat_map(|job| (0..sizes.len()).map(move |doc| (format!("tgt{job}"), doc))).collect();
    expected.sort();
    assert_eq!(taken, expected);
    tasks.stop();
    peak_bytes(process.id()) - idle
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_replications_of_large_documents_stay_within_the_budget() {
    let peak = peak_of(200, &[2 * MIB, 100, 3 * MIB], "32MiB").await;
    // The budget, and a third of a MiB for each job and its connections.
    assert!(peak < (32 + 200 / 3) * MIB, "{} MiB more than idle", peak / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_huge_documents_at_once_are_held_one_behind_the_other() {
    let peak = peak_of(20, &[7 * MIB], "32MiB").await;
    // The allocator doesn't give all back that large buffers leave behind, the less the busier the machine is (39 MiB beside four busy
    // loops); not counted, these would take 300 MiB and more.
    assert!(peak < 3 * 32 * MIB, "{} MiB more than idle", peak / MIB);
}

/// The term of a body of empty members, and where each of them was in it, took seven times its length: 700 MB for the
/// longest that is taken.
#[tokio::test]
async fn an_edit_of_empty_members_takes_little_more_than_its_text() {
    const BYTES: usize = 16 * MIB;
    let body = format!(r#"{{"a":{{{}"":[]}}}}"#, r#""":[],"#.repeat(BYTES / 6));
    let data_dir = tempfile::tempdir().unwrap();
    let process = Process::start(data_dir.path());
    let put = async |path: &str, body: String| {
        let request = client().put(process.url(path)).header("content-type", "application/json");
        assert_eq!(request.body(body).send().await.unwrap().status(), 201);
    };
    put("/db", String::new()).await;
    let idle = peak_bytes(process.id());
    put("/db/doc", body).await;
    let peak = peak_bytes(process.id()) - idle;
    assert!(peak < 5 * BYTES, "{} KiB more than idle", peak >> 10);
}

#[tokio::test]
async fn sources_that_hang_hold_no_memory() {
    let server = Server::with_config(|config| config.replicator.memory_budget = 8 * MIB).await;
    server.database("src").await.fill("doc", 10).await;
    server.database("tgt").await;
    let source = FaultyPeer::before(&server).await;
    for number in 0..12 {
        server.database(&format!("hung{number}")).await;
        let fault = if number % 2 == 0 { Fault::Hang } else { Fault::Silence };
        source.fail(Method::POST, "_bulk_get", fault);
        // Another page each, so that all of them hang in several batches at once.
        let target = format!("hung{number}");
        let job = json!({ "source": source.url("/src"), "target": target, "continuous": true, "worker_batch_size": 5 });
        source.fail(Method::POST, "_bulk_get", Fault::Hang);
        server.replicate(job).await;
    }
    source.met_all().await;
    let copied = server.replicate(json!({ "source": "src", "target": "tgt" }));
    // A hung request is given up after 30 s.
    tokio::time::timeout(Duration::from_secs(25), copied).await.expect("it got stuck behind sources that hang");
    assert_eq!(server.leaves("src").await, server.leaves("tgt").await);
}

#[tokio::test]
async fn pages_of_long_rows_are_read_in_smaller_pieces() {
    let server = Server::start().await;
    server.database("src").await;
    server.database("tgt").await;
    let id = |number: usize| format!("{number:02}-{}", "i".repeat(500));
    let leaf = |number: usize, leaf: usize| {
        let hash = format!("{leaf:032x}");
        json!({ "_id": id(number), "_rev": format!("1-{hash}"), "_revisions": { "start": 1, "ids": [hash] } })
    };
    let mut docs: Vec<_> = (0..20).flat_map(|number| (0..400).map(move |rev| (number, rev))).collect();
    docs.sort_by_key(|(_, leaf)| *leaf);
    for docs in docs.chunks(2000) {
        let docs: Vec<_> = docs.iter().map(|(number, rev)| leaf(*number, *rev)).collect();
        server.post("/src/_bulk_docs", json!({ "docs": docs, "new_edits": false }), 201).await;
    }
    // One that fills more than a page alone.
    server.post("/src/_bulk_docs", json!({ "docs": [{ "_id": "z".repeat(300_000) }] }), 201).await;
    let source = FaultyPeer::before(&server).await;
    let answer = server.replicate(json!({ "source": source.url("/src"), "target": "tgt" })).await;
    assert_eq!(answer["history"][0]["docs_written"], 20 * 400 + 1);
    let limits = |limit: &str| source.requests().iter().filter(|request| request.contains(limit)).count();
    // A piece of an answer is as long as may be held; what doesn't fit into one is asked for alone.
    assert!(limits("_bulk_get") > 2 && limits("limit=1&") == 1, "{:?}", source.requests());
    assert_eq!(server.get("/tgt", 200).await["doc_count"], 21);
}

/// It is asked for alone, without waiting: whoever holds the place for such rows doesn't wait for changes.
#[tokio::test]
async fn a_row_longer_than_a_page_that_comes_while_the_feed_waits_is_read_alone() {
    let server = Server::start().await;
    let src = server.database("src").await;
    server.database("tgt").await;
    src.fill("first", 1).await;
    let source = FaultyPeer::before(&server).await;
    // Else the feed of all databases would wait in its place.
    source.keep_failing(Method::GET, "/_db_updates", Fault::status(404), None);
    server.replicate(json!({ "source": source.url("/src"), "target": "tgt", "continuous": true })).await;
    server.until_equal("src", "tgt").await;
    let mut asked = 0;
    for round in 0..3 {
        source.saw_after(asked, "feed=longpoll").await;
        asked = source.requests().len();
        server.post("/src/_bulk_docs", json!({ "docs": [{ "_id": round.to_string().repeat(300_000) }] }), 201).await;
        source.saw_after(asked, "limit=1&").await;
        let since = round + 1;
        let arrived = server.get(&format!("/tgt/_changes?feed=longpoll&since={since}&timeout=60000"), 200).await;
        assert_eq!(arrived["results"][0]["id"].as_str().unwrap().len(), 300_000);
    }
    src.fill("last", 1).await;
    server.get("/tgt/_changes?feed=longpoll&since=4&timeout=60000", 200).await;
    assert_eq!(server.get("/tgt", 200).await["doc_count"], 5);
    assert_eq!(source.lives("src"), 1, "it was started again: {:?}", source.requests());
}

/// A server whose budget allows documents of 2 MiB, and a source with a larger one between others.
async fn with_a_document_too_large() -> Server {
    let server = Server::with_config(|config| config.replicator.memory_budget = 8 * MIB).await;
    server.database("src").await;
    server.database("tgt").await;
    for (id, size) in [("a", 10), ("b", 3 * MIB), ("c", MIB), ("d", 10)] {
        server.put(&format!("/src/{id}"), json!({ "text": "x".repeat(size) }), 201).await;
    }
    server
}

#[tokio::test]
async fn a_document_above_the_maximum_is_a_failure_and_the_rest_arrives() {
    for (kind, fields) in [
        ("local", json!({})),
        ("bulk", json!({})),
        ("single", json!({ "use_bulk_get": false })),
        ("chosen", json!({ "doc_ids": ["a", "b", "c", "d"] })),
        ("chosen local", json!({ "doc_ids": ["a", "b", "c", "d"] })),
    ] {
        let server = with_a_document_too_large().await;
        let source = if kind.ends_with("local") { "src".to_owned() } else { server.url("/src") };
        let mut job = json!({ "source": source, "target": "tgt" });
        job.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let request = client().post(server.url("/_replicate")).header("content-type", "application/json");
        let answer = request.body(job.to_string()).send().await.unwrap();
        let id = answer.headers()["x-couchrep-replication-id"].to_str().unwrap().to_owned();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let counts = &answer["history"][0];
        assert_eq!((&counts["docs_written"], &counts["doc_write_failures"]), (&json!(3), &json!(1)), "{kind}");
        let failures = server.get(&format!("/_replicate/{id}/failures"), 200).await["failures"].clone();
        assert_eq!(failures.as_array().unwrap().len(), 1, "{kind}");
        assert_eq!((&failures[0]["id"], &failures[0]["error"]), (&json!("b"), &json!("document_too_large")), "{kind}");
        let ids: Vec<_> = server.leaves("tgt").await.into_iter().map(|leaf| leaf.id).collect();
        assert_eq!(ids, ["a", "c", "d"], "{kind}");
    }
}

#[tokio::test]
async fn a_document_with_attachments_whose_json_is_above_the_maximum_is_a_failure_too() {
    let server = with_a_document_too_large().await;
    let attachments = json!({ "a": { "data": "YWJj", "content_type": "image/png" } });
    let large = json!({ "_id": "e", "text": "x".repeat(3 * MIB), "_attachments": attachments });
    let small = json!({ "_id": "f", "text": "x".repeat(MIB), "_attachments": attachments });
    server.post("/src/_bulk_docs", json!({ "docs": [large, small] }), 201).await;
    for (source, target) in [(server.url("/src"), "tgt"), ("src".to_owned(), "tgt2")] {
        if target == "tgt2" {
            server.database(target).await;
        }
        let answer = server.replicate(json!({ "source": source, "target": target })).await;
        assert_eq!(answer["history"][0]["doc_write_failures"], 2);
        let ids: Vec<_> = server.leaves(target).await.into_iter().map(|leaf| leaf.id).collect();
        assert_eq!(ids, ["a", "c", "d", "f"]);
    }
}
