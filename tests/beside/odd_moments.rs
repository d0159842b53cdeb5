//! Documents of replications in the CouchDB, when something comes between: a stop, an edit, a node that knows less than another one.

use std::sync::Arc;
use std::time::Duration;

use couchrep::config::couchdb::{CouchDb, CouchDbAdmin};
use couchrep::policy::{EndpointRules, Rule};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::documents::{as_ann, beside, beside_url, couchdb, state, through, until};
use super::schedulers::NOTE;
use crate::support::{Fault, FaultyPeer, Server};

const JOBS: &str = "/_scheduler/jobs";

fn jobs(count: usize) -> impl Fn(&Value) -> bool {
    move |listed| listed["total_rows"] == count
}

fn follow(couchdb: &Server) -> Value {
    json!({ "source": as_ann(couchdb, "/src"), "target": as_ann(couchdb, "/tgt"), "continuous": true })
}

/// A CouchDB, what stands before it, and a couchrep beside that.
async fn rig() -> (Server, FaultyPeer, Server) {
    let couchdb = couchdb().await;
    let between = FaultyPeer::before(&couchdb).await;
    let server = beside_url(&between.url("")).await;
    (couchdb, between, server)
}

/// Given back, it was run once more.
#[tokio::test]
async fn couchdbs_scheduler_is_told_of_an_end_that_is_written_while_the_server_stops() {
    let (couchdb, between, server) = rig().await;
    between.fail(Method::POST, "/_replicator/_bulk_docs", Fault::Hang);
    let copy = json!({ "source": as_ann(&couchdb, "/src"), "target": as_ann(&couchdb, "/tgt") });
    couchdb.put("/_replicator/copy", copy, 201).await;
    between.met_all().await;
    server.stop().await;
    assert_eq!(state(&couchdb.get("/_replicator/copy", 200).await), "completed");
    assert_eq!(between.count("POST /_replicate"), 1);
}

#[tokio::test]
async fn couchdbs_scheduler_is_told_of_a_document_that_is_forbidden() {
    let couchdb = couchdb().await;
    let between = FaultyPeer::before(&couchdb).await;
    let url = between.url("");
    let server = Server::with_config(|config| {
        config.couchdb = Some(CouchDb::parse(&url).unwrap());
        config.couchdb_admin = Some(CouchDbAdmin::parse("root:secret").unwrap());
        config.replicator.endpoints =
            Arc::new(EndpointRules { deny: Rule::list("denied.invalid").unwrap(), ..EndpointRules::default() });
    })
    .await;
    let denied = json!({ "source": "http://denied.invalid/src", "target": as_ann(&couchdb, "/tgt"), "owner": "root" });
    couchdb.put("/_replicator/denied", denied, 201).await;
    until(&couchdb, "/_replicator/denied", |document| state(document) == "failed").await;
    between.saw("POST /_replicate").await;
    server.stop().await;
}

/// It was written, the job that ran was ended, and the answer was that all is well.
#[tokio::test]
async fn nothing_is_kept_in_a_document_that_nobody_would_run() {
    let couchdb = couchdb().await;
    let note = json!({ "id": "dead", "host": "there", "pid": 7, "version": "0.1.0", "beat": 5, "max_jobs": {} });
    couchdb.put(NOTE, note, 201).await;
    let server = beside(&couchdb).await;
    let mut body = json!({ "source": "src", "target": "tgt", "continuous": true });
    let own = through(&server, "ann:pw", (Method::POST, "/_replicate"), Some(body.clone()), 202).await;
    body["keep"] = json!(true);
    let refused = through(&server, "ann:pw", (Method::POST, "/_replicate"), Some(body), 503).await;
    assert_eq!(refused["error"], "service_unavailable");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.starts_with("documents of replications aren't run now, so nothing can be kept"), "{reason}");
    let kept = couchdb.get("/_replicator/_all_docs", 200).await;
    let ids = kept["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap());
    assert_eq!(ids.filter(|id| !id.starts_with("_design/")).count(), 0, "{kept}");
    assert_eq!(until(&server, JOBS, jobs(1)).await["jobs"][0]["id"], own["_local_id"]);
}

