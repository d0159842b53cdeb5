//! Who runs the documents, where nothing is to be taken over: we do if CouchDB's operator has its schedulers stand still.

use tokio_util::sync::CancellationToken;

use super::nodes::{NONE, Nodes};
use super::note::Notes;
use super::runner::{DocumentRunner, RunnerTeller};
use crate::beside::AdminError;
use crate::config::couchdb::CouchDb;

/// Looks every heartbeat.
#[derive(Clone)]
pub struct RunnerWatch {
    nodes: Nodes,
    notes: Notes,
    settings: CouchDb,
    tell: RunnerTeller,
}

impl RunnerWatch {
    /// Nothing is known yet.
    pub fn new(nodes: Nodes, notes: Notes, settings: CouchDb, tell: RunnerTeller) -> Self {
        Self { nodes, notes, settings, tell }
    }

    /// Looks until the end.
    pub async fn goes_on(self, ending: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = ending.cancelled() => return,
                () = tokio::time::sleep(self.settings.takeover.heartbeat) => {}
            }
            self.look().await;
        }
    }

    /// Looks once. If CouchDB doesn't answer, all stays as it was.
    pub async fn look(&self) {
        let found = match self.runner().await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "CouchDB doesn't tell who runs documents");
                return;
            }
        };
        if !self.tell.tell(found) {
            return;
        }
        match found {
            DocumentRunner::Us => tracing::info!("CouchDB's max_jobs is 0: documents in its _replicator are run here"),
            DocumentRunner::CouchDb => tracing::info!(
                "documents in CouchDB's _replicator are left to its own scheduler, which runs: --take-over has them run here"
            ),
            DocumentRunner::AnotherCouchrep => tracing::warn!(
                "documents in CouchDB's _replicator are left to another couchrep, which has taken them over; if it has crashed, \
                 `couchrep give-back` repairs"
            ),
            DocumentRunner::Nobody => {
                tracing::info!(
                    "CouchDB's max_jobs is 0: documents in its _replicator are run here when its jobs stand still"
                );
            }
        }
    }

    async fn runner(&self) -> Result<DocumentRunner, AdminError> {
        if self.notes.find().await?.is_some() {
            return Ok(DocumentRunner::AnotherCouchrep);
        }
        for node in self.nodes.up().await? {
            if self.nodes.max_jobs(&node).await?.as_deref() != Some(NONE) {
                return Ok(DocumentRunner::CouchDb);
            }
        }
        Ok(if self.nodes.replicate().await? { DocumentRunner::Nobody } else { DocumentRunner::Us })
    }
}
