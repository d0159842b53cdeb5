//! Functions of design documents: filters and map functions, written by users, run in QuickJS as CouchDB runs them.
//!
//! A function sees its documents, the request, CouchDB's globals (`isArray`, `sum`, `log`, `toJSON`, `emit`) and, through
//! `require`, the modules of its own design document; no files, no network, no clock to wait for. A call may take so
//! long and an interpreter so much memory (`config::Javascript`), then the call fails and its interpreter is thrown away:
//! whatever a script does to its globals, its heap or its stack ends with it.
//!
//! An interpreter serves one function of one revision of a design document in one database, since its globals outlive a
//! call, as they do in CouchDB. It is compiled once and kept for the next feed that asks: [`Interpreters`] lends them out.
//! So many run at once; whoever comes later waits for one that ends, which its time limit makes certain.

mod interpreter;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::Javascript;

use self::interpreter::Interpreter;

/// What a function decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `function (doc, req)`: what it returns.
    Filter,
    /// `function (doc)`: whether it emits.
    Map,
}

/// A function to be run.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// The database whose documents it sees.
    pub database: String,
    /// The design document, as JSON.
    pub design: Vec<u8>,
    /// The function's text.
    pub source: String,
    /// What it decides by.
    pub kind: Kind,
}

/// A function failed: its name for that and the reason, as CouchDB's query server gives them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}: {reason}")]
pub struct ScriptError {
    /// `compilation_error`, `forbidden`, `TypeError`, …
    pub error: String,
    /// The reason.
    pub reason: String,
}

impl ScriptError {
    fn new(error: &str, reason: impl Into<String>) -> Self {
        Self { error: error.into(), reason: reason.into() }
    }

    fn timed_out() -> Self {
        // CouchDB's words where it kills the process.
        Self::new("os_process_error", "OS process timed out.")
    }
}

/// Lends interpreters out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Interpreters {
    settings: Javascript,
    running: Arc<Semaphore>,
    /// Those that nobody uses, the one used last in front. Guards nothing else; never held across an await.
    idle: Arc<Mutex<Idle>>,
}

type Idle = VecDeque<(Arc<Code>, Interpreter)>;

impl Interpreters {
    /// None yet.
    pub fn new(settings: Javascript) -> Self {
        let running = Arc::new(Semaphore::new(settings.interpreters));
        Self { settings, running, idle: Arc::default() }
    }

    /// Waits until one may run. The work that it is for stops soon after the guard is dropped.
    pub async fn admit(&self, code: Arc<Code>, request: Arc<str>) -> (Admission, DropGuard) {
        // The semaphore is never closed.
        let permit = self.running.clone().acquire_owned().await.ok();
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        (Admission { interpreters: self.clone(), code, request, stop, permit }, guard)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self, code: &Code) -> Option<Interpreter> {
        let mut idle = self.idle();
        let place = idle.iter().position(|(other, _)| **other == *code)?;
        idle.remove(place).map(|(_, interpreter)| interpreter)
    }

    fn keep(&self, code: Arc<Code>, interpreter: Interpreter) {
        if interpreter.memory() > self.settings.idle_bytes {
            return;
        }
        let mut idle = self.idle();
        idle.push_front((code, interpreter));
        let kept = self.settings.idle_interpreters.min(idle.len());
        let excess = idle.split_off(kept);
        // Freeing a heap takes a while.
        drop(idle);
        drop(excess);
    }
}

/// The right to run one function for a while.
pub struct Admission {
    interpreters: Interpreters,
    code: Arc<Code>,
    request: Arc<str>,
    stop: CancellationToken,
    permit: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// Compiles the function, unless an interpreter is left that did. Blocks.
    pub fn start(self) -> Result<Running, ScriptError> {
        let settings = &self.interpreters.settings;
        let interpreter = match self.interpreters.take_idle(&self.code) {
            Some(interpreter) => interpreter,
            None => Interpreter::compile(&self.code, settings, &self.stop)?,
        };
        interpreter.begin(&self.request, settings, &self.stop)?;
        Ok(Running { admission: self, interpreter })
    }
}

/// A function that runs. Blocks.
pub struct Running {
    admission: Admission,
    interpreter: Interpreter,
}

impl Running {
    /// Asks the function about a document. After an error the interpreter is of no more use.
    pub fn passes(&self, doc: &[u8]) -> Result<bool, ScriptError> {
        self.interpreter.passes(doc, &self.admission.interpreters.settings, &self.admission.stop)
    }

    /// Keeps the interpreter for whoever asks next.
    pub fn finish(self) {
        let Admission { interpreters, code, permit, .. } = self.admission;
        interpreters.keep(code, self.interpreter);
        drop(permit);
    }
}
