//! Whose the documents are that describe replications.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Who runs the documents of CouchDB's replicator databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentRunner {
    /// We do.
    Us,
    /// CouchDB's own scheduler.
    CouchDb,
    /// A couchrep beside the same CouchDB; or one that has crashed, and then it is nobody.
    AnotherCouchrep,
    /// Nobody: CouchDB's jobs aren't known to stand still yet, or CouchDB was away for so long that another one may have begun.
    Nobody,
}

/// Tells it. Cheap to clone.
#[derive(Clone)]
pub struct RunnerTeller {
    runner: Arc<watch::Sender<DocumentRunner>>,
    is_told: Arc<AtomicBool>,
}

impl RunnerTeller {
    /// It is nobody, so far.
    pub fn new() -> Self {
        Self { runner: Arc::new(watch::channel(DocumentRunner::Nobody).0), is_told: Arc::default() }
    }

    /// Tells who it is now; answers whether that is news; the first word always is.
    pub fn tell(&self, runner: DocumentRunner) -> bool {
        let is_other = self.runner.send_replace(runner) != runner;
        !self.is_told.swap(true, Ordering::Relaxed) || is_other
    }

    /// Who it is, as it changes.
    pub fn runner(&self) -> watch::Receiver<DocumentRunner> {
        self.runner.subscribe()
    }
}
