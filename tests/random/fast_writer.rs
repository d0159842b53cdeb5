//! A writer that is faster than the replication, beside a one-shot: it moves documents to the feed's end more quickly than
//! they are read. The one-shot must end, and all that stood in the source when it began must be on the target, or its
//! successor.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rand::RngExt as _;
use serde_json::{Value, json};

use super::Run;
use super::edits::ancestors;
use crate::support::{Fault, Leaf, leaves_in_bulk};

/// Documents of the writer's own.
const DOCUMENTS: usize = 120;
/// Every second one is edited in each round, in the direction opposite to the feed's.
const EDITED_EACH: usize = 2;
/// What a request takes at least, four of them a batch of [`BATCH`] documents.
const SLOWNESS: Duration = Duration::from_millis(15);
const BATCH: usize = 20;
/// Between two rounds, in which three such batches are edited; without it, a busy machine would do nothing else.
const PAUSE: Duration = Duration::from_millis(20);
/// As many as a document keeps ancestors, so that none is forgotten.
const MOST_ROUNDS: usize = 900;

impl Run<'_> {
    /// Nothing fails, and no other replication runs.
    pub(super) async fn one_shot_beside_a_fast_writer(&mut self) {
        let (seed, from) = (self.seed, self.rng.random_range(0..2));
        self.write_round(from, 1).await;
        let before = leaves_in_bulk(&self.url(from)).await;
        self.peers().for_each(|peer| peer.fail_at_random(|_| Some(Fault::Slow(SLOWNESS))));
        self.peers().for_each(|peer| peer.shorten_feeds(Some(BATCH)));
        let job = json!({"source": self.name(from), "target": self.name(1 - from), "worker_batch_size": BATCH,
            "worker_processes": 1});
        let writing = async {
            for round in 2..MOST_ROUNDS {
                self.write_round(from, round).await;
                tokio::time::sleep(PAUSE).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            _ = self.replicated(job) => {}
            () = writing => {}
        }
        self.peers().for_each(|peer| peer.fail_at_random(|_| None));
        self.peers().for_each(|peer| peer.shorten_feeds(None));
        let after = leaves_in_bulk(&self.url(1 - from)).await;
        let mut there: HashMap<&str, BTreeSet<(usize, &str)>> = HashMap::new();
        after.iter().for_each(|leaf| there.entry(&leaf.id).or_default().extend(ancestors(leaf)));
        let is_there = |leaf: &&Leaf| {
            there
                .get(leaf.id.as_str())
                .is_some_and(|revs| ancestors(leaf).next().is_some_and(|rev| revs.contains(&rev)))
        };
        let lacking: Vec<_> = before.iter().filter(|leaf| !is_there(leaf)).map(|leaf| (&leaf.id, &leaf.rev)).collect();
        assert!(lacking.is_empty(), "seed {seed}: there when the one-shot began, and lacking: {lacking:?}");
    }

    /// Writes the writer's documents, or a part of them, each going on from what it was.
    async fn write_round(&self, side: usize, round: usize) {
        let step = if round == 1 { 1 } else { EDITED_EACH };
        let hashes: Vec<_> = (1..=round).rev().map(|round| format!("{round:04x}")).collect();
        // Not the whole path: what is known of it is enough to go on from.
        let revisions = json!({"start": round, "ids": hashes[..round.min(2)]});
        let docs: Vec<Value> = (0..DOCUMENTS)
            .rev()
            .step_by(step)
            .map(|number| json!({"_id": format!("written{number}"), "_revisions": revisions, "round": round}))
            .collect();
        let request = self.client.post(self.url(side) + "/_bulk_docs").header("content-type", "application/json");
        let request = request.body(json!({"new_edits": false, "docs": docs}).to_string());
        request.send().await.unwrap().error_for_status().unwrap();
    }
}
