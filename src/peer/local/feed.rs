//! The feed of a database of the embedded store: pages, filtered, and waiting for a change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LocalPeer;
use crate::document::Seq;
use crate::peer::error::PeerError;
use crate::peer::feed::{Change, ChangesPage, ChangesQuery, Extent, Filter, Pending};
use crate::store::{self, Database, FilterRequest, FilterRun, ReadyFilter, Snapshot, StoreError};

/// After so long a page that a filter's function has begun is given.
const PAGE_TIME: Duration = Duration::from_secs(2);

/// Bytes of a row of the feed over HTTP, and of each revision in it.
const ROW_BYTES: usize = 40;
const REV_BYTES: usize = 45;

impl LocalPeer {
    /// See [`crate::peer::Peer::changes`].
    pub async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage, PeerError> {
        let database = self.readable().await?;
        let filter = self.ready(&database, query).await?;
        let (since, size) = (parse_seq(&query.since), (query.limit, query.max_bytes));
        self.read_page(&database, None, since, size, &filter).await.map_err(|error| self.explain(error))
    }

    /// See [`crate::peer::Peer::changed`].
    pub async fn changed(&self, since: &Seq) -> Result<(), PeerError> {
        let mut database = self.database().await?;
        let mut updates = database.updates();
        loop {
            updates.mark_unchanged();
            // One that has come less far was made anew.
            if database.update_seq() != parse_seq(since) {
                return Ok(());
            }
            // It needn't stay open while nothing happens.
            drop(database);
            let idle = self.pulse.idle();
            if updates.changed().await.is_err() {
                return Err(PeerError::DatabaseMissing { database: self.name.to_string() });
            }
            drop(idle);
            database = self.store.reopen(&self.name, &updates).await.map_err(|error| self.explain(error))?;
        }
    }

    /// Reads a page of a snapshot, else of the newest ones.
    pub(super) async fn read_page(
        &self,
        database: &Database,
        snapshot: Option<&Arc<Snapshot>>,
        since: u64,
        (limit, max_bytes): (usize, usize),
        filter: &ReadyFilter,
    ) -> Result<ChangesPage, StoreError> {
        let (last_seq, pending, extent) = (since.into(), Pending::Unknown, Extent::Limited);
        let mut page = ChangesPage { changes: Vec::new(), limit, last_seq, pending, extent };
        let mut bytes = 0;
        let mut since = since;
        let started = Instant::now();
        // A filter's function looks at some of the feed at a time; what it found in a long time is a page, but an empty page
        // would say that there is no more.
        loop {
            let room = (limit.saturating_sub(page.changes.len()), max_bytes.saturating_sub(bytes));
            let filtering =
                move |snapshot: &Snapshot, filter_run: &mut FilterRun| filtered(snapshot, filter_run, since, room);
            let filtered = database.run_filter(filter, snapshot.cloned(), filtering).await?;
            self.pulse.beat();
            bytes += filtered.bytes;
            page.changes.extend(filtered.changes);
            (since, page.last_seq) = (filtered.last_seq, filtered.last_seq.into());
            page.pending = Pending::Rows(filtered.pending);
            let long = !page.changes.is_empty() && started.elapsed() >= PAGE_TIME;
            if filtered.pending == 0 || page.changes.len() >= limit || bytes >= max_bytes || long {
                return Ok(page);
            }
        }
    }

    /// Finds the filter's function as it is now: each page is asked for with it, as over HTTP.
    pub(super) async fn ready(&self, database: &Database, query: &ChangesQuery) -> Result<ReadyFilter, PeerError> {
        let all_leaves = !query.winners_only;
        let (filter, query) = match &query.filter {
            Filter::None => (store::Filter::All, &[][..]),
            Filter::DocIds(ids) => {
                (store::Filter::DocIds(ids.iter().map(|id| id.as_str().to_owned()).collect()), &[][..])
            }
            Filter::Selector(selector) => (store::Filter::Selector(selector.clone()), &[][..]),
            Filter::Named { name, query } => {
                let view = query.iter().find(|(key, _)| key == "view").map(|(_, value)| value.as_str());
                (store::Filter::named(name, view).map_err(StoreError::from)?, &query[..])
            }
        };
        let filter_request = FilterRequest::replication(self.name.as_str(), query, &self.caller);
        database.ready(Arc::new(filter), all_leaves, &filter_request).await.map_err(|error| self.explain(error))
    }

    /// See [`crate::peer::Peer::up_to_date`].
    pub async fn up_to_date(&self, seq: &Seq) -> Result<bool, PeerError> {
        Ok(self.database().await?.update_seq() == parse_seq(seq))
    }
}

/// Seqs of this store are numbers; a seq that isn't one can't be from here, and stands for the beginning.
pub(super) fn parse_seq(seq: &Seq) -> u64 {
    seq.as_query().parse().unwrap_or(0)
}

struct Filtered {
    changes: Vec<Change>,
    /// About as many as they would be over HTTP.
    bytes: usize,
    last_seq: u64,
    pending: u64,
}

fn filtered(
    snapshot: &Snapshot,
    filter_run: &mut FilterRun,
    since: u64,
    (limit, max_bytes): (usize, usize),
) -> Result<Filtered, StoreError> {
    let (mut changes, mut bytes) = (Vec::new(), 0);
    let since = snapshot.going_on_after(since);
    let mut last_seq = since.max(snapshot.update_seq());
    snapshot.changes(since, |row| {
        let revs = filter_run.passing(snapshot, &row)?;
        if !revs.is_empty() {
            bytes += ROW_BYTES + row.id.len() + revs.len() * REV_BYTES;
            changes.push(Change { seq: row.seq.into(), id: row.id.into(), revs });
        }
        let ended = changes.len() >= limit || bytes >= max_bytes || filter_run.is_tired();
        if ended {
            last_seq = row.seq;
        }
        Ok(!ended)
    })?;
    Ok(Filtered { changes, bytes, last_seq, pending: snapshot.pending(last_seq)? })
}
