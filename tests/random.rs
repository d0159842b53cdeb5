//! Random runs: edits, conflicts, deletions and attachments on both sides while replications go both ways, faults on the
//! wire, `kill -9` of the replicator and of the server that it copies from and to. Then it is quiet, each way is replicated
//! once more, or continuously, and both sides must have equal leaves, and every revision that either side has ever
//! acknowledged as synced. A part of the runs has more besides: documents that are refused by the thousand, a writer that
//! is faster than the replication, or trouble that lasts longer than all tries.
//!
//! A run is drawn from its seed, as far as it is the run's to decide: what the machine decides (which task is faster)
//! isn't repeated. A failure tells the seed: `COUCHREP_SEED=42 cargo nextest run -E 'test(random::)'` runs it alone.
//! `COUCHREP_SEEDS` is how many runs there are, in all.

pub mod edits;
pub mod faults;
mod refusals;
mod fast_writer;
mod trouble;
mod remade;
pub mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::edits::{Editor, Kept, check};
use crate::support::{FaultyPeer, Process, Server, client, json as json_of, leaves_in_bulk};

const RUNS: u64 = 200;
/// For a run to come to its end. One with thousands of refusals takes some 100 s beside a busy machine.
const LIMIT: Duration = Duration::from_secs(900);
/// What makes pauses short, batches many, and what nobody has asked to be synced lost in a kill.
const OPTIONS: [&str; 16] = [
    "--connection-timeout=2s",
    "--retry-time-limit=4s",
    "--retries-per-request=4",
    "--heartbeat=500ms",
    "--checkpoint-interval=30ms",
    "--restart-pause=20ms",
    "--max-restart-pause=200ms",
    "--worker-batch-size=5",
    "--worker-processes=3",
    "--batch-bytes=20KB",
    "--memory-budget=1MB",
    "--stop-deadline=2s",
    "--drain-deadline=1s",
    "--open-databases=4",
    "--cache-bytes=1MB",
    "--sync-interval=3s",
];

/// Where a run's two databases are.
#[derive(Debug, Clone, Copy)]
enum Side {
    /// In the replicator's own store, which dies with it.
    Local,
    /// On another server, behind a peer that fails at random.
    Remote,
    /// The same, on a server that is killed while it is written to: what it hadn't synced is to be copied again.
    Mortal,
}

