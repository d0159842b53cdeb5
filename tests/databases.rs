//! The server and its databases, as CouchDB answers for them.

use serde_json::json;

use crate::asking::{ask, get, request, send, with_db};
use crate::support::Server;

#[tokio::test]
async fn the_server_greets_as_couchdb() {
    let server = Server::start().await;
    let answer = get(&server, "/").await;
    assert_eq!(answer.status, 200);
    let greeting = answer.json();
    assert_eq!((&greeting["couchdb"], &greeting["version"]), (&json!("Welcome"), &json!("3.5.0")));
    assert_eq!(greeting["uuid"].as_str().unwrap().len(), 32);
    assert!(answer.text().ends_with("}\n"));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "must-revalidate");
    assert!(answer.header("server").starts_with("CouchDB/3.5.0 (couchrep/"));
    assert_eq!(answer.header("x-couch-request-id").len(), 10);
    assert_eq!(get(&server, "/_up").await.text(), "{\"status\":\"ok\",\"seeds\":{}}\n");
}

#[tokio::test]
async fn a_database_is_made_described_and_deleted_with_or_without_a_slash() {
    let server = Server::start().await;
    let made = ask(&server, "PUT", "/src/", "").await;
    assert_eq!((made.status, made.text()), (201, "{\"ok\":true}\n"));
    assert_eq!(made.header("location"), server.url("/src"));
    let again = ask(&server, "PUT", "/src", "").await;
    let reason = "The database could not be created, the file already exists.";
    assert_eq!((again.status, again.json()), (412, json!({ "error": "file_exists", "reason": reason })));
    let info = get(&server, "/src/").await.json();
    assert_eq!((&info["db_name"], &info["doc_count"], &info["update_seq"]), (&json!("src"), &json!(0), &json!(0)));
    assert!(info["instance_start_time"].is_string());
    assert_eq!(send(request(&server, "HEAD", "/src")).await.status, 200);
    assert_eq!(ask(&server, "DELETE", "/src", "").await.text(), "{\"ok\":true}\n");
    let gone = get(&server, "/src").await;
    assert_eq!(gone.status, 404);
    assert_eq!(gone.text(), "{\"error\":\"not_found\",\"reason\":\"Database does not exist.\"}\n");
}

#[tokio::test]
async fn names_may_hold_slashes_and_must_be_legal() {
    let server = Server::start().await;
    assert_eq!(ask(&server, "PUT", "/a%2Fb", "").await.status, 201);
    assert_eq!(get(&server, "/a%2Fb/").await.json()["db_name"], "a/b");
    assert_eq!(get(&server, "/_all_dbs").await.text(), "[\"_replicator\",\"a/b\"]\n");
    let refused = ask(&server, "PUT", "/Upper", "").await;
    assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("illegal_database_name")));
}

#[tokio::test]
async fn methods_that_arent_there_are_refused_with_those_that_are() {
    let server = with_db().await;
    let answer = ask(&server, "PUT", "/_replicate", "{}").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    assert_eq!(answer.text(), "{\"error\":\"method_not_allowed\",\"reason\":\"Only POST allowed\"}\n");
    let answer = get(&server, "/db/_bulk_docs").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn replicate_refuses_what_is_no_json_object() {
    let server = Server::start().await;
    let cases = [
        ("", "Missing request body"),
        ("{\"source\": nope", "invalid UTF-8 JSON"),
        ("[1,2]", "Request body must be a JSON object"),
    ];
    for (body, reason) in cases {
        let answer = ask(&server, "POST", "/_replicate", body).await;
        assert_eq!((answer.status, answer.json()), (400, json!({ "error": "bad_request", "reason": reason })));
    }
    assert_eq!(get(&server, "/_replicate").await.json()["reason"], "Missing request body");
    let form = send(request(&server, "POST", "/_replicate").body("{}")).await;
    let reason = "Content-Type must be application/json";
    assert_eq!((form.status, form.json()), (415, json!({ "error": "bad_content_type", "reason": reason })));
}

#[tokio::test]
async fn there_are_no_sessions_where_everyone_is_admin() {
    let server = Server::start().await;
    let session = get(&server, "/_session").await.json();
    assert_eq!(session["userCtx"], json!({ "name": null, "roles": ["_admin"] }));
    assert_eq!(ask(&server, "POST", "/_session", "{}").await.status, 404);
}

#[tokio::test]
async fn a_full_commit_tells_the_instance() {
    let server = with_db().await;
    let answer = ask(&server, "POST", "/db/_ensure_full_commit", "").await;
    let info = get(&server, "/db").await.json();
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json(), json!({ "ok": true, "instance_start_time": info["instance_start_time"] }));
}

/// As CouchDB 3.5.0 answers it; that it gives space back is the store's own test.
#[tokio::test]
async fn a_compaction_is_begun_and_ends() {
    let server = with_db().await;
    assert_eq!(get(&server, "/db").await.json()["compact_running"], json!(false));
    let body = vec![7; 3_000_000];
    let put = request(&server, "PUT", "/db/a/x.bin").header("Content-Type", "application/octet-stream").body(body);
    let rev = send(put).await.rev();
    assert_eq!(ask(&server, "DELETE", &format!("/db/a?rev={rev}"), "").await.status, 200);
    let size = async || get(&server, "/db").await.json()["sizes"]["file"].as_u64().unwrap();
    let before = size().await;
    let answer = ask(&server, "POST", "/db/_compact", "").await;
    assert_eq!((answer.status, answer.text()), (202, "{\"ok\":true}\n"));
    while get(&server, "/db").await.json()["compact_running"] == json!(true) {}
    let after = size().await;
    assert!(after + 2_000_000 < before, "{before} {after}");
    let answer = send(request(&server, "POST", "/db/_compact")).await;
    assert_eq!((answer.status, &answer.json()["error"]), (415, &json!("bad_content_type")));
    let answer = ask(&server, "POST", "/db/_view_cleanup", "").await;
    assert_eq!((answer.status, answer.text()), (202, "{\"ok\":true}\n"));
}
