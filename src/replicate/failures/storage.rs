//! A place that holds pages of one list: the source, or a directory.
//!
//! Every operation may be repeated, and may be broken off: pages that were written and aren't in the index yet are
//! not counted on by anybody, names in the index whose page is gone are passed over.

use std::collections::BTreeSet;
use std::path::PathBuf;

use futures::future::try_join;
use serde::{Deserialize, Serialize};

use super::files::{self, FailureFiles};
use super::page::{NewPage, Page, PageName};
use crate::document::DocumentError;
use crate::peer::{Peer, PeerError};
use crate::store::StoreError;
use crate::tasks;

/// Times that the index is written anew because somebody else wrote it.
const MAX_CONFLICTS: usize = 20;
/// Pages that an index may name. Reviews put small ones together, so that it takes many millions of failures.
pub(super) const MAX_PAGES: usize = 100_000;

/// A place for the pages of one list.
#[derive(Debug, Clone)]
pub enum Storage {
    /// `_local` documents of the source.
    Source {
        /// The source.
        peer: Peer,
        /// The base id of the replication.
        base_id: String,
    },
    /// A directory of this machine.
    Directory(PathBuf),
}

/// What came of reading a page.
#[derive(Debug)]
pub enum PageRead {
    /// The page.
    Page(Page),
    /// It has gone.
    Gone,
    /// It can't be read, nor will it ever be. It stays where it is.
    Damaged,
}

/// Which pages a source has.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    pages: BTreeSet<PageName>,
}

impl FailureFiles {
    /// The place for the list of this replication.
    pub fn storage(&self, base_id: &str) -> Option<Storage> {
        Some(Storage::Directory(self.list(base_id)?))
    }
}

impl Storage {
    /// The pages that are there, the newest first: those that either the index or the list of `_local` documents names. A copy
    /// of a cluster that is late knows no index, or no page.
    pub async fn names(&self) -> Result<Vec<PageName>, PeerError> {
        match self {
            Self::Source { peer, base_id } => {
                let prefix = page_id(base_id, "");
                // At once, since most lists are empty and each round trip keeps a one-shot's caller waiting.
                let (index, ids) = try_join(index(peer, base_id), peer.local_ids(&prefix)).await?;
                let mut pages = index.map(|(_, index)| index.pages).unwrap_or_default();
                pages.extend(ids.iter().filter_map(|id| PageName::parse(id.strip_prefix(&prefix)?)));
                Ok(pages.into_iter().rev().collect())
            }
            Self::Directory(path) => {
                let path = path.clone();
                Ok(tasks::blocking("list failures", move || files::names(&path)).await.map_err(StoreError::from)??)
            }
        }
    }

    /// Reads a page.
    pub async fn read(&self, name: &PageName) -> Result<PageRead, PeerError> {
        let page = match self {
            Self::Source { peer, base_id } => {
                let doc = peer.local_doc(&page_id(base_id, name.as_str())).await?;
                doc.map(|doc| Page::parse(doc.body.get(), Some(doc.rev)))
            }
            Self::Directory(path) => {
                let path = files::page(path, name);
                let text = tasks::blocking("read failures", move || files::read(&path)).await;
                text.map_err(StoreError::from)??.map(|text| Page::parse(&text, None))
            }
        };
        Ok(match page {
            Some(Ok(page)) => PageRead::Page(page),
            Some(Err(error)) => {
                tracing::error!(page = name.as_str(), %error, "a page of the list of failures is damaged");
                PageRead::Damaged
            }
            None => PageRead::Gone,
        })
    }

    /// Writes pages. They are in the index afterwards.
    pub async fn add(&self, pages: Vec<NewPage>) -> Result<(), PeerError> {
        match self {
            Self::Source { peer, base_id } => {
                for NewPage { name, body } in &pages {
                    match peer.put_local_doc(&page_id(base_id, name.as_str()), None, body).await {
                        // Nobody else makes this name: the write before was done, and its answer got lost.
                        Ok(_) | Err(PeerError::Conflict) => {}
                        Err(error) => return Err(error),
                    }
                }
                change_index(peer, base_id, |index| index.extend(pages.iter().map(|page| page.name.clone()))).await
            }
            Self::Directory(path) => {
                let path = path.clone();
                Ok(tasks::blocking("keep failures", move || files::add(&path, &pages))
                    .await
                    .map_err(StoreError::from)??)
            }
        }
    }

    /// Makes what was added survive a crash.
    pub async fn commit(&self) -> Result<(), PeerError> {
        match self {
            Self::Source { peer, .. } => peer.ensure_full_commit().await.map(drop),
            // A file that was added is durable.
            Self::Directory(_) => Ok(()),
        }
    }

    /// Removes pages, each with the revision with which it was read; without one, it is gone from the source already.
    pub async fn remove(&self, pages: Vec<(PageName, Option<String>)>) -> Result<(), PeerError> {
        match self {
            Self::Source { peer, base_id } => {
                for (name, rev) in &pages {
                    let Some(rev) = rev else { continue };
                    match peer.remove_local_doc(&page_id(base_id, name.as_str()), rev).await {
                        // Somebody else removed it.
                        Ok(()) | Err(PeerError::Conflict) => {}
                        Err(error) => return Err(error),
                    }
                }
                change_index(peer, base_id, |index| {
                    for (name, _) in &pages {
                        index.remove(name);
                    }
                })
                .await
            }
            Self::Directory(path) => {
                let path = path.clone();
                let removed = tasks::blocking("strike out failures", move || {
                    pages.iter().try_for_each(|(name, _)| files::remove(&files::page(&path, name)))
                });
                Ok(removed.await.map_err(StoreError::from)??)
            }
        }
    }
}

fn index_id(base_id: &str) -> String {
    format!("{base_id}-failures")
}

fn page_id(base_id: &str, name: &str) -> String {
    format!("{base_id}-failures-{name}")
}

/// The index and its revision. One that can't be read counts as empty: `_local_docs` still names the pages.
///
/// # Errors
/// [`PeerError::Malformed`], if it names more than [`MAX_PAGES`].
async fn index(peer: &Peer, base_id: &str) -> Result<Option<(String, Index)>, PeerError> {
    let Some(doc) = peer.local_doc(&index_id(base_id)).await? else { return Ok(None) };
    let index: Index = serde_json::from_str(doc.body.get()).unwrap_or_else(|error| {
        tracing::warn!(database = peer.name(), %error, "the index of failures is damaged");
        Index::default()
    });
    let named = index.pages.len();
    match named <= MAX_PAGES {
        true => Ok(Some((doc.rev, index))),
        false => Err(PeerError::Malformed {
            request: format!("GET {}_local/{}", peer.name(), index_id(base_id)),
            expected: "an index of 100,000 pages of failures at most",
            found: format!("{named} pages"),
        }),
    }
}

async fn change_index(peer: &Peer, base_id: &str, change: impl Fn(&mut BTreeSet<PageName>)) -> Result<(), PeerError> {
    for _ in 0..MAX_CONFLICTS {
        let (rev, mut changed) = match index(peer, base_id).await? {
            Some((rev, index)) => (Some(rev), index),
            None => (None, Index::default()),
        };
        let before = changed.pages.clone();
        change(&mut changed.pages);
        if changed.pages == before {
            return Ok(());
        }
        let body = serde_json::value::to_raw_value(&changed).map_err(|_| DocumentError::InvalidJson)?;
        match peer.put_local_doc(&index_id(base_id), rev.as_deref(), &body).await {
            Ok(_) => return Ok(()),
            // Somebody else wrote it, or the write before was done and its answer got lost.
            Err(PeerError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Err(PeerError::Conflict)
}
