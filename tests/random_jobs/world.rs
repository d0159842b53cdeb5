//! The databases of a run: some in the server that runs the jobs, some at another one, behind a peer that fails. What their editors were
//! told that they have is kept.

use std::ops::Range;
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::machine::Machine;
use crate::random::edits::{Editor, Kept};
use crate::support::{FaultyPeer, Server, client_builder, json as json_of};

const EDITS: Range<usize> = 1..6;
/// For a checkpoint to be looked after, on a busy machine.
const TAKEN_BACK: Duration = Duration::from_millis(500);
/// Whoever waits longer for an answer waits for one that never comes.
const ANSWERED: Duration = Duration::from_secs(100);

/// A database.
pub struct Data {
    pub name: String,
    /// In the server that runs the jobs.
    pub is_local: bool,
    /// It is there; else nobody makes it before everything heals.
    pub exists: bool,
    /// What it has, as its editors were told since it was made.
    pub kept: Vec<Kept>,
    /// How often it was made.
    pub made: u32,
}

/// All of them, and where they are.
pub struct World {
    pub run: u64,
    pub client: Client,
    pub machine: Machine,
    /// Stands before the other server.
    pub peer: FaultyPeer,
    /// Always there but while it restarts.
    other: Option<Server>,
    pub data: Vec<Data>,
}

impl World {
    pub async fn new(run: u64, rng: &mut StdRng) -> Self {
        let other = start_other().await;
        let peer = FaultyPeer::before(&other).await;
        if rng.random_bool(0.2) {
            peer.hide_start_times();
        }
        let mut data: Vec<_> = [("l", true), ("r", false)]
            .into_iter()
            .flat_map(|(prefix, is_local)| {
                (0..rng.random_range(2..4))
                    .map(move |number| (format!("{prefix}{number}"), is_local))
                    .collect::<Vec<_>>()
            })
            .map(|(name, is_local)| Data { name, is_local, exists: true, kept: Vec::new(), made: 1 })
            .collect();
        if rng.random_bool(0.3) {
            data.iter_mut().choose(rng).unwrap().exists = false;
        }
        let client = client_builder().timeout(ANSWERED).build().unwrap();
        let world = Self { run, client, machine: Machine::start(rng), peer, other: Some(other), data };
        for index in (0..world.data.len()).filter(|index| world.data[*index].exists) {
            json_of(&world.client, Method::PUT, world.url(index), None, 201).await;
        }
        json_of(&world.client, Method::PUT, world.machine.url("/t%2F_replicator"), None, 201).await;
        world
    }

    /// The URL of a database, for editors.
    pub fn url(&self, index: usize) -> String {
        let Data { name, is_local, .. } = &self.data[index];
        let path = format!("/{name}");
        if *is_local { self.machine.url(&path) } else { self.other.as_ref().unwrap().url(&path) }
    }

    /// The same, for jobs.
    pub fn name(&self, index: usize) -> String {
        let Data { name, is_local, .. } = &self.data[index];
        if *is_local { name.clone() } else { self.peer.url(&format!("/{name}")) }
    }

    /// Somebody who edits each database, or nobody.
    pub fn editors(&self, rng: &mut StdRng) -> Vec<Option<Editor>> {
        let editor = |index: usize, rng: &mut StdRng| Editor {
            rng: StdRng::seed_from_u64(rng.next_u64()),
            client: self.client.clone(),
            url: self.url(index),
            mortal: self.data[index].is_local,
            edits: true,
            synced: true,
            run: self.run,
        };
        let edits = |index: &usize| self.data[*index].exists;
        (0..self.data.len())
            .map(|index| Some(index).filter(edits).filter(|_| rng.random_bool(0.7)).map(|index| editor(index, rng)))
            .collect()
    }

    /// Notes what databases have.
    pub fn keep(&mut self, kept: Vec<Vec<Kept>>) {
        for (data, kept) in self.data.iter_mut().zip(kept) {
            data.kept.extend(kept);
        }
    }

    /// Deletes a database and makes it anew.
    ///
    /// A checkpoint that is written to it at that moment is taken back at once, unless the server is killed before it has: that window
    /// is left (`src/replicate/checkpoint.rs`). So nothing keeps it from that, and it has some time.
    pub async fn remake(&mut self, rng: &mut StdRng) {
        let index = rng.random_range(0..self.data.len());
        if self.data[index].exists {
            self.peer.fail_at_random(|_| None);
            json_of(&self.client, Method::DELETE, self.url(index), None, 200).await;
            // A job may have made it.
            self.client.put(self.url(index)).send().await.unwrap();
            self.data[index].made += 1;
            self.data[index].kept.clear();
            tokio::time::sleep(TAKEN_BACK).await;
        }
    }

    /// Makes what isn't there, and the filter that some jobs want in each database.
    pub async fn make_all(&mut self) {
        for index in 0..self.data.len() {
            // A job may have made it.
            let url = self.url(index);
            self.client.put(&url).send().await.unwrap();
            let filter = json!({"filters": {"low": "function(doc) { return doc.token < '8'; }"}});
            let request = self.client.put(url + "/_design/f").header("content-type", "application/json");
            request.body(filter.to_string()).send().await.unwrap();
            self.data[index].exists = true;
        }
    }

    /// Writes to a database what passes each filter in use.
    pub async fn nudge(&self, index: usize, name: &str) {
        let docs: Value =
            ["0", "f"].iter().map(|token| json!({"_id": format!("{name}-{index}-{token}"), "token": token})).collect();
        json_of(&self.client, Method::POST, self.url(index) + "/_bulk_docs", Some(&json!({ "docs": docs })), 201).await;
    }

    /// Stops the other server and starts it again, as another process with the same data.
    pub async fn restart_other(&mut self) {
        let other = self.other.take().unwrap().restart().await;
        self.peer.moved(other.url(""));
        self.other = Some(other);
    }
}

async fn start_other() -> Server {
    Server::with_config(|config| config.replicator.run_documents = false).await
}

/// Lets everybody edit; what databases have taken.
pub async fn edit(editors: Vec<Option<Editor>>) -> Vec<Vec<Kept>> {
    join_all(editors.into_iter().map(edit_some)).await
}

async fn edit_some(editor: Option<Editor>) -> Vec<Kept> {
    let mut kept = Vec::new();
    if let Some(mut editor) = editor {
        for _ in 0..editor.rng.random_range(EDITS) {
            kept.extend(editor.edit().await);
        }
    }
    kept
}
