//! The list of one replication's failures, wherever its pages stand.
//!
//! Read from the source and from this machine, since either may have been the one that took them. Written to the source,
//! or, once it has refused, to this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::page::{self, PageName};
use super::storage::{PageRead, Storage};
use super::{FailureFiles, FailureLog, RecordedFailure};
use crate::peer::{Peer, PeerError};
use crate::replicate::request::Request;

/// Tries to read a part of a list that somebody rewrites.
const MAX_TRIES: u32 = 5;
/// A part with so many bytes of failures ends there, whatever was asked for: ids may be long.
pub(super) const PART_BYTES: usize = 4 << 20;

/// The list of one replication's failures.
#[derive(Debug)]
pub struct FailureList {
    base_id: String,
    /// The source first, if it can be asked, then this machine, if it has a place.
    pub(super) storages: Vec<Storage>,
    files: FailureFiles,
    /// The source by its name or URL.
    source_name: String,
    owner: Option<String>,
    /// Whether the source takes pages, as far as is known.
    source_takes: AtomicBool,
    /// Whether checkpoints pass failures: then they must be kept.
    must_keep: bool,
    /// Whether there may be pages.
    may_hold: Arc<AtomicBool>,
}

/// Where a list is found, and what it is for.
#[derive(Debug)]
pub struct ListLocation<'a> {
    /// The base id of the replication.
    pub base_id: &'a str,
    /// Its source, and how it is called: a name or a URL, without credentials.
    pub source: Option<(Peer, String)>,
    /// Whose replication puts something into it; `None`: nobody's in particular.
    pub owner: Option<&'a str>,
    /// Where this machine keeps lists.
    pub files: &'a FailureFiles,
    /// Whether the source may be written to.
    pub writes_source: bool,
    /// Whether checkpoints pass failures.
    pub must_keep: bool,
    /// Whether there may be pages, as far as earlier lives know.
    pub may_hold: Arc<AtomicBool>,
}

impl FailureList {
    /// A list; nothing is read yet.
    pub fn new(location: ListLocation<'_>) -> Self {
        let ListLocation { base_id, source, owner, files, writes_source, must_keep, may_hold } = location;
        let (base_id, owner) = (base_id.to_owned(), owner.map(str::to_owned));
        let source_name = source.as_ref().map(|(_, name)| name.clone()).unwrap_or_default();
        let source_takes = AtomicBool::new(writes_source && source.is_some());
        let storages = source.map(|(peer, _)| Storage::Source { peer, base_id: base_id.clone() });
        let storages = storages.into_iter().chain(files.storage(&base_id)).collect();
        Self { base_id, storages, files: files.clone(), source_name, owner, source_takes, must_keep, may_hold }
    }

    /// The list of a job that runs this request under this base id for `owner`, and collects what fails in `log`: what it must keep, it
    /// keeps or doesn't go on.
    pub fn of_job(
        request: &Request,
        (base_id, owner): (&str, Option<&str>),
        source: &Peer,
        (files, log): (&FailureFiles, &FailureLog),
    ) -> Self {
        Self::new(ListLocation {
            base_id,
            source: Some((source.clone(), request.source.without_secrets())),
            owner,
            files,
            writes_source: request.use_checkpoints,
            must_keep: request.use_checkpoints && request.fetched_directly().is_none(),
            may_hold: log.may_hold(),
        })
    }

    /// Keeps all that `log` has collected.
    ///
    /// May be dropped at any time. Then, and after an error, what wasn't kept is still in the log.
    ///
    /// # Errors
    /// The source's, if it can't be reached, or if neither it nor this machine has a place for what must be kept.
    pub async fn keep(&self, log: &FailureLog) -> Result<(), PeerError> {
        let _keeping = log.keeping.lock().await;
        loop {
            let unkept = log.unkept();
            if unkept.is_empty() {
                return Ok(());
            }
            let count = unkept.len();
            match self.add(unkept).await? {
                true => log.kept(count),
                false => log.forget(count),
            }
        }
    }

