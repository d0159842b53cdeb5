//! Words of a database and its documents: what is read, and what became of what was written.

use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::value::RawValue;

use super::error::{Blame, PeerError};
use super::failure::{Failure, Why};
use crate::document::{AttachmentPiece, DocBatch, DocId, Rev, Seq};

/// What `GET {db}/` tells.
#[derive(Debug, Clone)]
pub struct DatabaseInfo {
    /// Changes when writes may have been lost; `"0"` equals anything, and stands for a peer that doesn't tell.
    pub instance_start_time: String,
    /// The newest change's place in the feed.
    pub update_seq: Seq,
    /// Documents, deleted ones included; `None` if the peer doesn't tell.
    pub documents: Option<u64>,
}

/// A `_local` document.
#[derive(Debug, Clone)]
pub struct LocalDoc {
    /// `0-3`.
    pub rev: String,
    /// The whole document, as JSON.
    pub body: Box<RawValue>,
}

/// A part of an answer to [`super::Peer::bulk_get`].
#[derive(Debug, Default)]
pub struct Fetched {
    /// Documents without attachments.
    pub docs: DocBatch,
    /// Revisions whose documents have attachments: they are fetched one by one.
    pub attached: Vec<(DocId, Rev)>,
    /// Of those, revisions with [`SMALL_BYTES`] of attachments at most, all stored plain, and all of documents that no URL
    /// can name ([`DocId::has_url`]): they can be fetched in bulk
    /// ([`super::Peer::bulk_get_inline`]).
    pub small: Vec<(DocId, Rev)>,
    /// Documents that can't be copied, for good: too large to be held, or not for us to read.
    pub refused: Vec<Failure>,
    /// Revisions that didn't come this time.
    pub doubtful: Vec<Doubt>,
}

impl Fetched {
    /// Whether nothing was fetched, nor told.
    pub fn is_empty(&self) -> bool {
        self.docs.is_empty()
            && self.attached.is_empty()
            && self.small.is_empty()
            && self.refused.is_empty()
            && self.doubtful.is_empty()
    }
}

/// Bytes of attachments that travel within their document's JSON, all of a document together. Measured between two CouchDBs,
/// a document with 20 KB costs a sixth of the processor time that a request of its own costs each of them, one with 128 KiB
/// two thirds, one with 256 KiB as much.
pub const SMALL_BYTES: u64 = 128 << 10;

/// What the peer says of one document of a request without settling it.
#[derive(Debug, Clone, PartialEq)]
pub struct Doubt {
    /// What it says.
    pub failure: Failure,
    /// Whose fault that may be.
    pub blame: Blame,
}

impl Doubt {
    /// The peer has no such revision.
    pub fn missing(id: DocId, rev: Rev) -> Self {
        Self { failure: Failure { id, rev: Some(rev), why: Why::missing() }, blame: Blame::Missing }
    }
}

/// What became of the documents of a [`super::Peer::bulk_docs`].
#[derive(Debug, Default, PartialEq)]
pub struct Written {
    /// Those that the target refuses, for good.
    pub refused: Vec<Failure>,
    /// Those that it didn't take this time.
    pub doubtful: Vec<Doubt>,
}

/// What became of a [`super::Peer::put_doc`].
#[derive(Debug, PartialEq)]
pub enum Put {
    /// The target has the document.
    Written,
    /// It refuses the document, for good.
    Refused(Why),
    /// It says that we may not write the document, though we may read and write others: a verdict if it says so again,
    /// since our rights may have been back when it was asked for the others.
    Forbidden(Why),
}

/// What became of a [`super::Peer::open_rev`].
pub enum Opened {
    /// The revision, or a newer one.
    Doc(AttachedDoc),
    /// The source says that it has no such revision.
    Missing,
    /// We may not read it, though we may read the database.
    Forbidden(Why),
}

/// A document whose attachments follow it.
pub struct AttachedDoc {
    /// Its id.
    pub id: DocId,
    /// Its revision.
    pub rev: Rev,
    /// Its JSON text, attachments as `"follows":true`, or as `"stub":true` if the target has them.
    pub json: Bytes,
    /// The attachments that follow, in the order in which they stand in `json`.
    pub parts: BoxStream<'static, Result<AttachmentPiece, PeerError>>,
}
