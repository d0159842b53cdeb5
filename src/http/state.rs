//! What handlers work with.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::answer::Answers;
use super::question::QuestionMemory;
use crate::accounts::Accounts;
use crate::jobs::Jobs;
use crate::settings::Settings;
use crate::store::Store;
use crate::tasks::Tasks;

/// The CouchDB release whose answers these are, for clients that look before they ask.
pub const COUCHDB_VERSION: &str = "3.5.0";

/// What handlers work with. Every layer of every request clones it, so that is one pointer.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// What stands in it.
pub struct Shared {
    /// The databases.
    pub store: Store,
    /// The running replications.
    pub jobs: Jobs,
    /// Bytes that request bodies may still take in memory, all together.
    pub bodies: Arc<Semaphore>,
    /// Memory of answers to slow readers.
    pub answers: Answers,
    /// Who may log in.
    pub accounts: Accounts,
    /// All settings, which may change.
    pub settings: Settings,
    /// The server's uuid.
    pub uuid: String,
    /// The owner of the tasks that write long answers; they end feeds cleanly when it is told to stop.
    pub tasks: Tasks,
}

impl From<Shared> for AppState {
    fn from(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    /// Memory for what is made of questions.
    pub fn question_memory(&self) -> QuestionMemory {
        QuestionMemory::new(Arc::clone(&self.bodies), self.settings.current().http.max_bodies_bytes)
    }
}
