//! A cluster of three whose nodes are killed and come back in the middle of a replication, first one, then two.
//!
//! Runs when `COUCHDB_CLUSTER_URLS` names the nodes (`url1,url2,url3`, an admin's credentials in each), and
//! `COUCHDB_CLUSTER_KILL` and `COUCHDB_CLUSTER_REVIVE` are shell commands with `{n}` for the node's number; the second
//! one ends when the node answers again. Databases have the cluster's own `q` and `n`: `q=4`, `n=2` lets whole ranges be
//! gone while two nodes are dead.
//!
//! A one-shot may end with an error while ranges are gone, and is asked for again. What it may not do is say `ok` while
//! documents are missing.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::Command;
use std::time::Duration;

use couchrep::tasks;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::content::{self, data, noise};
use super::rig::{Db, url_of};
use crate::support::{self, Server, client, leaves_in_bulk};

/// Small documents: enough for some seconds of replication.
const DOCS: usize = 12_000;
/// Documents with an attachment each, which travel one by one.
const ATTACHED: usize = 120;
const ATTACHED_BYTES: usize = 150_000;
/// Writes of so many documents each fill a database.
const ROUNDS: usize = 24;
/// How long one node is dead before the second dies too: a one-shot should still be in its middle then.
const ONE_DEAD: Duration = Duration::from_secs(2);
/// How long two nodes, then one again, stay dead: longer than a request takes, shorter than retries are kept up.
const DEAD: Duration = Duration::from_secs(6);
/// How long one-shots may end with errors before one must be through, nodes that take long to come back included.
const PATIENCE: Duration = Duration::from_secs(600);
/// Until the copies of a range have told each other what was written while one of them was dead.
const HEALING: Duration = Duration::from_secs(180);

/// Which side of the replication the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Target,
}

struct Cluster {
    urls: Vec<String>,
    kill: String,
    revive: String,
}

impl Cluster {
    fn from_env() -> Option<Self> {
        let urls = url_of("COUCHDB_CLUSTER_URLS")?.split(',').map(|url| url.trim_end_matches('/').to_owned()).collect();
        let command = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is needed with a cluster"));
        Some(Self { urls, kill: command("COUCHDB_CLUSTER_KILL"), revive: command("COUCHDB_CLUSTER_REVIVE") })
    }

