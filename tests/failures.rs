//! What could not be written is listed, outlives the server, and is tried again when asked for.

use std::collections::BTreeSet;
use std::time::Duration;

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

    /// Waits until so many are listed.
    async fn listed(&self, count: usize) -> Value {
        loop {
            let listed = self.failures().await;
            if listed["failures"].as_array().unwrap().len() == count {
                return listed;
            }
            // Nothing signals a list's change; a test that waits for ever is ended by its runner.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
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
    assert_eq!(listed["total"], 1);
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
    assert_eq!(server.get(&format!("/_replicate/{id}/failures"), 200).await, json!({ "total": 0, "failures": [] }));
    server.get("/_replicate/..%2F..%2Fserver/failures", 404).await;
    let nobody = client().get(server.anonymous_url(&format!("/_replicate/{id}/failures"))).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
}

/// Only the newest 1,000 were kept.
#[tokio::test]
async fn all_of_thousands_of_refused_documents_are_listed_in_parts() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 2500).await;
    server.database("tgt").await;
    let target = FaultyPeer::before(&server).await;
    target.refuse(|_| true);
    let bench = Bench { server, target, id: String::new(), answer: Value::Null };
    let (id, answer) = bench.replicate(json!({})).await;
    assert_eq!(answer["history"][0]["doc_write_failures"], 2500);
    let mut ids = BTreeSet::new();
    for (skip, expected) in [(0, 1000), (1000, 1000), (2000, 500), (2500, 0)] {
        let part = bench.server.get(&format!("/_replicate/{id}/failures?skip={skip}"), 200).await;
        assert_eq!(part["total"], 2500);
        let failures = part["failures"].as_array().unwrap();
        assert_eq!(failures.len(), expected);
        ids.extend(failures.iter().map(|failure| failure["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(ids.len(), 2500);
    let part = bench.server.get(&format!("/_replicate/{id}/failures?limit=3"), 200).await;
    assert_eq!(part["failures"].as_array().unwrap().len(), 3);
}

/// The list stood in the data dir of one server alone.
#[tokio::test]
async fn another_server_finds_the_list_in_the_source() {
    let bench = Bench::start(Server::with_config(|config| config.uuid = Some("1".repeat(32))).await).await;
    let (source, target) = (bench.server.url("/src"), bench.target.url("/tgt"));
    bench.refuse().await;
    let other = async || Server::with_config(|config| config.uuid = Some("2".repeat(32))).await;
    let request = json!({ "source": source, "target": target });
    other().await.replicate(request.clone()).await;
    let other = other().await;
    let answer = other.replicate(json!({ "source": source, "target": target, "retry_failures": true })).await;
    assert_eq!(answer["docs_written"], 1);
    assert_eq!(other.replicate(request).await["no_changes"], true);
}

/// One 404, of a copy that had been away, hid the whole list.
#[tokio::test]
async fn an_index_that_is_not_there_for_a_moment_hides_no_failure() {
    let bench = Bench::start(Server::start().await).await;
    let source = FaultyPeer::before(&bench.server).await;
    let body = json!({ "source": source.url("/src"), "target": bench.target.url("/tgt") });
    bench.target.refuse(|_| true);
    bench.server.replicate(body.clone()).await;
    bench.target.refuse(|_| false);
    let missing = json!({ "error": "not_found", "reason": "missing" }).to_string();
    let missing = Fault::Answer(404, vec![("content-type", "application/json".into())], missing);
    source.fail(Method::GET, "-failures$", missing);
    let mut retry = body;
    retry["retry_failures"] = true.into();
    assert_eq!(bench.server.replicate(retry).await["docs_written"], 3);
    assert_eq!(source.faults_left(), 0);
}

#[tokio::test]
async fn a_list_in_a_remote_source_is_found_again_after_a_restart_if_it_wants_no_credentials_or_has_them_again() {
    for admin in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let start = async || Server::with_config(|config| config.data_dir = dir.path().into()).await;
        let behind = if admin { Server::with_admin("root", "hunter2").await } else { Server::start().await };
        behind.database("src").await.fill("doc", 3).await;
        behind.database("tgt").await;
        let target = FaultyPeer::before(&behind).await;
        target.refuse(|id| id == "doc0001");
        let tgt = target.url("/tgt");
        let tgt = if admin { tgt.replace("//", "//root:hunter2@") } else { tgt };
        let request = json!({ "source": behind.url("/src"), "target": tgt });
        let server = start().await;
        let answer = client().post(server.url("/_replicate")).header("content-type", "application/json");
        let answer = answer.body(request.to_string()).send().await.unwrap();
        let list = format!("/_replicate/{}/failures", answer.headers()["x-couchrep-replication-id"].to_str().unwrap());
        server.stop().await;
        let server = start().await;
        if admin {
            let answer = server.get(&list, 401).await;
            assert!(answer["reason"].as_str().unwrap().starts_with("the list stands in http://127.0.0.1:"), "{answer}");
            assert!(!answer.to_string().contains("hunter2"));
            server.replicate(request).await;
        }
        let listed = server.get(&list, 200).await;
        assert_eq!((&listed["total"], &listed["failures"][0]["id"]), (&json!(1), &json!("doc0001")));
    }
}

#[tokio::test]
async fn a_failure_goes_when_its_document_arrives_later() {
    for continuous in [false, true] {
        let server = Server::start().await;
        server.database("src").await.fill("doc", 3).await;
        server.database("tgt").await;
        let target = FaultyPeer::before(&server).await;
        target.refuse(|id| id != "doc0000");
        let mut bench = Bench { server, target, id: String::new(), answer: Value::Null };
        let body = bench.body(json!({ "continuous": continuous, "checkpoint_interval": 10 }));
        match continuous {
            true => bench.id = bench.server.replicate(body).await["_local_id"].as_str().unwrap().to_owned(),
            false => bench.id = bench.replicate(json!({})).await.0,
        }
        bench.listed(2).await;
        bench.target.refuse(|id| id == "doc0002");
        let edited = json!({ "_rev": bench.rev().await, "edited": true });
        bench.server.put("/src/doc0001", edited, 201).await;
        if !continuous {
            bench.replicate(json!({})).await;
        }
        assert_eq!(bench.listed(1).await["failures"][0]["id"], "doc0002", "continuous: {continuous}");
    }
}

#[tokio::test]
async fn an_edited_document_is_tried_again_as_it_is_now() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 3).await;
    server.database("tgt").await;
    let target = FaultyPeer::before(&server).await;
    target.refuse(|_| true);
    let mut bench = Bench { server, target, id: String::new(), answer: Value::Null };
    bench.id = bench.replicate(json!({})).await.0;
    let edited = json!({ "_rev": bench.rev().await, "edited": true });
    bench.server.put("/src/doc0001", edited, 201).await;
    // Still refused: the entry is the edit's now.
    bench.replicate(json!({ "retry_failures": true })).await;
    let listed = bench.listed(3).await;
    let revs: Vec<_> = listed["failures"].as_array().unwrap().iter().map(|failure| failure["rev"].clone()).collect();
    assert!(revs.contains(&json!(bench.rev().await)), "{revs:?}");
    bench.target.refuse(|_| false);
    bench.replicate(json!({ "retry_failures": true })).await;
    bench.listed(0).await;
    assert_eq!(bench.server.leaves("tgt").await, bench.server.leaves("src").await);
}

