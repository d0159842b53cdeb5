//! What a replication needs of a database, and the two kinds that offer it.
//!
//! [`Peer`] is one database, opened: over HTTP ([`remote`]) or in the embedded store ([`local`]). `replicate` sees
//! nothing else. Both pass one contract suite (`tests/peer_contract.rs`).
//!
//! Every operation may be repeated: revisions are immutable, and writing one that is there changes nothing. A remote
//! peer repeats by itself what failed for a reason that may pass. What comes out of here is told in the words of this file:
//! no status crosses it, and no error says more of a document than [`Blame`] allows.

pub mod failure;
pub mod remote;
pub mod local;

use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::value::RawValue;

use crate::document::{DocBatch, DocId, DocumentError, Rev, Seq, Wanted};
use crate::effort::budget::Share;
use crate::selector::Selector;
use crate::store::StoreError;

pub use failure::{Failure, Why};

/// Why a peer didn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The database isn't there.
    #[error("could not open {database}")]
    DatabaseMissing {
        /// The peer's name for logs and answers: a URL ending in `/` without credentials, or a local name.
        database: String,
    },
    /// 401 or 403 when opening or creating the database.
    #[error("unauthorized to access or create database {database}")]
    Unauthorized {
        /// As above.
        database: String,
    },
    /// The host's name stands for no address.
    #[error("could not resolve {database}")]
    Unresolved {
        /// As above.
        database: String,
    },
    /// No connection, or it broke before an answer came, on every try.
    #[error("{request} got no answer in {tries} tries: {reason}")]
    Unreachable {
        /// Method and URL without credentials: `POST http://host/db/_revs_diff`.
        request: String,
        /// How often it was tried.
        tries: u32,
        /// What happened the last time, readable and without credentials.
        reason: String,
    },
    /// An answer broke off while being read.
    #[error("the answer to {request} broke off: {reason}")]
    Broken {
        /// As above.
        request: String,
        /// What happened.
        reason: String,
    },
    /// Another answer than the expected one, after all tries.
    #[error("{request} was answered {answer}")]
    Answered {
        /// As above; or the document that it is about.
        request: String,
        /// What was answered, shortened.
        answer: String,
        /// Whose fault it is.
        blame: Blame,
    },
    /// A document of a batch didn't get to the target, and may not be given up.
    #[error("document {id} could not be copied: {why}")]
    NotCopied {
        /// The document.
        id: DocId,
        /// What it met last.
        why: Why,
        /// Whose fault that may be.
        blame: Blame,
    },
    /// A stub names an attachment that the target doesn't have: fetch it again with no `atts_since`.
    #[error("{database} lacks an attachment that was sent as a stub: {reason}")]
    MissingStub {
        /// The peer's name.
        database: String,
        /// Its words.
        reason: String,
    },
    /// An answer that isn't what the protocol says.
    #[error("{request} was answered with something else than {expected}: {found}")]
    Malformed {
        /// As above.
        request: String,
        /// What was expected, in words.
        expected: &'static str,
        /// What came instead, shortened.
        found: String,
    },
    /// An answer, or a document, that is longer than may be held.
    #[error("the answer to {request} is longer than {limit} bytes")]
    TooLong {
        /// As above.
        request: String,
        /// Bytes of the longest that may be.
        limit: usize,
    },
    /// There is no client to reach the peer with, as where a certificate file can't be used.
    #[error(transparent)]
    Client(#[from] remote::ClientError),
    /// A checkpoint document was changed by somebody else meanwhile.
    #[error("the document was changed meanwhile")]
    Conflict,
    /// A document that this side can't make sense of.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The embedded store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whose fault it is that a request wasn't done.
///
/// A verdict on a document takes the peer's own words, CouchDB's `{"error","reason"}`: a status or a page says nothing
/// of it, since whatever stands between may have made them. What is in doubt is settled by whoever sees more than one
/// request ([`crate::replicate::doubt`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The document's, by the peer's own verdict; one of them, if the request was about several.
    Document,
    /// The peer says that it has no such revision.
    Missing,
    /// Nobody's that one answer could tell: the document's, if it alone meets this again and again.
    Unclear {
        /// Whether the answer was in CouchDB's words, and so is the peer's own.
        worded: bool,
    },
    /// The peer's, which may pass.
    Passing,
    /// The peer's, or the request's as a whole, and it stays so.
    Lasting,
}

