//! What CouchDB's old `couch_rep` did and couchrep keeps, rule by rule.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::Server;

/// A server, and the requests that these tests make of it.
struct Bench {
    server: Server,
}

impl Bench {
    /// A server with the databases `src` and `tgt`.
    async fn start() -> Self {
        let bench = Self { server: Server::start().await };
        for database in ["src", "tgt"] {
            assert_eq!(bench.put(database, json!({})).await.0, 201);
        }
        bench
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send(self.server.client().get(self.server.url(&format!("/{path}")))).await
    }

    async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.server.client().put(self.server.url(&format!("/{path}"))).body(body.to_string())).await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        self.send(self.server.client().delete(self.server.url(&format!("/{path}")))).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.server.client().post(self.server.url(&format!("/{path}")));
        self.send(request.header("content-type", "application/json").body(body.to_string())).await
    }

    async fn fill(&self, database: &str, ids: impl Iterator<Item = usize>) {
        let docs: Vec<Value> = ids.map(|n| json!({"_id": format!("doc-{n:05}"), "n": n})).collect();
        assert_eq!(self.post(&format!("{database}/_bulk_docs"), json!({"docs": docs})).await.0, 201);
    }

    async fn replicate(&self, fields: Value) -> (u16, Value) {
        let mut body = json!({"source": "src", "target": "tgt"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.post("_replicate", body).await
    }

    /// Waits until the database has this many documents.
    async fn has_docs(&self, database: &str, count: u64) {
        let mut since = json!(0);
        while self.get(database).await.1["doc_count"] != count {
            let since_text = since.to_string().trim_matches('"').to_owned();
            let path = format!("{database}/_changes?feed=longpoll&timeout=10000&since={since_text}");
            since = self.get(&path).await.1["last_seq"].clone();
        }
    }

    /// Waits until the only task fulfils a condition, and gives its entry.
    async fn task(&self, condition: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let tasks = self.get("_active_tasks").await.1;
                if let Some(task) = tasks.as_array().unwrap().iter().find(|task| condition(task)) {
                    return task.clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.unwrap()
    }
}

#[tokio::test]
async fn the_same_request_joins_the_replication_that_runs() {
    let bench = Bench::start().await;
    let first = bench.replicate(json!({"continuous": true})).await;
    let second = bench.replicate(json!({"continuous": true})).await;
    assert_eq!(first.0, 202);
    assert_eq!(first, second);
    assert!(first.1["_local_id"].as_str().unwrap().ends_with("+continuous"));
    assert_eq!(bench.get("_active_tasks").await.1.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn whoever_asks_after_writing_finds_the_document_on_the_target() {
    let bench = Bench::start().await;
    // Each asker joins or starts, is served or runs again: none may get a result older than its own write.
    let ask = async |n: usize| {
        for round in 0..10 {
            let id = format!("doc-{n}-{round}");
            assert_eq!(bench.put(&format!("src/{id}"), json!({})).await.0, 201);
            let (status, answer) = bench.replicate(json!({})).await;
            assert_eq!((status, &answer["ok"]), (200, &json!(true)), "{answer}");
            assert_eq!(bench.get(&format!("tgt/{id}")).await.0, 200, "{id}");
        }
    };
    join_all((0..8).map(ask)).await;
    assert_eq!(bench.get("_active_tasks").await.1, json!([]));
}

#[tokio::test]
async fn cancel_ends_the_replication_and_keeps_and_records_what_was_written() {
    let bench = Bench::start().await;
    bench.fill("src", 0..10).await;
    let (_, started) = bench.replicate(json!({"continuous": true})).await;
    bench.has_docs("tgt", 10).await;
    let cancelled = bench.replicate(json!({"continuous": true, "cancel": true})).await;
    assert_eq!(cancelled, (200, json!({"ok": true, "_local_id": started["_local_id"]})));
    assert_eq!(bench.get("_active_tasks").await.1, json!([]));
    let base = started["_local_id"].as_str().unwrap().split('+').next().unwrap();
    let (source_log, target_log) =
        (bench.get(&format!("src/_local/{base}")).await, bench.get(&format!("tgt/_local/{base}")).await);
    assert_eq!(source_log.0, 200);
    assert_eq!(source_log.1["session_id"], target_log.1["session_id"]);
    assert_eq!(target_log.1["history"][0]["docs_written"], 10);
    let again = bench.replicate(json!({"continuous": true, "cancel": true})).await;
    assert_eq!(again, (404, json!({"error": "not_found", "reason": "missing"})));
}

#[tokio::test]
async fn cancel_without_continuous_finds_the_running_job_of_the_same_base_id() {
    let bench = Bench::start().await;
    let (_, started) = bench.replicate(json!({"continuous": true})).await;
    let cancelled = bench.replicate(json!({"cancel": true})).await;
    assert_eq!(cancelled, (200, json!({"ok": true, "_local_id": started["_local_id"]})));
    bench.replicate(json!({"continuous": true})).await;
    let by_id = bench.post("_replicate", json!({"cancel": true, "id": started["_local_id"]})).await;
    assert_eq!(by_id, (200, json!({"ok": true, "_local_id": started["_local_id"]})));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_the_replication() {
    let bench = Bench::start().await;
    bench.fill("src", 0..3000).await;
    let first_change = bench.get("tgt/_changes?feed=longpoll&timeout=20000");
    tokio::select! {
        // Batches of one document: the answer can't come before the first of them has.
        answer = bench.replicate(json!({"worker_batch_size": 1})) => panic!("{answer:?}"),
        _ = first_change => {}
    }
    bench.has_docs("tgt", 3000).await;
}

#[tokio::test]
async fn doc_ids_one_shots_read_exactly_those_documents_without_checkpoints() {
    let bench = Bench::start().await;
    bench.fill("src", 0..5).await;
    let (status, answer) = bench.replicate(json!({"doc_ids": ["doc-00001", "doc-00003", "nosuch"]})).await;
    assert_eq!(status, 200, "{answer}");
    let counters = ["docs_read", "docs_written", "doc_write_failures"].map(|key| answer[key].clone());
    assert_eq!(counters, [json!(2), json!(2), json!(0)]);
    assert_eq!(answer["history"].as_array().unwrap().len(), 1);
    assert!(answer["start_time"].is_string() && answer["end_time"].is_string());
    assert_eq!(bench.get("tgt").await.1["doc_count"], 2);
    // `use_checkpoints` doesn't enter the id, so this tells under which the one-shot's checkpoints would stand.
    let same = json!({"doc_ids": ["doc-00001", "doc-00003", "nosuch"], "continuous": true, "use_checkpoints": false});
    let (_, started) = bench.replicate(same).await;
    let base = started["_local_id"].as_str().unwrap().split('+').next().unwrap();
    for database in ["src", "tgt"] {
        assert_eq!(bench.get(&format!("{database}/_local/{base}")).await.0, 404);
    }
}

#[tokio::test]
async fn a_second_run_goes_on_from_the_checkpoint_and_tells_when_nothing_changed() {
    let bench = Bench::start().await;
    bench.fill("src", 0..5).await;
    let (status, first) = bench.replicate(json!({})).await;
    assert_eq!(status, 200, "{first}");
    let keys: Vec<_> = first.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ok", "session_id", "source_last_seq", "replication_id_version", "history"]);
    let expected = json!({"missing_checked": 5, "missing_found": 5, "docs_read": 5, "docs_written": 5,
        "doc_write_failures": 0, "bulk_get_docs": 5, "bulk_get_attempts": 5, "start_last_seq": 0});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&first["history"][0][key], value, "{key}");
    }
    let (_, second) = bench.replicate(json!({})).await;
    assert_eq!(second["no_changes"], true);
    assert_eq!(second["session_id"], first["session_id"]);
    bench.fill("src", 5..7).await;
    let (_, third) = bench.replicate(json!({})).await;
    assert_eq!(third["history"][0]["start_last_seq"], first["source_last_seq"]);
    assert_eq!(third["history"][0]["docs_written"], 2);
    assert_ne!(third["session_id"], first["session_id"]);
    assert_eq!(third["history"][1], first["history"][0]);
}

#[tokio::test]
async fn a_target_that_was_made_anew_gets_everything_again() {
    let bench = Bench::start().await;
    bench.fill("src", 0..5).await;
    bench.replicate(json!({})).await;
    assert_eq!(bench.delete("tgt").await.0, 200);
    let (status, answer) = bench.replicate(json!({"create_target": true})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["history"].as_array().unwrap().len(), 1);
    assert_eq!(bench.get("tgt").await.1["doc_count"], 5);
}

#[tokio::test]
async fn a_history_keeps_fifty_sessions() {
    let bench = Bench::start().await;
    for n in 0..52 {
        bench.fill("src", n..n + 1).await;
        assert_eq!(bench.replicate(json!({})).await.0, 200);
    }
    bench.fill("src", 52..53).await;
    let (_, answer) = bench.replicate(json!({})).await;
    assert_eq!(answer["history"].as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn a_checkpoint_follows_progress_by_itself_and_without_checkpoints_none_is_written() {
    let bench = Bench::start().await;
    bench.fill("src", 0..5).await;
    bench.replicate(json!({"continuous": true, "checkpoint_interval": 50})).await;
    let task = bench.task(|task| task["checkpointed_source_seq"] != 0).await;
    assert_eq!(task["checkpointed_source_seq"], task["through_seq"]);
    bench.replicate(json!({"continuous": true, "cancel": true})).await;
    let (_, answer) = bench.replicate(json!({"use_checkpoints": false})).await;
    assert_eq!(answer, json!({"ok": true, "use_checkpoints": false}));
}

#[tokio::test]
async fn active_tasks_show_the_counters_live() {
    let bench = Bench::start().await;
    bench.fill("src", 0..5).await;
    bench.replicate(json!({"continuous": true})).await;
    let task = bench.task(|task| task["docs_written"] == 5 && task["through_seq"] == task["source_seq"]).await;
    assert_eq!(task["type"], "replication");
    assert_eq!(task["revisions_checked"], 5);
    assert_eq!(task["missing_revisions_found"], 5);
    assert_eq!(task["source"], bench.server.url("/src/"));
    bench.fill("src", 5..8).await;
    bench.task(|task| task["docs_written"] == 8).await;
}

#[tokio::test]
async fn the_feeds_last_seq_counts_as_progress_where_a_filter_lets_nothing_through() {
    let bench = Bench::start().await;
    bench.fill("src", 0..5).await;
    let fields = json!({"continuous": true, "doc_ids": ["nosuch"]});
    let (_, started) = bench.replicate(fields.clone()).await;
    let task = bench.task(|task| task["through_seq"] != 0).await;
    let mut cancel = fields;
    cancel["cancel"] = json!(true);
    assert_eq!(bench.replicate(cancel).await.0, 200);
    let base = started["_local_id"].as_str().unwrap().split('+').next().unwrap();
    let log = bench.get(&format!("tgt/_local/{base}")).await.1;
    assert_eq!(log["source_last_seq"], task["through_seq"]);
    assert_eq!(bench.get("tgt").await.1["doc_count"], 0);
}

#[tokio::test]
async fn a_missing_database_is_named_by_its_url() {
    let bench = Bench::start().await;
    let (status, answer) = bench.replicate(json!({"source": "nosuch"})).await;
    let reason = format!("could not open {}", bench.server.url("/nosuch/"));
    assert_eq!((status, answer), (404, json!({"error": "db_not_found", "reason": reason})));
    // A target isn't made for a source that isn't there.
    bench.replicate(json!({"source": "nosuch", "target": "new", "create_target": true})).await;
    assert_eq!(bench.get("new").await.0, 404);
}