/// A source that takes no `_local` documents of ours: a read-only user, a proxy.
#[tokio::test]
async fn failures_are_kept_in_the_data_dir_if_the_source_takes_no_list() {
    for status in [403, 405] {
        let server = Server::start().await;
        server.database("src").await.fill("doc", 3).await;
        server.database("tgt").await;
        let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
        target.refuse(|id| id == "doc0001");
        source.keep_failing(Method::PUT, "-failures-", Fault::status(status), None);
        let body = json!({ "source": source.url("/src"), "target": target.url("/tgt") });
        server.replicate(body.clone()).await;
        assert!(source.has_failed());
        let local = server.get("/src/_local_docs", 200).await.to_string();
        assert!(!local.contains("failures"), "{local}");
        target.refuse(|_| false);
        let mut retry = body.clone();
        retry["retry_failures"] = true.into();
        assert_eq!(server.replicate(retry.clone()).await["docs_written"], 1, "{status}");
        assert_eq!(server.replicate(retry).await["docs_read"], 0);
    }
}

#[tokio::test]
async fn nothing_is_written_to_a_source_without_checkpoints() {
    let bench = Bench::start(Server::start().await).await;
    let source = FaultyPeer::before(&bench.server).await;
    bench.target.refuse(|_| true);
    let body = json!({ "source": source.url("/src"), "target": bench.target.url("/tgt"), "use_checkpoints": false });
    bench.server.replicate(body.clone()).await;
    assert!(!source.requests().iter().any(|request| request.starts_with("PUT")));
    bench.target.refuse(|_| false);
    let mut retry = body;
    retry["retry_failures"] = true.into();
    assert_eq!(bench.server.replicate(retry).await["docs_written"], 3);
}

