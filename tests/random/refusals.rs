//! Refusals by the thousand: more documents than a page of the list of failures holds, that the target takes none of.
//! They must not keep the others waiting, all of them must be recorded, and once the target takes them, `retry_failures`
//! must bring them there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Run, Side};
use crate::support::json as json_of;
use reqwest::Method;

const REFUSED: usize = 1_100;
/// As many as one request for the list gives.
const LISTED: usize = 1_000;

fn ids() -> impl Iterator<Item = String> {
    (0..REFUSED).map(|number| format!("refused{number}"))
}

impl Run<'_> {
    /// Writes them to the first database, and lets the second one's server refuse them.
    pub(super) async fn begin_refusals(&self) {
        assert!(matches!(self.sides[1], Side::Remote), "the second database stands behind the peer that refuses");
        self.peer.refuse(|id| id.starts_with("refused"));
        let docs: Vec<_> = ids().map(|id| json!({"_id": id, "body": "x"})).collect();
        let request = self.client.post(self.url(0) + "/_bulk_docs").header("content-type", "application/json");
        let request = request.header("x-couch-full-commit", "true").body(json!({ "docs": docs }).to_string());
        request.send().await.unwrap().error_for_status().unwrap();
    }

    /// Nothing fails any more, and no other replication runs: a one-shot, the list, the retry.
    pub(super) async fn end_refusals(&self) {
        let seed = self.seed;
        let id = self.replicated(self.refused_job(json!({}))).await.expect("a one-shot tells its id");
        let (listed, expected) = (self.listed(&id).await, ids().collect::<BTreeSet<_>>());
        let unlisted: Vec<_> = expected.difference(&listed).take(10).collect();
        assert!(unlisted.is_empty(), "seed {seed}: refused and not recorded: {unlisted:?}, …");
        let there: BTreeSet<_> = self.revs(1).await.into_keys().collect();
        assert!(expected.is_disjoint(&there), "seed {seed}: refused, and on the target");
        self.peer.refuse(|_| false);
        self.replicated(self.refused_job(json!({"retry_failures": true}))).await;
        let there: BTreeSet<_> = self.revs(1).await.into_keys().collect();
        let lacking: Vec<_> = expected.difference(&there).take(10).collect();
        assert!(lacking.is_empty(), "seed {seed}: recorded, tried again, and not on the target: {lacking:?}, …");
        let listed = self.listed(&id).await;
        assert!(expected.is_disjoint(&listed), "seed {seed}: still in the list of failures");
    }

    /// In large batches, so that a run stays short.
    fn refused_job(&self, more: Value) -> Value {
        let mut job = json!({"source": self.name(0), "target": self.name(1), "worker_batch_size": 500});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    }

    /// The ids in the list of a replication's failures.
    async fn listed(&self, id: &str) -> BTreeSet<String> {
        let mut listed = BTreeSet::new();
        for skip in (0..).step_by(LISTED) {
            let url = self.replicator.process.url(&format!("/_replicate/{id}/failures?skip={skip}"));
            let part = json_of(&self.client, Method::GET, url, None, 200).await;
            let failures = part["failures"].as_array().unwrap();
            if failures.is_empty() {
                break;
            }
            listed.extend(failures.iter().map(|failure| failure["id"].as_str().unwrap().to_owned()));
        }
        listed
    }
}
