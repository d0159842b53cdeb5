//! The note in CouchDB: who has taken over, that he is living, and what is to be put back.
//!
//! A `_local` document of `_replicator`: it isn't replicated, no scheduler reads it, and its revisions aren't kept. CouchDB 3.5 never
//! answers 409 to the write of a `_local` document, whatever `_rev` says: the last writer wins (`claim.rs` lives with that). The `_rev`
//! is sent all the same, for a server that looks at it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::nodes::NONE;
use crate::beside::{AdminError, CouchDbAsAdmin, Unanswered};
use crate::uuids;

const DATABASE: &str = "/_replicator";
const PATH: &str = "/_replicator/_local/couchrep-takeover";

/// What stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    #[serde(rename = "_rev", default, skip_serializing_if = "Option::is_none")]
    rev: Option<String>,
    /// Who has taken over.
    #[serde(flatten)]
    pub owner: NoteOwner,
    /// His signs of life.
    pub beat: u64,
    /// What each node's `max_jobs` was; `None` where it wasn't set.
    pub max_jobs: BTreeMap<String, Option<String>>,
}

/// A process that has taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteOwner {
    /// Drawn when it started.
    pub id: String,
    host: String,
    pid: u32,
    version: String,
}

impl NoteOwner {
    /// This process.
    pub fn this_process() -> Self {
        Self {
            id: uuids::random(),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl fmt::Display for NoteOwner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id: _, host, pid, version } = self;
        write!(out, "couchrep {version}, process {pid} on {host}")
    }
}

impl Note {
    /// The first one of its owner. `before` is what it replaces, whose values go on.
    pub fn first(owner: NoteOwner, before: Option<Self>) -> Self {
        let (rev, max_jobs) = before.map(|before| (before.rev, before.max_jobs)).unwrap_or_default();
        Self { rev, owner, beat: 0, max_jobs }
    }

    /// Takes the revision of what it is to replace.
    pub fn stands_in_place_of(&mut self, found: Option<&Self>) {
        self.rev = found.and_then(|found| found.rev.clone());
    }

    /// Remembers a node's own `max_jobs`, as it was found. A 0 is ours, if the note knows the node already. Whether it changes the note.
    pub fn remember(&mut self, node: &str, found: Option<String>) -> bool {
        if found.as_deref() == Some(NONE) && self.max_jobs.contains_key(node) {
            return false;
        }
        self.max_jobs.insert(node.to_owned(), found);
        true
    }

    /// Whether both are the same sign of life.
    pub fn is_same_sign_as(&self, other: &Self) -> bool {
        (&self.owner.id, self.beat) == (&other.owner.id, other.beat)
    }
}

/// Where it stands.
#[derive(Clone)]
pub struct Notes {
    couchdb: CouchDbAsAdmin,
    /// For an answer: shorter than that of others, so that a heartbeat isn't late for one that doesn't come.
    limit: Duration,
}

impl Notes {
    /// In this CouchDB.
    pub fn new(couchdb: CouchDbAsAdmin, limit: Duration) -> Self {
        Self { couchdb, limit }
    }

    /// Reads it; `None` if there is none.
    pub async fn find(&self) -> Result<Option<Note>, AdminError> {
        match self.ask(Method::GET, PATH, Bytes::new()).await {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it, whatever stands there. If this fails, it may have been written all the same.
    pub async fn write(&self, note: &Note) -> Result<(), AdminError> {
        let body = Bytes::from(serde_json::to_vec(note).expect("texts and numbers"));
        match self.ask::<Value>(Method::PUT, PATH, body.clone()).await {
            Err(error) if error.is_not_found() => {
                // CouchDB doesn't make that database by itself. If somebody else has just made it, the note can be written too.
                _ = self.ask::<Value>(Method::PUT, DATABASE, Bytes::new()).await;
                self.ask::<Value>(Method::PUT, PATH, body).await.map(drop)
            }
            written => written.map(drop),
        }
    }

    /// Deletes it.
    pub async fn delete(&self, note: &Note) -> Result<(), AdminError> {
        let path = note.rev.as_ref().map_or_else(|| PATH.to_owned(), |rev| format!("{PATH}?rev={rev}"));
        match self.ask::<Value>(Method::DELETE, &path, Bytes::new()).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, AdminError> {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|_| Unanswered::Malformed(path.to_owned()))?;
        self.couchdb.answer(request, self.limit).await
    }
}
