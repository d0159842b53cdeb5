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
        refused(Method::GET, path, NOT_A_MEMBER).await;
        refused(Method::PATCH, path, NOT_A_MEMBER).await;
    }
    let of_databases = ["/_all_docs", "/_changes", "/_security", "/_local_docs", "/_local/x", "/doc", "/doc/a/b.txt"];
    for path in of_databases.into_iter().chain(["/_design/d", "/_design%2Fd", "/_nothing/of/the/kind"]) {
        refused(Method::GET, &format!("/db{path}"), NOT_A_MEMBER).await;
        refused(Method::PUT, &format!("/db{path}"), NOT_A_MEMBER).await;
    }
    for path in ["/_bulk_docs", "/_bulk_get", "/_revs_diff", "/_missing_revs", "/_ensure_full_commit"] {
        refused(Method::POST, &format!("/db{path}"), NOT_A_MEMBER).await;
    }
    refused(Method::GET, "/_no_such_route", NOT_A_MEMBER).await;
}
