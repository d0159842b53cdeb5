//! Looks through a list of failures, page by page, and rewrites what has changed.
//!
//! The caller asks for a page ([`Review::next`]), finds out which of its failures still stand ([`Review::stand`]), and
//! settles when it is time to ([`Review::is_due`]), after it has made sure that the target won't lose what
//! arrived. Settling writes what stands into new pages, commits them, and only then removes the old ones. Broken off
//! anywhere, it leaves failures twice, never none.
//!
//! A failure that is there twice stands once: the newest of them. That is known by a hash of 128 bits, for so many
//! failures as [`MAX_SEEN`]; of more, those that are twice may stay twice. Small pages are put together.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::page::{self, PAGE_BYTES, Page, PageName};
use super::storage::{PageRead, Storage};
use super::{FailureList, RecordedFailure};
use crate::peer::PeerError;

/// Failures of which a hash is held, 16 bytes each.
const MAX_SEEN: usize = 1 << 19;
/// Pages that are replaced at once at most: what arrived is struck out that often.
const MAX_REPLACED: usize = 16;

/// A look through a list.
#[derive(Debug)]
pub struct Review<'a> {
    list: &'a FailureList,
    pages: VecDeque<(Storage, PageName)>,
    seen: HashSet<u128>,
    hashers: [RandomState; 2],
    /// The page that the caller has.
    page: Option<(Storage, PageName, Page)>,
    standing: u64,
    /// Of the pages to be replaced, what stands.
    rest: Vec<RecordedFailure>,
    rest_bytes: usize,
    replaced: Vec<(PageName, Option<String>)>,
    /// Where they are.
    storage: Option<Storage>,
    /// Whether replacing them makes a difference.
    changed: bool,
}

impl FailureList {
    /// Starts to look through the list.
    pub async fn review(&self) -> Result<Review<'_>, PeerError> {
        Ok(Review::new(self, self.names().await?))
    }
}

impl<'a> Review<'a> {
    fn new(list: &'a FailureList, names: Vec<(Storage, PageName)>) -> Self {
        Self {
            list,
            pages: names.into(),
            seen: HashSet::new(),
            hashers: Default::default(),
            page: None,
            standing: 0,
            rest: Vec::new(),
            rest_bytes: 0,
            replaced: Vec::new(),
            storage: None,
            changed: false,
        }
    }

    /// The next page's failures, those that weren't seen yet; `None` at the end. Before the end it is due once more.
    pub async fn next(&mut self) -> Result<Option<Vec<RecordedFailure>>, PeerError> {
        loop {
            if self.is_due() {
                return Ok(Some(Vec::new()));
            }
            let Some((storage, name)) = self.pages.pop_front() else { return Ok(None) };
            match storage.read(&name).await? {
                PageRead::Page(page) => {
                    let failures = page.failures.iter().filter(|failure| self.is_new(failure)).cloned().collect();
                    self.page = Some((storage, name, page));
                    return Ok(Some(failures));
                }
                PageRead::Gone => {
                    self.changed = true;
                    self.replace(storage, name, None);
                }
                PageRead::Damaged => self.standing = self.standing.saturating_add(name.failures()),
            }
        }
    }

    /// These failures, of the page that was given last, still stand, perhaps for other reasons or under other revisions.
    pub fn stand(&mut self, standing: Vec<RecordedFailure>) {
        let Some((storage, name, page)) = self.page.take() else { return };
        self.standing += standing.len() as u64;
        let changed = standing != page.failures;
        if !changed && page.bytes >= PAGE_BYTES / 2 {
            return;
        }
        self.changed |= changed;
        self.rest_bytes += standing.iter().map(RecordedFailure::size).sum::<usize>();
        self.rest.extend(standing);
        self.replace(storage, name, page.rev);
    }

    /// Whether it is time to settle: much is to be replaced, or the next page is in another place, or there is none.
    pub fn is_due(&self) -> bool {
        let is_source = |storage: &Storage| matches!(storage, Storage::Source { .. });
        let next = self.pages.front().map(|(storage, _)| is_source(storage));
        let Some(storage) = self.storage.as_ref().map(is_source) else { return false };
        next != Some(storage) || self.rest_bytes >= PAGE_BYTES || self.replaced.len() >= MAX_REPLACED
    }

    /// Strikes out what arrived. The target has made it durable.
    pub async fn settle(&mut self) -> Result<(), PeerError> {
        let (rest, replaced) = (std::mem::take(&mut self.rest), std::mem::take(&mut self.replaced));
        let worthwhile = std::mem::take(&mut self.changed) || replaced.len() > 1;
        self.rest_bytes = 0;
        let Some(storage) = self.storage.take().filter(|_| worthwhile) else { return Ok(()) };
        if !self.list.takes(&storage) {
            return Ok(());
        }
        match rewrite(&storage, rest, replaced).await {
            Err(error) if error.is_refusal() => {
                tracing::warn!(%error, "what arrived can't be struck out of the list of failures");
                Ok(())
            }
            rewritten => rewritten,
        }
    }

    /// How many still stand, of those that were looked at.
    pub fn standing(&self) -> u64 {
        self.standing
    }

    fn replace(&mut self, storage: Storage, name: PageName, rev: Option<String>) {
        self.storage = Some(storage);
        self.replaced.push((name, rev));
    }

    fn is_new(&mut self, RecordedFailure { failure, .. }: &RecordedFailure) -> bool {
        let half = |hasher: &RandomState| u128::from(hasher.hash_one((failure.id.as_str(), &failure.rev)));
        let hash = half(&self.hashers[0]) << 64 | half(&self.hashers[1]);
        match self.seen.len() < MAX_SEEN {
            true => self.seen.insert(hash),
            false => !self.seen.contains(&hash),
        }
    }
}

async fn rewrite(
    storage: &Storage,
    rest: Vec<RecordedFailure>,
    replaced: Vec<(PageName, Option<String>)>,
) -> Result<(), PeerError> {
    if !rest.is_empty() {
        let pages = page::pages(rest)?;
        let names: Vec<PageName> = pages.iter().map(|page| page.name.clone()).collect();
        storage.add(pages).await?;
        storage.commit().await?;
        // A source that fell before it synced them commits without them.
        for name in &names {
            if !matches!(storage.read(name).await?, PageRead::Page(_)) {
                tracing::warn!(page = name.as_str(), "a page of the list of failures was lost as it was written");
                return Ok(());
            }
        }
    }
    storage.remove(replaced).await
}
