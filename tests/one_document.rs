//! One document that a peer can't serve or take, whatever its words: the others are copied, and it is a recorded failure.
//!
//! CouchDB's own replicator copies past such documents in seconds; here one stopped everything.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Server};

/// What CouchDB 3.5 answers to a request that holds a number of more than 308 digits.
const BADARITH: &str = r#"{"error":"unknown_error","reason":"badarith","ref":3689474168}"#;
const DOCS: usize = 40;

struct Bench {
    server: Server,
    source: FaultyPeer,
    target: FaultyPeer,
}

impl Bench {
    /// Documents in `src`, of which one, and one with an attachment, will be bad.
    async fn start() -> Self {
        let server = Server::with_config(|config| config.replicator.retries_per_request = 5).await;
        server.database("src").await.fill("doc", DOCS).await;
        server.database("tgt").await;
        let attached =
            |id: &str| json!({"_id": id, "_attachments": {"a": {"data": "YWJj", "content_type": "text/plain"}}});
        let docs = json!({"docs": [{"_id": "bad"}, attached("attached"), attached("bad-attached")]});
        server.post("/src/_bulk_docs", docs, 201).await;
        let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
        Self { server, source, target }
    }

    async fn replicate(&self, status: u16) -> Value {
        let job =
            json!({"source": self.source.url("/src"), "target": self.target.url("/tgt"), "worker_batch_size": 20});
        self.server.post("/_replicate", job, status).await
    }

    /// Every `_local` document of the source, as text.
    async fn kept_in_the_source(&self) -> String {
        let listed = self.server.get("/src/_local_docs", 200).await;
        let mut text = String::new();
        for row in listed["rows"].as_array().unwrap() {
            text += &self.server.get(&format!("/src/{}", row["id"].as_str().unwrap()), 200).await.to_string();
        }
        text
    }

    async fn ids(&self) -> Vec<String> {
        self.server.leaves("tgt").await.into_iter().map(|leaf| leaf.id).collect()
    }
}

fn badarith() -> Fault {
    Fault::Answer(500, vec![("content-type", "application/json".into())], BADARITH.into())
}

