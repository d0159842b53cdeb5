//! Stage 1: reads the source's feed, page by page, the next page while this one is worked on.
//!
//! No answer stays half read while batches are busy: a page is asked for (`limit`), read whole, and only then the next
//! is asked for. A page's `last_seq` counts as progress even where no change passed the filter.
//!
//! A page that has come takes a place ([`super::budget::Places`]) before the next is asked for, and holds it until its
//! changes are copied. So each job holds a page, and one that is on its way, whatever the others hold. A single row that
//! is too long for a page is asked for alone, when its turn has come.
//!
//! A one-shot ends where the feed ends, or when it has read as many rows as there were when it began: a busy source
//! doesn't keep it going for ever. A continuous replication that has caught up waits in one longpoll. A wait that breaks
//! off is the network's everyday (proxies cut what is idle): it is asked again from where it was.

use std::time::Duration;

use futures::Stream;
use futures::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::ReplicateError;
use super::budget::{PAGE_BYTES, Place, Places, ROW_BYTES};
use super::pauses::Pauses;
use crate::document::Seq;
use crate::peer::{ChangesPage, ChangesQuery, Filter, Peer, PeerError};
use crate::tasks::Tasks;

/// A longpoll that ended without a change isn't asked again at once: a source may answer without waiting.
const PAUSE_AFTER_EMPTY_WAIT: Duration = Duration::from_millis(250);

/// Waits that broke off, one behind the other, after which the source counts as failed.
const MAX_BROKEN_WAITS: u32 = 10;
/// A wait that lasted so long before it broke off was a good one.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// What a feed is read from and how.
pub struct Reading {
    /// The source.
    pub source: Peer,
    /// Behind which place.
    pub since: Seq,
    /// Rows a page.
    pub limit: usize,
    /// What the source lets through.
    pub filter: Filter,
    /// Winners alone, no other leaves.
    pub winners_only: bool,
    /// Go on for ever.
    pub continuous: bool,
}

/// Reads the feed. Ends at its end, when `stop` is cancelled, or behind the first error.
pub fn pages(
    reading: Reading,
    tasks: Tasks,
    places: Places,
    stop: CancellationToken,
) -> impl Stream<Item = Result<(ChangesPage, Option<Place>), ReplicateError>> {
    let course = Course::new(reading.continuous);
    let Reading { source, since, limit, filter, winners_only, .. } = reading;
    let query = ChangesQuery { since, limit, max_bytes: PAGE_BYTES, wait: false, filter, winners_only };
    let broken_waits = Pauses::between_tries(MAX_BROKEN_WAITS);
    let feed = Feed { source, query, limit, course, tasks, places, stop, asked: None, broken_waits };
    stream::unfold(feed.begun(), |mut feed| async move { feed.next().await.map(|page| (page, feed)) })
}

struct Feed {
    source: Peer,
    query: ChangesQuery,
    /// Rows of a page, unless they are too long.
    limit: usize,
    course: Course,
    tasks: Tasks,
    places: Places,
    stop: CancellationToken,
    /// The page that is being read; its task gives `None` when it was stopped.
    asked: Option<AbortOnDropHandle<Option<Result<ChangesPage, PeerError>>>>,
    /// The pauses that are left before a wait is asked again.
    broken_waits: Pauses,
}

impl Feed {
    fn begun(mut self) -> Self {
        self.ask(Duration::ZERO);
        self
    }

    async fn next(&mut self) -> Option<Result<(ChangesPage, Option<Place>), ReplicateError>> {
        let mut place = None;
        let page = loop {
            let begun = Instant::now();
            let page = match self.asked.take()?.await {
                Ok(page) => page?,
                Err(_) => return Some(Err(ReplicateError::Crashed)),
            };
            if page.is_ok() || begun.elapsed() >= LONG_WAIT {
                self.broken_waits = Pauses::between_tries(MAX_BROKEN_WAITS);
            }
            match &page {
                Err(error @ PeerError::Broken { .. }) if self.query.wait => {
                    let Some(pause) = self.broken_waits.next() else { break page };
                    tracing::debug!(%error, ?pause, "waiting again");
                    self.ask(pause);
                }
                Err(PeerError::TooLong { .. }) if place.is_none() => {
                    place = Some(self.stop.run_until_cancelled(self.places.row()).await?);
                    // Whoever holds the place doesn't wait for changes: the row may be gone by now.
                    (self.query.limit, self.query.max_bytes, self.query.wait) = (1, ROW_BYTES, false);
                    self.ask(Duration::ZERO);
                }
                _ => break page,
            }
        };
        if place.is_none()
            && let Ok(page) = &page
            && !page.changes.is_empty()
        {
            place = Some(self.stop.run_until_cancelled(self.places.page()).await?);
        }
        Some(page.map_err(ReplicateError::from).map(|page| {
            let waited = self.query.wait;
            self.query.since = page.last_seq.clone();
            // Where rows were too long, the next ones may be shorter again; asking for too many costs a page.
            self.query.limit = self.limit.min(page.limit.saturating_add(page.limit.div_ceil(4)));
            self.query.max_bytes = PAGE_BYTES;
            match self.course.after(&page) {
                Next::End => {}
                Next::More => {
                    self.query.wait = false;
                    self.ask(Duration::ZERO);
                }
                Next::Wait => {
                    self.query.wait = true;
                    let empty = waited && page.changes.is_empty();
                    self.ask(if empty { PAUSE_AFTER_EMPTY_WAIT } else { Duration::ZERO });
                }
            }
            (page, place)
        }))
    }

