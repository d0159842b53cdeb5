//! What a database's writer is asked for, and where.
//!
//! Whoever has a [`WriterHandle`] may ask; `writer.rs` has the writer, `write.rs` its transactions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::copied::{FileCopy, Round};
use super::prepared::Prepared;
use super::settings::Setting;
use crate::access::Denied;
use crate::document::{DocId, Rev};
use crate::javascript::ScriptError;

/// When a write is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is answered.
    Synced,
    /// At the next `ensure_full_commit`, or within a second (`X-Couch-Full-Commit: false`).
    Unsynced,
}

/// A document that wasn't written. Others of the same call were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 409: the parent isn't a leaf.
    #[error("Document update conflict.")]
    Conflict,
    /// 412: a stub whose attachment isn't there.
    #[error("Invalid attachment stub in {id} for {name}")]
    MissingStub {
        /// The document.
        id: String,
        /// The attachment.
        name: String,
    },
    /// What a validation threw, or why it can't be asked.
    #[error("{}", .0.reason)]
    Script(ScriptError),
    /// A design document, which its author may not write.
    #[error(transparent)]
    Denied(Denied),
    /// 400: a design document that makes no sense.
    #[error("{0}")]
    InvalidDesign(String),
    /// 400: a design document with a function that doesn't compile.
    #[error("{0}")]
    Compilation(String),
}

/// What a `_local` document is written over.
#[derive(Debug)]
pub(super) enum LocalParent {
    /// This revision, or nothing; else it is a conflict.
    Rev(Option<String>),
    /// Whatever there is.
    Any,
}

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Work {
    /// If they were judged under this generation of what judges them, and by what they replace now.
    Edits {
        edits: Vec<Prepared>,
        generation: u64,
        durability: Durability,
    },
    Local {
        id: String,
        parent: LocalParent,
        body: Option<Vec<u8>>,
    },
    Chunks {
        blob: u64,
        first: u32,
        data: Bytes,
    },
    Discard {
        blob: u64,
    },
    Purge {
        documents: Vec<(DocId, Vec<Rev>)>,
    },
    PurgedInfosLimit(u64),
    Set(Setting),
    Sync,
    /// Note what is changed from here on.
    CompactionBegins,
    /// Hand over what was noted.
    CompactionRound,
    /// Go over to this file.
    Compacted(Box<FileCopy>),
    /// Note no more.
    CompactionEnds,
}

impl Work {
    pub(super) fn durability(&self) -> Durability {
        match self {
            Self::Edits { durability, .. } => *durability,
            Self::Chunks { .. } | Self::Discard { .. } => Durability::Unsynced,
            Self::CompactionBegins | Self::CompactionRound | Self::Compacted(_) | Self::CompactionEnds => {
                Durability::Unsynced
            }
            Self::Local { .. } | Self::Purge { .. } | Self::PurgedInfosLimit(_) | Self::Set(_) | Self::Sync => {
                Durability::Synced
            }
        }
    }
}

impl Work {
    /// Whether it is a step of a compaction: done between two transactions, not within one.
    pub(super) fn is_compaction(&self) -> bool {
        matches!(self, Self::CompactionBegins | Self::CompactionRound | Self::Compacted(_) | Self::CompactionEnds)
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    Written(Vec<Result<Rev, Refusal>>),
    /// Nothing: they are to be judged again.
    Again(Vec<Prepared>),
    Local(Result<String, Refusal>),
    Purged(Vec<Vec<Rev>>),
    Round(Box<Round>),
    Nothing,
}

pub(super) type Reply = oneshot::Sender<Result<Done, StoreError>>;

/// Where a database's writes are asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct WriterHandle {
    pub(super) requests: mpsc::Sender<(Work, Option<Reply>)>,
    pub(super) closing: CancellationToken,
    /// Cancelled when the writer has ended.
    pub(super) ended: CancellationToken,
    /// Why it gave up, if it did.
    pub(super) failure: Arc<OnceLock<Arc<StoreError>>>,
    /// How often design documents and the security object were changed since the opening; told after the commit, before anybody is answered.
    pub(super) generation: Arc<AtomicU64>,
}

impl WriterHandle {
    /// Asks, and waits for the answer. The work is done even if the caller is dropped meanwhile.
    pub(super) async fn ask(&self, work: Work) -> Result<Done, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send((work, Some(reply))).await.map_err(|_| self.why())?;
        answer.await.map_err(|_| self.why())?
    }

    /// Why nobody answers.
    fn why(&self) -> StoreError {
        self.failure.get().map_or(StoreError::Closing, |failure| StoreError::WriteFailed(failure.clone()))
    }

    /// How often what judges writes was changed.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) async fn put_local(
        &self,
        id: String,
        parent: LocalParent,
        body: Option<Vec<u8>>,
    ) -> Result<Result<String, Refusal>, StoreError> {
        match self.ask(Work::Local { id, parent, body }).await? {
            Done::Local(rev) => Ok(rev),
            _ => Err(StoreError::Closing),
        }
    }

    /// Has a blob dropped some time; with a full queue, at the next opening.
    pub(super) fn discard(&self, blob: u64) {
        let _ = self.requests.try_send((Work::Discard { blob }, None));
    }

    /// Has the writer end, because nothing can be done with the file any more.
    pub(super) fn give_up(&self) {
        self.closing.cancel();
    }

    /// Whether the writer takes no more: it was told to close, or it crashed.
    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// Has the writer finish what waits, sync and end.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.ended.cancelled().await;
    }
}
