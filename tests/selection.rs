//! What a replication is asked to copy, and under which ids its checkpoints are found: selectors, winners, `since_seq`,
//! filter code, and logs that CouchDB left.

use reqwest::Method;
use serde_json::{Value, json};

use couchrep::access::Caller;
use couchrep::replicate::id::{Identity, ReplicationId};
use couchrep::replicate::request::Command;

use crate::support::{Fault, FaultyPeer, Server};

/// What CouchDB 3.5 kept of a session that copied nine changes (`winning_revs_only`).
const SEQ: &str = "9-g1AAAACfeJzLYWBgYMpgTmEQSs4vTc5ISTJ0MDQy1zMAQsMckFwiQ1L9____szKYE1lzgQLsJolJiYbG5lh14DMojwVIMjQAqf9Q81jA5qUaJZqmJSdi1ZgFAMGuKaE";
const SESSION: &str = "897701dbe8d0b85f692989bcaa6b9410";

/// The checkpoint document of that session, at another place in the feed.
fn couchdbs_log(id_version: u8, seq: &str) -> Value {
    json!({
        "session_id": SESSION,
        "source_last_seq": seq,
        "replication_id_version": id_version,
        "history": [{
            "session_id": SESSION,
            "start_time": "Sun, 22 Nov 2026 19:04:53 GMT",
            "end_time": "Sun, 22 Nov 2026 19:04:57 GMT",
            "start_last_seq": 0,
            "end_last_seq": seq,
            "recorded_seq": seq,
            "missing_checked": 5,
            "missing_found": 5,
            "docs_read": 5,
            "docs_written": 5,
            "doc_write_failures": 0,
            "bulk_get_docs": 3,
            "bulk_get_attempts": 4,
        }],
    })
}

/// A server with an empty `tgt` and a `src` of twenty documents, whose `n` is their number.
async fn filled() -> Server {
    let server = Server::with_config(|config| {
        config.uuid = Some("1a8ca9748bae6f3b7474e4a6bcb259cb".into());
        config.hostname = Some("couchhost".into());
        config.httpd_port = 5996;
    })
    .await;
    server.database("tgt").await;
    server.database("src").await.fill("doc", 20).await;
    server
}

/// The ids under which the server looks for a replication's logs, the newest version first.
fn log_ids(server: &Server, request: &Value) -> Vec<String> {
    let Command::Run(request) = Command::parse(request.as_object().unwrap()).unwrap() else { panic!("no cancel") };
    let identity = Identity {
        uuid: "1a8ca9748bae6f3b7474e4a6bcb259cb".into(),
        address: server.url("").trim_start_matches("http://").into(),
        hostname: "couchhost".into(),
        httpd_port: 5996,
    };
    ReplicationId::log_ids(&request, &identity, &Caller::default(), None)
}

/// A document with two leaves, the winner with `"side":"b"`.
async fn conflicted(server: &Server, database: &str) {
    let doc = |rev: &str, side: &str| json!({"_id": "both", "_rev": format!("1-{rev}"), "side": side});
    let docs = [doc(&"a".repeat(32), "a"), doc(&"b".repeat(32), "b")];
    server.post(&format!("/{database}/_bulk_docs"), json!({"new_edits": false, "docs": docs}), 201).await;
}

#[tokio::test]
async fn a_selector_lets_only_matching_documents_through_from_either_kind_of_source() {
    let server = filled().await;
    let selector = json!({"n": {"$gte": 15}, "_id": {"$regex": "^doc"}});
    for (source, target) in [("src".to_owned(), "a"), (server.url("/src"), "b")] {
        server.database(target).await;
        let request = json!({"source": source, "target": target, "selector": selector});
        let answer = server.replicate(request.clone()).await;
        assert_eq!(answer["history"][0]["docs_written"], 5, "{answer}");
        assert_eq!(answer["source_last_seq"], 20);
        assert_eq!(server.get(&format!("/{target}"), 200).await["doc_count"], 5);
        assert_eq!(server.replicate(request).await["no_changes"], true);
    }
}

#[tokio::test]
async fn a_wrong_operator_is_named() {
    let server = filled().await;
    let request = json!({"source": "src", "target": "tgt", "selector": {"a": {"$nope": 1}}});
    let answer = server.post("/_replicate", request, 400).await;
    assert_eq!(answer, json!({"error": "bad_request", "reason": "parameter `selector`: invalid operator: $nope"}));
    let answer = server.post("/src/_changes?filter=_selector", json!({"selector": {"a": {"$nope": 1}}}), 400).await;
    assert_eq!(answer["reason"], "`selector`: invalid operator: $nope");
}

