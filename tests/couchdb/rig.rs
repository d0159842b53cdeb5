//! The servers of one test: two CouchDBs, which may be the same, and a couchrep in this process with the first one's
//! uuid, so that both compute the same replication ids.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use couchrep::tasks;
use futures::{StreamExt, stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{self, Leaf, Process, Server, client, leaves_in_bulk, path_of};

/// How long a change may take to arrive, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a database lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The CouchDB of `COUCHDB_URL`.
    First,
    /// The CouchDB of `COUCHDB_URL_2`.
    Second,
    /// couchrep's own store.
    Store,
}

/// Whose replicator is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicator {
    Couchrep,
    /// That of the CouchDB of `COUCHDB_URL`.
    CouchDb,
}

/// One way that documents can go.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub by: Replicator,
    pub source: Side,
    pub target: Side,
}

/// All ways in which both a CouchDB and couchrep have a part.
pub const WAYS: [Way; 5] = [
    Way { by: Replicator::Couchrep, source: Side::First, target: Side::Second },
    Way { by: Replicator::Couchrep, source: Side::First, target: Side::Store },
    Way { by: Replicator::Couchrep, source: Side::Store, target: Side::First },
    Way { by: Replicator::CouchDb, source: Side::Store, target: Side::First },
    Way { by: Replicator::CouchDb, source: Side::First, target: Side::Store },
];

/// The servers; the databases that were made on the CouchDBs go with it.
pub struct Rig {
    first: String,
    second: String,
    couchrep: Server,
    made: Mutex<Vec<String>>,
}

impl Rig {
    /// The servers that the environment names; without any, the test has nothing to do.
    pub async fn start() -> Option<Self> {
        let first = url_of("COUCHDB_URL")?;
        let second = url_of("COUCHDB_URL_2").unwrap_or_else(|| first.clone());
        let welcome = support::json(&client(), Method::GET, format!("{first}/"), None, 200).await;
        let uuid = welcome["uuid"].as_str().unwrap().to_owned();
        let couchrep = Server::with_config(|config| config.uuid = Some(uuid)).await;
        Some(Self { first, second, couchrep, made: Mutex::default() })
    }

    /// Makes a database.
    pub async fn database(&self, side: Side) -> Db {
        let name = format!("couchrep-test-{:032x}", rand::random::<u128>());
        let url = match side {
            Side::First => format!("{}/{name}", self.first),
            Side::Second => format!("{}/{name}", self.second),
            Side::Store => self.couchrep.url(&format!("/{name}")),
        };
        if side != Side::Store {
            self.made.lock().unwrap().push(url.clone());
        }
        let db = Db { url, client: client() };
        db.request(Method::PUT, "", None, 201).await;
        db
    }

    /// A source and a target.
    pub async fn databases(&self, way: Way) -> (Db, Db) {
        (self.database(way.source).await, self.database(way.target).await)
    }

    /// Has somebody replicate, and asserts that it was accepted. `more` are further fields of the request.
    pub async fn replicate(&self, by: Replicator, source: &Db, target: &Db, more: &Value) -> Value {
        let continuous = more["continuous"] == json!(true) && more["cancel"] != json!(true);
        let url = match by {
            Replicator::Couchrep => self.couchrep.url("/_replicate"),
            Replicator::CouchDb => format!("{}/_replicate", self.first),
        };
        let mut body = json!({ "source": self.named(by, source), "target": self.named(by, target) });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        support::json(&client(), Method::POST, url, Some(&body), if continuous { 202 } else { 200 }).await
    }

    /// Asks couchrep to replicate, and asserts the status of its answer.
    pub async fn ask_couchrep(&self, request: &Value, status: u16) -> Value {
        support::json(&client(), Method::POST, self.couchrep.url("/_replicate"), Some(request), status).await
    }

    /// A database as a request to this replicator names it: couchrep's own by their names.
    pub fn named(&self, by: Replicator, db: &Db) -> String {
        let own = db.url.strip_prefix(&self.couchrep.url("/"));
        own.filter(|_| by == Replicator::Couchrep).unwrap_or(&db.url).to_owned()
    }
}

impl Drop for Rig {
    /// Deletes the databases. A test that fails drops it while it unwinds, so this can't wait on the test's own runtime.
    fn drop(&mut self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        let deleting = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for url in made {
                    let _ = client().delete(url).send().await;
                }
            });
        });
        let _ = deleting.join();
    }
}

/// The servers that a variable of the environment names, without a slash at the end.
pub fn url_of(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty())?;
    Some(url.trim_end_matches('/').to_owned())
}

/// A database, wherever it lives.
#[derive(Debug)]
pub struct Db {
    pub url: String,
    pub client: Client,
}