impl PeerError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Answered { blame, .. } | Self::NotCopied { blame, .. } => *blame,
            // What a document brings down, the connection or the answer, looks so too.
            Self::Broken { .. }
            | Self::Malformed { .. }
            | Self::TooLong { .. }
            | Self::Document(_)
            | Self::MissingStub { .. } => Blame::Unclear { worded: false },
            Self::DatabaseMissing { .. }
            | Self::Unauthorized { .. }
            | Self::Unresolved { .. }
            | Self::Unreachable { .. }
            | Self::Client(_)
            | Self::Conflict
            | Self::Store(_) => Blame::Lasting,
        }
    }

    /// What happened, and not where: a failure is kept in the source, whose readers needn't learn of the target's host.
    pub fn without_address(&self) -> String {
        match self {
            Self::DatabaseMissing { .. } => "the database could not be opened".into(),
            Self::Unauthorized { .. } => "unauthorized to access the database".into(),
            Self::Unresolved { .. } => "the host could not be resolved".into(),
            Self::Unreachable { reason, .. } => format!("no answer: {reason}"),
            Self::Broken { reason, .. } => format!("the answer broke off: {reason}"),
            Self::Answered { answer, .. } => answer.clone(),
            Self::NotCopied { why, .. } => why.to_string(),
            Self::MissingStub { reason, .. } => format!("an attachment that was sent as a stub is missing: {reason}"),
            Self::Malformed { expected, found, .. } => format!("something else than {expected}: {found}"),
            Self::TooLong { limit, .. } => format!("the answer is longer than {limit} bytes"),
            Self::Client(_) | Self::Conflict | Self::Document(_) | Self::Store(_) => self.to_string(),
        }
    }

    /// Whether there is no use in asking this peer for the same again: another place may do.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Unauthorized { .. } => true,
            Self::Answered { blame, .. } => {
                matches!(blame, Blame::Document | Blame::Lasting)
            }
            _ => false,
        }
    }
}

/// What `GET {db}/` tells.
#[derive(Debug, Clone)]
pub struct DatabaseInfo {
    /// Changes when writes may have been lost; `"0"` equals anything, and stands for a peer that doesn't tell.
    pub instance_start_time: String,
    /// The newest change's place in the feed.
    pub update_seq: Seq,
    /// Documents, deleted ones included; `None` where the peer doesn't tell.
    pub documents: Option<u64>,
}

/// One row of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its place; that of a row before it, if the source tells only some.
    pub seq: Seq,
    /// The document.
    pub id: DocId,
    /// Its leaves with `style=all_docs`, deleted ones included; the winner alone otherwise.
    pub revs: Vec<Rev>,
}

/// A page of the feed: an answer, or a part of one.
#[derive(Debug, Clone)]
pub struct ChangesPage {
    /// In the feed's order.
    pub changes: Vec<Change>,
    /// Rows at most of the answer that it is of.
    pub limit: usize,
    /// Everything up to here is in this page or before it; progress even where no change passed the filter. After a part of
    /// an answer it may be behind the last row, where that one told no seq.
    pub last_seq: Seq,
    /// Changes after this page.
    pub pending: Pending,
    /// Which part of the answer it is.
    pub extent: Extent,
}

/// How many changes come after a page, as the peer counted them when it was asked for the page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pending {
    /// So many, whether they pass the filter or not.
    Rows(u64),
    /// The peer never tells: PouchDB, and CouchDB before 2.
    #[default]
    Untold,
    /// The peer tells, and this time it couldn't (`null`): some of a cluster's shards hadn't answered.
    Unknown,
}

impl Pending {
    /// The number, where it is known.
    pub fn rows(self) -> Option<u64> {
        match self {
            Self::Rows(rows) => Some(rows),
            Self::Untold | Self::Unknown => None,
        }
    }
}

/// Which part of an answer a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of an answer that had a limit, or its last part.
    Limited,
    /// A part of an answer ([`Peer::changes_answer`]): more of the same answer follows.
    Part,
    /// The last part of an answer without a limit.
    Last,
}