#[tokio::test]
async fn a_feed_with_a_selector_shows_the_leaves_that_match() {
    let server = filled().await;
    conflicted(&server, "src").await;
    let feed = async |query: &str, selector: Value| {
        let path = format!("/src/_changes?filter=_selector{query}");
        server.post(&path, json!({"selector": selector}), 200).await
    };
    let loser = json!([{"rev": format!("1-{}", "a".repeat(32))}]);
    let found = feed("&style=all_docs", json!({"side": "a"})).await;
    assert_eq!(found["results"][0]["changes"], loser, "{found}");
    assert_eq!(found["results"].as_array().unwrap().len(), 1);
    assert_eq!(feed("", json!({"side": "a"})).await["results"], json!([]));
    assert_eq!(feed("", json!({"n": {"$lt": 3}})).await["results"].as_array().unwrap().len(), 3);
    assert_eq!(feed("&limit=2", json!({"n": {"$lt": 3}})).await["last_seq"], 2);
}

#[tokio::test]
async fn winning_revs_only_leaves_conflicts_behind() {
    let server = filled().await;
    conflicted(&server, "src").await;
    for (source, target) in [("src".to_owned(), "a"), (server.url("/src"), "b")] {
        server.database(target).await;
        let request = json!({"source": source, "target": target, "winning_revs_only": true});
        server.replicate(request).await;
        let doc = server.get(&format!("/{target}/both?conflicts=true"), 200).await;
        assert_eq!((&doc["side"], &doc["_conflicts"]), (&json!("b"), &Value::Null), "{doc}");
    }
    server.database("c").await;
    server.replicate(json!({"source": "src", "target": "c", "winning_revs_only": true, "doc_ids": ["both"]})).await;
    assert_eq!(server.get("/c/both?conflicts=true", 200).await["_conflicts"], Value::Null);
}

#[tokio::test]
async fn since_seq_is_where_to_begin_until_there_is_a_checkpoint() {
    let server = filled().await;
    let request = json!({"source": "src", "target": "tgt", "since_seq": 15});
    let answer = server.replicate(request.clone()).await;
    assert_eq!(
        (&answer["history"][0]["start_last_seq"], &answer["history"][0]["docs_written"]),
        (&json!(15), &json!(5))
    );
    server.put("/src/more", json!({}), 201).await;
    let answer = server.replicate(request).await;
    assert_eq!(
        (&answer["history"][0]["start_last_seq"], &answer["history"][0]["docs_written"]),
        (&json!(20), &json!(1))
    );
    assert_eq!(server.get("/tgt", 200).await["doc_count"], 6);
}

#[tokio::test]
async fn create_target_params_go_to_a_remote_target_and_do_not_trouble_a_local_one() {
    let server = filled().await;
    let peer = FaultyPeer::before(&server).await;
    let params = json!({"q": 2, "partitioned": "a b"});
    let request = |target: String| json!({"source": "src", "target": target, "create_target": true, "create_target_params": params});
    server.replicate(request(peer.url("/new"))).await;
    let requests = peer.requests();
    assert!(requests.contains(&"PUT /new/?q=2&partitioned=a%20b".to_owned()), "{requests:?}");
    server.replicate(request("local".into())).await;
    assert_eq!(server.get("/local", 200).await["doc_count"], 20);
}

#[tokio::test]
async fn without_bulk_get_documents_come_one_by_one() {
    let server = filled().await;
    let peer = FaultyPeer::before(&server).await;
    server.replicate(json!({"source": peer.url("/src"), "target": "tgt", "use_bulk_get": false})).await;
    assert_eq!(server.get("/tgt", 200).await["doc_count"], 20);
    let requests = peer.requests();
    assert!(!requests.iter().any(|request| request.contains("_bulk_get")), "{requests:?}");
    assert_eq!(requests.iter().filter(|request| request.contains("open_revs=")).count(), 20);
}