#[tokio::test]
async fn a_document_that_the_target_cannot_take_is_a_failure_and_the_rest_is_copied() {
    let bench = Bench::start().await;
    bench.target.keep_failing_with(Method::POST, "_bulk_docs", r#""_id":"bad""#, badarith());
    bench.target.keep_failing(Method::PUT, "/tgt/bad-attached?", badarith(), None);
    let answer = bench.replicate(200).await;
    assert_eq!(answer["history"][0]["doc_write_failures"], 2, "{answer}");
    assert_eq!(bench.ids().await.len(), DOCS + 1);
}

#[tokio::test]
async fn a_document_that_the_source_cannot_give_is_a_failure_and_the_rest_is_copied() {
    let bench = Bench::start().await;
    bench.source.keep_failing_with(Method::POST, "_bulk_get", r#""id":"bad","#, badarith());
    bench.source.keep_failing(Method::GET, "/src/bad-attached?", Fault::Disconnect, None);
    let answer = bench.replicate(200).await;
    assert_eq!(answer["history"][0]["doc_write_failures"], 2, "{answer}");
    assert_eq!(bench.ids().await.len(), DOCS + 1);
}

#[tokio::test]
async fn a_document_whose_question_is_answered_with_pages_alone_is_a_failure_when_the_tries_are_over() {
    let bench = Bench::start().await;
    let page = Fault::Answer(400, vec![("content-type", "text/html".into())], "<h1>Bad Request</h1>".into());
    // A target that is empty isn't asked what it lacks.
    bench.server.replicate(json!({"source": "src", "target": "tgt", "doc_ids": ["attached"]})).await;
    bench.target.keep_failing_with(Method::POST, "_revs_diff", r#""bad":"#, page.clone());
    bench.target.keep_failing(Method::PUT, "/tgt/bad-attached?", page, None);
    let answer = bench.replicate(200).await;
    assert_eq!(answer["history"][0]["doc_write_failures"], 2, "{answer}");
    assert_eq!(bench.ids().await.len(), DOCS + 1);
}

/// A hiccup at one document had others copied once more, to prove that both sides work; seen as a batch too many in the fault
/// matrix.
#[tokio::test]
async fn a_document_that_broke_off_once_is_sent_again_and_no_other() {
    let bench = Bench::start().await;
    bench.target.fail(Method::PUT, "/tgt/attached?", Fault::Disconnect);
    let answer = bench.replicate(200).await;
    assert_eq!(answer["history"][0]["doc_write_failures"], 0, "{answer}");
    let writes = bench.target.requests().iter().filter(|request| request.contains("_bulk_docs")).count();
    assert_eq!(writes, (DOCS + 1).div_ceil(20), "{:?}", bench.target.requests());
}

/// Nothing else got through that could show whose fault it is, and the replication failed for ever.
#[tokio::test]
async fn a_bad_document_that_is_all_there_is_to_copy_is_a_failure() {
    let (there, page) = (Fault::Disconnect, Fault::status(500));
    for (alone, fault) in [(false, badarith()), (false, there), (true, badarith()), (true, page)] {
        for at_source in [false, true] {
            let bench = Bench::start().await;
            let db = if alone { "one" } else { "src" };
            bench.server.database("one").await;
            bench.server.put("/one/bad", json!({}), 201).await;
            match at_source {
                true => bench.source.keep_failing_with(Method::POST, "_bulk_get", r#""id":"bad","#, fault.clone()),
                false => bench.target.keep_failing_with(Method::POST, "_bulk_docs", r#""_id":"bad""#, fault.clone()),
            };
            let mut job = json!({"source": bench.source.url(&format!("/{db}")), "target": bench.target.url("/tgt")});
            if !alone {
                job["selector"] = json!({"_id": "bad"});
            }
            let told = format!("{fault:?}, alone: {alone}, at the source: {at_source}");
            let answer = bench.server.replicate(job).await;
            assert_eq!(answer["history"][0]["doc_write_failures"], 1, "{told}: {answer}");
            assert!(bench.ids().await.is_empty(), "{told}");
        }
    }
}

/// A descendant that had come in place of the revision that was asked for was counted and listed again with each try of its
/// batch.
#[tokio::test]
async fn a_refused_document_is_counted_once_however_often_its_batch_is_tried() {
    let server = Server::with_config(|config| {
        config.replicator.retries_per_request = 5;
        // Each document travels by itself.
        config.replicator.batch_bytes = 1;
    })
    .await;
    server.database("src").await;
    server.database("tgt").await;
    let first = server.put("/src/a", json!({}), 201).await["rev"].clone();
    server.put("/src/a", json!({"_rev": first}), 201).await;
    let other = server.put("/src/b", json!({}), 201).await["rev"].clone();
    let row = |seq: u64, id: &str, rev: &Value| json!({"seq": seq, "id": id, "changes": [{"rev": rev}]});
    let feed = json!({"results": [row(1, "a", &first), row(2, "b", &other)], "last_seq": 2, "pending": 0});
    let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
    let headers = vec![("content-type", "application/json".into())];
    source.keep_failing(Method::GET, "_changes", Fault::Answer(200, headers, feed.to_string()), None);
    target.refuse(|id| id == "a");
    target.keep_failing_with(Method::POST, "_bulk_docs", r#""_id":"b""#, Fault::Disconnect);
    let answer = server.replicate(json!({"source": source.url("/src"), "target": target.url("/tgt")})).await;
    assert_eq!(answer["history"][0]["doc_write_failures"], 2, "{answer}");
    assert_eq!(answer["history"][0]["docs_read"], 1, "{answer}");
}

/// Reasons told the target's URL to whoever may read the source.
#[tokio::test]
async fn what_is_kept_in_the_source_tells_nothing_of_where_the_target_is() {
    let page = Fault::Answer(400, vec![("content-type", "text/html".into())], "<h1>Bad Request</h1>".into());
    for fault in [page, badarith(), Fault::Disconnect] {
        let bench = Bench::start().await;
        bench.target.keep_failing_with(Method::POST, "_bulk_docs", r#""_id":"bad""#, fault.clone());
        bench.target.keep_failing(Method::PUT, "/tgt/bad-attached?", fault.clone(), None);
        let answer = bench.replicate(200).await;
        assert_eq!(answer["history"][0]["doc_write_failures"], 2, "{fault:?}: {answer}");
        let (kept, url) = (bench.kept_in_the_source().await, bench.target.url(""));
        assert!(kept.contains("bad-attached"), "{kept}");
        assert!(!kept.contains(url.trim_start_matches("http://")) && !kept.contains("/tgt"), "{kept}");
    }
}

/// Requests with a bad document fail as a whole, and a round ended at the second of them: with three, those that had
/// their turn first were bad for ever.
#[tokio::test]
async fn three_bad_documents_keep_none_of_the_others_waiting() {
    let pages = Fault::Answer(500, vec![("content-type", "text/html".into())], "<h1>Oops</h1>".into());
    for fault in [badarith(), pages] {
        let bench = Bench::start().await;
        let bad = ["doc0000", "doc0001", "doc0020"];
        for id in bad {
            bench.target.keep_failing_with(Method::POST, "_bulk_docs", &format!(r#""_id":"{id}""#), fault.clone());
        }
        let answer = bench.replicate(200).await;
        assert_eq!(answer["history"][0]["doc_write_failures"], bad.len(), "{fault:?}: {answer}");
        let ids = bench.ids().await;
        assert_eq!(ids.len(), DOCS + 3 - bad.len(), "{fault:?}");
        assert!(!ids.iter().any(|id| bad.contains(&id.as_str())), "{fault:?}");
    }
}

/// A round without any success tried two requests: with bad documents in every part of a batch nothing ever got through.
#[tokio::test]
async fn bad_documents_in_every_part_of_a_batch_keep_none_of_the_others_waiting() {
    let bench = Bench::start().await;
    // Every third of twenty, in both batches: more than are given up at once.
    let bad = |number: usize| number < DOCS && number.is_multiple_of(3);
    for number in (0..DOCS).filter(|number| bad(*number)) {
        let holds = format!(r#""_id":"doc{number:04}""#);
        bench.target.keep_failing_with(Method::POST, "_bulk_docs", &holds, badarith());
    }
    bench.replicate(502).await;
    let there = bench.ids().await;
    for number in (0..DOCS).filter(|number| !bad(*number)) {
        assert!(there.contains(&format!("doc{number:04}")), "{number}: {there:?}");
    }
}

/// They can't be given up, since the target calls it its own trouble; so the batch isn't done, but the others get through.
#[tokio::test]
async fn three_documents_that_a_cluster_never_takes_keep_none_of_the_others_waiting() {
    let bench = Bench::start().await;
    let bad = ["doc0000", "doc0001", "doc0020"];
    bench.target.refuse_saying("internal_server_error", "no majority", move |id| bad.contains(&id));
    let refused = bench.replicate(502).await;
    assert_eq!(refused["error"], "http_request_failed", "{refused}");
    assert_eq!(bench.ids().await.len(), DOCS + 3 - bad.len());
    assert!(!bench.source.requests().iter().any(|seen| seen.starts_with("PUT /src/_local/")));
    bench.target.refuse(|_| false);
    let answer = bench.replicate(200).await;
    assert_eq!(answer["history"][0]["doc_write_failures"], 0, "{answer}");
    assert_eq!(bench.server.leaves("tgt").await, bench.server.leaves("src").await);
}

/// What a cluster said row by row while two of its nodes were down was given up: 300 of 300 documents within a second.
#[tokio::test]
async fn documents_of_a_cluster_in_trouble_are_never_given_up() {
    for (error, reason) in [
        ("internal_fabric_error", "{error,{nodedown,<<\"progress not possible\">>}}"),
        ("timeout", "The request could not be processed in a reasonable amount of time."),
        ("error", "internal_server_error"),
    ] {
        let bench = Bench::start().await;
        let rows = |docs: Vec<Value>| json!({ "results": docs }).to_string();
        let trouble: Vec<Value> = (0..DOCS)
            .map(|n| format!("doc{n:04}"))
            .map(|id| json!({"id": id, "docs": [{"error": {"id": id, "rev": "undefined", "error": error, "reason": reason}}]}))
            .collect();
        let answer = Fault::Answer(200, vec![("content-type", "application/json".into())], rows(trouble));
        bench.source.keep_failing(Method::POST, "_bulk_get", answer, None);
        let refused = bench.replicate(502).await;
        assert_eq!(refused["error"], "http_request_failed", "{error}");
        assert!(!bench.source.requests().iter().any(|seen| seen.starts_with("PUT /src/_local/")), "{error}");
        bench.source.heal();
        let answer = bench.replicate(200).await;
        assert_eq!(answer["history"][0]["doc_write_failures"], 0, "{error}");
        assert_eq!(bench.ids().await.len(), DOCS + 3, "{error}");
    }
}

/// A cluster with a dead copy stores a document with attachments that stream, and never answers.
#[tokio::test]
async fn documents_get_past_a_target_that_is_silent_to_multipart() {
    let server = Server::with_config(|config| {
        config.replicator.connection_timeout = std::time::Duration::from_secs(2);
        config.replicator.retries_per_request = 3;
    })
    .await;
    server.database("src").await;
    server.database("tgt").await;
    let text = json!({"content_type": "text/plain", "data": "aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8="});
    let doc = |n: usize| json!({"_id": format!("doc{n:02}"), "_attachments": {"a.txt": text, "b \"c\"": text}});
    let docs = json!({"docs": (0..60).map(doc).collect::<Vec<_>>()});
    server.post("/src/_bulk_docs", docs, 201).await;
    let target = FaultyPeer::before(&server).await;
    target.keep_failing_with(Method::PUT, "/tgt/doc", "multipart/related", Fault::ApplyThenHang);
    let answer = server.replicate(json!({"source": "src", "target": target.url("/tgt")})).await;
    assert_eq!(answer["history"][0]["doc_write_failures"], 0, "{answer}");
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}
