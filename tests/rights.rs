//! Who may do what, where there are admins.

use reqwest::Method;
use serde_json::json;

use super::support::{Server, client, json as ask};

const GREETED: &[&str] = &["/", "/_up", "/_uuids", "/_session", "/_session/"];
const NOT_A_USER: &str = "You are not an authenticated user";
const NOT_AN_ADMIN: &str = "You are not a server admin.";
const NOT_A_MEMBER: &str = "You are not authorized to access this db.";

/// Whom a route is for was read out of its path: a route that the list of paths forgot was open to whom it shouldn't be.
#[tokio::test]
async fn strangers_may_greet_and_every_other_route_is_closed_to_them() {
    let server = Server::with_admin("root", "hunter2").await;
    server.database("db").await;
    let refused = |method: Method, path: &str, reason: &'static str| {
        let url = server.anonymous_url(path);
        async move {
            let answer = ask(&client(), method, url.clone(), Some(&json!({})), 401).await;
            assert_eq!(answer, json!({ "error": "unauthorized", "reason": reason }), "{url}");
        }
    };
    for path in GREETED {
        ask(&client(), Method::GET, server.anonymous_url(path), None, 200).await;
    }
    for path in ["/_replicate", "/_replicate/", "/_replicate/0/failures"] {
        refused(Method::GET, path, NOT_A_USER).await;
    }
    refused(Method::POST, "/_replicate", NOT_A_USER).await;
    for path in ["/_all_dbs", "//_active_tasks"] {
        refused(Method::GET, path, NOT_AN_ADMIN).await;
    }
    for path in ["/db", "/db/", "/new"] {
        refused(Method::PUT, path, NOT_AN_ADMIN).await;
        refused(Method::DELETE, path, NOT_AN_ADMIN).await;
    }
    refused(Method::GET, "/db", NOT_A_MEMBER).await;
    refused(Method::PATCH, "/db", NOT_A_MEMBER).await;
    let of_databases = ["/_all_docs", "/_changes", "/_security", "/_local_docs", "/_local/x", "/doc", "/doc/a/b.txt"];
    for path in of_databases.into_iter().chain(["/_design/d", "/_design%2Fd", "/_nothing/of/the/kind"]) {
        refused(Method::GET, &format!("/db{path}"), NOT_A_MEMBER).await;
        refused(Method::PUT, &format!("/db{path}"), NOT_A_MEMBER).await;
    }
    for path in ["/_bulk_docs", "/_bulk_get", "/_revs_diff", "/_missing_revs", "/_ensure_full_commit"] {
        refused(Method::POST, &format!("/db{path}"), NOT_A_MEMBER).await;
    }
    for path in ["/_no_such_route", "/_node/_local/_config"] {
        refused(Method::GET, path, NOT_AN_ADMIN).await;
    }
    for (method, path) in [(Method::GET, "/new"), (Method::GET, "/new/doc"), (Method::POST, "/new/_bulk_docs")] {
        let answer = ask(&client(), method, server.anonymous_url(path), Some(&json!({})), 404).await;
        assert_eq!(answer["reason"], "Database does not exist.", "{path}");
    }
}

/// A database whose security object lets everybody in, as every new one of CouchDB 2 did.
#[tokio::test]
async fn a_database_of_nobodys_is_everybodys_to_read_and_write_but_not_to_change() {
    let server = Server::with_admin("root", "hunter2").await;
    server.database("db").await;
    let nobody = json!({ "admins": { "names": [], "roles": [] }, "members": { "names": [], "roles": [] } });
    let client = client();
    let default = json!({ "members": { "roles": ["_admin"] }, "admins": { "roles": ["_admin"] } });
    assert_eq!(ask(&client, Method::GET, server.url("/db/_security"), None, 200).await, default);
    ask(&client, Method::PUT, server.url("/db/_security"), Some(&nobody), 200).await;
    assert_eq!(ask(&client, Method::GET, server.anonymous_url("/db/_security"), None, 200).await, nobody);
    ask(&client, Method::PUT, server.anonymous_url("/db/doc"), Some(&json!({ "a": 1 })), 201).await;
    ask(&client, Method::GET, server.anonymous_url("/db/doc"), None, 200).await;
    for path in ["/db/_security", "/db/_revs_limit"] {
        let answer = ask(&client, Method::PUT, server.anonymous_url(path), Some(&json!({})), 401).await;
        assert_eq!(answer["reason"], "You are not a db or server admin.");
    }
    for (path, reason) in [("/db/_compact", "You are not a server or db admin."), ("/db/_purge", NOT_AN_ADMIN)] {
        let answer = ask(&client, Method::POST, server.anonymous_url(path), Some(&json!({})), 401).await;
        assert_eq!(answer["reason"], reason);
    }
}

/// What is no security object is refused and changes nothing; what is one is given back as it was put, after a restart too.
#[tokio::test]
async fn a_security_object_is_kept_as_it_was_put() {
    let server = Server::start().await;
    server.database("db").await;
    let client = client();
    let put = json!({ "admins": { "names": ["ann"] }, "members": {}, "cloudant": { "z": 1.5 } });
    ask(&client, Method::PUT, server.url("/db/_security"), Some(&put), 200).await;
    for bad in [json!([]), json!({ "admins": 1 }), json!({ "members": { "names": [1] } })] {
        ask(&client, Method::PUT, server.url("/db/_security"), Some(&bad), 400).await;
    }
    ask(&client, Method::PUT, server.url("/db/_revs_limit"), Some(&json!(10)), 200).await;
    for bad in [json!(0), json!(-1), json!("5"), json!(null)] {
        ask(&client, Method::PUT, server.url("/db/_revs_limit"), Some(&bad), 400).await;
    }
    let server = server.restart().await;
    assert_eq!(ask(&client, Method::GET, server.url("/db/_security"), None, 200).await, put);
    assert_eq!(ask(&client, Method::GET, server.url("/db/_revs_limit"), None, 200).await, 10);
}
