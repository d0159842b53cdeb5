//! Every endpoint of CouchDB 3.5: answered as CouchDB answers it, or 501 with its name.
//!
//! The statuses and words are those that a CouchDB 3.5.0 gave to the same requests.

use serde_json::{Value, json};

use crate::asking::{Answer, ask, get, request, send, with_db};

/// What is expected.
enum Expected {
    /// This status, and these words if it is an error.
    As(u16, &'static str, &'static str),
    /// A 501 that names this.
    Absent(&'static str),
}

use Expected::{Absent, As};

/// Method, path, body, and what is to come. `db` has a document `doc` and a design document `d` with nothing in it.
const ENDPOINTS: &[(&str, &str, &str, Expected)] = &[
    ("GET", "/", "", As(200, "", "")),
    ("GET", "/_up", "", As(200, "", "")),
    ("GET", "/_uuids", "", As(200, "", "")),
    ("GET", "/_all_dbs", "", As(200, "", "")),
    ("GET", "/_active_tasks", "", As(200, "", "")),
    ("GET", "/_session", "", As(200, "", "")),
    // On purpose, where there are no admins: it makes CouchDB's replicator send Basic credentials.
    ("POST", "/_session", "{}", As(404, "not_found", "There are no sessions where there are no admins.")),
    ("DELETE", "/_session", "", As(200, "", "")),
    ("PUT", "/_session", "", As(405, "method_not_allowed", "Only DELETE,GET,HEAD,POST allowed")),
    ("POST", "/_replicate", "{}", As(400, "bad_request", "`source` is missing")),
    ("PUT", "/_replicate", "{}", As(405, "method_not_allowed", "Only POST allowed")),
    ("GET", "/_nosuch", "", As(404, "not_found", "Database does not exist.")),
    ("GET", "/_scheduler/jobs", "", As(200, "", "")),
    ("GET", "/_scheduler/jobs/none", "", As(404, "not_found", "missing")),
    ("GET", "/_scheduler/docs", "", As(200, "", "")),
    ("GET", "/_scheduler/docs/_replicator", "", As(200, "", "")),
    ("GET", "/_scheduler/docs/_replicator/a", "", As(404, "not_found", "missing")),
    ("PUT", "/_replicator", "", As(412, "file_exists", "The database could not be created, the file already exists.")),
    ("GET", "/_replicator", "", As(200, "", "")),
    ("PUT", "/_replicator/job", "{}", As(403, "forbidden", "Missing replicator database")),
    ("POST", "/_replicator", "{}", As(403, "forbidden", "Missing replicator database")),
    ("GET", "/_replicator/_all_docs", "", As(200, "", "")),
    ("PUT", "/a%2F_replicator", "", As(201, "", "")),
    ("GET", "/a%2F_replicator/job", "", As(404, "not_found", "missing")),
    ("PUT", "/_users", "", As(201, "", "")),
    ("PUT", "/_users/org.couchdb.user:a", "{}", As(403, "forbidden", "doc.type must be user")),
    ("PUT", "/_global_changes", "", Absent("_global_changes")),
    ("GET", "/_db_updates", "", As(200, "", "")),
    ("POST", "/_db_updates", "", As(405, "method_not_allowed", "Only GET,HEAD allowed")),
    ("GET", "/_dbs_info", "", As(200, "", "")),
    ("POST", "/_dbs_info", r#"{"keys":["db"]}"#, As(200, "", "")),
    ("GET", "/_membership", "", As(200, "", "")),
    ("GET", "/_node/_local", "", As(200, "", "")),
    ("GET", "/_node/another", "", As(404, "not_found", "no such node: another")),
    ("GET", "/_node/_local/_stats", "", As(200, "", "")),
    ("GET", "/_node/_local/_stats/couchdb", "", As(200, "", "")),
    ("GET", "/_node/another/_stats", "", As(404, "not_found", "no such node: another")),
    ("GET", "/_node/_local/_system", "", As(200, "", "")),
    ("GET", "/_node/_local/_prometheus", "", As(200, "", "")),
    ("GET", "/_metrics", "", As(200, "", "")),
    ("GET", "/_node/_local/_versions", "", Absent("_node")),
    ("GET", "/_node/_local/_config", "", As(200, "", "")),
    ("GET", "/_node/another/_config", "", As(404, "not_found", "no such node: another")),
    ("GET", "/_node/_local/_config/cors", "", As(200, "", "")),
    ("GET", "/_node/_local/_config/cors/origins", "", As(404, "not_found", "unknown_config_value")),
    ("PUT", "/_node/_local/_config/cors/origins", "7", As(400, "bad_request", "a JSON string expected")),
    ("PUT", "/_node/_local/_config/cors/origins", "x", As(400, "bad_request", "invalid UTF-8 JSON")),
    ("PUT", "/_node/_local/_config/cors/origins", "", As(400, "bad_request", "Missing request body")),
    ("PUT", "/_node/_local/_config/cors/origins", "\"a\\nb\"", As(400, "bad_request", "Invalid configuration value")),
    ("PUT", "/_node/_local/_config/smoosh/x", "\"y\"", As(400, "bad_request", "couchrep has no setting [smoosh] x")),
    ("DELETE", "/_node/_local/_config/smoosh/x", "", As(404, "not_found", "unknown_config_value")),
    ("PUT", "/_node/_local/_config/cors", "\"x\"", As(405, "method_not_allowed", "Only GET,HEAD allowed")),
    ("POST", "/_node/_local/_config/_reload", "", As(200, "", "")),
    ("PUT", "/_node/_local/_config/log/level", "\"info\"", As(200, "", "")),
    ("GET", "/_config/log/level", "", As(200, "", "")),
    ("POST", "/_node/_local/_restart", "", Absent("_node")),
    ("GET", "/_cluster_setup", "", Absent("_cluster_setup")),
    ("GET", "/_reshard/jobs", "", Absent("_reshard")),
    ("POST", "/_reload_query_servers", "", Absent("_reload_query_servers")),
    ("POST", "/_search_analyze", "{}", Absent("_search_analyze")),
    ("POST", "/_nouveau_analyze", "{}", Absent("_nouveau_analyze")),
    ("GET", "/_utils/x", "", As(404, "not_found", "missing")),
    ("GET", "/favicon.ico", "", Absent("favicon.ico")),
    ("PUT", "/made", "", As(201, "", "")),
    ("DELETE", "/made", "", As(200, "", "")),
    ("GET", "/db", "", As(200, "", "")),
    ("GET", "/nosuch", "", As(404, "not_found", "Database does not exist.")),
    ("POST", "/db", "{}", As(201, "", "")),
    ("GET", "/db/_all_docs", "", As(200, "", "")),
    ("POST", "/db/_all_docs", r#"{"keys":[]}"#, As(200, "", "")),
    ("POST", "/db/_all_docs/queries", r#"{"queries":[]}"#, Absent("_all_docs/queries")),
    ("GET", "/db/_design_docs", "", As(200, "", "")),
    ("POST", "/db/_design_docs/queries", r#"{"queries":[]}"#, Absent("_design_docs/queries")),
    ("GET", "/db/_local_docs", "", As(200, "", "")),
    ("POST", "/db/_local_docs/queries", r#"{"queries":[]}"#, Absent("_local_docs/queries")),
    ("GET", "/db/_changes", "", As(200, "", "")),
    ("POST", "/db/_changes", "{}", As(200, "", "")),
    ("POST", "/db/_bulk_docs", r#"{"docs":[]}"#, As(201, "", "")),
    ("POST", "/db/_bulk_get", r#"{"docs":[]}"#, As(200, "", "")),
    ("POST", "/db/_revs_diff", "{}", As(200, "", "")),
    ("POST", "/db/_missing_revs", "{}", As(200, "", "")),
    ("POST", "/db/_ensure_full_commit", "", As(201, "", "")),
    ("GET", "/db/_security", "", As(200, "", "")),
    ("PUT", "/db/_security", "{}", As(200, "", "")),
    ("GET", "/db/_revs_limit", "", As(200, "", "")),
    ("PUT", "/db/_revs_limit", "1000", As(200, "", "")),
    ("POST", "/db/_find", r#"{"selector":{}}"#, Absent("_find")),
    ("POST", "/db/_explain", r#"{"selector":{}}"#, Absent("_explain")),
    ("GET", "/db/_index", "", Absent("_index")),
    ("DELETE", "/db/_index/_design/d/json/i", "", Absent("_index")),
    ("POST", "/db/_purge", "{}", As(201, "", "")),
    ("GET", "/db/_purged_infos", "", Absent("_purged_infos")),
    ("PUT", "/db/_purged_infos_limit", "1000", As(200, "", "")),
    ("POST", "/db/_compact", "", As(202, "", "")),
    ("POST", "/db/_compact/d", "", As(202, "", "")),
    ("POST", "/db/_compact/none", "", As(404, "not_found", "missing")),
    ("POST", "/db/_view_cleanup", "", As(202, "", "")),
    ("POST", "/db/_search_cleanup", "", Absent("_search_cleanup")),
    ("POST", "/db/_nouveau_cleanup", "", As(202, "", "")),
    ("POST", "/db/_temp_view", "{}", Absent("_temp_view")),
    ("GET", "/db/_shards", "", Absent("_shards")),
    ("GET", "/db/_shards/doc", "", Absent("_shards")),
    ("POST", "/db/_sync_shards", "", Absent("_sync_shards")),
    ("GET", "/db/_partition/p/_all_docs", "", Absent("_partition")),
    ("GET", "/db/_nosuch", "", As(404, "not_found", "missing")),
    ("GET", "/db/doc", "", As(200, "", "")),
    ("COPY", "/db/doc", "", As(400, "bad_request", "Destination header is mandatory for COPY.")),
    ("GET", "/db/doc/none", "", As(404, "not_found", "Document is missing attachment")),
    ("GET", "/db/doc/_view/v", "", As(404, "not_found", "Document is missing attachment")),
    ("GET", "/db/_local/none", "", As(404, "not_found", "missing")),
    ("GET", "/db/_design/d", "", As(200, "", "")),
    ("GET", "/db/_design/d/none", "", As(404, "not_found", "Document is missing attachment")),
    ("GET", "/db/_design/d/_view/v?key=\"a\"", "", Absent("_view")),
    ("POST", "/db/_design%2Fd/_view/v/queries", r#"{"queries":[]}"#, Absent("_view")),
    ("GET", "/db/_design/d/_info", "", Absent("_info")),
    ("GET", "/db/_design/d/_show/s/doc", "", Absent("_show")),
    ("GET", "/db/_design/d/_list/l/v", "", Absent("_list")),
    ("POST", "/db/_design/d/_update/u", "", Absent("_update")),
    ("GET", "/db/_design/d/_rewrite/x/y", "", Absent("_rewrite")),
    ("GET", "/db/_design/d/_search/s?q=a", "", Absent("_search")),
    ("GET", "/db/_design/d/_search_info/s", "", Absent("_search_info")),
    ("GET", "/db/_design/d/_nouveau/n?q=a", "", Absent("_nouveau")),
    ("GET", "/db/_design/d/_nouveau_info/n", "", Absent("_nouveau_info")),
];

/// A view was an attachment that is missing, and `_replicator` a database without rules.
#[tokio::test]
async fn every_endpoint_of_couchdb_is_answered_as_there_or_says_that_it_is_absent() {
    let server = with_db().await;
    for id in ["doc", "_design/d"] {
        server.put(&format!("/db/{id}"), json!({}), 201).await;
    }
    for (method, path, body, expected) in ENDPOINTS {
        let answer = ask(&server, method, path, body).await;
        let name = format!("{method} {path}: {} {}", answer.status, answer.text());
        match expected {
            As(status, error, reason) => {
                assert_eq!(answer.status, *status, "{name}");
                if !error.is_empty() {
                    assert_eq!(words(&answer), (json!(error), json!(reason)), "{name}");
                }
            }
            Absent(feature) => {
                let (error, reason) = words(&answer);
                assert_eq!((answer.status, error), (501, json!("not_implemented")), "{name}");
                assert!(reason.as_str().unwrap().ends_with(&format!("({feature}).")), "{name}");
            }
        }
    }
}

fn words(answer: &Answer) -> (Value, Value) {
    (answer.json()["error"].clone(), answer.json()["reason"].clone())
}

#[tokio::test]
async fn what_is_absent_is_nothing_to_strangers() {
    let server = crate::support::Server::with_admin("root", "secret").await;
    server.database("db").await;
    for path in ["/_reshard/jobs", "/db/_find", "/db/_design/d/_view/v"] {
        assert_eq!(server.client().get(server.anonymous_url(path)).send().await.unwrap().status(), 401, "{path}");
        assert_eq!(get(&server, path).await.status, 501, "{path}");
    }
}

/// `"continous":true` made a one-shot of what was to go on for ever, and nothing told why.
#[tokio::test]
async fn fields_that_mean_nothing_are_named_in_a_header() {
    let server = with_db().await;
    let replicate = async |body: Value| {
        let request = request(&server, "POST", "/_replicate").header("Content-Type", "application/json");
        send(request.body(body.to_string())).await
    };
    let whole = json!({ "source": "db", "target": "copy", "create_target": true });
    assert!(!replicate(whole.clone()).await.headers.contains_key("x-couchrep-unknown-fields"));
    let mut misspelt = whole;
    misspelt["continous"] = true.into();
    misspelt["söurce\r\nx"] = 1.into();
    let answer = replicate(misspelt).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-couchrep-unknown-fields"), "continous, s%C3%B6urce%0D%0Ax");
    let refused = replicate(json!({ "source": "db", "traget": "copy" })).await;
    assert_eq!((refused.status, refused.header("x-couchrep-unknown-fields")), (400, "traget"));
}

#[test]
fn the_fields_of_a_replication_are_those_that_openapi_describes() {
    let described = include_str!("../openapi.yaml").split("\n    ReplicationRequest:\n").nth(1).unwrap();
    let described = described.split("\n      examples:").next().unwrap();
    let mut described = described
        .lines()
        .filter_map(|line| line.strip_prefix("        ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| Some(line.split_once(':')?.0))
        .collect::<Vec<_>>();
    let mut known = couchrep::replicate::request::FIELDS.to_vec();
    described.sort_unstable();
    known.sort_unstable();
    assert_eq!(described, known);
}