/// What the feed is asked for.
#[derive(Debug, Clone)]
pub struct ChangesQuery {
    /// Behind which place.
    pub since: Seq,
    /// Rows of a page at most.
    pub limit: usize,
    /// Bytes of a page at most, about: a longer one is [`PeerError::TooLong`], or has fewer rows.
    pub max_bytes: usize,
    /// What the source lets through.
    pub filter: Filter,
    /// Winners alone, no other leaves (`style=main_only`).
    pub winners_only: bool,
}

/// What a source lets through.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Filter {
    /// Everything.
    #[default]
    None,
    /// A filter by name, with the query parameters in the order in which they came.
    Named {
        /// `ddoc/name`, `_design` or `_view`.
        name: String,
        /// Handed to the source.
        query: Vec<(String, String)>,
    },
    /// These documents (`filter=_doc_ids`).
    DocIds(Vec<DocId>),
    /// Leaves that a selector lets through (`filter=_selector`).
    Selector(Selector),
}

impl Filter {
    /// Whether `pending` reaches 0 at the feed's end. With `_doc_ids` and `_design`, CouchDB 3.5 looks up those documents
    /// alone, and goes on to count all the others as pending.
    pub fn is_counted(&self) -> bool {
        match self {
            Self::None | Self::Selector(_) => true,
            Self::DocIds(_) => false,
            Self::Named { name, .. } => name != "_design" && name != "_doc_ids",
        }
    }
}

/// A `_local` document.
#[derive(Debug, Clone)]
pub struct LocalDoc {
    /// `0-3`.
    pub rev: String,
    /// The whole document, as JSON.
    pub body: Box<RawValue>,
}

/// A part of an answer to [`Peer::bulk_get`].
#[derive(Debug, Default)]
pub struct Fetched {
    /// Documents without attachments.
    pub docs: DocBatch,
    /// Revisions whose documents have attachments: they are fetched one by one.
    pub attached: Vec<(DocId, Rev)>,
    /// Of those, revisions with [`SMALL_BYTES`] of attachments at most, all stored plain: they can be fetched in bulk
    /// ([`Peer::bulk_get_inline`]).
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

/// What became of the documents of a [`Peer::bulk_docs`].
#[derive(Debug, Default, PartialEq)]
pub struct Written {
    /// Those that the target refuses, for good.
    pub refused: Vec<Failure>,
    /// Those that it didn't take this time.
    pub doubtful: Vec<Doubt>,
}

/// What became of a [`Peer::put_doc`].
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

/// What became of a [`Peer::open_rev`].
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
    /// Its JSON text, attachments as `"follows":true`, or as `"stub":true` where the target has them.
    pub json: Bytes,
    /// The attachments that follow, in the order in which they stand in `json`.
    pub parts: BoxStream<'static, Result<AttachmentPiece, PeerError>>,
}

/// A piece of the attachments behind a document.
#[derive(Debug)]
pub enum AttachmentPiece {
    /// An attachment starts.
    Head(AttachmentHead),
    /// Bytes of it.
    Data(Bytes),
}

/// What stands over an attachment's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachmentHead {
    /// Its file name.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// Bytes that follow, as they travel.
    pub length: u64,
    /// Whether they travel gzipped, because the source stores them so.
    pub gzip: bool,
}

/// One database, opened for replication. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Over HTTP.
    Remote(remote::RemotePeer),
    /// In the embedded store.
    Local(local::LocalPeer),
}

/// An answer to [`Peer::bulk_get`] that is being read.
pub enum BulkGet {
    /// Over HTTP.
    Remote(Box<remote::RemoteBulkGet>),
    /// Out of the embedded store.
    Local(local::LocalBulkGet),
}

/// An answer of the feed that is being read, page by page.
pub enum ChangesAnswer {
    /// Over HTTP.
    Remote(Box<remote::RemoteChanges>),
    /// Out of the embedded store.
    Local(local::LocalChanges),
}

macro_rules! either {
    ($self:expr, $peer:ident => $call:expr) => {
        match $self {
            Peer::Remote($peer) => $call,
            Peer::Local($peer) => $call,
        }
    };
}

impl Peer {
    /// What the peer is called in logs and answers: never with credentials.
    pub fn name(&self) -> &str {
        either!(self, peer => peer.name())
    }

    /// Asks how the database is (`GET {db}/`).
    pub async fn info(&self) -> Result<DatabaseInfo, PeerError> {
        either!(self, peer => peer.info().await)
    }

