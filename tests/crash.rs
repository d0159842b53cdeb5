//! `kill -9` while batches are written: none that was acknowledged as synced is lost, none is there in part.
//!
//! The moments are drawn from a seed, which a failure tells; `COUCHREP_SEED` draws the same ones again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use couchrep::tasks::Tasks;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::support::{Process, client, json as ask};

const CRASHES: usize = 20;
const WRITERS: usize = 3;
const BATCH: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_no_synced_write_and_tears_no_batch() {
    crash_again_and_again(false, 5..150).await;
}

/// The file is changed for a smaller one all the time, and so in the middle of that too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_while_the_file_is_compacted_loses_no_synced_write_and_tears_no_batch() {
    crash_again_and_again(true, 20..1000).await;
}

/// After so many milliseconds each time.
async fn crash_again_and_again(compacting: bool, after_ms: Range<u64>) {
    let seed = std::env::var("COUCHREP_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    let mut moments = StdRng::seed_from_u64(seed);
    let (dir, client) = (tempfile::tempdir().unwrap(), client());
    let mut process = Process::start(dir.path());
    ask(&client, Method::PUT, process.url("/db"), None, 201).await;
    let (mut acknowledged, mut changed_files) = (Vec::new(), files(dir.path()));
    let first = changed_files.len();

    for crash in 0..CRASHES {
        let tasks = Tasks::default();
        let writer =
            |writer| write_until_cut(client.clone(), process.url("/db/_bulk_docs"), format!("{crash}-{writer}"));
        let writing: Vec<_> = (0..WRITERS).map(|number| tasks.spawn("writer", writer(number))).collect();
        if compacting {
            drop(tasks.spawn("compactor", compact_until_cut(client.clone(), process.url("/db/_compact"))));
        }
        // The moment is meant to be any.
        tokio::time::sleep(Duration::from_millis(moments.random_range(after_ms.clone()))).await;
        process.kill();
        changed_files.extend(files(dir.path()));
        for batches in writing {
            acknowledged.extend(batches.await.unwrap());
        }

        process = Process::start(dir.path());
        let found = batches(&client, &process).await;
        for (batch, docs) in &found {
            assert_eq!(*docs, BATCH, "seed {seed}, crash {crash}: batch {batch} is torn");
        }
        for batch in &acknowledged {
            assert!(
                found.contains_key(batch),
                "seed {seed}, crash {crash}: batch {batch} was acknowledged and is lost"
            );
        }
    }
    assert!(acknowledged.len() > CRASHES, "only {} batches were written in all", acknowledged.len());
    assert_eq!(changed_files.len() > first, compacting, "the file is another one after a compaction");
}

/// Which files the databases are in.
fn files(data_dir: &Path) -> BTreeSet<u64> {
    let entries = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let files = entries(&data_dir.join("databases")).flat_map(|directory| entries(&directory).collect::<Vec<_>>());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "redb"));
    files.map(|file| std::fs::metadata(file).unwrap().ino()).collect()
}

/// Writes batches one after the other until the connection breaks; the names of those that were acknowledged.
async fn write_until_cut(client: Client, url: String, writer: String) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let batch = format!("{writer}-{number}");
        let doc = |n| json!({ "_id": format!("{batch}/{n}"), "text": "x".repeat(500) });
        let docs: Vec<_> = (0..BATCH).map(doc).collect();
        let request = client.post(&url).header("Content-Type", "application/json");
        match request.body(json!({ "docs": docs }).to_string()).send().await {
            Ok(answer) => assert_eq!(answer.status(), 201),
            Err(_) => break,
        }
        acknowledged.push(batch);
    }
    acknowledged
}

/// Has the database compacted again and again, until the connection breaks.
async fn compact_until_cut(client: Client, url: String) {
    let request = || client.post(&url).header("Content-Type", "application/json").send();
    while let Ok(answer) = request().await {
        assert_eq!(answer.status(), 202);
    }
}

/// How many documents of each batch are there, after checking that feed and documents agree.
async fn batches(client: &Client, process: &Process) -> BTreeMap<String, usize> {
    let feed = ask(client, Method::GET, process.url("/db/_changes?include_docs=true"), None, 200).await;
    let all = ask(client, Method::GET, process.url("/db/_all_docs"), None, 200).await;
    let ids = |rows: &Value| -> Vec<String> {
        let mut ids: Vec<_> =
            rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&feed["results"]), ids(&all["rows"]));
    assert_eq!(all["total_rows"], feed["results"].as_array().unwrap().len());
    for row in feed["results"].as_array().unwrap() {
        assert_eq!(row["doc"]["_id"], row["id"]);
        assert_eq!(row["doc"]["text"].as_str().unwrap().len(), 500);
    }
    let mut batches = BTreeMap::new();
    for id in ids(&all["rows"]) {
        *batches.entry(id.split('/').next().unwrap().to_owned()).or_insert(0) += 1;
    }
    batches
}
