//! Gateways: whatever stands before a database and answers for it, in statuses, pages and JSON of its own.
//!
//! Every request of a replication, every such answer, for a while: none is a verdict on a document, none says that something
//! is done, absent or complete. The replication goes on when the gateway lets it through, everything is copied, nothing is
//! recorded as failed, and the gateway isn't flooded with requests meanwhile. Once a quarter of a second of 404 pages before
//! a target lost hundreds of documents for good, with `ok:true`, and 400 pages made 26,000 requests in 3 s.

use std::time::Duration;

use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Gateway, Server};

/// Cases at once.
const AT_ONCE: usize = 10;
/// A case ends well before.
const LIMIT: Duration = Duration::from_secs(90);
/// How often a replication that ended with an error is asked for again.
const ASKED: usize = 12;
const PLAIN: usize = 20;
/// Requests that a case may take, a hundred times fewer than a storm.
const MOST_REQUESTS: usize = 250;

/// What gateways answer. A success that isn't one is told by its body alone.
fn answers() -> impl Iterator<Item = (u16, Gateway)> {
    let with = |bodies: &'static [Gateway]| move |status: u16| bodies.iter().map(move |body| (status, *body));
    let refusals = [404, 400, 403, 401, 413, 500, 502].into_iter().flat_map(with(&Gateway::ALL));
    let successes =
        [200, 201].into_iter().flat_map(with(&[Gateway::Page, Gateway::Json, Gateway::Object, Gateway::Empty]));
    refusals.chain(successes)
}

/// Plain documents, a conflict, one with a small attachment, one whose attachment streams, since it is stored gzipped, a design
/// document.
async fn fill(server: &Server, database: &str) {
    let mut docs: Vec<Value> = (0..PLAIN).map(|n| json!({"_id": format!("doc{n:02}"), "_rev": "1-a"})).collect();
    docs.extend(["b", "c"].map(|hash| json!({"_id": "conflict", "_rev": format!("1-{hash}")})));
    docs.push(json!({"_id": "_design/x", "_rev": "1-x"}));
    for (id, content_type) in [("attached", "text/plain"), ("small", "image/png")] {
        let attachment = json!({"data": "YWJjZGVm", "content_type": content_type});
        docs.push(json!({"_id": id, "_rev": "1-e", "_attachments": {"a.png": attachment}}));
    }
    server.post(&format!("/{database}/_bulk_docs"), json!({"docs": docs, "new_edits": false}), 201).await;
}

/// One case: this answer to the requests with this method and path (`{s}`, `{t}` stand for the databases), for so long.
async fn case(server: &Server, name: String, (method, path): (Method, &str), fault: Fault, during: Duration) {
    let (source, target) = (format!("s{name}"), format!("t{name}"));
    server.database(&source).await;
    server.database(&target).await;
    fill(server, &source).await;
    // A target that is empty isn't asked what it lacks.
    let there = json!({"docs": [{"_id": "doc00", "_rev": "1-a"}], "new_edits": false});
    server.post(&format!("/{target}/_bulk_docs"), there, 201).await;
    let peer = FaultyPeer::before(server).await;
    let part = path.replace("{s}", &source).replace("{t}", &target);
    peer.keep_failing(method.clone(), &part, fault.clone(), Some(during));
    let told = format!("{fault:?} for {during:?} at {method} {path}");
    let sides = json!({"source": peer.url(&format!("/{source}")), "target": peer.url(&format!("/{target}"))});
    let mut job = sides.clone();
    job["worker_batch_size"] = json!(8);
    let mut answers: Vec<Value> = Vec::new();
    while !answers.last().is_some_and(|answer| answer["ok"] == true) {
        assert!(answers.len() < ASKED, "{told}: {answers:?}");
        let request = server.client().post(server.url("/_replicate")).header("Content-Type", "application/json");
        let asked = tokio::time::timeout(LIMIT, request.body(job.to_string()).send()).await;
        let answer = asked.unwrap_or_else(|_| panic!("{told}: no end")).unwrap().bytes().await.unwrap();
        answers.push(serde_json::from_slice(&answer).unwrap());
    }
    assert!(peer.has_failed(), "{told}: wasn't met");
    assert_eq!(server.leaves(&source).await, server.leaves(&target).await, "{told}: {answers:?}");
    assert_eq!(answers.last().unwrap()["history"][0]["doc_write_failures"], 0, "{told}");
    let requests = peer.requests().len();
    assert!(requests < MOST_REQUESTS, "{told}: {requests} requests");
}