#[tokio::test]
async fn what_is_kept_beside_a_couchdb_that_runs_its_documents_is_run_there() {
    let couchdb = Server::with_admin("root", "secret").await;
    for name in ["src", "tgt"] {
        couchdb.put(&format!("/{name}"), json!(null), 201).await;
    }
    couchdb.put("/src/doc", json!({}), 201).await;
    let server = beside(&couchdb).await;
    let body = json!({ "source": "src", "target": "tgt", "continuous": true, "keep": true });
    through(&server, "root:secret", (Method::POST, "/_replicate"), Some(body), 202).await;
    until(&couchdb, "/tgt", |info| info["doc_count"] == 1).await;
    until(&couchdb, JOBS, jobs(1)).await;
}

/// All of its jobs ended, until all databases were looked at five minutes later.
#[tokio::test]
async fn a_node_that_doesnt_know_a_database_ends_none_of_its_jobs() {
    let (couchdb, between, server) = rig().await;
    couchdb.put("/_replicator/job", follow(&couchdb), 201).await;
    let before = until(&server, JOBS, jobs(1)).await;
    // After the feed has broken off all are looked at.
    between.fail(Method::GET, "/_replicator$", Fault::status(404));
    between.fail(Method::GET, "_db_updates?feed", Fault::status(500));
    // When the feed is asked again, it is known how they are.
    between.fail(Method::GET, "_db_updates?feed", Fault::Slow(Duration::ZERO));
    couchdb.put("/src/more", json!({}), 201).await;
    between.met_all().await;
    let after = until(&server, JOBS, |_| true).await;
    let start = |listed: &Value| listed["jobs"][0]["start_time"].clone();
    assert_eq!((&after["total_rows"], start(&after)), (&json!(1), start(&before)));
}

#[tokio::test]
async fn a_database_that_stays_away_has_no_jobs_though_no_feed_tells_it() {
    let (couchdb, between, server) = rig().await;
    between.keep_failing(Method::GET, "/_db_updates", Fault::status(404), None);
    couchdb.put("/a%2F_replicator", json!(null), 201).await;
    couchdb.put("/a%2F_replicator/job", follow(&couchdb), 201).await;
    until(&server, JOBS, jobs(1)).await;
    couchdb.delete("/a%2F_replicator", 200).await;
    until(&server, JOBS, jobs(0)).await;
}

/// CouchDB says in whole seconds when a database was made: the jobs of the old one's documents went on.
#[tokio::test]
async fn a_database_that_is_made_anew_at_once_has_none_of_its_old_jobs() {
    let (couchdb, between, server) = rig().await;
    between.hide_start_times();
    couchdb.put("/a%2F_replicator", json!(null), 201).await;
    couchdb.put("/a%2F_replicator/job", follow(&couchdb), 201).await;
    until(&server, JOBS, jobs(1)).await;
    let told = Arc::new(Notify::new());
    between.fail(Method::GET, "_db_updates?feed", Fault::Until(told.clone(), None));
    couchdb.put("/src/more", json!({}), 201).await;
    between.met_all().await;
    couchdb.delete("/a%2F_replicator", 200).await;
    couchdb.put("/a%2F_replicator", json!(null), 201).await;
    told.notify_one();
    until(&server, JOBS, jobs(0)).await;
}

/// It was paused, though what was cancelled was another replication.
#[tokio::test]
async fn an_edit_that_comes_before_a_cancel_is_written_stands() {
    let (couchdb, between, server) = rig().await;
    let path = "/_replicator/job";
    through(&server, "ann:pw", (Method::PUT, path), Some(follow(&couchdb)), 201).await;
    let listed = until(&server, JOBS, jobs(1)).await;
    let cancel = json!({ "replication_id": listed["jobs"][0]["id"], "cancel": true });
    between.fail(Method::POST, "/_replicator/_all_docs", Fault::Drip(1, Duration::from_secs(2)));
    let mut document = couchdb.get(path, 200).await;
    document["selector"] = json!({ "a": 1 });
    let cancelled = through(&server, "ann:pw", (Method::POST, "/_replicate"), Some(cancel), 409);
    tokio::join!(cancelled, async {
        between.met_all().await;
        couchdb.put(path, document, 201).await;
    });
    assert_eq!(couchdb.get(path, 200).await["paused"], Value::Null);
}
