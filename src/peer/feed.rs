//! Words of a feed: what it is asked for, and what it answers.

use crate::document::{DocId, Rev, Seq};
use crate::selector::Selector;

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
    /// an answer it may be an earlier row's, if the last one told no seq.
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
    /// The number, if it is known.
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
    /// A part of an answer ([`super::Peer::changes_answer`]): more of the same answer follows.
    Part,
    /// The last part of an answer without a limit.
    Last,
}

/// What the feed is asked for.
#[derive(Debug, Clone)]
pub struct ChangesQuery {
    /// After which place.
    pub since: Seq,
    /// Rows of a page at most.
    pub limit: usize,
    /// Bytes of a page at most, about: a longer one is [`super::PeerError::TooLong`], or has fewer rows.
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
