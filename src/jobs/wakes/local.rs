//! The store's own feed: what happened to databases is in its log, which nobody can miss.

use super::watched::{Wake, Watched, WatchedDatabase};
use crate::store::{DbEvent, DbUpdates};

/// Rows that are read at once.
const ROWS: usize = 1000;

/// Wakes jobs of what happens after `since`, until the store closes.
pub(super) async fn listen(watched: Watched, (updates, mut since): (DbUpdates, u64)) {
    let mut watch = updates.watch();
    loop {
        loop {
            let rows = updates.since(since, ROWS);
            let Some(last) = rows.last() else { break };
            since = last.seq;
            watched.wake(rows.into_iter().map(|row| {
                let wake = if row.event == DbEvent::Updated { Wake::Changed } else { Wake::MadeAnew };
                (WatchedDatabase::Local(row.name), wake)
            }));
        }
        if watch.changed().await.is_err() {
            return;
        }
    }
}