impl Db {
    /// Sends JSON to a path below it, which starts with a slash, and asserts the status.
    #[track_caller]
    pub fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        status: u16,
    ) -> impl Future<Output = Value> {
        support::json(&self.client, method, format!("{}{path}", self.url), body, status)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> impl Future<Output = Value> {
        self.request(Method::GET, path, None, 200)
    }

    /// Writes documents, and asserts that all were taken.
    pub async fn write(&self, docs: Vec<Value>) {
        let rows = self.bulk_docs(&json!({ "docs": docs })).await;
        assert!(rows.iter().all(|row| row["ok"] == json!(true)), "{rows:?}");
    }

    /// A busy cluster answers 202: fewer copies were written than it wants.
    async fn bulk_docs(&self, body: &Value) -> Vec<Value> {
        let post = self.client.post(format!("{}/_bulk_docs", self.url)).header("Content-Type", "application/json");
        let answer = post.body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status == StatusCode::CREATED || status == StatusCode::ACCEPTED, "{status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Writes revisions as they are.
    pub async fn write_revisions(&self, docs: Vec<Value>) {
        let refused = self.bulk_docs(&json!({ "docs": docs, "new_edits": false })).await;
        assert!(refused.iter().all(|row| row["ok"] == json!(true)), "{refused:?}");
    }

    /// The winning revisions of these documents, as stubs have them.
    pub async fn docs(&self, ids: &[&str]) -> Vec<Value> {
        let answer =
            self.request(Method::POST, "/_all_docs?include_docs=true", Some(&json!({ "keys": ids })), 200).await;
        answer["rows"].as_array().unwrap().iter().map(|row| row["doc"].clone()).collect()
    }

    /// Waits until its feed tells of this document.
    pub async fn has_got(&self, id: &str) {
        let (start, mut since) = (Instant::now(), json!(0));
        loop {
            let query = utf8_percent_encode(since.as_str().unwrap_or("0"), NON_ALPHANUMERIC).to_string();
            let feed = self.get(&format!("/_changes?feed=longpoll&timeout=5000&since={query}")).await;
            if feed["results"].as_array().unwrap().iter().any(|row| row["id"] == id) {
                return;
            }
            since = feed["last_seq"].as_str().map_or_else(|| json!(feed["last_seq"].to_string()), |seq| json!(seq));
            assert!(start.elapsed() < PATIENCE, "{id} didn't arrive");
        }
    }

    /// Every leaf.
    pub async fn leaves(&self) -> Vec<Leaf> {
        leaves_in_bulk(&self.url).await
    }

    /// What is stored of these leaves' attachments: all that their bytes alone don't show.
    async fn stored_attachments(&self, leaves: &[Leaf]) -> Vec<(String, String, Value)> {
        let ids: BTreeSet<_> =
            leaves.iter().filter(|leaf| !leaf.attachments.is_empty()).map(|leaf| leaf.id.clone()).collect();
        let ids = ids.into_iter();
        let reads = ids.map(async |id| {
            let found = self.get(&format!("/{}?open_revs=all&att_encoding_info=true", path_of(&id))).await;
            let leaves = found.as_array().unwrap().iter().map(|leaf| leaf["ok"].clone());
            let stored = leaves.flat_map(|leaf| {
                let attachments = leaf["_attachments"].as_object().cloned().unwrap_or_default();
                let rev = leaf["_rev"].as_str().unwrap().to_owned();
                attachments.into_iter().map(move |(name, stub)| (rev.clone(), json!([name, sorted(&stub)])))
            });
            stored.map(|(rev, stub)| (id.clone(), rev, stub)).collect::<Vec<_>>()
        });
        let mut stored: Vec<_> = stream::iter(reads).buffered(8).concat().await;
        stored.sort_by_key(|(id, rev, stub)| (id.clone(), rev.clone(), stub.to_string()));
        stored
    }
}

/// Members in the order of their names.
fn sorted(object: &Value) -> Value {
    let mut members: Vec<_> = object.as_object().unwrap().clone().into_iter().collect();
    members.sort_by(|one, other| one.0.cmp(&other.0));
    members.into_iter().collect::<serde_json::Map<_, _>>().into()
}

/// Asserts that two databases are replicas of each other.
pub async fn assert_replicas(one: &Db, other: &Db, what: &str) {
    let (left, right) = (one.leaves().await, other.leaves().await);
    // Only what differs: hundreds of equal leaves in a message help nobody.
    let lacking: Vec<_> = left.iter().filter(|leaf| !right.contains(leaf)).collect();
    let surplus: Vec<_> = right.iter().filter(|leaf| !left.contains(leaf)).collect();
    let shown = format!("{:.2000}\n{:.2000}", format!("{lacking:?}"), format!("{surplus:?}"));
    assert!(lacking.is_empty() && surplus.is_empty(), "{what}: leaves differ:\n{shown}");
    let (left, right) = (one.stored_attachments(&left).await, other.stored_attachments(&right).await);
    let differing: Vec<_> = left.iter().zip(&right).filter(|(left, right)| left != right).collect();
    assert!(differing.is_empty() && left.len() == right.len(), "{what}: attachments differ: {differing:?}");
    assert_verified(one, other, what).await;
}

/// Asserts that `couchrep verify` finds no difference. It never parses bodies, so it can compare any.
pub async fn assert_verified(one: &Db, other: &Db, what: &str) {
    let arguments = ["verify", &one.url, &other.url, "--both", "--attachments"].map(str::to_owned);
    let verify = move || Process::run(&arguments.each_ref().map(String::as_str), &[]);
    let output = tasks::blocking("verify", verify).await.unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "{what}: {text}");
}