    /// Makes the database; that it is there already is a success.
    pub async fn create(&self) -> Result<(), PeerError> {
        self.create_with(&[]).await
    }

    /// The same, with query parameters for the `PUT` (`q`, `n`, …), which the embedded store has no use for.
    pub async fn create_with(&self, params: &[(String, String)]) -> Result<(), PeerError> {
        match self {
            Self::Remote(peer) => peer.create(params).await,
            Self::Local(peer) => peer.create().await,
        }
    }

    /// Reads the design document `_design/{name}`; `None` where there is none.
    pub async fn design_doc(&self, name: &str) -> Result<Option<Bytes>, PeerError> {
        either!(self, peer => peer.design_doc(name).await)
    }

    /// Reads `_local/{id}`; `None` where there is none.
    pub async fn local_doc(&self, id: &str) -> Result<Option<LocalDoc>, PeerError> {
        either!(self, peer => peer.local_doc(id).await)
    }

    /// Writes `_local/{id}` over the revision `rev` (`None`: there was none) and answers the new revision.
    ///
    /// `body` is a JSON object without `_id` and `_rev`.
    ///
    /// # Errors
    /// [`PeerError::Conflict`] where the document has another revision.
    pub async fn put_local_doc(&self, id: &str, rev: Option<&str>, body: &RawValue) -> Result<String, PeerError> {
        either!(self, peer => peer.put_local_doc(id, rev, body).await)
    }

    /// Removes `_local/{id}` in its revision `rev`; that it has gone already is a success, or a conflict.
    ///
    /// # Errors
    /// [`PeerError::Conflict`] where the document has another revision.
    pub async fn remove_local_doc(&self, id: &str, rev: &str) -> Result<(), PeerError> {
        either!(self, peer => peer.remove_local_doc(id, rev).await)
    }

    /// The ids of the `_local` documents that begin so (without `_local/`), in order. Empty where the peer has no list.
    pub async fn local_ids(&self, prefix: &str) -> Result<Vec<String>, PeerError> {
        either!(self, peer => peer.local_ids(prefix).await)
    }

    /// Reads a page of the feed, as an answer of its own.
    pub async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage, PeerError> {
        either!(self, peer => peer.changes(query).await)
    }

    /// Starts to read the changes after `query.since` in pages of the query's size: so many of them at most, or all that
    /// there are at this moment (`None`), an end that no writer moves away.
    pub async fn changes_answer(&self, query: &ChangesQuery, most: Option<usize>) -> Result<ChangesAnswer, PeerError> {
        Ok(match self {
            Self::Remote(peer) => ChangesAnswer::Remote(Box::new(peer.changes_answer(query, most).await?)),
            Self::Local(peer) => ChangesAnswer::Local(peer.changes_answer(query, most).await?),
        })
    }

    /// Waits until there is something after `query.since` (`feed=longpoll` with a heartbeat). It may be nothing that passes
    /// the filter, or gone by the time it is read.
    ///
    /// # Errors
    /// [`PeerError::Broken`] where the wait broke off: it is to be begun again.
    pub async fn changed(&self, query: &ChangesQuery) -> Result<(), PeerError> {
        match self {
            Self::Remote(peer) => peer.changed(query).await,
            Self::Local(peer) => peer.changed(&query.since).await,
        }
    }

    /// Tells which of these revisions the database lacks (`POST {db}/_revs_diff`). Documents that lack nothing are absent.
    pub async fn revs_diff(&self, changes: &[Change]) -> Result<Vec<Wanted>, PeerError> {
        either!(self, peer => peer.revs_diff(changes).await)
    }

    /// Starts to fetch revisions (`POST {db}/_bulk_get`), the newest descendant where one has gone on (`latest=true`).
    pub async fn bulk_get(&self, wanted: Vec<Wanted>) -> Result<BulkGet, PeerError> {
        Ok(match self {
            Self::Remote(peer) => BulkGet::Remote(Box::new(peer.bulk_get(wanted).await?)),
            Self::Local(peer) => BulkGet::Local(peer.bulk_get(wanted)),
        })
    }

