//! All the rest of a feed, out of one snapshot.
//!
//! The snapshot is held until the last page was given, however long its reader takes: meanwhile the file keeps the pages
//! that writers replace, and grows. That is the price of an end that they can't move away; it is paid only by a one-shot
//! whose source is written to faster than it is read.

use std::sync::Arc;

use super::{LocalPeer, parse_seq};
use crate::peer::{ChangesPage, ChangesQuery, Extent, PeerError, Pending};
use crate::store::{Database, Ready, Snapshot};

/// The rest of a feed that is read as it is asked for.
pub struct LocalRest {
    peer: LocalPeer,
    database: Arc<Database>,
    snapshot: Arc<Snapshot>,
    filter: Ready,
    since: u64,
    limit: usize,
    max_bytes: usize,
}

impl LocalPeer {
    /// See [`crate::peer::Peer::changes_rest`].
    pub async fn changes_rest(&self, query: &ChangesQuery) -> Result<LocalRest, PeerError> {
        let database = self.database().await?;
        let filter = self.ready(&database, query).await?;
        let snapshot = database.snapshot().await.map_err(|error| self.explain(error))?;
        let (since, limit, max_bytes) = (parse_seq(&query.since), query.limit, query.max_bytes);
        Ok(LocalRest { peer: self.clone(), database, snapshot, filter, since, limit, max_bytes })
    }
}

impl LocalRest {
    /// See [`crate::peer::ChangesRest::next`].
    pub async fn next(&mut self) -> Result<ChangesPage, PeerError> {
        let (snapshot, size) = (Some(&self.snapshot), (self.limit, self.max_bytes));
        let page = self.peer.read_page(&self.database, snapshot, self.since, size, &self.filter).await;
        let mut page = page.map_err(|error| self.peer.explain(error))?;
        self.since = parse_seq(&page.last_seq);
        page.extent = if page.pending == Pending::Rows(0) { Extent::Last } else { Extent::Part };
        Ok(page)
    }
}
