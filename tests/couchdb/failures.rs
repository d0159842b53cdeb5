//! Documents that a validation function refuses: a real CouchDB keeps the list of them, and checks no revision of it.

use std::collections::BTreeSet;

use couchrep::tasks;
use reqwest::Method;
use serde_json::{Value, json};

use super::rig::{Rig, Side, assert_replicas};
use crate::support::Process;

/// The exit code, how many it says are refused, and how many of them it names.
async fn run(source: &str, target: &str, more: &'static [&'static str]) -> (i32, u64, usize) {
    let (source, target) = (source.to_owned(), target.to_owned());
    let run = move || Process::run(&[&["replicate", &source, &target, "--json"], more].concat(), &[]);
    let output = tasks::blocking("replicate", run).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused = events.iter().filter(|event| event["event"] == "refused");
    let ids: BTreeSet<_> = refused.map(|event| event["id"].to_string()).collect();
    let result = events.last().unwrap();
    (output.status.code().unwrap(), result["failures"].as_u64().unwrap(), ids.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_validation_refuses_is_listed_by_two_at_once_and_arrives_when_it_may() {
    let Some(rig) = Rig::start().await else { return };
    let (source, target) = (rig.database(Side::First).await, rig.database(Side::Second).await);
    source.write((0..3000).map(|n| json!({ "_id": format!("doc-{n:04}"), "odd": n % 6 != 0 })).collect()).await;
    let validation = json!({ "_id": "_design/even",
        "validate_doc_update": "function (doc) { if (doc.odd) throw({ forbidden: 'not here' }); }" });
    let design = target.request(Method::PUT, "/_design/even", Some(&validation), 201).await;
    let (one, other) = tokio::join!(run(&source.url, &target.url, &[]), run(&source.url, &target.url, &[]));
    assert_eq!((one, other), ((3, 2500, 2500), (3, 2500, 2500)));
    assert_eq!(run(&source.url, &target.url, &[]).await, (3, 2500, 2500));
    assert_eq!(run(&source.url, &target.url, &["--retry-failures"]).await, (3, 2500, 2500));
    let deleted = format!("/_design/even?rev={}", design["rev"].as_str().unwrap());
    target.request(Method::DELETE, &deleted, None, 200).await;
    assert_eq!(run(&source.url, &target.url, &["--retry-failures"]).await, (0, 0, 0));
    assert_eq!(run(&source.url, &target.url, &[]).await, (0, 0, 0));
    let listed = source.get("/_local_docs").await;
    assert_eq!(listed["rows"].as_array().unwrap().len(), 2, "checkpoint and index: {listed}");
    // The deleted validation came from nowhere: everything else is equal.
    rig.replicate(super::rig::Replicator::Couchrep, &target, &source, &json!({})).await;
    assert_replicas(&source, &target, "after trying again").await;
}