impl Side {
    fn is_mortal(self) -> bool {
        !matches!(self, Self::Remote)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn replicas_are_equal_after_random_faults_between_two_servers() {
    runs([Side::Remote, Side::Remote], 0..60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn replicas_are_equal_after_random_faults_between_the_store_and_a_server() {
    runs([Side::Local, Side::Remote], 60..120).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn replicas_are_equal_after_random_kills_within_the_store() {
    runs([Side::Local, Side::Local], 120..150).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn replicas_are_equal_after_random_kills_of_the_other_server() {
    runs([Side::Mortal, Side::Remote], 150..RUNS).await;
}

async fn runs(sides: [Side; 2], seeds: std::ops::Range<u64>) {
    let world = Arc::new(Server::start().await);
    runs::make(seeds, RUNS, |seed| {
        let world = world.clone();
        async move {
            let mut run = Run::new(seed, sides, &world).await;
            if tokio::time::timeout(LIMIT, run.run()).await.is_err() {
                panic!("seed {seed}: it doesn't come to an end: {}", run.where_it_stands().await);
            }
        }
    })
    .await;
}

/// What a run has besides its edits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Besides {
    None,
    /// More than a thousand documents that the second database doesn't take.
    Refusals,
    /// A writer that is faster than a one-shot.
    FastWriter,
    /// Trouble with documents that lasts longer than all tries.
    Trouble,
}

/// A process that is killed and started again with what it has kept.
struct Machine {
    data_dir: TempDir,
    process: Process,
}

impl Machine {
    fn start() -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        Self { process: start(&data_dir), data_dir }
    }

    fn kill(&mut self) {
        self.process.kill_in_place();
    }

    fn start_again(&mut self) {
        self.process = start(&self.data_dir);
    }
}

fn start(data_dir: &TempDir) -> Process {
    Process::with_args(data_dir.path(), &[&["serve", "--log=error"][..], &OPTIONS].concat())
}

/// One run.
struct Run<'a> {
    seed: u64,
    rng: StdRng,
    sides: [Side; 2],
    client: Client,
    replicator: Machine,
    world: &'a Server,
    /// Stands before `world`.
    peer: FaultyPeer,
    /// Where mortal sides are, where there are any, and the peer before it.
    mortal: Option<(Machine, FaultyPeer)>,
    kept: [Vec<Kept>; 2],
    /// The second database is deleted and made anew in the middle, and nobody edits it.
    remade: bool,
    /// It still has to be, beside edits and faults; else it is before them.
    to_be_remade: bool,
    besides: Besides,
}

impl<'a> Run<'a> {
    async fn new(seed: u64, sides: [Side; 2], world: &'a Server) -> Self {
        let mut mortal = None;
        if sides.iter().any(|side| matches!(side, Side::Mortal)) {
            let machine = Machine::start();
            let before = FaultyPeer::before_url(machine.process.url("")).await;
            mortal = Some((machine, before));
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let peer = FaultyPeer::before(world).await;
        let remade = matches!(sides[1], Side::Remote) && rng.random_bool(0.25);
        let to_be_remade = remade && rng.random_bool(0.5);
        // A side that forgets what wasn't synced must tell so.
        let may_hide = !sides.iter().any(|side| matches!(side, Side::Mortal));
        if may_hide && rng.random_bool(if remade { 0.7 } else { 0.2 }) {
            peer.hide_start_times();
        }
        // Few: such runs are long.
        let besides = match rng.random_range(0..10) {
            0 if matches!(sides[1], Side::Remote) => Besides::Refusals,
            1 => Besides::FastWriter,
            2 if sides.iter().any(|side| !matches!(side, Side::Local)) => Besides::Trouble,
            _ => Besides::None,
        };
        Self {
            seed,
            rng,
            remade,
            to_be_remade,
            besides,
            sides,
            client: client(),
            replicator: Machine::start(),
            world,
            peer,
            mortal,
            kept: Default::default(),
        }
    }

    async fn run(&mut self) {
        for side in 0..2 {
            let made = self.client.put(self.url(side)).send().await.unwrap();
            assert_eq!(made.status(), StatusCode::CREATED);
        }
        if self.besides == Besides::Refusals {
            self.begin_refusals().await;
        }
        if self.remade && !self.to_be_remade {
            self.remake_beneath_a_session().await;
        }
        let chances = [faults::chance(self.rng.next_u64()), faults::chance(self.rng.next_u64())];
        for (peer, chance) in self.peers().zip(chances) {
            peer.fail_at_random(chance);
        }
        for _ in 0..self.rng.random_range(2..5) {
            self.phase().await;
        }
        self.peers().for_each(|peer| peer.fail_at_random(|_| None));
        if self.besides != Besides::None {
            // No other replication is to run beside the one that is looked at.
            self.replicator.kill();
            self.replicator.start_again();
        }
        match self.besides {
            Besides::None => {}
            Besides::Refusals => self.end_refusals().await,
            Besides::FastWriter => self.one_shot_beside_a_fast_writer().await,
            Besides::Trouble => self.one_shot_through_trouble().await,
        }
        let continuous = self.rng.random_bool(0.5);
        self.quiet(continuous).await;
        self.compare().await;
    }

    /// For whoever looks for why it doesn't end: what runs, and what was asked last.
    async fn where_it_stands(&self) -> String {
        let url = self.replicator.process.url("/_active_tasks");
        let asking = async { self.client.get(url).send().await.unwrap().text().await.unwrap() };
        let tasks = tokio::time::timeout(Duration::from_secs(5), asking).await;
        let mut told = format!("{:?}, remade: {}, tasks: {tasks:?}", self.besides, self.remade);
        for peer in self.peers() {
            let requests = peer.requests();
            let last = &requests[requests.len().saturating_sub(10)..];
            told += &format!(", of {} requests the last: {last:#?}", requests.len());
        }
        told
    }

    fn peers(&self) -> impl Iterator<Item = &FaultyPeer> {
        [&self.peer].into_iter().chain(self.mortal.as_ref().map(|(_, before)| before))
    }

    /// The URL of a side's database, for editors.
    fn url(&self, side: usize) -> String {
        let path = format!("/run{}_{side}", self.seed);
        match self.sides[side] {
            Side::Local => self.replicator.process.url(&path),
            Side::Remote => self.world.url(&path),
            Side::Mortal => self.mortal.as_ref().unwrap().0.process.url(&path),
        }
    }

    /// The same, for the replicator.
    fn name(&self, side: usize) -> String {
        let name = format!("run{}_{side}", self.seed);
        match self.sides[side] {
            Side::Local => name,
            Side::Remote => self.peer.url(&format!("/{name}")),
            Side::Mortal => self.mortal.as_ref().unwrap().1.url(&format!("/{name}")),
        }
    }

    /// Edits on both sides and replications, faults and maybe kills meanwhile.
    async fn phase(&mut self) {
        let mut editors = [0, 1].map(|side| Editor {
            rng: StdRng::seed_from_u64(self.rng.next_u64()),
            client: self.client.clone(),
            url: self.url(side),
            mortal: self.sides[side].is_mortal(),
            edits: side == 0 || !self.remade,
            synced: true,
            run: self.seed,
        });
        let editing = join_all(editors.iter_mut().map(async |editor| {
            let mut kept = Vec::new();
            let edits = editor.rng.random_range(3..15);
            for _ in 0..if editor.edits { edits } else { 0 } {
                kept.extend(editor.edit().await);
            }
            kept
        }));
        let jobs: Vec<_> = (0..self.rng.random_range(1..4)).map(|_| self.job()).collect();
        let remakes = std::mem::take(&mut self.to_be_remade);
        let replicate = self.replicator.process.url("/_replicate");
        let (client, editor_client, url) = (self.client.clone(), self.client.clone(), self.url(1));
        let replicating = join_all(jobs.into_iter().map(|job| {
            let request = client.post(&replicate).header(CONTENT_TYPE, "application/json");
            // Whatever comes of it: a caller that hangs up stops nothing, and in the end it is done once more.
            tokio::time::timeout(Duration::from_millis(400), request.body(job.to_string()).send())
        }));
        let mut kill =
            |chance| self.rng.random_bool(chance).then(|| Duration::from_millis(self.rng.random_range(0..400)));
        let (kill_replicator, kill_mortal) = (kill(0.6), kill(0.8));
        let (replicator, mortal) = (&mut self.replicator, &mut self.mortal);
        let killing_replicator = async {
            if let Some(after) = kill_replicator {
                tokio::time::sleep(after).await;
                replicator.kill();
            }
        };
        // Started again at once: the replications that write to it live on.
        let killing_mortal = async {
            if let (Some(after), Some((machine, before))) = (kill_mortal, mortal) {
                tokio::time::sleep(after).await;
                machine.kill();
                machine.start_again();
                before.moved(machine.process.url(""));
            }
        };
        let remade = remakes.then(|| (url, Duration::from_millis(self.rng.random_range(0..400))));
        let remaking = async {
            if let Some((url, after)) = remade {
                tokio::time::sleep(after).await;
                for method in [Method::DELETE, Method::PUT] {
                    editor_client.request(method, &url).send().await.unwrap().error_for_status().unwrap();
                }
            }
        };
        let (kept, ..) = futures::join!(editing, replicating, killing_replicator, killing_mortal, remaking);
        if kill_replicator.is_some() {
            self.replicator.start_again();
        }
        for (side, kept) in kept.into_iter().enumerate() {
            self.kept[side].extend(kept);
        }
    }

    /// A request for a replication one way or the other.
    fn job(&mut self) -> Value {
        let from = self.rng.random_range(0..2);
        let mut job = json!({"source": self.name(from), "target": self.name(1 - from)});
        let mut maybe = |name: &str, value: Value| {
            if self.rng.random_bool(0.3) {
                job[name] = value;
            }
        };
        maybe("continuous", json!(true));
        maybe("checkpoint_interval", json!(1));
        if self.besides == Besides::Refusals {
            job["worker_batch_size"] = json!(500);
        } else {
            maybe("use_bulk_get", json!(false));
            maybe("worker_batch_size", json!(1));
        }
        job
    }

    /// Each way once more, or continuously until both sides have the same.
    async fn quiet(&self, continuous: bool) {
        // What still runs may answer for what it saw before the last edit: only what starts now counts.
        for way in [[0, 1], [1, 0], [0, 1], [1, 0]] {
            let [source, target] = way.map(|side| self.name(side));
            self.replicated(json!({"source": source, "target": target, "continuous": continuous})).await;
        }
        while continuous && self.revs(0).await != self.revs(1).await {
            // Nobody signals that two databases have become equal.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks for a replication until it succeeds; its id, which answers of one-shots tell.
    async fn replicated(&self, job: Value) -> Option<String> {
        loop {
            let replicate = self.replicator.process.url("/_replicate");
            let request = self.client.post(replicate).header(CONTENT_TYPE, "application/json");
            let answer = request.body(job.to_string()).send().await.unwrap();
            if answer.status().is_success() {
                let id = answer.headers().get("x-couchrep-replication-id");
                return id.map(|id| id.to_str().unwrap().to_owned());
            }
        }
    }

    /// A side's documents and their leaves' revisions.
    async fn revs(&self, side: usize) -> BTreeMap<String, BTreeSet<String>> {
        let feed = json_of(&self.client, Method::GET, self.url(side) + "/_changes?style=all_docs", None, 200).await;
        let rows = feed["results"].as_array().unwrap().iter();
        let revs = |row: &Value| {
            row["changes"].as_array().unwrap().iter().map(|change| change["rev"].as_str().unwrap().to_owned()).collect()
        };
        rows.map(|row| (row["id"].as_str().unwrap().to_owned(), revs(row))).collect()
    }

    /// Looks at both sides.
    async fn compare(&self) {
        let [here, there] = [leaves_in_bulk(&self.url(0)).await, leaves_in_bulk(&self.url(1)).await];
        let seed = self.seed;
        for (this, other) in [(&here, &there), (&there, &here)] {
            let lacking: Vec<_> = this.iter().filter(|leaf| !other.contains(leaf)).collect();
            assert!(lacking.is_empty(), "seed {seed}: only on one side: {lacking:#?}");
        }
        for kept in self.kept.iter().flatten() {
            check(kept, &here).unwrap_or_else(|problem| panic!("seed {seed}: {problem}: {kept:?}"));
        }
        assert!(!here.iter().any(|leaf| leaf.id.starts_with("_local/")), "seed {seed}: a local document has travelled");
    }
}
