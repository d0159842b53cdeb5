//! Jobs as documents of `_replicator`, and what `_scheduler` tells of them.

mod elsewhere;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{Fault, FaultyPeer, Server};

/// A server with `_replicator`, and databases `src` with ten documents and `tgt`.
async fn start() -> Server {
    let server = Server::with_config(quick).await;
    server.database("src").await.fill("doc", 10).await;
    server.database("tgt").await;
    server
}

fn quick(config: &mut couchrep::config::Config) {
    config.replicator.restart_pause = Duration::from_millis(200);
    config.replicator.max_restart_pause = Duration::from_secs(1);
    config.replicator.max_probe_pause = Duration::from_secs(1);
}

/// Waits until something that is asked for is as it should be.
pub async fn until(server: &Server, path: &str, is: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let answer = server.client().get(server.url(path)).send().await.unwrap();
            let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            if is(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let last = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        server.client().get(server.url(path)).send().await.unwrap().text().await.unwrap()
    };
    tokio::select! {
        answer = found => answer,
        last = last => panic!("{path}: {last}"),
    }
}

async fn state(server: &Server, doc: &str, state: &str) -> Value {
    until(server, &format!("/_scheduler/docs/_replicator/{doc}"), |entry| entry["state"] == state).await
}

/// Waits until a copy has as many documents.
async fn arrived(server: &Server, copy: &str, documents: u64) {
    until(server, &format!("/{copy}"), |info| info["doc_count"] == documents).await;
}

