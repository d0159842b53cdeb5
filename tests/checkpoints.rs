//! What both sides remember, against peers that restart, lose and are restored.

use std::sync::Arc;
use std::time::Duration;

use futures::join;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{Fault, FaultyPeer, Gateway, Server};

/// A server with `src` and `tgt`, and a peer before it that reaches both.
async fn bench() -> (Server, FaultyPeer) {
    let server = Server::start().await;
    for database in ["src", "tgt"] {
        server.database(database).await;
    }
    let peer = FaultyPeer::before(&server).await;
    (server, peer)
}

async fn fill(server: &Server, ids: std::ops::Range<usize>) {
    let docs: Vec<_> = ids.map(|n| json!({"_id": format!("doc-{n:03}"), "n": n})).collect();
    server.post("/src/_bulk_docs", json!({"docs": docs}), 201).await;
}

fn between(peer: &FaultyPeer) -> Value {
    json!({"source": peer.url("/src"), "target": peer.url("/tgt")})
}

fn restarted() -> Fault {
    let headers = vec![("content-type", "application/json".into())];
    Fault::Answer(201, headers, r#"{"ok":true,"instance_start_time":"1"}"#.into())
}

/// The place of a request among those that were seen.
fn place(requests: &[String], part: &str) -> usize {
    requests.iter().position(|request| request.contains(part)).unwrap_or_else(|| panic!("no {part} in {requests:?}"))
}

#[tokio::test]
async fn a_changed_instance_start_time_starts_again_from_the_last_checkpoint_and_keeps_the_listeners() {
    let (server, peer) = bench().await;
    fill(&server, 0..5).await;
    let first = server.replicate(between(&peer)).await;
    fill(&server, 5..8).await;
    for side in ["/src", "/tgt"] {
        let before = peer.requests().len();
        // The first request is slow, so that the second caller joins.
        peer.fail(Method::GET, "/src/$", Fault::Slow(Duration::from_secs(3)));
        peer.fail(Method::POST, &format!("{side}/_ensure_full_commit"), restarted());
        let (starter, joiner) = join!(server.replicate(between(&peer)), server.replicate(between(&peer)));
        assert_eq!(starter["session_id"], joiner["session_id"]);
        assert_eq!(starter["history"][0]["start_last_seq"], starter["history"][1]["recorded_seq"]);
        let requests = &peer.requests()[before..];
        // Two sessions read the feed from the same place.
        let feeds: Vec<_> = requests.iter().filter(|request| request.contains("_changes")).collect();
        assert_eq!(feeds.iter().filter(|feed| *feed == &feeds[0]).count(), 2, "{requests:?}");
        // Nothing was recorded before both sides had said that they lost nothing.
        let before_log = &requests[..place(requests, "PUT /src/_local/")];
        let commits = before_log.iter().filter(|request| request.contains("_ensure_full_commit")).count();
        assert!(commits >= 3, "the first session's, at least one, and both of the second's: {requests:?}");
        assert_eq!(server.get("/tgt", 200).await["doc_count"], server.get("/src", 200).await["doc_count"]);
        fill(&server, 8..9).await;
    }
    assert_ne!(first["source_last_seq"], 0);
    assert_eq!(peer.faults_left(), 0);
}

#[tokio::test]
async fn a_database_that_restarts_for_ever_ends_the_replication_with_an_error() {
    let (server, peer) = bench().await;
    fill(&server, 0..1).await;
    for _ in 0..20 {
        peer.fail(Method::POST, "/tgt/_ensure_full_commit", restarted());
    }
    let answer = server.post("/_replicate", between(&peer), 502).await;
    assert!(answer["reason"].as_str().unwrap().contains("instance_start_time that stays the same"), "{answer}");
}

#[tokio::test]
async fn both_sides_commit_and_show_their_logs_before_either_log_is_written() {
    for tells_start_time in [true, false] {
        let (server, peer) = bench().await;
        fill(&server, 0..5).await;
        if !tells_start_time {
            peer.hide_start_times();
        }
        server.replicate(between(&peer)).await;
        let requests = peer.requests();
        let written = place(&requests, "POST /tgt/_bulk_docs");
        let commits = ["src", "tgt"].map(|side| place(&requests, &format!("POST /{side}/_ensure_full_commit")));
        let last = |part: String| requests.iter().rposition(|request| request.contains(&part)).unwrap();
        let logs = ["src", "tgt"].map(|side| last(format!("PUT /{side}/_local/")));
        assert!(commits.iter().all(|commit| written < *commit), "{requests:?}");
        assert!(commits.iter().all(|commit| logs.iter().all(|log| commit < log)), "{requests:?}");
        // A database that was made anew meanwhile shows by its log, and CouchDB checks no revisions of logs.
        for (side, commit) in ["src", "tgt"].into_iter().zip(commits) {
            let look = |request: &String| {
                request.starts_with(&format!("GET /{side}/_local/")) && !request.ends_with("-failures")
            };
            let looks = requests.iter().rposition(look).unwrap();
            assert!(written < looks && logs.iter().all(|log| looks < *log), "{requests:?}");
            // Its log alone says which database it is, if it doesn't tell when it was made.
            assert!(tells_start_time || commit < looks, "{requests:?}");
        }
    }
}

/// Answers of a database that doesn't tell its `instance_start_time`.
fn untold(peer: &FaultyPeer, side: &str) {
    let told =
        |status, body: &str| Fault::Answer(status, vec![("content-type", "application/json".into())], body.into());
    peer.fail(Method::GET, &format!("/{side}/$"), told(200, r#"{"update_seq":0,"instance_start_time":"0"}"#));
    let commit = told(201, r#"{"ok":true,"instance_start_time":"0"}"#);
    peer.fail(Method::POST, &format!("/{side}/_ensure_full_commit"), commit);
}

/// Replicates; `meanwhile` happens after everything was copied and before anything is recorded.
async fn replicate_while(server: &Server, peer: &FaultyPeer, request: Value, meanwhile: impl AsyncFn()) -> Value {
    let (gate, commits) = (Arc::new(Notify::new()), "POST /src/_ensure_full_commit");
    peer.fail(Method::POST, "/src/_ensure_full_commit", Fault::Until(gate.clone(), None));
    let before = peer.requests().len();
    let meanwhile = async {
        peer.saw_after(before, commits).await;
        // What is asked of the target meanwhile is answered before anything happens to it.
        peer.saw_after(before, "POST /tgt/_ensure_full_commit").await;
        server.get("/tgt", 200).await;
        meanwhile().await;
        gate.notify_one();
    };
    let answer = join!(server.replicate(request), meanwhile).0;
    assert_eq!(peer.faults_left(), 0, "{:?}", peer.requests());
    answer
}

/// A checkpoint was written onto the empty database, and what it had lost was missing for good.
#[tokio::test]
async fn a_target_that_is_deleted_and_made_anew_is_filled_again_although_it_does_not_tell() {
    let (server, peer) = bench().await;
    // In the first session there is no log before the one that is at stake; in the second there is.
    for ids in [0..5, 5..8] {
        fill(&server, ids).await;
        untold(&peer, "tgt");
        let remade = async || {
            server.delete("/tgt", 200).await;
            server.database("tgt").await;
        };
        let answer = replicate_while(&server, &peer, between(&peer), remade).await;
        assert_eq!(answer["history"][0]["start_last_seq"], 0, "{answer}");
        assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
    }
}

/// One run of two thousand: between the last look at a database and the write of the checkpoint it was made anew, took it, and
/// lacked for good what it vouches for.
#[tokio::test]
async fn a_checkpoint_that_got_into_a_database_made_anew_is_taken_back() {
    for side in ["src", "tgt"] {
        let (server, peer) = bench().await;
        fill(&server, 0..5).await;
        let gate = Arc::new(Notify::new());
        let written = format!("PUT /{side}/_local/");
        peer.fail(Method::PUT, &format!("/{side}/_local/"), Fault::Until(gate.clone(), None));
        let remade = async {
            peer.saw(&written).await;
            server.delete(&format!("/{side}"), 200).await;
            server.database(side).await;
            if side == "src" {
                fill(&server, 5..8).await;
            }
            gate.notify_one();
        };
        let answer = join!(server.replicate(between(&peer)), remade).0;
        assert_eq!((peer.faults_left(), &answer["history"][0]["start_last_seq"]), (0, &json!(0)), "{side}");
        assert_eq!(server.get("/tgt", 200).await["doc_count"], if side == "src" { 8 } else { 5 });
    }
}

/// It couldn't be asked after the write, and so nobody took the checkpoint back: what the database had before was never copied again.
#[tokio::test]
async fn a_checkpoint_that_got_into_a_database_made_anew_that_then_could_not_be_asked_is_not_believed() {
    let (server, peer) = bench().await;
    fill(&server, 0..5).await;
    let gate = Arc::new(Notify::new());
    peer.fail(Method::PUT, "/tgt/_local/", Fault::Until(gate.clone(), None));
    let remade = async {
        peer.saw("PUT /tgt/_local/").await;
        peer.keep_failing(Method::POST, "/tgt/_ensure_full_commit", Fault::status(403), None);
        server.delete("/tgt", 200).await;
        server.database("tgt").await;
        gate.notify_one();
    };
    let asked = server.client().post(server.url("/_replicate")).header("content-type", "application/json");
    let asked = asked.body(between(&peer).to_string()).send();
    let status = join!(asked, remade).0.unwrap().status();
    assert!(!status.is_success(), "{status}");
    assert_eq!(server.get("/tgt", 200).await["doc_count"], 0);
    peer.heal();
    server.replicate(between(&peer)).await;
    assert_eq!(server.leaves("src").await, server.leaves("tgt").await);
}

/// The same of a source: the place in the old database's feed was recorded as one in the new one's.
#[tokio::test]
async fn a_source_that_is_deleted_and_made_anew_is_read_from_its_start_although_it_does_not_tell() {
    let (server, peer) = bench().await;
    fill(&server, 0..5).await;
    untold(&peer, "src");
    // Its commit is answered after the gate.
    let faults = peer.faults_left();
    assert_eq!(faults, 2);
    let gate = Arc::new(Notify::new());
    peer.fail(Method::POST, "/tgt/_ensure_full_commit", Fault::Until(gate.clone(), None));
    let remade = async {
        peer.saw("POST /tgt/_ensure_full_commit").await;
        server.delete("/src", 200).await;
        server.database("src").await;
        fill(&server, 5..8).await;
        gate.notify_one();
    };
    let answer = join!(server.replicate(between(&peer)), remade).0;
    assert_eq!((peer.faults_left(), &answer["history"][0]["start_last_seq"]), (0, &json!(0)));
    assert_eq!(server.get("/tgt", 200).await["doc_count"], 8);
}

/// A job that waits at its source, which doesn't tell of its databases: it was deleted and made anew, and has come just as far as
/// it had. Its feed had nothing to say, until the next change.
#[tokio::test]
async fn a_source_made_anew_that_has_come_as_far_is_noticed_by_whoever_waits_at_it() {
    let (server, peer) = bench().await;
    peer.keep_failing(Method::GET, "/_db_updates", Fault::status(404), None);
    fill(&server, 0..3).await;
    let mut request = between(&peer);
    request["continuous"] = json!(true);
    server.post("/_replicate", request, 202).await;
    server.until_equal("src", "tgt").await;
    peer.saw("feed=longpoll").await;
    let gate = Arc::new(Notify::new());
    let before = peer.requests().len();
    peer.fail(Method::GET, "/src/_changes?feed=normal", Fault::Until(gate.clone(), None));
    server.delete("/src", 200).await;
    peer.saw_after(before, "/src/_changes?feed=normal").await;
    server.database("src").await;
    fill(&server, 3..6).await;
    gate.notify_one();
    let arrived = server.get("/tgt/_changes?feed=longpoll&since=3&timeout=60000", 200).await;
    assert_ne!(arrived["results"], json!([]));
}

/// It was written over: whatever it vouched for, ours took its place without a look.
#[tokio::test]
async fn a_checkpoint_that_somebody_else_wrote_meanwhile_is_read_before_it_is_written_over() {
    let (server, peer) = bench().await;
    fill(&server, 0..5).await;
    server.replicate(between(&peer)).await;
    let path = peer.requests().iter().find_map(|request| Some(request.strip_prefix("PUT ")?.to_owned())).unwrap();
    let id = path.rsplit('/').next().unwrap().to_owned();
    fill(&server, 5..8).await;
    let seq = server.get("/src", 200).await["update_seq"].clone();
    let before = peer.lives("src");
    let theirs = async || {
        for side in ["src", "tgt"] {
            let path = format!("/{side}/_local/{id}");
            let mut log = server.get(&path, 200).await;
            (log["session_id"], log["source_last_seq"]) = (json!("theirs"), seq.clone());
            let entry = json!({"session_id": "theirs", "recorded_seq": seq});
            log["history"].as_array_mut().unwrap().insert(0, entry);
            server.put(&path, log, 201).await;
        }
    };
    let answer = replicate_while(&server, &peer, between(&peer), theirs).await;
    assert_eq!((&answer["no_changes"], &answer["session_id"]), (&json!(true), &json!("theirs")), "{answer}");
    assert_eq!(peer.lives("src"), before + 2, "it starts again");
    assert_eq!(server.leaves("tgt").await, server.leaves("src").await);
}

#[tokio::test]
async fn a_checkpoint_whose_answer_got_lost_is_not_taken_for_somebody_elses() {
    let (server, peer) = bench().await;
    fill(&server, 0..5).await;
    peer.fail(Method::PUT, "/tgt/_local", Fault::ApplyThenDisconnect);
    server.replicate(between(&peer)).await;
    assert_eq!(peer.faults_left(), 0);
    assert_eq!(peer.lives("src"), 1);
}

#[tokio::test]
async fn every_checkpoint_has_a_session_id_of_its_own_and_one_run_at_most_two_entries() {
    let (server, peer) = bench().await;
    let job = json!({"source": "src", "target": peer.url("/tgt"), "continuous": true, "checkpoint_interval": 20});
    let started = server.replicate(job).await;
    let log = format!("/tgt/_local/{}", started["_local_id"].as_str().unwrap().split('+').next().unwrap());
    let mut sessions = Vec::new();
    for n in 0..3 {
        fill(&server, n..n + 1).await;
        let seq = server.get("/src", 200).await["update_seq"].clone();
        let answered = async {
            loop {
                let found = server.client().get(server.url(&log)).send().await.unwrap().bytes().await.unwrap();
                let found: Value = serde_json::from_slice(&found).unwrap();
                if found["source_last_seq"] == seq {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), answered).await.unwrap();
        // The one before the last stays, for the case that only one side's log gets written.
        let history = found["history"].as_array().unwrap();
        assert!(
            history.len() <= 2 && (n == 0 || history.iter().any(|entry| Some(&entry["session_id"]) == sessions.last()))
        );
        assert_eq!(found["history"][0]["session_id"], found["session_id"]);
        assert!(!sessions.contains(&found["session_id"]));
        sessions.push(found["session_id"].clone());
    }
}

#[tokio::test]
async fn a_target_restored_from_a_backup_goes_on_from_the_newest_session_that_both_know() {
    let (server, _peer) = bench().await;
    let job = json!({"source": "src", "target": "tgt"});
    fill(&server, 0..4).await;
    let first = server.replicate(job.clone()).await;
    let log_id = log_id(&server).await;
    let mut backup = server.get(&log_id, 200).await;
    fill(&server, 4..7).await;
    server.replicate(job.clone()).await;
    fill(&server, 7..9).await;
    server.replicate(job.clone()).await;

    server.delete("/tgt", 200).await;
    server.database("tgt").await;
    // The backup: one-shots with doc_ids write no checkpoint.
    let ids: Vec<_> = (0..4).map(|n| format!("doc-{n:03}")).collect();
    let restored = server.replicate(json!({"source": "src", "target": "tgt", "doc_ids": ids})).await;
    assert_eq!(restored["docs_written"], 4);
    backup.as_object_mut().unwrap().remove("_rev");
    server.put(&log_id, backup, 201).await;

    let again = server.replicate(job).await;
    assert_eq!(again["history"][0]["start_last_seq"], first["source_last_seq"]);
    assert_eq!(again["history"][0]["docs_written"], 5);
    assert_eq!(again["history"][1]["session_id"], first["session_id"]);
    assert_eq!(server.leaves("src").await, server.leaves("tgt").await);
}

#[tokio::test]
async fn a_source_log_restored_from_a_backup_goes_on_from_the_newest_session_that_both_know() {
    let (server, _peer) = bench().await;
    let job = json!({"source": "src", "target": "tgt"});
    fill(&server, 0..4).await;
    let first = server.replicate(job.clone()).await;
    let log_id = log_id(&server).await.replace("tgt", "src");
    let mut backup = server.get(&log_id, 200).await;
    fill(&server, 4..7).await;
    server.replicate(job.clone()).await;
    backup["_rev"] = server.get(&log_id, 200).await["_rev"].clone();
    server.put(&log_id, backup, 201).await;
    fill(&server, 7..9).await;

    let again = server.replicate(job).await;
    assert_eq!(again["history"][0]["start_last_seq"], first["source_last_seq"]);
    // What the target has already isn't written again.
    assert_eq!((&again["history"][0]["missing_checked"], &again["history"][0]["docs_written"]), (&json!(5), &json!(2)));
    assert_eq!(server.leaves("src").await, server.leaves("tgt").await);
}

/// The error that ended the job was the one of the batches that were dropped with it, or none at all.
#[tokio::test]
async fn a_checkpoint_that_cannot_be_written_ends_a_one_shot_with_its_own_error() {
    let server = Server::with_config(|config| config.replicator.retries_per_request = 2).await;
    let target = FaultyPeer::before(&server).await;
    server.database("src").await.fill("doc", 300).await;
    server.database("tgt").await;
    target.keep_failing(Method::PUT, "_local", Fault::gateway(403, Gateway::Page), None);
    let request =
        json!({"source": "src", "target": target.url("/tgt"), "worker_batch_size": 1, "checkpoint_interval": 1});
    let answer = server.client().post(server.url("/_replicate")).header("content-type", "application/json");
    let answer = answer.body(request.to_string()).send().await.unwrap();
    assert!(answer.status().is_server_error() || answer.status().is_client_error());
    let reason = answer.text().await.unwrap();
    assert!(reason.contains("_local") && reason.contains("403"), "{reason}");
}

/// The path of the only log on the target: a replication without changes answers it, so its id is asked of a job.
async fn log_id(server: &Server) -> String {
    let job = json!({"source": "src", "target": "tgt", "continuous": true});
    let started = server.replicate(job.clone()).await;
    let mut cancel = job;
    cancel["cancel"] = json!(true);
    server.replicate(cancel).await;
    format!("/tgt/_local/{}", started["_local_id"].as_str().unwrap().split('+').next().unwrap())
}
