//! Replicator databases themselves, and writes that don't come from a person's request alone.

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::{client, server, url};
use crate::support::Server;

/// It isn't run.
fn job() -> Value {
    json!({ "source": "http://h.invalid/a", "target": "http://h.invalid/b", "paused": true })
}

/// Asks as one of the people, and gives status and answer.
async fn ask(server: &Server, who: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = client().request(method.parse().unwrap(), url(server, Some(who), path));
    let answer = request.header(CONTENT_TYPE, "application/json").body(body.to_string()).send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

#[tokio::test]
async fn the_replicator_database_is_there_from_the_start_and_for_server_admins() {
    let server = Server::with_admin("root", "hunter2").await;
    let security = server.get("/_replicator/_security", 200).await;
    assert_eq!(security, json!({ "members": { "roles": ["_admin"] }, "admins": { "roles": ["_admin"] } }));
    server.put("/_replicator/doc", job(), 201).await;
    let server = server.restart().await;
    assert_eq!(server.get("/_replicator/doc", 200).await["owner"], "root");
    server.delete("/_replicator", 200).await;
    server.get("/_replicator", 404).await;
    let server = server.restart().await;
    assert_eq!(server.get("/_replicator", 200).await["doc_count"], 0);
}

#[tokio::test]
async fn without_admins_a_document_is_nobodys_and_everybodys() {
    let server = Server::start().await;
    let rev = server.put("/_replicator/doc", job(), 201).await["rev"].clone();
    assert_eq!(server.get("/_replicator/doc", 200).await["owner"], Value::Null);
    let mut next = job();
    next["_rev"] = rev;
    server.put("/_replicator/doc", next, 201).await;
}

/// Somebody else's word may give any role but this one, with which he would write states.
#[tokio::test]
async fn nobody_proves_to_be_the_replicator() {
    let server = Server::with_admin_and("root", "hunter2", |config| {
        config.auth.handlers.proxy = true;
        config.auth.proxy.use_secret = false;
    });
    let server = server.await;
    server.put("/_replicator/_security", json!({ "members": { "roles": ["staff"] } }), 200).await;
    let mut doc = job();
    doc["_replication_state"] = "completed".into();
    let proxied = |request: reqwest::RequestBuilder| {
        let request = request.header("x-auth-couchdb-username", "ann");
        request.header("x-auth-couchdb-roles", "staff,_replicator").header(CONTENT_TYPE, "application/json")
    };
    let put =
        proxied(client().put(server.anonymous_url("/_replicator/doc"))).body(doc.to_string()).send().await.unwrap();
    assert_eq!(put.status(), 403);
    let session = proxied(client().get(server.anonymous_url("/_session"))).send().await.unwrap();
    let session: Value = serde_json::from_slice(&session.bytes().await.unwrap()).unwrap();
    assert_eq!(session["userCtx"], json!({ "name": "ann", "roles": ["staff"] }));
    let user = json!({ "name": "eve", "password": "x", "type": "user", "roles": ["_replicator"] });
    server.put("/_users/org.couchdb.user:eve", user, 403).await;
}

/// A server admin moves a whole database, states and owners and all; others move what is theirs.
#[tokio::test]
async fn a_server_admin_moves_documents_with_their_states() {
    let (here, there) = (server().await, server().await);
    let moved = json!({ "_id": "done", "_rev": "3-abc", "owner": "ann", "_replication_state": "completed" });
    let failed =
        json!({ "_id": "failed", "_rev": "1-abc", "owner": "bob", "_replication_state": "failed", "source": 7 });
    let mut done = job();
    done.as_object_mut().unwrap().extend(moved.as_object().unwrap().clone());
    let bulk = json!({ "new_edits": false, "docs": [done, failed] });
    for who in ["ann", "dba"] {
        let (status, rows) = ask(&here, who, "POST", "/_replicator/_bulk_docs", &bulk).await;
        assert_eq!((status, rows.as_array().unwrap().len()), (201, 2), "{who}: {rows}");
    }
    assert_eq!(here.post("/_replicator/_bulk_docs", bulk, 201).await, json!([]));
    let target = there.url("/_replicator");
    let result = here.replicate(json!({ "source": "_replicator", "target": target })).await;
    assert_eq!(result["history"][0]["docs_written"], 2, "{result}");
    assert_eq!(there.get("/_replicator/done", 200).await["_replication_state"], "completed");
    // Whoever isn't allowed to lets the replication count a failure.
    let target = url(&there, Some("bob"), "/t%2F_replicator");
    let result = here.replicate(json!({ "source": "_replicator", "target": target })).await;
    assert_eq!(result["history"][0]["doc_write_failures"], 2, "{result}");
    // Nor does a replication write for its caller what he may not write himself.
    here.database("jobs").await;
    let mut hers = job();
    hers["owner"] = "ann".into();
    here.put("/jobs/hers", hers.clone(), 201).await;
    let mut his = job();
    his["owner"] = "bob".into();
    here.put("/jobs/his", his, 201).await;
    here.put("/jobs/_security", json!({}), 200).await;
    let (status, result) =
        ask(&here, "bob", "POST", "/_replicate", &json!({ "source": "jobs", "target": "t/_replicator" })).await;
    assert_eq!((status, &result["history"][0]["doc_write_failures"]), (200, &json!(1)), "{result}");
    here.get("/t%2F_replicator/his", 200).await;
    here.get("/t%2F_replicator/hers", 404).await;
}

/// Only what a function of the database's own admins throws can tell of others' documents, and it isn't asked about them.
#[tokio::test]
async fn validations_are_asked_after_the_servers_own_rules() {
    let server = server().await;
    let function = "function (doc, old) { if (old) { throw({forbidden: JSON.stringify(old)}); } }";
    server.put("/_replicator/_design/v", json!({ "validate_doc_update": function }), 201).await;
    let mut doc = job();
    doc["source"] = "http://u:pl4nted@h.invalid/a".into();
    let (_, written) = ask(&server, "ann", "PUT", "/_replicator/doc", &doc).await;
    let mut over = job();
    over["_rev"] = written["rev"].clone();
    let (status, refused) = ask(&server, "bob", "PUT", "/_replicator/doc", &over).await;
    assert_eq!(
        (status, refused["reason"].as_str().unwrap()),
        (403, "Can't update replication documents from other users.")
    );
    let (status, refused) = ask(&server, "ann", "PUT", "/_replicator/doc", &over).await;
    assert!(status == 403 && refused["reason"].as_str().unwrap().contains("pl4nted"), "{refused}");
}

/// The server makes values of such documents, which take thirty times their length: one of 128 MiB ended it, and each of its starts.
#[tokio::test]
async fn what_the_server_would_make_values_of_may_not_be_large() {
    let server = server().await;
    let large = |mut doc: Value, bytes| {
        doc["comment"] = "x".repeat(bytes).into();
        doc
    };
    let refused = |id: &str| (413, json!({ "error": "document_too_large", "reason": id }));
    let user = json!({ "name": "tom", "password": "pw", "roles": [], "type": "user" });
    assert_eq!(ask(&server, "root", "PUT", "/_replicator/fits", &large(job(), 4_000_000)).await.0, 201);
    for (path, id, doc) in [
        ("/_replicator/doc", "doc", job()),
        ("/t%2F_replicator/doc", "doc", job()),
        ("/_users/org.couchdb.user:tom", "org.couchdb.user:tom", user),
    ] {
        assert_eq!(ask(&server, "root", "PUT", path, &large(doc.clone(), 5_000_000)).await, refused(id));
        let mut replicated = large(doc, 5_000_000);
        replicated["_rev"] = "1-abc".into();
        let path = format!("{path}?new_edits=false");
        assert_eq!(ask(&server, "root", "PUT", &path, &replicated).await, refused(id));
    }
    let names = vec!["x".repeat(1_000_000); 6].into_iter().enumerate();
    let attachments = names.map(|(n, name)| (format!("{n}{name}"), json!({ "data": "" }))).collect::<Value>();
    let mut doc = job();
    doc["_attachments"] = attachments;
    assert_eq!(ask(&server, "root", "PUT", "/_replicator/doc", &doc).await, refused("doc"));
    server.database("src").await;
    server.put("/src/doc", large(job(), 5_000_000), 201).await;
    let result = server.replicate(json!({ "source": "src", "target": "_replicator" })).await;
    assert_eq!(result["history"][0]["doc_write_failures"], 1, "{result}");
    let bulk = json!({ "docs": [large(json!({ "_id": "doc" }), 5_000_000), { "_id": "_design/d" }] });
    let rows = server.post("/_replicator/_bulk_docs", bulk, 201).await;
    assert_eq!((&rows[0]["error"], &rows[1]["ok"]), (&json!("document_too_large"), &json!(true)), "{rows}");
    server.get("/_replicator/doc", 404).await;
}