    fn ask(&mut self, pause: Duration) {
        let (source, query, stop) = (self.source.clone(), self.query.clone(), self.stop.clone());
        let page = async move {
            tokio::time::sleep(pause).await;
            source.changes(&query).await
        };
        let page = async move { stop.run_until_cancelled(page).await }.in_current_span();
        self.asked = Some(AbortOnDropHandle::new(self.tasks.spawn("feed page", page)));
    }
}

/// Where a feed goes on behind a page.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// There are, or may be, more changes.
    More,
    /// All changes have been read: the next page waits for one.
    Wait,
    /// The replication has what it came for.
    End,
}

/// How far a feed is to be read.
struct Course {
    continuous: bool,
    rows_read: u64,
    /// Rows that there were at the first page, where the source told.
    rows_at_start: Option<u64>,
    begun: bool,
}

impl Course {
    fn new(continuous: bool) -> Self {
        Self { continuous, rows_read: 0, rows_at_start: None, begun: false }
    }

    fn after(&mut self, page: &ChangesPage) -> Next {
        let rows = page.changes.len() as u64;
        if !self.begun {
            self.begun = true;
            self.rows_at_start = page.pending.map(|pending| rows + pending);
        }
        self.rows_read += rows;
        let at_end = match page.pending {
            Some(pending) => rows == 0 || pending == 0,
            None => page.changes.len() < page.limit,
        };
        let enough = self.rows_at_start.is_some_and(|total| self.rows_read >= total);
        match (self.continuous, at_end) {
            (true, true) => Next::Wait,
            (true, false) => Next::More,
            (false, at_end) if at_end || enough => Next::End,
            (false, _) => Next::More,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Change;

    fn page(rows: usize, pending: Option<u64>) -> ChangesPage {
        let change = Change { seq: Seq::zero(), id: "a".into(), revs: Vec::new() };
        ChangesPage { changes: vec![change; rows], limit: 10, last_seq: Seq::zero(), pending }
    }

    fn course(continuous: bool, pages: &[(usize, Option<u64>)]) -> Vec<Next> {
        let mut course = Course::new(continuous);
        pages.iter().map(|(rows, pending)| course.after(&page(*rows, *pending))).collect()
    }

    #[test]
    fn a_one_shot_ends_where_nothing_is_pending_or_a_page_is_empty() {
        assert_eq!(course(false, &[(10, Some(5)), (5, Some(0))]), [Next::More, Next::End]);
        assert_eq!(course(false, &[(0, Some(7))]), [Next::End]);
        assert_eq!(course(false, &[(10, Some(0))]), [Next::End]);
    }

    #[test]
    fn a_one_shot_ends_at_a_short_page_where_the_source_does_not_tell_what_is_pending() {
        assert_eq!(course(false, &[(10, None), (10, None), (9, None)]), [Next::More, Next::More, Next::End]);
    }

    #[test]
    fn a_short_page_with_changes_pending_is_not_the_end() {
        assert_eq!(course(false, &[(3, Some(20)), (10, Some(10))]), [Next::More, Next::More]);
    }

    #[test]
    fn a_busy_source_does_not_keep_a_one_shot_going() {
        let pages = [(10, Some(10)), (10, Some(10)), (10, Some(10))];
        assert_eq!(course(false, &pages)[..2], [Next::More, Next::End]);
    }

    #[test]
    fn a_continuous_feed_waits_when_it_has_caught_up_and_never_ends() {
        let pages = [(10, Some(3)), (3, Some(0)), (0, Some(0)), (10, Some(9)), (2, None)];
        assert_eq!(course(true, &pages), [Next::More, Next::Wait, Next::Wait, Next::More, Next::Wait]);
    }
}