#[tokio::test]
async fn a_filter_that_is_not_there_is_told_before_anything_runs() {
    let server = filled().await;
    server.put("/src/_design/d", json!({"filters": {"f": "function(doc) { return true; }"}}), 201).await;
    let shown = server.url("/src/");
    for source in ["src".to_owned(), server.url("/src")] {
        let ask = async |filter: &str, status: u16| {
            let request = json!({"source": source, "target": "tgt", "filter": filter});
            server.post("/_replicate", request, status).await
        };
        let reason = format!("Couldn't open document `_design/nosuch` from source database `{shown}`: not found");
        assert_eq!(ask("nosuch/f", 404).await, json!({"error": "not_found", "reason": reason}));
        let reason = format!("Couldn't find filter `nosuch` in document `_design/d` on `{shown}`");
        assert_eq!(ask("d/nosuch", 404).await, json!({"error": "not_found", "reason": reason}));
        assert_eq!(ask("nosuch", 400).await["reason"], "Invalid filter. Must match `ddocname/filtername`.");
    }
    let request = json!({"source": "nosuch", "target": "tgt", "filter": "d/f"});
    assert_eq!(server.post("/_replicate", request, 404).await["error"], "db_not_found");
}

#[tokio::test]
async fn a_filter_whose_code_changes_gets_a_new_id() {
    let server = filled().await;
    let request = json!({"source": "src", "target": server.url("/tgt"), "filter": "d/f", "continuous": true});
    let mut ids = Vec::new();
    for code in ["function(doc) { return true; }", "function(doc) { return false; }"] {
        let path = "/src/_design/d";
        let rev = server.get("/src/_all_docs?key=%22_design/d%22", 200).await["rows"][0]["value"]["rev"].clone();
        let mut doc = json!({"filters": {"f": code}});
        if let Some(rev) = rev.as_str() {
            doc["_rev"] = rev.into();
        }
        server.put(path, doc, 201).await;
        ids.push(server.replicate(request.clone()).await["_local_id"].clone());
    }
    assert_ne!(ids[0], ids[1]);
    for id in ids {
        server.replicate(json!({"cancel": true, "replication_id": id})).await;
    }
}

#[tokio::test]
async fn design_documents_alone_pass_the_design_filter() {
    let server = filled().await;
    server.put("/src/_design/d", json!({"views": {}}), 201).await;
    for (source, target) in [("src".to_owned(), "a"), (server.url("/src"), "b")] {
        server.database(target).await;
        server.replicate(json!({"source": source, "target": target, "filter": "_design"})).await;
        assert_eq!(server.get(&format!("/{target}"), 200).await["doc_count"], 1);
    }
}

#[tokio::test]
async fn logs_of_older_id_versions_are_taken_over_and_gone_on_from() {
    for (source_version, target_version) in [(3, 3), (2, 3), (1, 1), (4, 2)] {
        let server = filled().await;
        let request = json!({"source": server.url("/src"), "target": "tgt"});
        let ids = log_ids(&server, &request);
        for (database, version) in [("src", source_version), ("tgt", target_version)] {
            let id = &ids[4 - usize::from(version)];
            server.put(&format!("/{database}/_local/{id}"), couchdbs_log(version, "15"), 201).await;
        }
        let answer = server.replicate(request.clone()).await;
        let session = &answer["history"][0];
        assert_eq!((&session["start_last_seq"], &session["docs_written"]), (&json!("15"), &json!(5)), "{answer}");
        assert_eq!(answer["history"][1]["session_id"], SESSION);
        for database in ["src", "tgt"] {
            let log = server.get(&format!("/{database}/_local/{}", ids[0]), 200).await;
            assert_eq!((&log["session_id"], &log["replication_id_version"]), (&answer["session_id"], &json!(4)));
        }
        assert_eq!(server.replicate(request).await["no_changes"], true);
    }
}

#[tokio::test]
async fn couchdbs_own_checkpoint_is_gone_on_from_with_its_seq_untouched() {
    let server = filled().await;
    let peer = FaultyPeer::before(&server).await;
    let request = json!({"source": peer.url("/src"), "target": "tgt"});
    let ids = log_ids(&server, &request);
    server.put(&format!("/src/_local/{}", ids[0]), couchdbs_log(4, SEQ), 201).await;
    server.put(&format!("/tgt/_local/{}", ids[1]), couchdbs_log(3, SEQ), 201).await;
    let feed = json!({"results": [], "last_seq": SEQ, "pending": 0}).to_string();
    peer.fail(Method::GET, "_changes", Fault::Answer(200, vec![("content-type", "application/json".into())], feed));
    let answer = server.replicate(request).await;
    assert_eq!((&answer["no_changes"], &answer["session_id"]), (&json!(true), &json!(SESSION)), "{answer}");
    let since = format!("since={SEQ}");
    assert!(peer.requests().iter().any(|request| request.contains(&since)), "{:?}", peer.requests());
    assert_eq!(server.get(&format!("/tgt/_local/{}", ids[0]), 200).await["history"], couchdbs_log(3, SEQ)["history"]);
}
