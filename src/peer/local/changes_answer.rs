//! An answer of the feed out of the embedded store.
//!
//! One with a limit is a page of the newest snapshot: asking again costs nothing here. One without is all the rest, out of
//! one snapshot, which is held until the last page was given, however long its reader takes: meanwhile the file keeps the
//! pages that writers replace, and grows. In return it has an end that they can't move away. Only a one-shot whose source
//! is written to faster than it is read needs that.

use std::sync::Arc;

use super::LocalPeer;
use super::feed::parse_seq;
use crate::peer::{ChangesPage, ChangesQuery, Extent, PeerError, Pending};
use crate::store::{Database, ReadyFilter, Snapshot};

/// A feed that is read as it is asked for.
pub struct LocalChanges {
    peer: LocalPeer,
    database: Arc<Database>,
    /// That of all the rest.
    snapshot: Option<Arc<Snapshot>>,
    filter: ReadyFilter,
    since: u64,
    limit: usize,
    max_bytes: usize,
}

impl LocalPeer {
    /// See [`crate::peer::Peer::changes_answer`].
    pub async fn changes_answer(&self, query: &ChangesQuery, most: Option<usize>) -> Result<LocalChanges, PeerError> {
        let database = self.readable().await?;
        let filter = self.ready(&database, query).await?;
        let snapshot = match most {
            Some(_) => None,
            None => Some(database.snapshot().await.map_err(|error| self.explain(error))?),
        };
        let (since, limit, max_bytes) = (parse_seq(&query.since), query.limit, query.max_bytes);
        Ok(LocalChanges { peer: self.clone(), database, snapshot, filter, since, limit, max_bytes })
    }
}

impl LocalChanges {
    /// See [`crate::peer::ChangesAnswer::next`].
    pub async fn next(&mut self) -> Result<ChangesPage, PeerError> {
        let (snapshot, size) = (self.snapshot.as_ref(), (self.limit, self.max_bytes));
        let page = self.peer.read_page(&self.database, snapshot, self.since, size, &self.filter).await;
        let mut page = page.map_err(|error| self.peer.explain(error))?;
        self.since = parse_seq(&page.last_seq);
        if snapshot.is_some() {
            page.extent = if page.pending == Pending::Rows(0) { Extent::Last } else { Extent::Part };
        }
        Ok(page)
    }
}