/// A source that fell between the write of a new page and its sync commits without it. Such a page was trusted, and the
/// old one, with what still stood, removed.
#[tokio::test]
async fn a_new_page_that_the_source_has_lost_takes_the_place_of_none() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 3).await;
    server.database("tgt").await;
    let (source, target) = (FaultyPeer::before(&server).await, FaultyPeer::before(&server).await);
    target.refuse(|_| true);
    let request = json!({ "source": source.url("/src"), "target": target.url("/tgt") });
    server.replicate(request.clone()).await;
    // One of them arrives in another way, so that the next look at the list rewrites its page.
    server.replicate(json!({ "source": "src", "target": "tgt", "doc_ids": ["doc0001"] })).await;
    let written = Fault::Answer(
        201,
        vec![("content-type", "application/json".into())],
        json!({ "ok": true, "id": "_local/page", "rev": "0-1" }).to_string(),
    );
    source.fail(Method::PUT, "-failures-", written);
    server.replicate(request.clone()).await;
    assert_eq!(source.faults_left(), 0);
    target.refuse(|_| false);
    let mut retry = request;
    retry["retry_failures"] = true.into();
    assert_eq!(server.replicate(retry).await["docs_written"], 2);
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}

/// A server that had been started anew knew no owners, and told everybody with a name what others' replications couldn't copy.
#[tokio::test]
async fn after_a_restart_failures_are_still_their_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let start = async || Server::with_admin_and("root", "hunter2", |config| config.data_dir = dir.path().into()).await;
    let url_as = |server: &Server, name: &str, path: &str| {
        let login = if name == "root" { "root:hunter2".into() } else { format!("{name}:pw") };
        server.anonymous_url(path).replace("http://", &format!("http://{login}@"))
    };
    let server = start().await;
    for name in ["ann", "bob"] {
        let user = json!({ "name": name, "password": "pw", "roles": [], "type": "user" });
        server.put(&format!("/_users/org.couchdb.user:{name}"), user, 201).await;
    }
    let remote = Server::start().await;
    remote.database("src").await.fill("doc", 3).await;
    remote.database("tgt").await;
    let target = FaultyPeer::before(&remote).await;
    target.refuse(|id| id == "doc0001");
    // One of them takes no list: it stands in the data dir.
    let sources = [FaultyPeer::before(&remote).await, FaultyPeer::before(&remote).await];
    sources[1].keep_failing(Method::PUT, "-failures-", Fault::status(403), None);
    let mut ids = Vec::new();
    for source in &sources {
        let body = json!({ "source": source.url("/src"), "target": target.url("/tgt") });
        let request = client().post(url_as(&server, "ann", "/_replicate")).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        ids.push(answer.headers()["x-couchrep-replication-id"].to_str().unwrap().to_owned());
    }
    server.stop().await;
    let server = start().await;
    let listed = async |name: &str, id: &str| {
        let answer = client().get(url_as(&server, name, &format!("/_replicate/{id}/failures"))).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let unknown = listed("bob", &"0".repeat(32)).await;
    assert_eq!(unknown.0, 404);
    for id in &ids {
        assert_eq!(listed("bob", id).await, unknown);
        for name in ["ann", "root"] {
            let (status, answer) = listed(name, id).await;
            assert!(status == 200 && answer.contains("doc0001"), "{name} {status} {answer}");
        }
    }
}
