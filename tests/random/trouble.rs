//! Trouble with documents that lasts longer than all tries: a gateway's pages, a database that fails, connections that
//! break off, for every request that fetches or writes documents, while all others pass. Nothing gets through that could
//! show that a document is to blame. So a one-shot must not end well, nor may a document be recorded as failed; when the
//! trouble is over, all of them must arrive.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::Run;
use crate::support::{Fault, Gateway};

/// More than may be given up at once for what nobody judged.
const DOCUMENTS: usize = 12;

impl Run<'_> {
    /// No other replication runs.
    pub(super) async fn one_shot_through_trouble(&mut self) {
        let (seed, from) = (self.seed, self.rng.random_range(0..2));
        let docs: Vec<_> = (0..DOCUMENTS).map(|number| json!({"_id": format!("troubled{number}")})).collect();
        let request = self.client.post(self.url(from) + "/_bulk_docs").header(CONTENT_TYPE, "application/json");
        let request = request.header("x-couch-full-commit", "true").body(json!({ "docs": docs }).to_string());
        request.send().await.unwrap().error_for_status().unwrap();
        let fault = trouble(&mut self.rng);
        for peer in self.peers() {
            let fault = fault.clone();
            peer.fail_at_random(move |request| is_about_documents(request).then(|| fault.clone()));
        }
        let job = json!({"source": self.name(from), "target": self.name(1 - from), "worker_batch_size": 500});
        let replicate = self.replicator.process.url("/_replicate");
        let request = self.client.post(replicate).header(CONTENT_TYPE, "application/json").body(job.to_string());
        let answer = request.send().await.unwrap().text().await.unwrap();
        self.peers().for_each(|peer| peer.fail_at_random(|_| None));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_ne!(answer["ok"], true, "seed {seed}: nothing got through, {fault:?}: {answer}");
        // What was recorded stands in the list, and nobody asks for it again: what comes after this shows it.
    }
}

/// Whether a request fetches or writes documents, or their attachments.
pub(super) fn is_about_documents(request: &str) -> bool {
    let (method, path) = request.split_once(' ').unwrap();
    let path = path.split('?').next().unwrap();
    match path.trim_start_matches('/').split_once('/') {
        Some((_, "_bulk_docs" | "_bulk_get")) => true,
        Some((_, rest)) => !rest.is_empty() && !rest.starts_with('_') && matches!(method, "GET" | "PUT"),
        None => false,
    }
}

/// Anything but a database's own word on a document.
fn trouble(rng: &mut StdRng) -> Fault {
    let status = *[200, 201, 400, 403, 404, 500, 502].choose(rng).unwrap();
    match rng.random_range(0..8) {
        0 => Fault::Disconnect,
        1 => Fault::status(500),
        2 => Fault::status(503),
        _ => Fault::gateway(status, *Gateway::ALL.choose(rng).unwrap()),
    }
}
