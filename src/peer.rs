//! What a replication needs of a database, and the two kinds that offer it.
//!
//! [`Peer`] is one database, opened: over HTTP ([`remote`]) or in the embedded store ([`local`]). `replicate` sees
//! nothing else. Both pass one contract suite (`tests/peer_contract.rs`).
//!
//! Every operation may be repeated: revisions are immutable, and writing one that is there changes nothing. A remote
//! peer repeats by itself what failed for a reason that may pass. What comes out of here is told in the words of [`feed`],
//! [`documents`] and [`error`]: no status crosses it, and no error says more of a document than [`Blame`] allows.

pub mod failure;
pub mod error;
pub mod feed;
pub mod documents;
pub mod remote;
pub mod local;

use bytes::Bytes;
use serde_json::value::RawValue;

pub use self::documents::{AttachedDoc, DatabaseInfo, Doubt, Fetched, LocalDoc, Opened, Put, SMALL_BYTES, Written};
pub use self::error::{Blame, PeerError};
pub use self::failure::{Failure, Why};
pub use self::feed::{Change, ChangesPage, ChangesQuery, Extent, Filter, Pending};
use crate::document::{DocBatch, DocId, Rev, Seq, Wanted};
use crate::effort::budget::Share;

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

    /// Reads the design document `_design/{name}`; `None` if there is none.
    pub async fn design_doc(&self, name: &str) -> Result<Option<Bytes>, PeerError> {
        either!(self, peer => peer.design_doc(name).await)
    }

    /// Reads `_local/{id}`; `None` if there is none.
    pub async fn local_doc(&self, id: &str) -> Result<Option<LocalDoc>, PeerError> {
        either!(self, peer => peer.local_doc(id).await)
    }

    /// Writes `_local/{id}` over the revision `rev` (`None`: there was none) and answers the new revision.
    ///
    /// `body` is a JSON object without `_id` and `_rev`.
    ///
    /// # Errors
    /// [`PeerError::Conflict`] if the document has another revision.
    pub async fn put_local_doc(&self, id: &str, rev: Option<&str>, body: &RawValue) -> Result<String, PeerError> {
        either!(self, peer => peer.put_local_doc(id, rev, body).await)
    }

    /// Removes `_local/{id}` in its revision `rev`; that it has gone already is a success, or a conflict.
    ///
    /// # Errors
    /// [`PeerError::Conflict`] if the document has another revision.
    pub async fn remove_local_doc(&self, id: &str, rev: &str) -> Result<(), PeerError> {
        either!(self, peer => peer.remove_local_doc(id, rev).await)
    }

    /// The ids of the `_local` documents that begin so (without `_local/`), in order. Empty if the peer has no list.
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
    /// [`PeerError::Broken`] if the wait broke off: it is to be begun again.
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
    /// [`PeerError::TooLong`] if the JSON is larger than may be held.
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

    /// The same of documents with attachments in them, a short cut for [`Peer::put_doc`]: a peer that is silent to it isn't
    /// asked so again.
    pub async fn bulk_docs_inline(&self, batch: DocBatch) -> Result<Written, PeerError> {
        match self {
            Self::Remote(peer) => peer.bulk_docs_inline(batch).await,
            Self::Local(peer) => peer.bulk_docs(batch).await,
        }
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

    /// Whether the feed has nothing after `seq`, of a local database; any other one counts as up to date, as in the seed's
    /// `up_to_date/2`.
    pub async fn up_to_date(&self, seq: &Seq) -> Result<bool, PeerError> {
        either!(self, peer => peer.up_to_date(seq).await)
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
    /// [`PeerError::Broken`] if the answer broke off, [`PeerError::Malformed`] if it is none, [`PeerError::TooLong`] at
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
    /// [`PeerError::Broken`] if the answer broke off: what hasn't been given yet is to be asked for again.
    pub async fn next(&mut self, max_bytes: usize, share: &mut Share) -> Result<Option<Fetched>, PeerError> {
        match self {
            Self::Remote(answer) => answer.next(max_bytes, share).await,
            Self::Local(answer) => answer.next(max_bytes, share).await,
        }
    }
}
