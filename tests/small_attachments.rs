//! Small attachments travel in bulk within their documents, and arrive as if they had streamed; what doesn't get through in
//! this way goes the way of large ones.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use couchrep::config::Config;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Server};

const SMALL: usize = 20;

/// A source with small attachments, and one that is large, one that is stored gzipped, one that is a design document's.
struct Bench {
    server: Server,
    source: FaultyPeer,
    target: FaultyPeer,
}

impl Bench {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(settings: impl FnOnce(&mut Config)) -> Self {
        let server = Server::with_config(|config| {
            config.replicator.retries_per_request = 3;
            settings(config);
        })
        .await;
        server.database("src").await.fill("doc", 5).await;
        server.database("tgt").await;
        let attached = |id: &str, content_type: &str, bytes: usize| {
            let data = STANDARD.encode(vec![7; bytes]);
            json!({"_id": id, "_attachments": {"a \"b\"": {"content_type": content_type, "data": data}, "empty": {"data": ""}}})
        };
        let small = (0..SMALL).map(|n| attached(&format!("small{n}"), "image/png", 1000 + n));
        let others = [
            attached("large", "image/png", 200 << 10),
            attached("gzipped", "text/plain", 1000),
            attached("_design/d", "image/png", 1000),
        ];
        let docs = small.chain(others).collect::<Vec<_>>();
        server.post("/src/_bulk_docs", json!({ "docs": docs }), 201).await;
        let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
        Self { server, source, target }
    }

    async fn replicate(&self) -> Value {
        let job = json!({"source": self.source.url("/src"), "target": self.target.url("/tgt")});
        self.server.post("/_replicate", job, 200).await["history"][0].clone()
    }

    /// All is there, byte for byte, and was counted once.
    async fn assert_equal(&self, session: &Value) {
        assert_eq!(self.server.leaves("tgt").await, self.server.leaves("src").await);
        let docs = json!(SMALL + 8);
        assert_eq!(
            (&session["docs_written"], &session["docs_read"], &session["doc_write_failures"]),
            (&docs, &docs, &json!(0))
        );
        for id in ["small3", "large", "gzipped", "_design/d"] {
            let stubs = async |db: &str| {
                self.server.get(&format!("/{db}/{id}?att_encoding_info=true"), 200).await["_attachments"].clone()
            };
            assert_eq!(stubs("tgt").await, stubs("src").await, "{id}");
        }
    }

    /// Documents that were written one by one.
    fn streamed(&self) -> usize {
        let one = |request: &&String| request.starts_with("PUT /tgt/") && !request.contains("_local");
        self.target.requests().iter().filter(one).count()
    }
}

/// A request for each document, and one to write it, cost two CouchDBs four times as much as bulk requests.
#[tokio::test]
async fn documents_with_small_attachments_travel_in_bulk() {
    let bench = Bench::start().await;
    let session = bench.replicate().await;
    bench.assert_equal(&session).await;
    assert_eq!(bench.streamed(), 3);
}

/// Into the embedded store, and out of it.
#[tokio::test]
async fn small_attachments_go_between_the_store_and_a_peer_in_bulk() {
    let bench = Bench::start().await;
    for (source, target) in [(bench.source.url("/src"), "tgt".into()), ("src".into(), bench.target.url("/tgt"))] {
        bench.server.delete("/tgt", 200).await;
        bench.server.database("tgt").await;
        let answer = bench.server.replicate(json!({"source": source, "target": target})).await;
        bench.assert_equal(&answer["history"][0]).await;
        let opened = |request: &&String| request.contains("open_revs");
        assert_eq!(bench.source.requests().iter().filter(opened).count(), 3);
    }
    assert_eq!(bench.streamed(), 3);
}

