//! Peers that answer something else than the protocol says: every request of a replication, every kind of nonsense.
//!
//! As long as it lasts, the replication ends with an error that names the peer, the request and what was expected, and
//! asked again, it copies everything: nothing of such an answer is believed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyPeer, Server};

const NONSENSE: [(&str, &str, &str); 2] = [
    ("text/html", "a page", "<html><body>Please log in</body></html>"),
    ("application/json", "wrong types", r#"{"results":7,"_rev":1,"rev":{},"ok":"yes","last_seq":null}"#),
];

/// Answers the request with each kind of nonsense in turn; `expected` is what its error says it hoped for.
async fn refuses_nonsense(method: Method, path: &str, expected: &str) {
    let server = Server::with_config(|config| config.replicator.retries_per_request = 2).await;
    server.database("src").await.fill("doc-", 3).await;
    let attached = json!({"_attachments": {"a": {"data": "YWJj", "content_type": "text/plain"}}});
    server.put("/src/attached", attached, 201).await;
    for (number, (content_type, kind, body)) in NONSENSE.into_iter().enumerate() {
        let target = format!("tgt{number}");
        server.database(&target).await;
        // A target that is empty isn't asked what it lacks.
        server.replicate(json!({"source": "src", "target": target, "doc_ids": ["doc-0000"]})).await;
        let path = path.replace("/tgt/", &format!("/{target}/"));
        let peer = FaultyPeer::before(&server).await;
        let job = json!({"source": peer.url("/src"), "target": peer.url(&format!("/{target}"))});
        let nonsense = Fault::Answer(200, vec![("content-type", content_type.into())], body.into());
        peer.keep_failing(method.clone(), &path, nonsense, None);
        let answer: Value = server.post("/_replicate", job.clone(), 502).await;
        assert_eq!(answer["error"], "http_request_failed", "{kind}");
        let reason = answer["reason"].as_str().unwrap();
        let request = format!("{method} {}", peer.url(path.trim_end_matches('$')));
        // What befell one document says nothing of addresses: it may be kept in the source.
        assert!(
            reason.contains(&request) || reason.contains("could not be copied"),
            "{kind}: {reason} doesn't name {request}"
        );
        assert!(reason.contains(&format!("something else than {expected}")), "{kind}: {reason}");
        peer.heal();
        server.replicate(job).await;
        assert_eq!(server.leaves("src").await, server.leaves(&target).await, "{kind}");
    }
}

/// Some proxies end an answer properly that broke off behind them.
#[tokio::test]
async fn json_without_its_end_is_asked_for_again_and_told_where_it_stays_so() {
    const CUT: &str = r#"{"results":[{"seq":1,"id":"#;
    let server = Server::with_config(|config| config.replicator.retries_per_request = 3).await;
    server.database("src").await.fill("doc-", 3).await;
    server.database("tgt").await;
    // A target that is empty isn't asked what it lacks.
    server.replicate(json!({"source": "src", "target": "tgt", "doc_ids": ["doc-0000"]})).await;
    let peer = FaultyPeer::before(&server).await;
    let job = json!({"source": peer.url("/src"), "target": peer.url("/tgt")});
    let cut = || Fault::Answer(200, vec![("content-type", "application/json".into())], CUT.into());
    peer.keep_failing(Method::POST, "/src/_bulk_get?", cut(), None);
    let answer: Value = server.post("/_replicate", job.clone(), 502).await;
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.ends_with("broke off: the JSON ends early"), "{reason}");
    peer.heal();
    let parts = [(Method::GET, "/src/$"), (Method::GET, "/src/_changes?"), (Method::POST, "/tgt/_revs_diff")];
    let more = [(Method::POST, "/src/_bulk_get?"), (Method::POST, "/tgt/_bulk_docs"), (Method::PUT, "/tgt/_local/")];
    for (method, path) in parts.into_iter().chain(more) {
        peer.fail(method, path, cut());
    }
    server.replicate(job).await;
    assert_eq!(peer.faults_left(), 0);
    assert_eq!(server.leaves("src").await, server.leaves("tgt").await);
}

macro_rules! requests {
    ($($name:ident: $method:ident $path:literal => $expected:literal;)*) => {
        $(#[tokio::test]
        async fn $name() {
            refuses_nonsense(Method::$method, $path, $expected).await;
        })*
    };
}

requests! {
    a_nonsense_answer_about_the_source_is_an_error: GET "/src/$" => "a database's information";
    a_nonsense_answer_about_the_target_is_an_error: GET "/tgt/$" => "a database's information";
    a_nonsense_checkpoint_is_an_error: GET "/tgt/_local/" => "a document with a `_rev`";
    a_nonsense_feed_is_an_error: GET "/src/_changes?" => "a page of the feed";
    a_nonsense_diff_is_an_error: POST "/tgt/_revs_diff" => "missing revisions by document";
    a_nonsense_bulk_fetch_is_an_error: POST "/src/_bulk_get?" => "fetched documents";
    a_nonsense_revision_is_an_error: GET "/src/attached?" => "an array of revisions";
    a_nonsense_bulk_write_is_an_error: POST "/tgt/_bulk_docs" => "an array of documents";
    a_nonsense_attachment_write_is_an_error: PUT "/tgt/attached?" => "a written document's `rev`";
    a_nonsense_commit_is_an_error: POST "/tgt/_ensure_full_commit" => "`ok` and `instance_start_time`";
    a_nonsense_checkpoint_write_is_an_error: PUT "/tgt/_local/" => "a written document's `rev`";
}