    /// Starts to fetch revisions with their attachments within them (`POST {db}/_bulk_get?attachments=true`), exactly these:
    /// of newer ones nobody knows how large they are. What doesn't come so, for whatever reason, is among [`Fetched::attached`].
    pub async fn bulk_get_inline(&self, small: Vec<(DocId, Rev)>) -> Result<BulkGet, PeerError> {
        let wanted = |(id, rev)| Wanted { id, revs: vec![rev], atts_since: Vec::new() };
        let wanted = small.into_iter().map(wanted).collect();
        Ok(match self {
            Self::Remote(peer) => BulkGet::Remote(Box::new(peer.bulk_get_inline(wanted).await?)),
            Self::Local(peer) => BulkGet::Local(peer.bulk_get_inline(wanted)),
        })
    }

    /// Fetches one revision with its attachments.
    ///
    /// The document's JSON is held within `share`, which goes with it.
    ///
    /// # Errors
    /// [`PeerError::TooLong`] where the JSON is larger than may be held.
    pub async fn open_rev(&self, id: &DocId, rev: &Rev, atts_since: &[Rev], share: Share) -> Result<Opened, PeerError> {
        either!(self, peer => peer.open_rev(id, rev, atts_since, share).await)
    }

    /// Writes documents as they are (`POST {db}/_bulk_docs`, `new_edits:false`), unsynced until [`Peer::ensure_full_commit`].
    ///
    /// # Errors
    /// With [`Blame::Document`] or [`Blame::Unclear`] it may be one document's fault: whoever asks writes fewer at once.
    pub async fn bulk_docs(&self, batch: DocBatch) -> Result<Written, PeerError> {
        either!(self, peer => peer.bulk_docs(batch).await)
    }

    /// Makes sure that documents get through to the database, without leaving one: a `_local` document is sent the same way.
    pub async fn takes_documents(&self) -> Result<(), PeerError> {
        match self {
            Self::Remote(peer) => peer.takes_documents().await,
            Self::Local(peer) => peer.info().await.map(drop),
        }
    }

    /// Writes one document with its attachments.
    ///
    /// # Errors
    /// [`PeerError::MissingStub`]. Errors of the document's own stream come through unchanged.
    pub async fn put_doc(&self, doc: AttachedDoc) -> Result<Put, PeerError> {
        either!(self, peer => peer.put_doc(doc).await)
    }

    /// Makes everything written so far survive a crash, and answers `instance_start_time`.
    pub async fn ensure_full_commit(&self) -> Result<String, PeerError> {
        either!(self, peer => peer.ensure_full_commit().await)
    }

    /// Whether the feed has nothing behind `seq`. A remote peer counts as up to date, as in the seed's `up_to_date/2`.
    pub async fn up_to_date(&self, seq: &Seq) -> Result<bool, PeerError> {
        match self {
            Self::Remote(_) => Ok(true),
            Self::Local(peer) => peer.up_to_date(seq).await,
        }
    }

    /// From now on, documents are fetched one by one instead of in bulk; the embedded store needs no requests for either.
    pub fn avoid_bulk_get(&self) {
        if let Self::Remote(peer) = self {
            peer.avoid_bulk_get();
        }
    }
}

impl ChangesAnswer {
    /// The next page; to be asked for until one isn't [`Extent::Part`].
    ///
    /// # Errors
    /// [`PeerError::Broken`] where the answer broke off, [`PeerError::Malformed`] where it is none, [`PeerError::TooLong`] at
    /// a row that is longer than a page: what wasn't given yet is to be asked for from the last page's `last_seq` on.
    pub async fn next(&mut self) -> Result<ChangesPage, PeerError> {
        match self {
            Self::Remote(answer) => answer.next().await,
            Self::Local(answer) => answer.next().await,
        }
    }
}

impl BulkGet {
    /// The next documents, about `max_bytes` of them (a single document may be larger); `None` at the end.
    ///
    /// They are held within `share` until the next call, for which all of them must have been dropped. Waits for more
    /// than the share has only while it holds no whole document.
    ///
    /// # Errors
    /// [`PeerError::Broken`] where the answer broke off: what hasn't been given yet is to be asked for again.
    pub async fn next(&mut self, max_bytes: usize, share: &mut Share) -> Result<Option<Fetched>, PeerError> {
        match self {
            Self::Remote(answer) => answer.next(max_bytes, share).await,
            Self::Local(answer) => answer.next(max_bytes, share).await,
        }
    }
}