/// It is a short cut: a peer that can't do it in bulk is asked in the other way, and no document is given up for it.
#[tokio::test]
async fn what_does_not_get_through_in_bulk_goes_one_by_one() {
    let page = || Fault::Answer(403, vec![("content-type", "text/html".into())], "<html>".into());
    let words = || {
        Fault::Answer(
            500,
            vec![("content-type", "application/json".into())],
            r#"{"error":"unknown_error","reason":"badarg"}"#.into(),
        )
    };
    let none = || Fault::Answer(200, vec![("content-type", "application/json".into())], r#"{"results":[]}"#.into());
    for fault in [page(), words(), none(), Fault::Cut(300)] {
        let bench = Bench::start().await;
        bench.source.keep_failing(Method::POST, "_bulk_get?revs=true&attachments=true", fault, None);
        let session = bench.replicate().await;
        assert!(bench.source.has_failed());
        bench.assert_equal(&session).await;
        assert_eq!(bench.streamed(), SMALL + 3);
    }
    for fault in [page(), words()] {
        let bench = Bench::start().await;
        bench.target.keep_failing_with(Method::POST, "_bulk_docs", r#""small1""#, fault);
        let session = bench.replicate().await;
        assert!(bench.target.has_failed());
        bench.assert_equal(&session).await;
    }
}

/// A side that worked at such a request for longer than it may be silent was asked ten times before it was asked for one
/// document after the other: five minutes.
#[tokio::test]
async fn a_side_that_is_silent_to_attachments_in_bulk_is_asked_so_once() {
    for at_source in [true, false] {
        let bench = Bench::start_with(|config| config.replicator.connection_timeout = Duration::from_secs(1)).await;
        let (peer, request) = match at_source {
            true => (&bench.source, "POST /src/_bulk_get?revs=true&attachments=true"),
            false => (&bench.target, "POST /tgt/_bulk_docs"),
        };
        match at_source {
            true => peer.keep_failing(Method::POST, "_bulk_get?revs=true&attachments=true", Fault::Hang, None),
            false => peer.keep_failing_with(Method::POST, "_bulk_docs", r#""small1""#, Fault::Hang),
        };
        let session = bench.replicate().await;
        assert!(peer.has_failed());
        bench.assert_equal(&session).await;
        // Documents without attachments are written in another one.
        assert_eq!(peer.count(request), if at_source { 1 } else { 2 }, "{:?}", peer.requests());
    }
}

/// They were recorded failures, since no URL can name them; CouchDB's own replicator copies them.
#[tokio::test]
async fn documents_called_by_dots_are_copied_with_their_attachments() {
    let server = Server::start().await;
    server.database("src").await;
    server.database("tgt").await;
    let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
    let attached = |content_type: &str, bytes: usize| json!({"a": {"content_type": content_type, "data": STANDARD.encode(vec![b'x'; bytes])}});
    let mut revs = vec![Value::Null; 3];
    // The second time the target has what came before.
    for round in 1..=2 {
        let kinds = [(".", "image/png", 1000), ("..", "image/png", 300 << 10), ("...", "text/plain", 1000)];
        let docs: Vec<_> = kinds
            .iter()
            .zip(&revs)
            .map(|((id, content_type, bytes), rev)| {
                let mut doc = json!({"_id": id, "round": round, "_attachments": attached(content_type, bytes + round)});
                if !rev.is_null() {
                    doc["_rev"] = rev.clone();
                }
                doc
            })
            .chain([json!({"_id": format!("gzipped{round}"), "_attachments": attached("text/plain", 1000)})])
            .collect();
        let written = server.post("/src/_bulk_docs", json!({ "docs": docs }), 201).await;
        revs = written.as_array().unwrap()[..3].iter().map(|row| row["rev"].clone()).collect();
        let answer = server.replicate(json!({"source": source.url("/src"), "target": target.url("/tgt")})).await;
        assert_eq!(answer["history"][0]["doc_write_failures"], 0, "{answer}");
        let asked = json!({"docs": [{"id": "."}, {"id": ".."}, {"id": "..."}]});
        let data = async |db: &str| server.post(&format!("/{db}/_bulk_get?attachments=true"), asked.clone(), 200).await;
        assert_eq!(data("tgt").await, data("src").await);
    }
}

/// The target's validation is asked in both ways, and counts once.
#[tokio::test]
async fn a_document_with_a_small_attachment_that_the_target_refuses_is_one_failure() {
    let bench = Bench::start().await;
    bench.target.refuse(|id| id == "small7");
    let forbidden = r#"{"error":"forbidden","reason":"not here"}"#;
    let forbidden = Fault::Answer(403, vec![("content-type", "application/json".into())], forbidden.into());
    bench.target.keep_failing(Method::PUT, "/tgt/small7?", forbidden, None);
    let session = bench.replicate().await;
    assert_eq!((&session["doc_write_failures"], &session["docs_written"]), (&json!(1), &json!(SMALL + 7)));
}

/// Between the two requests a document was edited, and how large its new attachment is nobody knows.
#[tokio::test]
async fn a_document_that_is_edited_meanwhile_is_not_fetched_in_bulk() {
    let bench = Bench::start().await;
    bench.source.fail(
        Method::POST,
        "_bulk_get?revs=true&attachments=true",
        Fault::Slow(std::time::Duration::from_secs(1)),
    );
    let editing = async {
        bench.source.saw("_bulk_get?revs=true&attachments=true").await;
        let mut doc = bench.server.get("/src/small5", 200).await;
        doc["_attachments"]["a \"b\""] =
            json!({"content_type": "image/png", "data": STANDARD.encode(vec![1; 1 << 20])});
        bench.server.put("/src/small5", doc, 201).await;
    };
    let (session, ()) = tokio::join!(bench.replicate(), editing);
    assert_eq!(session["doc_write_failures"], 0);
    let job = json!({"source": "src", "target": "tgt"});
    bench.server.post("/_replicate", job, 200).await;
    assert_eq!(bench.server.leaves("tgt").await, bench.server.leaves("src").await);
}
