//! Documents of replications in the CouchDB: they are run here, and their states are written there.
//!
//! A couchrep that runs no documents itself plays the CouchDB, as one whose scheduler stands still.

use std::sync::Arc;
use std::time::Duration;

use couchrep::config::couchdb::{CouchDb, CouchDbAdmin};
use couchrep::config::secrets::{DeclaredSecret, SecretValue, server_url};
use couchrep::policy::{EndpointRules, Rule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{self, Server, client};

/// A CouchDB that runs no documents, with the admin `root`, and databases `src` (with one document) and `tgt` of `ann`.
pub(super) async fn couchdb() -> Server {
    let couchdb = Server::with_admin_and("root", "secret", |config| config.replicator.run_documents = false).await;
    for name in ["src", "tgt", "closed"] {
        couchdb.put(&format!("/{name}"), json!(null), 201).await;
        let members = if name == "closed" { json!(["bob"]) } else { json!(["ann"]) };
        couchdb.put(&format!("/{name}/_security"), json!({ "members": { "names": members } }), 200).await;
    }
    couchdb.put("/_replicator/_security", json!({ "members": { "names": ["ann"] } }), 200).await;
    let ann = json!({ "name": "ann", "password": "pw", "roles": [], "type": "user" });
    couchdb.put("/_users/org.couchdb.user:ann", ann, 201).await;
    couchdb.put("/src/doc", json!({ "a": 1 }), 201).await;
    couchdb
}

/// A couchrep beside it, as its admin.
pub(super) async fn beside(couchdb: &Server) -> Server {
    beside_url(&couchdb.anonymous_url("")).await
}

/// The same, by way of this URL.
pub(super) async fn beside_url(url: &str) -> Server {
    Server::with_config(|config| {
        config.couchdb = Some(CouchDb::parse(url).unwrap());
        config.couchdb_admin = Some(CouchDbAdmin::parse("root:secret").unwrap());
        config.replicator.restart_pause = Duration::from_millis(50);
        config.replicator.max_restart_pause = Duration::from_millis(200);
    })
    .await
}

pub(super) fn as_ann(couchdb: &Server, path: &str) -> String {
    couchdb.anonymous_url(path).replace("://", "://ann:pw@")
}

fn as_root(server: &Server, path: &str) -> String {
    server.anonymous_url(path).replace("://", "://root:secret@")
}

/// A request through the couchrep in somebody's name.
pub(super) async fn through(
    server: &Server,
    who: &str,
    (method, path): (Method, &str),
    body: Option<Value>,
    status: u16,
) -> Value {
    let url = server.anonymous_url(path).replace("://", &format!("://{who}@"));
    support::json(&client(), method, url, body.as_ref(), status).await
}

/// Waits until what is at a path is so, as the admin sees it.
pub(super) async fn until(server: &Server, path: &str, is: impl Fn(&Value) -> bool) -> Value {
    let url = as_root(server, path);
    let waiting = async {
        loop {
            let found = support::json(&client(), Method::GET, url.clone(), None, 200).await;
            if is(&found) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("{path} stays otherwise"))
}

pub(super) fn state(document: &Value) -> &str {
    document["_replication_state"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_members_document_runs_with_his_rights_and_its_end_stands_in_it() {
    let couchdb = couchdb().await;
    let server = beside(&couchdb).await;
    let copy = |target: &str| json!({ "source": as_ann(&couchdb, "/src"), "target": as_ann(&couchdb, target) });
    for (id, target) in [("copy", "/tgt"), ("theirs", "/closed")] {
        through(&server, "ann:pw", (Method::PUT, &format!("/_replicator/{id}")), Some(copy(target)), 201).await;
    }
    let done = until(&couchdb, "/_replicator/copy", |document| state(document) == "completed").await;
    assert_eq!((&done["owner"], &done["_replication_stats"]["docs_written"]), (&json!("ann"), &json!(1)));
    assert_eq!(couchdb.get("/tgt/doc", 200).await["a"], 1);
    // He may not write there, and nor may his replication.
    let jobs = |jobs: &Value| jobs["jobs"][0]["state"] == "crashing";
    let listed = until(&server, "/_scheduler/jobs", jobs).await;
    let job = &listed["jobs"][0];
    assert_eq!((&job["doc_id"], &job["database"]), (&json!("theirs"), &json!("_replicator")));
    assert!(job["info"]["error"].as_str().unwrap().contains("unauthorized"), "{job}");
    assert_eq!(couchdb.get("/closed", 200).await["doc_count"], 0);
    // CouchDB's own processor knows no such state.
    assert_eq!(state(&couchdb.get("/_replicator/theirs", 200).await), "");
    couchdb.delete(&format!("/_replicator/theirs?rev={}", rev(&couchdb, "theirs").await), 200).await;
    until(&server, "/_scheduler/jobs", |listed| listed["total_rows"] == 0).await;
}

async fn rev(couchdb: &Server, id: &str) -> String {
    couchdb.get(&format!("/_replicator/{id}"), 200).await["_rev"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn whatever_happens_to_a_document_happens_to_its_job() {
    let couchdb = couchdb().await;
    let server = beside(&couchdb).await;
    let jobs = |count: usize| move |listed: &Value| listed["total_rows"] == count;
    let follow = |target: &str| json!({ "source": as_ann(&couchdb, "/src"), "target": as_ann(&couchdb, target), "continuous": true });
    // A database of its own, made while the server runs.
    couchdb.put("/a%2F_replicator", json!(null), 201).await;
    couchdb.put("/a%2F_replicator/_security", json!({ "members": { "names": ["ann"] } }), 200).await;
    couchdb.put("/a%2F_replicator/follow", follow("/tgt"), 201).await;
    let listed = until(&server, "/_scheduler/jobs", jobs(1)).await;
    assert_eq!(listed["jobs"][0]["database"], "a/_replicator");
    couchdb.put("/src/doc2", json!({}), 201).await;
    until(&couchdb, "/tgt", |info| info["doc_count"] == 2).await;
    // What the CouchDB lists of it is what we do, not what it doesn't.
    let shown = until(&server, "/_scheduler/docs/a%2F_replicator/follow", |shown| shown["state"] == "running").await;
    assert_eq!((&shown["doc_id"], &shown["id"]), (&json!("follow"), &listed["jobs"][0]["id"]));
    let running = until(&server, "/_scheduler/docs/a%2F_replicator?states=running", |_| true).await;
    assert_eq!((&running["total_rows"], &running["docs"][0]["doc_id"]), (&json!(1), &json!("follow")));
    let pending = until(&server, "/_scheduler/docs/a%2F_replicator?states=pending", |_| true).await;
    assert_eq!((&pending["total_rows"], &pending["docs"]), (&json!(0), &json!([])));
    // Edited, paused, resumed, deleted.
    let id = listed["jobs"][0]["id"].as_str().unwrap().to_owned();
    let mut document = couchdb.get("/a%2F_replicator/follow", 200).await;
    document["selector"] = json!({ "a": 1 });
    couchdb.put("/a%2F_replicator/follow", document, 201).await;
    let other = |listed: &Value| listed["jobs"][0]["id"].as_str().is_some_and(|now| now != id);
    let listed = until(&server, "/_scheduler/jobs", other).await;
    let job = format!("/_scheduler/jobs/{}", listed["jobs"][0]["id"].as_str().unwrap().replace('+', "%2B"));
    for (action, paused) in [("pause", true), ("resume", false)] {
        through(&server, "root:secret", (Method::POST, &job), Some(json!({ "action": action })), 200).await;
        let is = |document: &Value| document["paused"].as_bool().unwrap_or_default() == paused;
        until(&couchdb, "/a%2F_replicator/follow", is).await;
    }
    couchdb.delete("/a%2F_replicator", 200).await;
    until(&server, "/_scheduler/jobs", jobs(0)).await;
}

#[tokio::test]
async fn a_kept_job_is_a_document_with_urls_and_its_askers_password() {
    let couchdb = couchdb().await;
    let server = beside(&couchdb).await;
    let body = json!({ "source": "src", "target": "tgt", "continuous": true, "keep": true });
    let kept = through(&server, "ann:pw", (Method::POST, "/_replicate"), Some(body.clone()), 202).await;
    let id = kept["_local_id"].as_str().unwrap();
    until(&couchdb, "/tgt", |info| info["doc_count"] == 1).await;
    let document = couchdb.get(&format!("/_replicator/{}", id.replace('+', "%2B")), 200).await;
    let expected = json!({
        "url": format!("http://{}/src/", couchdb.addr()),
        "auth": { "basic": { "username": "ann", "password": "pw" } },
    });
    assert_eq!((&document["source"], &document["owner"]), (&expected, &json!("ann")));
    // The next server goes on with it, and whoever cancels it takes the document along.
    server.stop().await;
    let server = beside(&couchdb).await;
    until(&server, "/_scheduler/jobs", |listed| listed["total_rows"] == 1).await;
    let cancel = json!({ "replication_id": id, "cancel": true });
    through(&server, "ann:pw", (Method::POST, "/_replicate"), Some(cancel), 200).await;
    until(&server, "/_scheduler/jobs", |listed| listed["total_rows"] == 0).await;
    couchdb.get(&format!("/_replicator/{}", id.replace('+', "%2B")), 404).await;
    // Who may not write there keeps nothing.
    let bob = json!({ "name": "bob", "password": "pw", "roles": [], "type": "user" });
    couchdb.put("/_users/org.couchdb.user:bob", bob, 201).await;
    through(&server, "bob:pw", (Method::POST, "/_replicate"), Some(body), 401).await;
    until(&server, "/_scheduler/jobs", |listed| listed["total_rows"] == 0).await;
}

/// It was `failed` by us and by CouchDB, each for the other's sake.
#[tokio::test]
async fn duplicates_are_couchdbs_to_mark() {
    let couchdb = couchdb().await;
    let server = beside(&couchdb).await;
    let body = json!({ "source": as_ann(&couchdb, "/src"), "target": as_ann(&couchdb, "/tgt"), "continuous": true });
    couchdb.put("/_replicator/one", body.clone(), 201).await;
    let shown = |id: &str| format!("/_scheduler/docs/_replicator/{id}");
    until(&server, &shown("one"), |shown| shown["state"] == "running").await;
    couchdb.put("/_replicator/two", body, 201).await;
    until(&server, &shown("two"), |shown| shown["state"] == "failed").await;
    // CouchDB has taken the other one for the first.
    let mut document = couchdb.get("/_replicator/one", 200).await;
    document["_replication_state"] = json!("failed");
    document["_replication_state_reason"] = json!(
        "Replication `x` specified by document `one` already started, triggered by document `two` from db `_replicator`"
    );
    couchdb.put("/_replicator/one", document, 201).await;
    until(&server, &shown("two"), |shown| shown["state"] == "running").await;
    assert_eq!(state(&couchdb.get("/_replicator/two", 200).await), "");
}

/// One that isn't there for a while takes no job along, and misses none that was written meanwhile.
#[tokio::test]
async fn a_couchdb_that_was_away_is_followed_again() {
    let couchdb = couchdb().await;
    let gateway = support::FaultyPeer::before(&couchdb).await;
    let server = beside_url(&gateway.url("")).await;
    let body = |target: &str| json!({ "source": as_ann(&couchdb, "/src"), "target": as_ann(&couchdb, target), "continuous": true });
    couchdb.put("/_replicator/one", body("/tgt"), 201).await;
    until(&server, "/_scheduler/jobs", |listed| listed["total_rows"] == 1).await;
    gateway.fail(Method::GET, "_db_updates", support::Fault::Down(Duration::from_secs(1)));
    couchdb.put("/other", json!(null), 201).await;
    couchdb.put("/other/_security", json!({ "members": { "names": ["ann"] } }), 200).await;
    gateway.met_all().await;
    couchdb.put("/_replicator/two", body("/other"), 201).await;
    until(&couchdb, "/other", |info| info["doc_count"] == 1).await;
    until(&server, "/_scheduler/jobs", |listed| listed["total_rows"] == 2).await;
}

/// CouchDB takes any `owner` from who brings a document with its history, or is an admin of its database.
#[tokio::test]
async fn a_document_of_a_database_that_others_may_write_to_has_no_secrets_and_no_more_than_users_may() {
    let couchdb = couchdb().await;
    let url = couchdb.anonymous_url("");
    let secret = DeclaredSecret {
        value: SecretValue::Password { username: "ann".into(), password: "pw".into() },
        origins: vec![server_url(&url).unwrap()],
        users: vec!["root".into()],
    };
    let server = Server::with_config(|config| {
        config.couchdb = Some(CouchDb::parse(&url).unwrap());
        config.couchdb_admin = Some(CouchDbAdmin::parse("root:secret").unwrap());
        config.replicator.secrets = [("S".to_owned(), secret)].into_iter().collect();
        config.replicator.endpoints =
            Arc::new(EndpointRules { deny_users: Rule::list("denied.invalid").unwrap(), ..EndpointRules::default() });
        config.replicator.restart_pause = Duration::from_millis(50);
        config.replicator.max_restart_pause = Duration::from_millis(100);
    })
    .await;
    couchdb.put("/open%2F_replicator", json!(null), 201).await;
    let open = json!({ "members": { "names": ["ann"], "roles": ["_admin"] }, "admins": { "roles": ["_admin"] } });
    couchdb.put("/open%2F_replicator/_security", open, 200).await;
    let closed = json!({ "members": { "roles": ["_admin"] }, "admins": { "roles": ["_admin"] } });
    couchdb.put("/_replicator/_security", closed, 200).await;
    for database in ["open%2F_replicator", "_replicator"] {
        for (id, source) in [
            ("secret", json!({ "url": couchdb.anonymous_url("/src"), "auth": { "secret": "S" } })),
            ("denied", json!("http://denied.invalid/src")),
        ] {
            let body = json!({ "source": source, "target": as_ann(&couchdb, "/tgt"), "owner": "root" });
            couchdb.put(&format!("/{database}/{id}"), body, 201).await;
        }
    }
    let shown = |database: &str, id: &str| format!("/_scheduler/docs/{database}/{id}");
    let refused = until(&server, &shown("open%2F_replicator", "secret"), |shown| shown["state"] == "error").await;
    assert!(refused["info"]["error"].as_str().unwrap().contains("it may name no secret"), "{refused}");
    until(&couchdb, "/open%2F_replicator/denied", |document| state(document) == "failed").await;
    until(&couchdb, "/_replicator/secret", |document| state(document) == "completed").await;
    let tried = until(&server, &shown("_replicator", "denied"), |shown| shown["state"] == "crashing").await;
    assert!(!tried["info"]["error"].as_str().unwrap().contains("deny"), "{tried}");
}

/// A refused write of one took those of all others with it.
#[tokio::test]
async fn an_end_that_couchdb_refuses_holds_up_no_other() {
    let couchdb = couchdb().await;
    let design = json!({ "validate_doc_update":
        "function (doc) { if (doc._id == 'refused' && doc._replication_state) throw {forbidden: 'no'}; }" });
    couchdb.put("/_replicator/_design/no", design, 201).await;
    let server = beside(&couchdb).await;
    for id in ["refused", "taken"] {
        // So that they are two replications.
        let query = json!({ "n": id });
        let body = json!({ "source": as_ann(&couchdb, "/src"), "target": as_ann(&couchdb, "/tgt"), "query_params": query,
            "doc_ids": ["doc"] });
        couchdb.put(&format!("/_replicator/{id}"), body, 201).await;
    }
    until(&couchdb, "/_replicator/taken", |document| state(document) == "completed").await;
    until(&server, "/_scheduler/jobs", |listed| listed["total_rows"] == 0).await;
    assert_eq!(state(&couchdb.get("/_replicator/refused", 200).await), "");
}

/// Its jobs between other servers went down with it.
#[tokio::test]
async fn jobs_between_other_servers_go_on_while_couchdb_is_away() {
    let (couchdb, other) = (couchdb().await, Server::start().await);
    for name in ["a", "b"] {
        other.put(&format!("/{name}"), json!(null), 201).await;
    }
    let gateway = support::FaultyPeer::before(&couchdb).await;
    let server = beside_url(&gateway.url("")).await;
    let body = json!({ "source": other.url("/a"), "target": other.url("/b"), "continuous": true });
    couchdb.put("/_replicator/job", body, 201).await;
    until(&server, "/_scheduler/jobs", |listed| listed["total_rows"] == 1).await;
    gateway.fail(Method::GET, "_db_updates", support::Fault::Down(Duration::from_secs(3600)));
    couchdb.put("/src/more", json!({}), 201).await;
    gateway.met_all().await;
    for round in 0..3 {
        other.put(&format!("/a/{round}"), json!({}), 201).await;
        other.until_equal("a", "b").await;
    }
}