    /// Waits until every node has told the others all that it has: what only one has is gone while that one is dead.
    async fn settled(&self) {
        let start = Instant::now();
        for url in &self.urls {
            while system(url).await["internal_replication_jobs"] != 0 {
                assert!(start.elapsed() < HEALING, "{url} doesn't get through with its copies");
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    async fn kill(&self, node: usize) {
        shell(&self.kill, node).await;
    }

    async fn revive(&self, node: usize) {
        shell(&self.revive, node).await;
    }
}

async fn system(url: &str) -> Value {
    support::json(&client(), Method::GET, format!("{url}/_node/_local/_system"), None, 200).await
}

async fn shell(template: &str, node: usize) {
    let command = template.replace("{n}", &node.to_string());
    let run = move || assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    tasks::blocking("cluster command", run).await.unwrap();
}

/// Fills a database with what a replication can get wrong: many rows, conflicts, deletions, attachments.
async fn fill(db: &Db) {
    content::write_conflicts(db).await;
    content::write_deletions(db).await;
    content::write_design_documents(db).await;
    // Attachments all along the feed: wherever it is when a node dies, some of them are on their way.
    for round in 0..ROUNDS {
        let docs =
            of_round(round, DOCS).map(|n| json!({ "_id": format!("n-{n:05}"), "n": n, "text": "x".repeat(800) }));
        let attached = of_round(round, ATTACHED)
            .map(|n| json!({ "_id": format!("att-{n}"), "_attachments": { "a": data(&noise(ATTACHED_BYTES + n)) } }));
        db.write(docs.chain(attached).collect()).await;
    }
}

/// A round's share of the numbers below `count`.
fn of_round(round: usize, count: usize) -> std::ops::Range<usize> {
    let share = count / ROUNDS;
    round * share..(round + 1) * share
}

/// Kills `victims` one after the other, the first when a tenth has been copied; brings them back in the opposite order.
async fn disturb(cluster: &Cluster, victims: [usize; 2], server: &Server) {
    let start = Instant::now();
    while copied(server).await < DOCS as u64 / 10 {
        assert!(start.elapsed() < HEALING, "it ended before a node could be killed, or never began");
        sleep(Duration::from_millis(20)).await;
    }
    cluster.kill(victims[0]).await;
    sleep(ONE_DEAD).await;
    cluster.kill(victims[1]).await;
    sleep(DEAD).await;
    cluster.revive(victims[1]).await;
    sleep(DEAD).await;
    cluster.revive(victims[0]).await;
}

async fn copied(server: &Server) -> u64 {
    let tasks = server.get("/_active_tasks", 200).await;
    tasks[0]["docs_written"].as_u64().unwrap_or(0)
}

/// Every leaf that a feed tells of: id and revision.
async fn announced(url: &str) -> BTreeSet<(String, String)> {
    let feed = support::json(&client(), Method::GET, format!("{url}/_changes?style=all_docs"), None, 200).await;
    let mut announced = BTreeSet::new();
    for row in feed["results"].as_array().unwrap() {
        for change in row["changes"].as_array().unwrap() {
            announced.insert((row["id"].to_string(), change["rev"].to_string()));
        }
    }
    announced
}

/// Asks until a one-shot says `ok`. Answers what the others ended with.
async fn replicate_until_ok(server: &Server, request: &Value) -> Vec<String> {
    let (start, mut errors) = (Instant::now(), Vec::new());
    loop {
        let asked = server.client().post(server.url("/_replicate")).header("Content-Type", "application/json");
        let answer = asked.body(request.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        println!("a one-shot ended with {status}: {text:.400}");
        if status == StatusCode::OK {
            let answer: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(answer["history"][0]["doc_write_failures"], 0, "{answer}");
            return errors;
        }
        errors.push(text);
        assert!(start.elapsed() < PATIENCE, "no one-shot was through: {errors:#?}");
        sleep(Duration::from_secs(3)).await;
    }
}

async fn nodes_die(role: Role, victims: [usize; 2]) {
    let Some(cluster) = Cluster::from_env() else { return };
    // One test at a time kills nodes, in whatever process it runs.
    let turn = File::create(std::env::temp_dir().join("couchrep-test-cluster.lock")).unwrap();
    turn.lock().unwrap();
    let server = Server::start().await;
    let name = format!("couchrep-test-{:032x}", rand::random::<u128>());
    let (here, there) = (server.url("/here"), format!("{}/{name}", cluster.urls[0]));
    for url in [&here, &there] {
        support::json(&client(), Method::PUT, url.clone(), None, 201).await;
    }
    let (source, target) = if role == Role::Source { (&there, &here) } else { (&here, &there) };
    fill(&Db { url: source.clone(), client: client() }).await;
    cluster.settled().await;
    let expected = announced(source).await;
    assert!(expected.len() > DOCS + ATTACHED, "{} leaves", expected.len());

    let start = Instant::now();
    let request = json!({ "source": source, "target": target });
    let replicating = replicate_until_ok(&server, &request);
    let (errors, ()) = futures::join!(replicating, disturb(&cluster, victims, &server));
    println!("{role:?}, nodes {victims:?}: ok after {:?} and {} errors: {errors:?}", start.elapsed(), errors.len());

    // A cluster shows what was written while a copy was dead when the copies have met again.
    let end = Instant::now();
    let mut lacking = lacks(target, &expected).await;
    while role == Role::Target && !lacking.is_empty() && end.elapsed() < HEALING {
        sleep(Duration::from_secs(2)).await;
        lacking = lacks(target, &expected).await;
    }
    assert!(lacking.is_empty(), "{} missing: {:?}", lacking.len(), lacking.iter().take(5).collect::<Vec<_>>());
    println!("complete {:?} after the end", end.elapsed());
    assert!(leaves_in_bulk(source).await == leaves_in_bulk(target).await, "leaves differ");
    client().delete(&there).send().await.unwrap();
}

/// What a database doesn't have of this.
async fn lacks(url: &str, expected: &BTreeSet<(String, String)>) -> Vec<(String, String)> {
    expected.difference(&announced(url).await).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_nodes_of_the_source_die() {
    nodes_die(Role::Source, [2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_nodes_of_the_target_die() {
    nodes_die(Role::Target, [2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_node_that_is_asked_dies_in_the_source() {
    nodes_die(Role::Source, [1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_node_that_is_asked_dies_in_the_target() {
    nodes_die(Role::Target, [1, 2]).await;
}
