//! Documents of replications in the CouchDB: they are run here, and their states are written there.
//!
//! A couchrep that runs no documents itself plays the CouchDB, as one whose scheduler stands still.

use std::time::Duration;

use couchrep::config::couchdb::{CouchDb, CouchDbAdmin};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{self, Server, client};

/// A CouchDB that runs no documents, with the admin `root`, and databases `src` (with one document) and `tgt` of `ann`.
async fn couchdb() -> Server {
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
async fn beside(couchdb: &Server) -> Server {
    let url = couchdb.anonymous_url("");
    Server::with_config(|config| {
        config.couchdb = Some(CouchDb::parse(&url).unwrap());
        config.couchdb_admin = Some(CouchDbAdmin::parse("root:secret").unwrap());
        config.replicator.restart_pause = Duration::from_millis(50);
        config.replicator.max_restart_pause = Duration::from_millis(200);
    })
    .await
}

fn as_ann(couchdb: &Server, path: &str) -> String {
    couchdb.anonymous_url(path).replace("://", "://ann:pw@")
}

fn as_root(server: &Server, path: &str) -> String {
    server.anonymous_url(path).replace("://", "://root:secret@")
}

/// A request through the couchrep in somebody's name.
async fn through(
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
async fn until(server: &Server, path: &str, is: impl Fn(&Value) -> bool) -> Value {
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

fn state(document: &Value) -> &str {
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