    /// Adds failures, the newest first; `false` if there is no place for what needn't be kept.
    async fn add(&self, failures: Vec<RecordedFailure>) -> Result<bool, PeerError> {
        let mut refusal = None;
        for storage in &self.storages {
            // Without any other place the source is asked again.
            if !self.takes(storage) && (self.storages.len() > 1 || !self.must_keep) {
                continue;
            }
            match storage.add(page::pages(failures.clone())?).await {
                Ok(()) => {
                    self.may_hold.store(true, Ordering::Relaxed);
                    self.note(matches!(storage, Storage::Source { .. })).await;
                    return Ok(true);
                }
                Err(error) if error.is_refusal() => {
                    tracing::warn!(database = self.source_name, %error, "the source keeps no list of failures");
                    self.source_takes.store(false, Ordering::Relaxed);
                    refusal = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match refusal {
            Some(error) if self.must_keep => Err(error),
            _ => Ok(false),
        }
    }

    /// Notes here whose the list is, and that it stands in the source. A note that is lacking costs a listing, no failure.
    async fn note(&self, in_source: bool) {
        let noted = async {
            if in_source {
                self.files.point(&self.base_id, &self.source_name).await?;
            }
            match &self.owner {
                Some(owner) => self.files.note_owner(&self.base_id, owner).await,
                None => Ok(()),
            }
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "it could not be noted whose the list of failures is, and where it stands");
        }
    }

    /// Whether the source takes pages, as far as is known.
    pub(super) fn takes(&self, storage: &Storage) -> bool {
        matches!(storage, Storage::Directory(_)) || self.source_takes.load(Ordering::Relaxed)
    }

    /// Whether a review may find something.
    pub fn may_hold(&self) -> bool {
        self.may_hold.load(Ordering::Relaxed)
    }

    /// The pages, the newest of each place first.
    pub async fn names(&self) -> Result<Vec<(Storage, PageName)>, PeerError> {
        let mut names = Vec::new();
        for storage in &self.storages {
            names.extend(storage.names().await?.into_iter().map(|name| (storage.clone(), name)));
        }
        self.may_hold.store(!names.is_empty(), Ordering::Relaxed);
        Ok(names)
    }

    /// Reads a page; one that can't be read is empty. `None`: it has gone, put together with others in new ones perhaps.
    pub async fn read(&self, storage: &Storage, name: &PageName) -> Result<Option<Vec<RecordedFailure>>, PeerError> {
        Ok(match storage.read(name).await? {
            PageRead::Page(page) => Some(page.failures),
            PageRead::Damaged => Some(Vec::new()),
            PageRead::Gone => None,
        })
    }

    /// How many entries there are, and some of them, the newest first: fewer than `limit` if they are long. What was met twice since the last review counts twice.
    ///
    /// Read anew, some times, if somebody rewrites the list meanwhile.
    pub async fn part(&self, skip: u64, limit: usize) -> Result<(u64, Vec<RecordedFailure>), PeerError> {
        let mut tries = MAX_TRIES;
        loop {
            tries -= 1;
            if let Some(part) = self.try_part(skip, limit, tries == 0).await? {
                return Ok(part);
            }
        }
    }

    /// The same; `None` if a page has gone, unless that doesn't matter.
    async fn try_part(
        &self,
        skip: u64,
        limit: usize,
        last: bool,
    ) -> Result<Option<(u64, Vec<RecordedFailure>)>, PeerError> {
        let (mut total, mut part, mut bytes) = (0_u64, Vec::new(), 0);
        for (storage, name) in self.names().await? {
            let first = total;
            total = total.saturating_add(name.failures());
            if total > skip && part.len() < limit && bytes < PART_BYTES {
                match self.read(&storage, &name).await? {
                    Some(page) => {
                        let skipped = usize::try_from(skip.saturating_sub(first)).unwrap_or(usize::MAX);
                        for failure in page.into_iter().skip(skipped).take(limit - part.len()) {
                            if bytes >= PART_BYTES {
                                break;
                            }
                            bytes += failure.size();
                            part.push(failure);
                        }
                    }
                    None if last => total -= name.failures(),
                    None => return Ok(None),
                }
            }
        }
        Ok(Some((total, part)))
    }
}