#[tokio::test]
async fn a_one_shot_document_copies_and_says_that_it_is_completed() {
    let server = start().await;
    server.put("/_replicator/once", json!({"source": "src", "target": "tgt"}), 201).await;
    let document = until(&server, "/_replicator/once", |doc| doc["_replication_state"] == "completed").await;
    assert_eq!(document["_replication_stats"]["docs_written"], 10);
    assert!(document["_replication_state_time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(server.leaves("src").await, server.leaves("tgt").await);
    let entry = state(&server, "once", "completed").await;
    assert_eq!(
        (&entry["id"], &entry["error_count"], &entry["info"]["docs_read"]),
        (&Value::Null, &json!(0), &json!(10))
    );
    assert_eq!(server.get("/_scheduler/jobs", 200).await["total_rows"], 0);
}

#[tokio::test]
async fn a_continuous_document_goes_on_over_a_restart_and_ends_with_its_document() {
    let server = start().await;
    server.put("/_replicator/on", json!({"source": "src", "target": "tgt", "continuous": true}), 201).await;
    server.until_equal("src", "tgt").await;
    let entry = state(&server, "on", "running").await;
    assert!(entry["id"].as_str().unwrap().ends_with("+continuous"));
    let server = server.restart().await;
    server.put("/src/late", json!({}), 201).await;
    server.until_equal("src", "tgt").await;
    let jobs = server.get("/_scheduler/jobs", 200).await;
    assert_eq!((&jobs["total_rows"], &jobs["jobs"][0]["doc_id"]), (&json!(1), &json!("on")));
    assert_eq!(jobs["jobs"][0]["history"].as_array().unwrap().last().unwrap()["type"], "added");
    let rev = server.get("/_replicator/on", 200).await["_rev"].clone();
    server.delete(&format!("/_replicator/on?rev={}", rev.as_str().unwrap()), 200).await;
    until(&server, "/_scheduler/jobs", |jobs| jobs["total_rows"] == 0).await;
    assert_eq!(server.get("/_active_tasks", 200).await, json!([]));
}

#[tokio::test]
async fn a_parked_job_is_woken_by_each_change() {
    let server = start().await;
    server.put("/_replicator/on", json!({"source": "src", "target": "tgt", "continuous": true}), 201).await;
    for n in 0..20 {
        server.put(&format!("/src/late{n}"), json!({}), 201).await;
        server.until_equal("src", "tgt").await;
    }
    assert_eq!(server.get("/_scheduler/jobs", 200).await["jobs"][0]["history"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_job_that_fails_says_why_in_the_document_too_and_takes_it_off_when_it_is_well() {
    let server = start().await;
    server.put("/_replicator/ill", json!({"source": "none", "target": "tgt", "continuous": true}), 201).await;
    let document = until(&server, "/_replicator/ill", |doc| doc["_replication_state"] == "crashing").await;
    let reason = document["_replication_state_reason"].as_str().unwrap();
    assert!(reason.starts_with("db_not_found: could not open http://127.0.0.1:"), "{reason}");
    assert!(reason.contains("/none/; tried again at 20"), "{reason}");
    let entry =
        until(&server, "/_scheduler/docs/_replicator/ill", |entry| entry["error_count"].as_u64() > Some(1)).await;
    assert!(entry["info"]["error"].is_string() || entry["state"] == "running");
    server.database("none").await.fill("doc", 3).await;
    server.until_equal("none", "tgt").await;
    until(&server, "/_replicator/ill", |doc| doc["_replication_state"].is_null()).await;
    assert_eq!(state(&server, "ill", "running").await["error_count"], 0);
}

#[tokio::test]
async fn of_two_documents_with_one_id_the_second_says_so_and_takes_over() {
    let server = start().await;
    let body = json!({"source": "src", "target": "tgt", "continuous": true});
    server.put("/_replicator/first", body.clone(), 201).await;
    state(&server, "first", "running").await;
    server.put("/_replicator/second", body, 201).await;
    let document = until(&server, "/_replicator/second", |doc| doc["_replication_state"] == "failed").await;
    let reason = document["_replication_state_reason"].as_str().unwrap();
    assert!(reason.ends_with("already started, triggered by document `first` from db `_replicator`"), "{reason}");
    assert_eq!(state(&server, "second", "failed").await["error_count"], 1);
    let server = server.restart().await;
    state(&server, "first", "running").await;
    let rev = server.get("/_replicator/first", 200).await["_rev"].clone();
    server.delete(&format!("/_replicator/first?rev={}", rev.as_str().unwrap()), 200).await;
    state(&server, "second", "running").await;
    until(&server, "/_replicator/second", |doc| doc["_replication_state"].is_null()).await;
}

#[tokio::test]
async fn an_edited_document_changes_its_job_and_a_comment_does_not() {
    let server = start().await;
    server.database("other").await;
    let body = json!({"source": "src", "target": "tgt", "continuous": true});
    let rev = server.put("/_replicator/doc", body.clone(), 201).await["rev"].clone();
    let id = state(&server, "doc", "running").await["id"].clone();
    let mut commented = body.clone();
    commented["comment"] = json!("it copies");
    commented["_rev"] = rev;
    let rev = server.put("/_replicator/doc", commented, 201).await["rev"].clone();
    server.put("/src/one", json!({}), 201).await;
    server.until_equal("src", "tgt").await;
    let job = server.get("/_scheduler/jobs", 200).await["jobs"][0].clone();
    assert_eq!((&job["id"], job["history"].as_array().unwrap().len()), (&id, 2));
    let edited = json!({"source": "src", "target": "other", "continuous": true, "_rev": rev});
    server.put("/_replicator/doc", edited, 201).await;
    until(&server, "/_scheduler/docs/_replicator/doc", |entry| entry["state"] == "running" && entry["id"] != id).await;
    server.until_equal("src", "other").await;
    assert_eq!(server.get("/_scheduler/jobs", 200).await["total_rows"], 1);
}

#[tokio::test]
async fn jobs_are_paused_resumed_and_tried_again() {
    let server = start().await;
    server.put("/_replicator/doc", json!({"source": "src", "target": "tgt", "continuous": true}), 201).await;
    server.until_equal("src", "tgt").await;
    let id = state(&server, "doc", "running").await["id"].as_str().unwrap().to_owned();
    let path = format!("/_scheduler/jobs/{}", id.replace('+', "%2B"));
    let paused = server.post(&path, json!({"action": "pause"}), 200).await;
    assert_eq!((&paused["paused"], &paused["state"]), (&json!(true), &json!("pending")));
    assert_eq!(paused["history"][0]["type"], "stopped");
    assert_eq!(server.get("/_replicator/doc", 200).await["paused"], true);
    let server = server.restart().await;
    assert_eq!(state(&server, "doc", "pending").await["paused"], true);
    server.put("/src/while", json!({}), 201).await;
    let bad = server.post(&path, json!({"action": "stop"}), 400).await;
    assert_eq!(bad["reason"], "`action` must be `pause`, `resume` or `retry_now`");
    assert_ne!(server.leaves("src").await, server.leaves("tgt").await);
    // Its local names stand for another port by now.
    let id = server.get("/_scheduler/jobs", 200).await["jobs"][0]["id"].as_str().unwrap().replace('+', "%2B");
    let path = format!("/_scheduler/jobs/{id}");
    assert_eq!(server.post(&path, json!({"action": "retry_now"}), 409).await["error"], "replication_paused");
    server.post(&path, json!({"action": "resume"}), 200).await;
    server.until_equal("src", "tgt").await;
    assert_eq!(server.get("/_replicator/doc", 200).await["paused"], Value::Null);
    server.post(&path, json!({"action": "retry_now"}), 200).await;
    server.post("/_scheduler/jobs/none", json!({"action": "pause"}), 404).await;
    let asked = server.replicate(json!({"source": "tgt", "target": "src", "continuous": true})).await;
    let transient = asked["_local_id"].as_str().unwrap().replace('+', "%2B");
    server.post(&format!("/_scheduler/jobs/{transient}"), json!({"action": "pause"}), 400).await;
}

/// What two people did at the same time was done to the document in one order and to the job in the other, for good.
#[tokio::test]
async fn a_job_is_paused_when_its_document_says_so_whoever_acts_at_the_same_time() {
    let server = start().await;
    server.put("/_replicator/doc", json!({"source": "src", "target": "tgt", "continuous": true}), 201).await;
    let id = state(&server, "doc", "running").await["id"].as_str().unwrap().replace('+', "%2B");
    let act = async |action: &str| {
        let request = server.client().post(server.url(&format!("/_scheduler/jobs/{id}")));
        let request = request.header("content-type", "application/json");
        let status = request.body(json!({ "action": action }).to_string()).send().await.unwrap().status();
        assert!([200, 404, 409].contains(&status.as_u16()), "{status}");
    };
    for _ in 0..40 {
        futures::join!(act("pause"), act("resume"), act("pause"), act("resume"));
        let paused = server.get("/_replicator/doc", 200).await["paused"] == true;
        until(&server, "/_scheduler/docs/_replicator/doc", |entry| {
            entry["paused"] == paused && entry["state"] == if paused { "pending" } else { "running" }
        })
        .await;
    }
}

/// It stands nowhere in the feed any more, and its job went on until the next start: nobody could end it.
#[tokio::test]
async fn a_document_that_is_purged_takes_its_job_along() {
    let server = start().await;
    let body = json!({"source": "src", "target": "tgt", "continuous": true});
    let put = server.put("/_replicator/doc", body, 201).await;
    state(&server, "doc", "running").await;
    server.post("/_replicator/_purge", json!({"doc": [put["rev"]]}), 201).await;
    until(&server, "/_scheduler/jobs", |jobs| jobs["total_rows"] == 0).await;
}

#[tokio::test]
async fn a_database_that_goes_takes_its_jobs_along() {
    let server = start().await;
    server.database("team%2F_replicator").await;
    let body = json!({"source": "src", "target": "tgt", "continuous": true});
    server.put("/team%2F_replicator/doc", body, 201).await;
    let entry = until(&server, "/_scheduler/docs/team/_replicator/doc", |entry| entry["state"] == "running").await;
    assert_eq!(entry["database"], "team/_replicator");
    assert_eq!(server.get("/_scheduler/docs", 200).await["total_rows"], 1);
    assert_eq!(server.get("/_scheduler/docs/team%2F_replicator?states=running", 200).await["total_rows"], 1);
    assert_eq!(server.get("/_scheduler/docs/team/_replicator?states=failed", 200).await["total_rows"], 0);
    assert_eq!(server.get("/_scheduler/docs?states=mad", 400).await["error"], "bad_request");
    server.delete("/team%2F_replicator", 200).await;
    until(&server, "/_scheduler/jobs", |jobs| jobs["total_rows"] == 0).await;
    server.get("/_scheduler/docs/team/_replicator", 404).await;
    server.get("/_scheduler/docs/_replicator/none", 404).await;
}

/// A thousand jobs of a server that is down make no storm, and a login that is refused is tried once for all.
#[tokio::test]
async fn a_refused_login_is_tried_once_for_all_jobs() {
    let source = Server::with_admin("root", "secret").await;
    let peer = FaultyPeer::before(&source).await;
    let server = start().await;
    for n in 0..20 {
        server.database(&format!("copy{n}")).await;
        let url = peer.url(&format!("/db{n}")).replace("root:secret@", "ann:wrong@");
        let url = if url.contains("ann:") { url } else { url.replace("http://", "http://ann:wrong@") };
        let body = json!({"source": url, "target": format!("copy{n}"), "continuous": true});
        server.put(&format!("/_replicator/job{n:02}"), body, 201).await;
    }
    until(&server, "/_scheduler/docs?states=crashing", |docs| docs["total_rows"].as_u64() > Some(0)).await;
    until(&server, "/_scheduler/docs?states=initializing", |docs| docs["total_rows"] == 0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let logins = peer.requests().iter().filter(|request| request.contains("/_session")).count();
    // Those that began before the first was refused share its refusal.
    assert!((1..=3).contains(&logins), "{logins}");
}

#[tokio::test]
async fn a_replication_that_is_kept_becomes_a_document_and_survives_and_one_that_is_not_goes() {
    let server = start().await;
    server.database("other").await;
    let kept = json!({"source": "src", "target": "tgt", "continuous": true, "keep": true});
    let asked = server.replicate(kept.clone()).await;
    assert_eq!(server.replicate(kept).await, asked);
    let id = asked["_local_id"].as_str().unwrap().to_owned();
    server.until_equal("src", "tgt").await;
    let path = format!("/_replicator/{}", id.replace('+', "%2B"));
    let document = server.get(&path, 200).await;
    assert_eq!((&document["source"], &document["keep"]), (&json!("src"), &Value::Null));
    server.replicate(json!({"source": "src", "target": "other", "continuous": true})).await;
    let server = server.restart().await;
    server.put("/src/late", json!({}), 201).await;
    server.until_equal("src", "tgt").await;
    let jobs = server.get("/_scheduler/jobs", 200).await;
    assert_eq!((&jobs["total_rows"], &jobs["jobs"][0]["doc_id"]), (&json!(1), &json!(id)));
    // Its local names stand for another port by now; the document's name stays.
    let now = jobs["jobs"][0]["id"].clone();
    let cancelled = server.post("/_replicate", json!({"replication_id": now, "cancel": true}), 200).await;
    assert_eq!(cancelled["_local_id"], now);
    assert_eq!(server.get(&path, 200).await["paused"], true);
}

/// It was answered 202 though nothing of it would run.
#[tokio::test]
async fn what_is_kept_in_a_document_that_was_edited_paused_or_failed_since_is_refused() {
    let server = start().await;
    let kept = json!({"source": "src", "target": "tgt", "continuous": true, "keep": true});
    let id = server.replicate(kept.clone()).await["_local_id"].as_str().unwrap().to_owned();
    server.until_equal("src", "tgt").await;
    let path = format!("/_replicator/{}", id.replace('+', "%2B"));
    let original = server.get(&path, 200).await;
    let edited = async |name: &str, value: Value| {
        let mut document = original.clone();
        document[name] = value;
        // A state may be written in between.
        loop {
            document["_rev"] = server.get(&path, 200).await["_rev"].clone();
            let put = server.client().put(server.url(&path)).header("Content-Type", "application/json");
            match put.body(document.to_string()).send().await.unwrap().status().as_u16() {
                409 => {}
                status => return assert!([200, 201].contains(&status), "{status}"),
            }
        }
    };
    edited("paused", json!(true)).await;
    assert_eq!(server.post("/_replicate", kept.clone(), 409).await["error"], "replication_paused");
    edited("target", json!("elsewhere")).await;
    let refused = server.post("/_replicate", kept.clone(), 409).await;
    assert_eq!(refused["error"], "conflict");
    assert_eq!(refused["reason"], format!("the document `{id}`, which would keep it, describes something else by now"));
    edited("comment", json!("the same again")).await;
    assert_eq!(server.post("/_replicate", kept.clone(), 202).await["_local_id"], json!(id));
    // Deleted, and made again when another document has its job.
    edited("_deleted", json!(true)).await;
    server.put("/_replicator/first", json!({"source": "src", "target": "tgt", "continuous": true}), 201).await;
    until(&server, "/_scheduler/docs/_replicator/first", |entry| entry["state"] == "running").await;
    server.put(&path, json!({"source": "src", "target": "tgt", "continuous": true}), 201).await;
    until(&server, &path, |document| document["_replication_state"] == "failed").await;
    let refused = server.post("/_replicate", kept, 409).await;
    assert!(refused["reason"].as_str().unwrap().contains("is in the state `failed`: Replication `"), "{refused}");
}

#[tokio::test]
async fn a_kept_replication_that_is_cancelled_has_no_document_any_more() {
    let server = Server::with_config(|config| config.replicator.keep_jobs = true).await;
    server.database("src").await.fill("doc", 10).await;
    server.database("tgt").await;
    // Joined by what is kept.
    let body = json!({"source": "src", "target": "tgt", "continuous": true});
    let id = server.replicate(body.clone()).await["_local_id"].as_str().unwrap().to_owned();
    server.until_equal("src", "tgt").await;
    let mut cancel = body.clone();
    cancel["cancel"] = json!(true);
    assert_eq!(server.post("/_replicate", cancel, 200).await["_local_id"], json!(id));
    server.get(&format!("/_replicator/{}", id.replace('+', "%2B")), 404).await;
    assert_eq!(server.get("/_scheduler/jobs", 200).await["total_rows"], 0);
    assert_eq!(server.replicate(body).await["_local_id"], json!(id));
    until(&server, "/_scheduler/jobs", |jobs| jobs["total_rows"] == 1).await;
}

/// Source and target at one server: the first login there was taken for the refused one, and with it all jobs of that user waited.
#[tokio::test]
async fn a_refused_login_keeps_only_its_own_jobs_waiting() {
    let server = Server::with_admin_and("root", "secret", quick).await;
    server.database("src").await.fill("doc", 10).await;
    server.database("tgt").await;
    let wrong = server.url("/src").replace("root:secret", "someone:wrong");
    server.put("/_replicator/wrong", json!({"source": wrong, "target": server.url("/tgt")}), 201).await;
    state(&server, "wrong", "crashing").await;
    server.put("/_replicator/right", json!({"source": server.url("/src"), "target": server.url("/tgt")}), 201).await;
    state(&server, "right", "completed").await;
    assert_eq!(server.leaves("src").await, server.leaves("tgt").await);
}

#[tokio::test]
async fn a_server_that_says_for_how_long_is_left_alone_for_so_long() {
    let source = Server::start().await;
    let peer = FaultyPeer::before(&source).await;
    source.database("db").await.fill("doc", 2).await;
    let server = Server::with_config(|config| {
        quick(config);
        config.replicator.retries_per_request = 1;
    })
    .await;
    server.database("copy").await;
    let busy = Fault::Answer(503, vec![("retry-after", "4".into())], String::new());
    peer.fail(Method::GET, "/db/", busy);
    let body = json!({"source": peer.url("/db"), "target": "copy", "continuous": true});
    server.put("/_replicator/job", body, 201).await;
    until(&server, "/_scheduler/docs/_replicator/job", |entry| entry["state"] == "crashing").await;
    let before = peer.requests().len();
    let start = std::time::Instant::now();
    peer.saw_after(before, "/db/").await;
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    arrived(&server, "copy", 2).await;
}

/// How often a job was given a life.
async fn starts(server: &Server) -> u64 {
    let text = server.client().get(server.url("/_metrics")).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with("couchdb_couch_replicator_jobs_starts_total"));
    line.unwrap_or_else(|| panic!("{text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// It ran again at once, and for ever, since its document said nothing of its end.
#[tokio::test]
async fn a_one_shot_whose_end_a_validation_refuses_runs_once_and_is_told_when_it_may_be() {
    let server = start().await;
    server.database("other%2F_replicator").await;
    let function = "function (doc) { if (doc._replication_state) { throw({forbidden: 'no'}); } }";
    let rev = server.put("/_replicator/_design/v", json!({"validate_doc_update": function}), 201).await["rev"].clone();
    let body = json!({"source": "src", "target": "tgt"});
    let first = server.put("/_replicator/once", body.clone(), 201).await["rev"].clone();
    let entry = state(&server, "once", "completed").await;
    assert_eq!((&entry["info"]["docs_written"], &entry["error_count"]), (&json!(10), &json!(0)));
    // Others come to their ends meanwhile.
    for n in 0..10 {
        server.put(&format!("/other%2F_replicator/{n}"), body.clone(), 201).await;
        let path = format!("/other%2F_replicator/{n}");
        until(&server, &path, |doc| doc["_replication_state"] == "completed").await;
    }
    assert_eq!(starts(&server).await, 11);
    assert!(server.get("/_replicator/once", 200).await["_replication_state"].is_null());
    assert_eq!(state(&server, "once", "completed").await["info"]["docs_written"], 10);
    // Whoever writes it anew wants it to run again.
    server.put("/src/late", json!({}), 201).await;
    let again = json!({"source": "src", "target": "tgt", "_rev": first});
    server.put("/_replicator/once", again, 201).await;
    server.until_equal("src", "tgt").await;
    state(&server, "once", "completed").await;
    assert_eq!(starts(&server).await, 12);
    server.delete(&format!("/_replicator/_design/v?rev={}", rev.as_str().unwrap()), 200).await;
    let document = until(&server, "/_replicator/once", |doc| doc["_replication_state"] == "completed").await;
    assert_eq!(document["_replication_stats"]["docs_written"], 1);
    assert_eq!(starts(&server).await, 12);
}

/// Nobody wrote into its document that it was completed.
#[tokio::test]
async fn a_one_shot_that_ends_while_the_server_stops_is_not_run_again() {
    let (target, server) = (Server::start().await, start().await);
    target.database("copy").await;
    let peer = FaultyPeer::before(&target).await;
    let gate = Arc::new(Notify::new());
    peer.fail(Method::PUT, "/copy/_local/", Fault::Until(gate.clone(), None));
    server.put("/_replicator/once", json!({"source": "src", "target": peer.url("/copy")}), 201).await;
    peer.saw("PUT /copy/_local/").await;
    let (client, up) = (server.client().clone(), server.url("/_up"));
    let stopping = async {
        while client.get(&up).send().await.is_ok_and(|answer| answer.status() == 200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gate.notify_one();
    };
    let (server, ()) = futures::join!(server.restart(), stopping);
    let document = server.get("/_replicator/once", 200).await;
    assert_eq!((&document["_replication_state"], peer.lives("copy")), (&json!("completed"), 1), "{document}");
}

#[tokio::test]
async fn entries_of_documents_come_in_pages_from_either_end() {
    let server = start().await;
    for (db, ids) in [("_replicator", ["a", "b", "c"]), ("other%2F_replicator", ["d", "e", "f"])] {
        if db != "_replicator" {
            server.database(db).await;
        }
        let failed = |id| json!({"_id": id, "_rev": "1-a", "_replication_state": "failed"});
        let bulk = json!({"new_edits": false, "docs": ids.map(failed)});
        server.post(&format!("/{db}/_bulk_docs"), bulk, 201).await;
    }
    let all = server.get("/_scheduler/docs", 200).await;
    let ids =
        |page: &Value| page["docs"].as_array().unwrap().iter().map(|doc| doc["doc_id"].clone()).collect::<Vec<_>>();
    let expected = ids(&all);
    assert_eq!((expected.len(), &all["total_rows"]), (6, &json!(6)));
    for (skip, limit) in [(0, 2), (1, 3), (4, 9), (6, 1), (9, 1), (0, 0)] {
        for descending in [false, true] {
            let path = format!("/_scheduler/docs?states=failed&skip={skip}&limit={limit}&descending={descending}");
            let page = server.get(&path, 200).await;
            let mut wanted = expected.clone();
            if descending {
                wanted.reverse();
            }
            let wanted: Vec<_> = wanted.into_iter().skip(skip).take(limit).collect();
            assert_eq!((ids(&page), &page["total_rows"], &page["offset"]), (wanted, &json!(6), &json!(skip)), "{path}");
        }
    }
    assert_eq!(server.get("/_scheduler/docs?states=completed", 200).await["total_rows"], 0);
}
