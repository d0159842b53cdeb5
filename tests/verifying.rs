//! `couchrep verify`: what is equal, and what it finds missing.

use serde_json::{Value, json};

use crate::support::{Process, Server, without_times};

/// Exit code and printed lines, the databases' URLs shortened to their names.
fn verify(server: &Server, source: &str, target: &str, args: &[&str]) -> (i32, String) {
    let (source, target) = (server.url(&format!("/{source}")), server.url(&format!("/{target}")));
    let output = Process::run(&[&["verify", &source, &target], args].concat(), &[]);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), without_times(&text.replace(&server.url("/"), "")))
}

/// Two databases with these documents, written as they are.
async fn databases(source: Value, target: Value) -> Server {
    let server = Server::start().await;
    for (name, docs) in [("src", source), ("tgt", target)] {
        server.database(name).await;
        let body = json!({ "docs": docs, "new_edits": false });
        assert_eq!(server.post(&format!("/{name}/_bulk_docs"), body, 201).await, json!([]));
    }
    server
}

fn with_attachment(content_type: &str, data: &str) -> Value {
    json!([{ "_id": "a", "_rev": "1-a", "_attachments": { "x": { "content_type": content_type, "data": data } } }])
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_equal_both_ways_conflicts_and_deletions_included() {
    let docs = json!([
        { "_id": "a", "_rev": "1-a" }, { "_id": "a", "_rev": "1-b" }, { "_id": "b", "_rev": "1-c", "_deleted": true }
    ]);
    let server = databases(docs.clone(), docs).await;
    let (code, text) = verify(&server, "src", "tgt", &["--both"]);
    assert_eq!(code, 0, "{text}");
    let told = "src/: 2 documents, 3 leaves compared; tgt/ has all of it\n\
                tgt/: 2 documents, 3 leaves compared; src/ has all of it\n";
    assert_eq!(text, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_leaf_is_named_and_what_the_target_has_more_only_matters_with_both() {
    let one = json!([{ "_id": "a", "_rev": "1-a" }]);
    let two = json!([{ "_id": "a", "_rev": "1-a" }, { "_id": "a", "_rev": "1-b" }]);
    let server = databases(two, one).await;
    let (code, text) = verify(&server, "src", "tgt", &[]);
    assert_eq!(code, 1);
    assert_eq!(text, "missing on tgt/: a 1-b\nsrc/: 1 document, 2 leaves compared; tgt/ lacks 1\n");
    assert_eq!(verify(&server, "tgt", "src", &[]).0, 0);
    let (code, text) = verify(&server, "tgt", "src", &["--both"]);
    assert_eq!(code, 1);
    assert!(text.contains("missing on tgt/: a 1-b\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_the_target_has_gone_on_from_is_not_missing() {
    let child = json!([{ "_id": "a", "_rev": "2-b", "_revisions": { "start": 2, "ids": ["b", "a"] } }]);
    let server = databases(json!([{ "_id": "a", "_rev": "1-a" }]), child).await;
    assert_eq!(verify(&server, "src", "tgt", &[]).0, 0);
    assert_eq!(verify(&server, "src", "tgt", &["--both"]).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_different_attachment_is_found_where_attachments_are_compared() {
    let none = json!([{ "_id": "a", "_rev": "1-a" }]);
    let text = with_attachment("image/png", "aGVsbG8=");
    for (target, told) in [
        (none, "missing on tgt/: a 1-a attachment x\n"),
        (with_attachment("image/png", "aGVsbG9v"), "different on tgt/: a 1-a attachment x\n"),
    ] {
        let server = databases(text.clone(), target).await;
        assert_eq!(verify(&server, "src", "tgt", &[]).0, 0);
        let (code, text) = verify(&server, "src", "tgt", &["--attachments"]);
        assert_eq!(code, 1);
        assert!(text.starts_with(told), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_that_are_only_stored_differently_are_equal() {
    // Text is stored gzipped, an image as it is: the digests differ, the bytes don't.
    let server = databases(with_attachment("text/plain", "aGVsbG8="), with_attachment("image/png", "aGVsbG8=")).await;
    let digest = async |path: &str| server.get(path, 200).await["_attachments"]["x"]["digest"].clone();
    assert_ne!(digest("/src/a").await, digest("/tgt/a").await);
    let (code, text) = verify(&server, "src", "tgt", &["--both", "--attachments"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 document, 1 leaf compared, 1 attachment;") || text.contains("1 attachment"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_tell_the_same_and_what_can_not_be_read_ends_with_2() {
    let server = databases(json!([{ "_id": "a", "_rev": "1-a" }]), json!([])).await;
    let (code, text) = verify(&server, "src", "tgt", &["--json"]);
    assert_eq!(code, 1);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let difference = json!({ "event": "difference", "id": "a", "rev": "1-a", "problem": "missing", "on": "tgt/" });
    assert_eq!(events[0], difference);
    assert_eq!(events.last(), Some(&json!({ "event": "result", "ok": false, "exit_code": 1 })));
    let (code, text) = verify(&server, "src", "nosuch", &[]);
    assert_eq!((code, text.as_str()), (2, "couchrep: could not open nosuch/\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_of_many_pages_are_compared_to_their_end() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 4500).await;
    server.database("tgt").await.fill("doc", 4499).await;
    let (code, text) = verify(&server, "src", "tgt", &[]);
    assert_eq!(code, 1);
    assert!(text.starts_with("missing on tgt/: doc4499 "), "{text}");
    assert!(text.ends_with("src/: 4,500 documents, 4,500 leaves compared; tgt/ lacks 1\n"), "{text}");
}

/// There was no way to compare what a filtered replication had copied: all the rest was reported missing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_chosen_is_compared_alone() {
    let server = databases(json!([]), json!([])).await;
    let filter = r#"function(doc, req) { return doc.kind === req.query.kind; }"#;
    server.put("/src/_design/kitchen", json!({ "filters": { "kind": filter } }), 201).await;
    for id in ["a%2525", "b", "c"] {
        server.put(&format!("/src/{id}"), json!({ "kind": if id == "c" { "soup" } else { "bread" } }), 201).await;
    }
    let chosen: [&[&str]; 4] = [
        &["--selector", r#"{"kind": "soup"}"#],
        &["--filter", "kitchen/kind", "--query", "kind=soup"],
        &["--doc-id", "c"],
        &["--doc-id", "a%25", "--doc-id", "c"],
    ];
    for (number, chosen) in chosen.into_iter().enumerate() {
        let (code, text) = verify(&server, "src", "tgt", chosen);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(&format!("tgt/ lacks {}\n", if number == 3 { 2 } else { 1 })), "{chosen:?}: {text}");
        let (source, target) = (server.url("/src"), server.url("/tgt"));
        assert!(Process::run(&[&["replicate", &source, &target], chosen].concat(), &[]).status.success());
        let (code, text) = verify(&server, "src", "tgt", chosen);
        assert_eq!(code, 0, "{chosen:?}: {text}");
        assert_eq!(verify(&server, "src", "tgt", &[]).0, 1);
        server.delete("/tgt", 200).await;
        server.database("tgt").await;
    }
}
