//! People: documents of `_users`, from their making to what they may do.
//!
//! Statuses and words are those of a CouchDB 3.5.0 that was asked the same.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use couchrep::config::Admin;

use super::support::{Server, client, json as ask};

/// A server where `_users` may be opened to its people, as CouchDB's `users_db_security_editable` lets admins do.
async fn server() -> Server {
    let server = Server::with_config(|config| {
        config.admins.push(Admin::new("root", "hunter2").unwrap());
        config.users_db_security_editable = true;
    })
    .await;
    as_user(&server, "root:hunter2", Method::PUT, "/_users/_security", &json!({}), 200).await;
    server
}

#[track_caller]
fn as_user(
    server: &Server,
    user: &str,
    method: Method,
    path: &str,
    body: &Value,
    status: u16,
) -> impl Future<Output = Value> + use<> {
    let url = server.anonymous_url(path).replace("http://", &format!("http://{user}@"));
    ask(&client(), method, url, Some(body), status)
}

fn ann() -> Value {
    json!({ "name": "ann", "type": "user", "roles": ["cook"], "password": "apple" })
}

const ANN: &str = "/_users/org.couchdb.user:ann";

#[tokio::test]
async fn a_user_is_made_and_logs_in_and_his_password_is_stored_nowhere() {
    let server = server().await;
    as_user(&server, "root:hunter2", Method::PUT, ANN, &ann(), 201).await;
    let stored = as_user(&server, "root:hunter2", Method::GET, ANN, &Value::Null, 200).await;
    assert!(stored.get("password").is_none(), "{stored}");
    assert_eq!((&stored["password_scheme"], &stored["pbkdf2_prf"]), (&json!("pbkdf2"), &json!("sha256")));
    let session = as_user(&server, "ann:apple", Method::GET, "/_session", &Value::Null, 200).await;
    assert_eq!(session["userCtx"], json!({ "name": "ann", "roles": ["cook"] }));
    let login = ask(
        &client(),
        Method::POST,
        server.anonymous_url("/_session"),
        Some(&json!({ "name": "ann", "password": "apple" })),
        200,
    );
    assert_eq!(login.await, json!({ "ok": true, "name": "ann", "roles": ["cook"] }));
    as_user(&server, "ann:pear", Method::GET, "/_session", &Value::Null, 401).await;
}

#[tokio::test]
async fn in_bulk_and_replicated_too_users_are_judged_and_their_passwords_hashed() {
    let server = server().await;
    let doc = |name: &str, kind: &str, rev: Option<&str>| {
        let mut doc = json!({ "_id": format!("org.couchdb.user:{name}"), "name": name, "type": kind, "roles": [], "password": "x" });
        if let Some(rev) = rev {
            doc["_rev"] = rev.into();
        }
        doc
    };
    let bulk = json!({ "docs": [doc("a", "user", None), doc("b", "x", None)] });
    let rows = as_user(&server, "root:hunter2", Method::POST, "/_users/_bulk_docs", &bulk, 201).await;
    assert_eq!(rows[0]["ok"], true);
    assert_eq!((&rows[1]["error"], &rows[1]["reason"]), (&json!("forbidden"), &json!("doc.type must be user")));
    let bulk = json!({ "new_edits": false, "docs": [doc("c", "user", Some("1-abc")), doc("d", "x", Some("1-abc"))] });
    let rows = as_user(&server, "root:hunter2", Method::POST, "/_users/_bulk_docs", &bulk, 201).await;
    assert_eq!(
        rows,
        json!([{ "id": "org.couchdb.user:d", "rev": "1-abc", "error": "forbidden", "reason": "doc.type must be user" }])
    );
    for user in ["a", "c"] {
        as_user(&server, &format!("{user}:x"), Method::GET, "/_session", &Value::Null, 200).await;
        let path = format!("/_users/org.couchdb.user:{user}");
        let stored = as_user(&server, "root:hunter2", Method::GET, &path, &Value::Null, 200).await;
        assert!(stored.get("password").is_none(), "{stored}");
    }
}