async fn every_answer(method: Method, path: &str) {
    let server = Server::start().await;
    let cases = answers().enumerate().map(|(number, (status, body))| {
        let stage = (method.clone(), path);
        case(&server, number.to_string(), stage, Fault::gateway(status, body), Duration::from_millis(250))
    });
    stream::iter(cases.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect::<()>().await;
}

macro_rules! stages {
    ($($name:ident: $method:ident $path:literal;)*) => {
        const STAGES: &[(Method, &str)] = &[$((Method::$method, $path),)*];

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            every_answer(Method::$method, $path).await;
        })*
    };
}

stages! {
    a_gateways_answer_says_nothing_of_the_source: GET "/{s}/$";
    a_gateways_answer_says_nothing_of_the_target: GET "/{t}/$";
    a_gateways_answer_is_not_the_absence_of_the_sources_log: GET "/{s}/_local/";
    a_gateways_answer_is_not_the_absence_of_the_targets_log: GET "/{t}/_local/";
    a_gateways_answer_is_not_the_end_of_the_feed: GET "/{s}/_changes";
    a_gateways_answer_does_not_say_that_nothing_is_missing: POST "/{t}/_revs_diff";
    a_gateways_answer_does_not_say_that_documents_are_gone: POST "/{s}/_bulk_get";
    a_gateways_answer_does_not_say_that_a_revision_is_gone: GET "/{s}/attached?";
    a_gateways_answer_refuses_no_documents: POST "/{t}/_bulk_docs";
    a_gateways_answer_refuses_no_attachments: PUT "/{t}/attached?";
    a_gateways_answer_is_no_commit_of_the_source: POST "/{s}/_ensure_full_commit";
    a_gateways_answer_is_no_commit_of_the_target: POST "/{t}/_ensure_full_commit";
    a_gateways_answer_is_no_checkpoint_of_the_source: PUT "/{s}/_local/";
    a_gateways_answer_is_no_checkpoint_of_the_target: PUT "/{t}/_local/";
}

/// Longer than the tries of one request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_seconds_of_a_gateways_answers_lose_nothing() {
    let server = Server::start().await;
    let answers = [(404, Gateway::Page), (403, Gateway::Json), (200, Gateway::Object)];
    let cases = STAGES.iter().enumerate().flat_map(|(number, stage)| {
        let server = &server;
        answers.map(|(status, body)| {
            let name = format!("{number}x{status}");
            case(server, name, stage.clone(), Fault::gateway(status, body), Duration::from_secs(3))
        })
    });
    stream::iter(cases.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// All that goes to one side, as when its server is put behind a login or a maintenance page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_before_a_whole_side_loses_nothing() {
    let server = Server::start().await;
    for (number, side) in ["{s}", "{t}"].into_iter().enumerate() {
        for (status, body) in [(404, Gateway::Page), (400, Gateway::Empty), (200, Gateway::Page)] {
            for method in [Method::GET, Method::POST, Method::PUT] {
                let name = format!("{number}-{status}-{}", method.as_str().to_lowercase());
                let stage = (method, format!("/{side}/"));
                let fault = Fault::gateway(status, body);
                case(&server, name, (stage.0, &stage.1), fault, Duration::from_millis(500)).await;
            }
        }
    }
}

/// An idle feed that a proxy cuts was a failure: the job ended and started again after a pause, each longer than the last.
#[tokio::test]
async fn a_waiting_feed_that_breaks_off_is_asked_again_within_the_same_session() {
    let server = Server::start().await;
    let source = FaultyPeer::before(&server).await;
    // Else the feed of all databases would wait in its place.
    source.keep_failing(Method::GET, "/_db_updates", Fault::status(404), None);
    source.fail(Method::GET, "_changes?feed=longpoll", Fault::Cut(0));
    let src = server.database("src").await;
    server.database("tgt").await;
    src.fill("first", 1).await;
    let job =
        json!({"source": source.url("/src"), "target": "tgt", "continuous": true, "checkpoint_interval": 3_600_000});
    server.replicate(job).await;
    let arrived = async |since: u64| {
        let path = format!("/tgt/_changes?feed=longpoll&since={since}&timeout=20000");
        assert_eq!(server.get(&path, 200).await["results"].as_array().unwrap().len(), 1);
    };
    arrived(0).await;
    // What ends the wait is this document; the answer that tells of it is cut.
    src.fill("second", 1).await;
    arrived(1).await;
    assert_eq!(source.faults_left(), 0);
    assert_eq!(source.lives("src"), 1, "it was started again: {:?}", source.requests());
}
