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
    ours: Arc<watch::Sender<bool>>,
    is_told: Arc<AtomicBool>,
}

impl RunnerTeller {
    /// It is nobody, so far.
    pub fn new() -> Self {
        let (runner, ours) = (watch::channel(DocumentRunner::Nobody).0, watch::channel(false).0);
        Self { runner: Arc::new(runner), ours: Arc::new(ours), is_told: Arc::default() }
    }

    /// Tells who it is now; answers whether that is news; the first word always is.
    pub fn tell(&self, runner: DocumentRunner) -> bool {
        self.ours.send_replace(runner == DocumentRunner::Us);
        let is_other = self.runner.send_replace(runner) != runner;
        !self.is_told.swap(true, Ordering::Relaxed) || is_other
    }

    /// Who it is, as it changes.
    pub fn runner(&self) -> watch::Receiver<DocumentRunner> {
        self.runner.subscribe()
    }

    /// Whether it is us, as it changes.
    pub fn ours(&self) -> watch::Receiver<bool> {
        self.ours.subscribe()
    }
}
