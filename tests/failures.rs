//! What could not be written is listed, outlives the server, and is tried again when asked for.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Server, client};

/// A server with three documents in `src`, of which its `tgt`, behind the peer, has refused the second.
struct Bench {
    server: Server,
    target: FaultyPeer,
    /// The replication's id.
    id: String,
    answer: Value,
}

impl Bench {
    async fn start(server: Server) -> Self {
        server.database("src").await.fill("doc", 3).await;
        server.database("tgt").await;
        let target = FaultyPeer::before(&server).await;
        let mut bench = Self { server, target, id: String::new(), answer: Value::Null };
        bench.refuse().await;
        (bench.id, bench.answer) = bench.replicate(json!({})).await;
        bench
    }

    /// The next `_bulk_docs` answers that it didn't take the second document, and takes none.
    async fn refuse(&self) {
        let refused = json!([{ "id": "doc0001", "rev": self.rev().await, "error": "forbidden", "reason": "not here" }]);
        let answer = Fault::Answer(201, vec![("content-type", "application/json".into())], refused.to_string());
        self.target.fail(Method::POST, "/tgt/_bulk_docs", answer);
    }

    async fn rev(&self) -> String {
        self.server.get("/src/doc0001", 200).await["_rev"].as_str().unwrap().to_owned()
    }

    fn body(&self, fields: Value) -> Value {
        let mut body = json!({ "source": "src", "target": self.target.url("/tgt") });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    }

    /// The replication's id, as the answer's header tells it, and the answer.
    async fn replicate(&self, fields: Value) -> (String, Value) {
        let request = client().post(self.server.url("/_replicate")).header("content-type", "application/json");
        let answer = request.body(self.body(fields).to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let id = answer.headers()["x-couchrep-replication-id"].to_str().unwrap().to_owned();
        (id, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn failures(&self) -> Value {
        self.server.get(&format!("/_replicate/{}/failures", self.id), 200).await
    }
}

#[tokio::test]
async fn a_refused_document_is_listed_with_its_reason() {
    let bench = Bench::start(Server::start().await).await;
    assert_eq!(bench.answer["history"][0]["doc_write_failures"], 1);
    let listed = bench.failures().await;
    assert_eq!(listed["dropped"], 0);
    let failures = listed["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1);
    let expected = json!({ "id": "doc0001", "rev": bench.rev().await, "error": "forbidden", "reason": "not here",
        "time": failures[0]["time"] });
    assert_eq!(failures[0], expected);
    assert!(failures[0]["time"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn failures_outlive_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let start = async || Server::with_config(|config| config.data_dir = dir.path().into()).await;
    let Bench { server, id, target, .. } = Bench::start(start().await).await;
    drop(target);
    server.stop().await;
    let server = start().await;
    let listed = server.get(&format!("/_replicate/{id}/failures"), 200).await;
    assert_eq!(listed["failures"][0]["id"], "doc0001");
}

#[tokio::test]
async fn trying_again_copies_exactly_what_failed_and_strikes_it_out() {
    let bench = Bench::start(Server::start().await).await;
    let before = bench.target.requests().len();
    let (id, answer) = bench.replicate(json!({ "retry_failures": true, "continuous": true })).await;
    assert_eq!(id, format!("{}+retry_failures", bench.id));
    assert_eq!((&answer["docs_written"], &answer["doc_write_failures"]), (&json!(1), &json!(0)));
    assert_eq!(bench.failures().await["failures"], json!([]));
    let ids: Vec<_> = bench.server.leaves("tgt").await.into_iter().map(|leaf| leaf.id).collect();
    assert_eq!(ids, ["doc0001"]);
    // No feed, no checkpoint.
    assert!(bench.target.requests()[before..].iter().all(|request| !request.contains("_local/")));
}

#[tokio::test]
async fn what_fails_again_stays_listed() {
    let bench = Bench::start(Server::start().await).await;
    bench.refuse().await;
    let (_, answer) = bench.replicate(json!({ "retry_failures": true })).await;
    assert_eq!(answer["doc_write_failures"], 1);
    assert_eq!(bench.failures().await["failures"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn trying_again_where_nothing_failed_does_nothing() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 3).await;
    server.database("tgt").await;
    let answer = server.replicate(json!({ "source": "src", "target": "tgt", "retry_failures": true })).await;
    assert_eq!(answer["docs_read"], 0);
    assert_eq!(server.leaves("tgt").await, []);
}

#[tokio::test]
async fn the_list_needs_the_right_to_replicate_and_an_id_that_is_one() {
    let server = Server::with_admin("root", "hunter2").await;
    let id = "0".repeat(32);
    assert_eq!(server.get(&format!("/_replicate/{id}/failures"), 200).await, json!({ "dropped": 0, "failures": [] }));
    server.get("/_replicate/..%2F..%2Fserver/failures", 404).await;
    let nobody = client().get(server.anonymous_url(&format!("/_replicate/{id}/failures"))).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
}
