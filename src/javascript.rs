//! Functions of design documents: filters, map functions and validations, written by users, run in QuickJS as CouchDB runs
//! them.
//!
//! A function sees its documents, the request, CouchDB's globals (`isArray`, `sum`, `log`, `toJSON`, `emit`) and, through
//! `require`, the modules of its own design document; no files, no network, no clock to wait for. A call may take so
//! long and an interpreter so much memory (`config::Javascript`), then the call fails and its interpreter is thrown away:
//! whatever a script does to its globals, its heap or its stack ends with it.
//!
//! An interpreter serves one function of one revision of a design document in one database, since its globals outlive a
//! call, as they do in CouchDB. It is compiled once and kept for the next feed that asks: [`Interpreters`] lends them out.
//! So many run at once; whoever comes later waits for one that ends or is given up. [`lanes`] says who runs next, so that
//! endless functions keep no others waiting, and [`calls`] what becomes of those that can't be stopped.

mod calls;
mod interpreter;
mod lanes;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::Javascript;

use self::calls::RunningCall;
use self::interpreter::{Interpreter, Limits};
use self::lanes::{LanePermit, Lanes};

/// What a function decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `function (doc, req)`: what it returns.
    Filter,
    /// `function (doc)`: whether it emits.
    Map,
    /// `function (newDoc, oldDoc, userCtx, secObj)`: whether it throws.
    Validation,
}

impl Kind {
    /// Its name in `room.js`.
    fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Map => "map",
            Self::Validation => "validation",
        }
    }
}

/// A function to be run.
#[derive(Debug, PartialEq, Eq, Hash)]
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

    /// A function that ended without an answer: none does.
    pub fn no_answer() -> Self {
        Self::new("InternalError", "the function gave no answer")
    }

    fn timed_out() -> Self {
        // CouchDB's words where it kills the process.
        Self::new("os_process_error", "OS process timed out.")
    }

    fn barred() -> Self {
        Self::new(
            "InternalError",
            "a function can't be stopped, and others of its design document or database don't run meanwhile",
        )
    }

    fn is_timeout(&self) -> bool {
        *self == Self::timed_out()
    }

    /// Whether another function of the same design document or database can't be stopped, for which it wasn't asked.
    pub fn is_barred(&self) -> bool {
        *self == Self::barred()
    }

    /// Whether the function threw it of itself, so that its interpreter is as good as before.
    pub fn is_verdict(&self) -> bool {
        !self.is_timeout() && self.error != "InternalError"
    }
}

/// Lends interpreters out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Interpreters {
    settings: Javascript,
    lanes: Arc<Lanes>,
    /// Those that nobody uses, the one used last in front. Guards nothing else; never held across an await.
    idle: Arc<Mutex<Idle>>,
}

type Idle = VecDeque<(Arc<Code>, Interpreter)>;

impl Interpreters {
    /// None yet.
    pub fn new(settings: Javascript) -> Self {
        let lanes = Arc::new(Lanes::new(settings.interpreters, settings.call_time));
        Self { settings, lanes, idle: Arc::default() }
    }

    /// Waits until one may run. The work that it is for stops soon after the guard is dropped.
    pub async fn admit(&self, code: Arc<Code>, request: Arc<str>) -> (Admission, DropGuard) {
        let place = self.lanes.place(&code).await;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        (Admission { interpreters: self.clone(), code, request, stop, place }, guard)
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
    place: LanePermit,
}

impl Admission {
    /// Whether this is a first, short try: after an error which [`worth_another_try`] knows, the same work is done again
    /// with another admission.
    pub fn is_short(&self) -> bool {
        self.place.is_quick()
    }

    /// Compiles the function, unless an interpreter is left that did. Blocks.
    pub fn start(self) -> Result<Running, ScriptError> {
        let interpreter = self.noted(self.interpreter())?;
        Ok(Running { admission: self, interpreter })
    }

    fn interpreter(&self) -> Result<Interpreter, ScriptError> {
        let _call = self.call()?;
        let interpreter = match self.interpreters.take_idle(&self.code) {
            Some(interpreter) => interpreter,
            None => Interpreter::compile(&self.code, self.limits())?,
        };
        interpreter.begin(&self.request, self.limits())?;
        Ok(interpreter)
    }

    fn call(&self) -> Result<RunningCall<'_>, ScriptError> {
        self.place.call(&self.interpreters.lanes).ok_or_else(ScriptError::barred)
    }

    fn limits(&self) -> Limits<'_> {
        Limits { settings: &self.interpreters.settings, time: self.place.time, stop: &self.stop }
    }

    /// Remembers where time ran out, unless it is nobody that waits.
    fn noted<T>(&self, result: Result<T, ScriptError>) -> Result<T, ScriptError> {
        if result.as_ref().is_err_and(ScriptError::is_timeout) && !self.stop.is_cancelled() {
            self.interpreters.lanes.ran_out(&self.place);
        }
        result
    }
}

/// Whether an error of a short try says no more than that it was short.
pub fn worth_another_try(error: &ScriptError) -> bool {
    error.is_timeout()
}

/// A function that runs. Blocks.
pub struct Running {
    admission: Admission,
    interpreter: Interpreter,
}

impl Running {
    /// Asks the function about a document, a validation about `[newDoc,oldDoc]`. After an error the interpreter is of no more
    /// use, unless it [is a verdict](ScriptError::is_verdict).
    pub fn passes(&self, doc: &[u8]) -> Result<bool, ScriptError> {
        let _call = self.admission.call()?;
        self.admission.noted(self.interpreter.passes(doc, self.admission.limits()))
    }

    /// Throws the interpreter away.
    pub fn forget(self) {
        self.admission.interpreters.lanes.ended(&self.admission.place);
    }

    /// Keeps the interpreter for whoever asks next.
    pub fn finish(self) {
        let Admission { interpreters, code, place, .. } = self.admission;
        interpreters.lanes.ended(&place);
        interpreters.keep(code, self.interpreter);
        drop(place);
    }
}
