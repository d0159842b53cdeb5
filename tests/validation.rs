//! `validate_doc_update`: what design documents refuse isn't written, by whatever way it comes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Server, client};

/// Refuses odd numbers, and whatever asks for it.
const FUNCTION: &str = "function (newDoc, oldDoc, userCtx, secObj) {
    if (newDoc.n % 2) throw {forbidden: require('lib/words').no};
    if (newDoc.login) throw {unauthorized: 'who are you?'};
    if (newDoc.broken) null.x;
    if (newDoc.thrown) throw newDoc.thrown;
    if (newDoc.shown == 'new') throw {forbidden: JSON.stringify(newDoc)};
    if (newDoc.shown == 'old' || newDoc._deleted) throw {forbidden: JSON.stringify(oldDoc)};
    if (newDoc.shown) throw {forbidden: JSON.stringify([userCtx, secObj])};
}";

async fn judged(server: &Server, name: &str) {
    server.database(name).await;
    server.put(&format!("/{name}/_design/even"), design(), 201).await;
}

fn design() -> Value {
    json!({ "validate_doc_update": FUNCTION, "lib": { "words": "exports.no = 'no odd ones'" } })
}

fn refused(error: &str, reason: &str) -> Value {
    json!({ "error": error, "reason": reason })
}

async fn bulk(server: &Server, docs: Value, new_edits: bool) -> Value {
    server.post("/db/_bulk_docs", json!({ "docs": docs, "new_edits": new_edits }), 201).await
}

/// The reason, as JSON.
fn told(refused: &Value) -> Value {
    assert_eq!(refused["error"], "forbidden", "{refused}");
    serde_json::from_str(refused["reason"].as_str().unwrap()).unwrap()
}

/// As CouchDB 3.5.0, but for the reason of an error of the language's own, which is `{[]}` there.
#[tokio::test]
async fn what_is_thrown_is_answered_in_couchdbs_words() {
    let server = Server::start().await;
    judged(&server, "db").await;
    server.put("/db/a", json!({ "n": 2 }), 201).await;
    assert_eq!(server.put("/db/b", json!({ "n": 1 }), 403).await, refused("forbidden", "no odd ones"));
    assert_eq!(server.post("/db", json!({ "_id": "b", "n": 1 }), 403).await, refused("forbidden", "no odd ones"));
    assert_eq!(server.put("/db/b", json!({ "login": 1 }), 401).await, refused("unauthorized", "who are you?"));
    let broken = server.put("/db/b", json!({ "broken": 1 }), 500).await;
    assert_eq!(broken["error"], "TypeError");
    assert_eq!(server.put("/db/b", json!({ "thrown": "text" }), 500).await, refused("unknown_error", "text"));
    let replicated = json!({ "_rev": "1-b", "n": 1 });
    assert_eq!(server.put("/db/b?new_edits=false", replicated, 403).await, refused("forbidden", "no odd ones"));
    let rows = bulk(&server, json!([{ "_id": "b", "n": 1 }, { "_id": "c" }, { "_id": "d", "broken": 1 }]), true).await;
    assert_eq!(rows[0], json!({ "id": "b", "error": "forbidden", "reason": "no odd ones" }));
    assert_eq!((&rows[1]["ok"], &rows[2]["error"]), (&json!(true), &json!("TypeError")));
    let rows =
        bulk(&server, json!([{ "_id": "b", "_rev": "1-b", "n": 1 }, { "_id": "e", "_rev": "1-e" }]), false).await;
    assert_eq!(rows, json!([{ "id": "b", "rev": "1-b", "error": "forbidden", "reason": "no odd ones" }]));
    // Neither is a document of the database's own.
    server.put("/db/_local/b", json!({ "n": 1 }), 201).await;
    assert_eq!(server.get("/db", 200).await["doc_count"], 4);
}