#[tokio::test]
async fn a_user_changes_his_password_and_nothing_that_is_not_his() {
    let server = server().await;
    as_user(&server, "root:hunter2", Method::PUT, ANN, &ann(), 201).await;
    let mut own = as_user(&server, "ann:apple", Method::GET, ANN, &Value::Null, 200).await;
    as_user(
        &server,
        "root:hunter2",
        Method::PUT,
        "/_users/org.couchdb.user:bob",
        &json!({
            "name": "bob", "type": "user", "roles": [], "password": "pear"
        }),
        201,
    )
    .await;

    let cookie = Client::new()
        .post(server.anonymous_url("/_session"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("name=ann&password=apple")
        .send()
        .await
        .unwrap();
    let cookie = cookie.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let name = async |cookie: &str| {
        let answer =
            Client::new().get(server.anonymous_url("/_session")).header("cookie", cookie).send().await.unwrap();
        serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap()["userCtx"]["name"].clone()
    };
    assert_eq!(name(&cookie).await, "ann");

    own["roles"] = json!(["cook", "king"]);
    let refused = as_user(&server, "ann:apple", Method::PUT, ANN, &own, 403).await;
    assert_eq!(refused, json!({ "error": "forbidden", "reason": "Only _admin may edit roles" }));
    own["roles"] = json!(["cook"]);
    own["password"] = "plum".into();
    as_user(&server, "ann:apple", Method::PUT, ANN, &own, 201).await;
    assert_eq!(name(&cookie).await, Value::Null, "a new password ends sessions");
    as_user(&server, "ann:apple", Method::GET, "/_session", &Value::Null, 401).await;
    as_user(&server, "ann:plum", Method::GET, "/_session", &Value::Null, 200).await;

    let missing = json!({ "error": "not_found", "reason": "missing" });
    assert_eq!(as_user(&server, "bob:pear", Method::GET, ANN, &Value::Null, 404).await, missing);
    assert_eq!(as_user(&server, "bob:pear", Method::PUT, ANN, &ann(), 404).await, missing);
}

/// A `_users` that comes from elsewhere logs its people in with the passwords that they have there.
#[tokio::test]
async fn users_that_were_replicated_log_in() {
    let (here, there) = (server().await, server().await);
    as_user(&here, "root:hunter2", Method::PUT, ANN, &ann(), 201).await;
    let target = there.anonymous_url("/_users").replace("http://", "http://root:hunter2@");
    let job = json!({ "source": "_users", "target": target });
    let result = as_user(&here, "root:hunter2", Method::POST, "/_replicate", &job, 200).await;
    assert_eq!(result["history"][0]["doc_write_failures"], 0, "{result}");
    as_user(&there, "ann:apple", Method::GET, "/_session", &Value::Null, 200).await;
}

/// A replication logs in at `/_session`, where couchrep had none.
#[tokio::test]
async fn users_replicate_what_they_may_between_servers() {
    let (here, there) = (server().await, server().await);
    for server in [&here, &there] {
        as_user(server, "root:hunter2", Method::PUT, ANN, &ann(), 201).await;
        as_user(server, "root:hunter2", Method::PUT, "/db", &Value::Null, 201).await;
    }
    let members = json!({ "members": { "names": ["ann"] } });
    as_user(&here, "root:hunter2", Method::PUT, "/db/_security", &members, 200).await;
    as_user(&here, "ann:apple", Method::PUT, "/db/doc", &json!({}), 201).await;
    let target = there.anonymous_url("/db").replace("http://", "http://ann:apple@");
    let job = json!({ "source": "db", "target": target });
    let refused = as_user(&here, "ann:apple", Method::POST, "/_replicate", &job, 401).await;
    assert_eq!(refused["error"], "unauthorized", "{refused}");
    as_user(&there, "root:hunter2", Method::PUT, "/db/_security", &members, 200).await;
    let result = as_user(&here, "ann:apple", Method::POST, "/_replicate", &job, 200).await;
    assert_eq!(result["history"][0]["docs_written"], 1, "{result}");
    as_user(&there, "ann:apple", Method::GET, "/db/doc", &Value::Null, 200).await;
}

/// Whoever's document has conflicts can't log in: with one request anybody could have kept anybody out.
#[tokio::test]
async fn nobody_else_brings_a_conflict_into_a_users_document() {
    let server = server().await;
    as_user(&server, "root:hunter2", Method::PUT, ANN, &ann(), 201).await;
    let branch = json!({ "_rev": "1-abc", "name": "ann", "type": "user", "roles": [] });
    let path = format!("{ANN}?new_edits=false");
    let refusal = json!({ "error": "forbidden", "reason": "You may only update your own user document." });
    let anonymous = ask(&client(), Method::PUT, server.anonymous_url(&path), Some(&branch), 403);
    assert_eq!(anonymous.await, refusal);
    let mut row = branch.clone();
    row["_id"] = "org.couchdb.user:ann".into();
    let bulk = json!({ "new_edits": false, "docs": [row] });
    let rows = ask(&client(), Method::POST, server.anonymous_url("/_users/_bulk_docs"), Some(&bulk), 201).await;
    assert_eq!(rows[0]["reason"], refusal["reason"]);
    as_user(&server, "ann:apple", Method::GET, "/_session", &Value::Null, 200).await;
    // Nor where an admin has deleted such a branch before: over its deletion.
    let deleted = json!({ "_rev": "1-dead", "_deleted": true });
    as_user(&server, "root:hunter2", Method::PUT, &path, &deleted, 200).await;
    let mut over = branch.clone();
    over["_rev"] = "1-dead".into();
    let url = server.anonymous_url(ANN);
    assert_eq!(ask(&client(), Method::PUT, url, Some(&over), 403).await, refusal);
    as_user(&server, "ann:apple", Method::GET, "/_session", &Value::Null, 200).await;
    // Where nobody is, there is nobody to keep out; and an admin may.
    let bob = json!({ "_rev": "1-abc", "name": "bob", "type": "user", "roles": [], "password": "pear" });
    let url = server.anonymous_url("/_users/org.couchdb.user:bob?new_edits=false");
    ask(&client(), Method::PUT, url, Some(&bob), 201).await;
    as_user(&server, "root:hunter2", Method::PUT, &path, &branch, 201).await;
    as_user(&server, "ann:apple", Method::GET, "/_session", &Value::Null, 401).await;
}
