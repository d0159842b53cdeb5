//! A disk that gets full under the embedded store: what was answered stays, and there is no need to start anew.
//!
//! A limit on the size of files stands for the disk, since anybody may set one: writes beyond it fail as they do where
//! there is no room, with another number.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Process, Server, client, json, leaves};

/// Room for some dozen documents.
const FILE_KIB: u64 = 4096;

fn large(number: usize) -> Value {
    json!({ "_id": format!("doc{number:03}"), "text": "x".repeat(64 << 10) })
}

/// Writes documents until there is no room for the next; answers the ids of those that were written.
async fn fill(process: &Process, full_commit: &str) -> Vec<String> {
    let (client, mut written) = (client(), Vec::new());
    for number in 0..FILE_KIB as usize / 64 {
        let doc = large(number);
        let id = doc["_id"].as_str().unwrap();
        let put = client.put(process.url(&format!("/db/{id}"))).body(doc.to_string());
        let answer = put.header("X-Couch-Full-Commit", full_commit.to_owned()).send().await.unwrap();
        if answer.status() != 201 {
            assert_eq!(answer.status(), 507);
            let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            let expected = json!({ "error": "insufficient_storage", "reason": "There is no room left on the disk." });
            assert_eq!(answer, expected);
            return written;
        }
        written.push(id.to_owned());
    }
    panic!("the disk never got full");
}

async fn assert_there(process: &Process, ids: &[String]) {
    for id in ids {
        let doc = json(&client(), Method::GET, process.url(&format!("/db/{id}")), None, 200).await;
        assert_eq!(doc["text"].as_str().unwrap().len(), 64 << 10);
    }
}

#[tokio::test]
async fn what_was_written_can_be_read_while_the_disk_is_full_and_later_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::with_file_limit(dir.path(), FILE_KIB);
    let client = client();
    json(&client, Method::PUT, process.url("/db"), None, 201).await;
    let mut written = fill(&process, "true").await;
    assert!(written.len() > 5, "{}", written.len());
    assert_there(&process, &written).await;
    // The engine gave up that file, and opened it anew: it refuses for want of room, not for the failure before.
    json(&client, Method::PUT, process.url("/db/another"), Some(&large(999)), 507).await;
    assert_there(&process, &written).await;

    process.lift_file_limit();
    json(&client, Method::PUT, process.url("/db/another"), Some(&large(999)), 201).await;
    written.push("another".into());
    process.kill();
    let process = Process::start(dir.path());
    assert_there(&process, &written).await;
}

#[tokio::test]
async fn unsynced_writes_that_a_full_disk_took_along_are_told_by_the_start_time() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::with_file_limit(dir.path(), FILE_KIB);
    let client = client();
    json(&client, Method::PUT, process.url("/db"), None, 201).await;
    let start_time =
        async || json(&client, Method::GET, process.url("/db"), None, 200).await["instance_start_time"].clone();
    let before = start_time().await;
    let written = fill(&process, "false").await;
    process.lift_file_limit();
    let there = json(&client, Method::GET, process.url("/db"), None, 200).await["doc_count"].clone();
    assert!(there == json!(written.len()) || start_time().await != before, "{there} of {}", written.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_into_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let source = Server::start().await;
    source.database("src").await;
    let docs: Vec<_> = (0..100).map(large).collect();
    source.post("/src/_bulk_docs", json!({ "docs": docs }), 201).await;
    let dir = tempfile::tempdir().unwrap();
    let process = Process::with_file_limit(dir.path(), FILE_KIB);
    let client = client();
    let local = json!({ "source": source.url("/src"), "target": "db", "create_target": true, "worker_batch_size": 5 });
    let replicate = |status| json(&client, Method::POST, process.url("/_replicate"), Some(&local), status);
    assert_eq!(replicate(507).await["error"], "insufficient_storage");
    let remote = json!({ "source": "src", "target": process.url("/db") });
    let refused = source.post("/_replicate", remote.clone(), 502).await;
    assert!(refused["reason"].as_str().unwrap().contains("507"), "{refused}");

    process.lift_file_limit();
    assert_eq!(replicate(200).await["ok"], true);
    assert_eq!(leaves(&process.url("/db")).await, source.leaves("src").await);
    source.replicate(remote).await;
}

#[tokio::test]
async fn databases_can_be_made_again_after_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::with_file_limit(dir.path(), FILE_KIB);
    let client = client();
    let create = |number: usize| client.put(process.url(&format!("/db{number}"))).send();
    let list = async |process: &Process| json(&client, Method::GET, process.url("/_all_dbs"), None, 200).await;
    // Room for files of databases, but not for the list of them to grow.
    process.limit_files(80);
    let mut made = 0;
    while create(made).await.unwrap().status() == 201 {
        made += 1;
        assert!(made < 100);
    }
    // No room for a file of a database.
    process.limit_files(4);
    assert_eq!(create(made).await.unwrap().status(), 507);
    let names = ["_replicator".to_owned()].into_iter().chain((0..made).map(|number| format!("db{number}")));
    let names = names.collect::<Vec<_>>();
    assert_eq!(list(&process).await, json!(names));

    process.lift_file_limit();
    assert_eq!(create(made).await.unwrap().status(), 201);
    process.kill();
    assert_eq!(list(&Process::start(dir.path())).await.as_array().unwrap().len(), made + 2);
}