/// Each as CouchDB 3.5.0 shows it.
#[tokio::test]
async fn a_function_sees_the_documents_as_couchdb_shows_them() {
    let server = Server::start().await;
    server.database("db").await;
    server.put("/db/_security", json!({ "admins": {}, "members": {}, "x": 1 }), 200).await;
    let stored = server
        .put(
            "/db/a",
            json!({ "v": 1, "_attachments": { "t": { "content_type": "text/plain", "data": "aGVsbG8=" } } }),
            201,
        )
        .await;
    let rev = stored["rev"].as_str().unwrap();
    let hash = rev.split_once('-').unwrap().1;
    server.put("/db/_design/even", design(), 201).await;

    let new = told(&server.put("/db/b", json!({ "shown": "new" }), 403).await);
    assert_eq!(new, json!({ "_id": "b", "shown": "new" }));
    assert_eq!(told(&server.put("/db/b", json!({ "shown": "old" }), 403).await), Value::Null);
    let who = told(&server.put("/db/b", json!({ "shown": "who" }), 403).await);
    assert_eq!(
        who,
        json!([{ "db": "db", "name": null, "roles": ["_admin"] }, { "admins": {}, "members": {}, "x": 1 }])
    );

    let stub = json!({ "content_type": "text/plain", "revpos": 1, "digest": "md5-iMaiC8wqiFlD2NjLTemvCQ==", "length": 5, "stub": true });
    let old = json!({ "_id": "a", "_rev": rev, "v": 1, "_revisions": { "start": 1, "ids": [hash] }, "_attachments": { "t": stub } });
    let edit = json!({ "_rev": rev, "shown": "new", "_attachments": { "t": { "stub": true }, "n": { "content_type": "x/y", "data": "eA==" } } });
    let new = told(&server.put("/db/a", edit, 403).await);
    let expected = json!({ "_id": "a", "_rev": rev, "shown": "new", "_revisions": { "start": 1, "ids": [hash] },
        "_attachments": { "t": stub, "n": { "content_type": "x/y", "revpos": 0, "length": 1, "stub": true } } });
    assert_eq!(new, expected);
    assert_eq!(told(&server.delete(&format!("/db/a?rev={rev}"), 403).await), old);

    let branch = |start: u64, ids: Value, shown| json!([{ "_id": "a", "_revisions": { "start": start, "ids": ids }, "_rev": format!("{start}-c"), "shown": shown }]);
    let rows = bulk(&server, branch(3, json!(["c", "b", hash]), "old"), false).await;
    assert_eq!(told(&rows[0]), old);
    let rows = bulk(&server, branch(2, json!(["c", "x"]), "old"), false).await;
    assert_eq!(told(&rows[0]), Value::Null);
    let rows = bulk(&server, branch(2, json!(["c", "x"]), "new"), false).await;
    let expected =
        json!({ "_id": "a", "_rev": "2-c", "shown": "new", "_revisions": { "start": 2, "ids": ["c", "x"] } });
    assert_eq!(told(&rows[0]), expected);
    // What can't be written is answered so, asked or not.
    assert_eq!(server.put("/db/a", json!({ "n": 1 }), 409).await["error"], "conflict");
    let stub = json!({ "n": 1, "_attachments": { "x": { "stub": true } } });
    assert_eq!(server.put("/db/c", stub, 412).await["error"], "missing_stub");
}

#[tokio::test]
async fn attachments_are_judged_with_their_document() {
    let server = Server::start().await;
    server.database("db").await;
    let odd = server.put("/db/odd", json!({ "n": 1 }), 201).await["rev"].clone();
    let design = json!({ "validate_doc_update": "function (newDoc) {
        for (var name in newDoc._attachments) if (name == 'bad') throw {forbidden: 'bad: ' + newDoc._attachments[name].length};
        if (newDoc.n) throw {forbidden: 'odd'} }" });
    server.put("/db/_design/d", design, 201).await;
    let put = async |path: &str, status: u16| {
        let answer = client().put(server.url(path)).body("hello").send().await.unwrap();
        assert_eq!(answer.status(), status);
        serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap()
    };
    assert_eq!(put("/db/x/bad", 403).await, refused("forbidden", "bad: 5"));
    let rev = put("/db/x/good", 201).await["rev"].as_str().unwrap().to_owned();
    assert_eq!(put(&format!("/db/odd/good?rev={}", odd.as_str().unwrap()), 403).await["reason"], "odd");
    server.delete(&format!("/db/x/good?rev={rev}"), 200).await;
    let related = "--b\r\n\r\n{\"_attachments\":{\"bad\":{\"follows\":true,\"length\":3}}}\r\n--b\r\n\r\nabc\r\n--b--";
    let request = client().put(server.url("/db/y")).header("content-type", "multipart/related; boundary=b");
    let answer = request.body(related).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap().trim()),
        (403, r#"{"error":"forbidden","reason":"bad: 3"}"#)
    );
}

#[tokio::test]
async fn a_design_document_that_makes_no_sense_is_refused() {
    let server = Server::start().await;
    server.database("db").await;
    let refusal = server.put("/db/_design/d", json!({ "views": [] }), 400).await;
    assert_eq!(refusal, refused("invalid_design_doc", "`views` field must have object type"));
    let refusal = server.put("/db/_design/d", json!({ "views": { "v": { "map": "function (" } } }), 400).await;
    assert_eq!(refusal["error"], "compilation_error");
    // A validation that doesn't compile is taken, and lets nothing else through.
    server.put("/db/_design/d", json!({ "validate_doc_update": "function (" }), 201).await;
    assert_eq!(server.put("/db/a", json!({}), 500).await["error"], "compilation_error");
}

/// Half of it refused, the other half is there, and the refused ones are counted and listed in the target's words.
#[tokio::test]
async fn a_replication_counts_and_lists_what_its_target_refuses() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 10).await;
    let inline = json!({ "n": 1, "_attachments": { "a": { "data": "aGVsbG8=" } } });
    server.put("/src/small", inline, 201).await;
    let long = "x".repeat(300_000);
    server.put("/src/large", json!({ "n": 1, "_attachments": { "a": { "data": long } } }), 201).await;
    for (target, url) in [("near", "near".to_owned()), ("far", server.url("/far"))] {
        judged(&server, target).await;
        let body = json!({ "source": "src", "target": url });
        let request = client().post(server.url("/_replicate")).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let id = answer.headers()["x-couchrep-replication-id"].to_str().unwrap().to_owned();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let session = &answer["history"][0];
        assert_eq!(
            (&session["docs_written"], &session["doc_write_failures"]),
            (&json!(5), &json!(7)),
            "{target}: {answer}"
        );
        let listed = server.get(&format!("/_replicate/{id}/failures"), 200).await;
        assert_eq!(listed["total"], 7);
        for failure in listed["failures"].as_array().unwrap() {
            assert_eq!((&failure["error"], &failure["reason"]), (&json!("forbidden"), &json!("no odd ones")));
        }
        let ids: Vec<_> = server.leaves(target).await.into_iter().map(|leaf| leaf.id).collect();
        assert_eq!(ids, ["_design/even", "doc0000", "doc0002", "doc0004", "doc0006", "doc0008"]);
    }
}

/// A function that takes too long on a busy machine has refused nothing: its documents were passed over for good.
#[tokio::test]
async fn a_validation_that_runs_out_of_time_is_asked_again_before_a_document_is_given_up() {
    let server = Server::with_config(|config| config.store.javascript.call_time = Duration::from_millis(100)).await;
    server.database("source").await;
    for id in ["slow", "quick"] {
        server.put(&format!("/source/{id}"), json!({ "is": id }), 201).await;
    }
    let attached = json!({ "is": "slow", "_attachments": { "a.txt": { "data": "YQ==" } } });
    server.put("/source/with_file", attached, 201).await;
    server.put("/target", Value::Null, 201).await;
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() + 3000;
    let function = format!("function (doc) {{ while (doc.is == 'slow' && Date.now() < {until}); }}");
    server.put("/target/_design/slow", json!({ "validate_doc_update": function }), 201).await;
    let done = server.replicate(json!({ "source": "source", "target": "target" })).await;
    assert_eq!(done["history"][0]["doc_write_failures"], 0, "{done}");
    for id in ["slow", "quick", "with_file"] {
        server.get(&format!("/target/{id}"), 200).await;
    }

    let ever = json!({ "validate_doc_update": "function (doc) { while (doc.is == 'slow'); }" });
    server.put("/other", Value::Null, 201).await;
    server.put("/other/_design/slow", ever, 201).await;
    let done = server.replicate(json!({ "source": "source", "target": "other", "retries_per_request": 2 })).await;
    assert_eq!((&done["history"][0]["doc_write_failures"], &done["ok"]), (&json!(2), &json!(true)), "{done}");
    server.get("/other/quick", 200).await;
    // A write that nobody hears of is no way round it.
    let unheard = server.put("/other/new?batch=ok", json!({ "is": "slow" }), 500).await;
    assert_eq!(unheard["error"], "os_process_error");
}
