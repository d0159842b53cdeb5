//! Stage 1: reads the source's feed, page by page, the next page while this one is worked on.
//!
//! No answer stays half read while batches are busy: a page is asked for (`limit`), read whole, and only then the next
//! is asked for. A page's `last_seq` counts as progress even where no change passed the filter.
//!
//! A page that has come takes a place ([`crate::effort::budget::Places`]) before the next is asked for, and holds it until its
//! changes are copied. So each job holds a page, and one that is on its way, whatever the others hold. A single row that
//! is too long for a page is asked for alone, when its turn has come.
//!
//! A continuous replication that has caught up waits in one longpoll. A wait that breaks off is the network's everyday
//! (proxies cut what is idle): it is asked again from where it was.
//!
//! # Where a one-shot ends
//! It promises that whatever the source held when it began, or a successor, was read. A document stands at one place of
//! the feed, and an edit moves it to the feed's end. So at every moment each document that was there at the beginning has
//! either been read, in a version that isn't older, or stands after the last page: an edit can't move it to where we have
//! been. Hence what the feed must have when we stop is nothing after the last page, *in an answer asked for after all the
//! pages before it*. How many rows were read says nothing: edits put other documents before those that still lack, and a
//! cluster whose node died gives rows twice. Seqs say nothing either: a peer's are opaque, and even where they are numbers,
//! an edit in the middle moves a document beyond the seq that was the newest at the beginning. That leaves two ends:
//! - An answer which says that nothing is pending. While the source counts ([`Pending::Rows`]), nothing else will do: not
//!   a short page, nor an empty one, nor an answer that ended well; a cluster in trouble gives all of these. A page that is
//!   empty and not the end is asked for again after a pause, some times, then the replication fails.
//! - Where the source doesn't count (PouchDB, CouchDB 1.x): an empty page, or the end of an answer without `limit`.
//!
//! CouchDB with `_doc_ids` and `_design` looks up those documents alone and counts all the others as pending. Its `last_seq`
//! is the feed's end all the same when it has given all of them, so that the answer after that is empty and says that nothing
//! is pending. What a writer adds meanwhile is pending again, though it doesn't pass the filter. So [`EMPTY_IN_A_ROW`] empty
//! pages, with growing pauses between them, are the end too: a cluster in trouble gives errors by then.
//!
//! A writer that is faster than we are would keep us from either end. So after as many rows as were pending at the
//! beginning the rest is asked for without `limit` ([`Peer::changes_rest`]): the source takes a snapshot, and its end
//! is the end. The same after a short page of a source that doesn't count: it may have been the end. An answer that breaks
//! off is asked for again from where it was; only a source that cuts each of them short, and is written to faster than
//! one of them is long, keeps a one-shot going.

use std::time::Duration;

use futures::Stream;
use futures::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::ReplicateError;
use crate::document::Seq;
use crate::effort::budget::{PAGE_BYTES, Place, Places, ROW_BYTES};
use crate::effort::pauses::Pauses;
use crate::peer::{ChangesPage, ChangesQuery, ChangesRest, Extent, Filter, Peer, PeerError, Pending};
use crate::tasks::Tasks;

/// A longpoll that ended without a change isn't asked again at once: a source may answer without waiting.
const PAUSE_AFTER_EMPTY_WAIT: Duration = Duration::from_millis(250);

/// Answers in a row that broke off, or gave nothing and weren't the end, after which the source counts as failed.
pub(crate) const MAX_FRUITLESS: u32 = 10;
/// A wait that lasted so long before it broke off was a good one.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// Empty pages in a row that are the end of a feed whose filter isn't counted: over some two seconds.
const EMPTY_IN_A_ROW: u32 = 4;

/// Rows after which a source that doesn't count its changes is taken for one whose writer is faster than we are.
const MANY_ROWS: u64 = 1_000_000;

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
    let course = Course::new(reading.continuous, reading.filter.is_counted());
    let Reading { source, since, limit, filter, winners_only, .. } = reading;
    let query = ChangesQuery { since, limit, max_bytes: PAGE_BYTES, wait: false, filter, winners_only };
    let (rest, asked, patience) = (Rest::Not, None, Pauses::between_tries(MAX_FRUITLESS));
    let feed = Feed { source, query, limit, course, rest, tasks, places, stop, asked, patience };
    stream::unfold(feed.begun(), |mut feed| async move { feed.next().await.map(|page| (page, feed)) })
}

struct Feed {
    source: Peer,
    query: ChangesQuery,
    /// Rows of a page, unless they are too long.
    limit: usize,
    course: Course,
    rest: Rest,
    tasks: Tasks,
    places: Places,
    stop: CancellationToken,
    /// The page that is being read; its task gives `None` when it was stopped.
    asked: Option<AbortOnDropHandle<Option<Answered>>>,
    /// The pauses that are left before the source is asked again after an answer that was good for nothing.
    patience: Pauses,
}

/// Whether the next page comes out of an answer without a limit.
enum Rest {
    Not,
    /// It is still to be asked for.
    Wanted,
    /// It is being read.
    Open(Box<ChangesRest>),
}

/// A page, or why there is none, and the answer that more of it can be read from.
type Answered = (Result<ChangesPage, PeerError>, Rest);

impl Feed {
    fn begun(mut self) -> Self {
        self.ask(Duration::ZERO);
        self
    }

    async fn next(&mut self) -> Option<Result<(ChangesPage, Option<Place>), ReplicateError>> {
        let mut place = None;
        let page = loop {
            let begun = Instant::now();
            let page;
            (page, self.rest) = match self.asked.take()?.await {
                Ok(answered) => answered?,
                Err(_) => return Some(Err(ReplicateError::Crashed)),
            };
            let good = |page: &ChangesPage| self.query.wait || !page.changes.is_empty();
            if page.as_ref().is_ok_and(good) || (self.query.wait && begun.elapsed() >= LONG_WAIT) {
                self.patience = Pauses::between_tries(MAX_FRUITLESS);
            }
            match &page {
                // A page with a limit was asked for again by the peer itself.
                Err(error @ PeerError::Broken { .. }) if self.query.wait || matches!(self.rest, Rest::Wanted) => {
                    let Some(pause) = self.patience.next() else { break page };
                    tracing::debug!(%error, ?pause, "asking the feed again");
                    self.ask(pause);
                }
                Err(PeerError::TooLong { .. }) if place.is_none() => {
                    place = Some(self.stop.run_until_cancelled(self.places.row()).await?);
                    // Whoever holds the place doesn't wait for changes: the row may be gone by now.
                    (self.query.limit, self.query.max_bytes, self.query.wait) = (1, ROW_BYTES, false);
                    self.rest = Rest::Not;
                    self.ask(Duration::ZERO);
                }
                _ => break page,
            }
        };
        let page = match page {
            Ok(page) => page,
            Err(error) => return Some(Err(error.into())),
        };
        if place.is_none() && !page.changes.is_empty() {
            place = Some(self.stop.run_until_cancelled(self.places.page()).await?);
        }
        let waited = self.query.wait;
        self.query.since = page.last_seq.clone();
        // Where rows were too long, the next ones may be shorter again; asking for too many costs a page.
        self.query.limit = self.limit.min(page.limit.saturating_add(page.limit.div_ceil(4)));
        self.query.max_bytes = PAGE_BYTES;
        let next = self.course.after(&page);
        self.query.wait = next == Next::Wait;
        match next {
            Next::End => {}
            Next::ReadOn | Next::More => self.ask(Duration::ZERO),
            Next::Rest => {
                self.rest = Rest::Wanted;
                self.ask(Duration::ZERO);
            }
            Next::Wait if waited && page.changes.is_empty() => self.ask(PAUSE_AFTER_EMPTY_WAIT),
            Next::Wait => self.ask(Duration::ZERO),
            Next::Again => match self.patience.next() {
                Some(pause) => {
                    tracing::debug!(pending = ?page.pending, ?pause, "an empty page that isn't the feed's end");
                    self.ask(pause);
                }
                None => return Some(Err(never_ends(&self.source, page.pending).into())),
            },
        }
        Some(Ok((page, place)))
    }

    fn ask(&mut self, pause: Duration) {
        let (source, query, stop) = (self.source.clone(), self.query.clone(), self.stop.clone());
        let rest = std::mem::replace(&mut self.rest, Rest::Not);
        let page = async move {
            tokio::time::sleep(pause).await;
            match rest {
                Rest::Not => (source.changes(&query).await, Rest::Not),
                Rest::Open(rest) => read_on(rest).await,
                Rest::Wanted => match source.changes_rest(&query).await {
                    Ok(rest) => read_on(Box::new(rest)).await,
                    Err(error) => (Err(error), Rest::Wanted),
                },
            }
        };
        let page = async move { stop.run_until_cancelled(page).await }.in_current_span();
        self.asked = Some(AbortOnDropHandle::new(self.tasks.spawn("feed page", page)));
    }
}

/// What so many empty pages mean.
pub(crate) fn never_ends(source: &Peer, pending: Pending) -> PeerError {
    PeerError::Malformed {
        request: format!("GET {}_changes", source.name()),
        expected: "changes, or the feed's end",
        found: match pending.rows() {
            Some(rows) => format!("neither, {MAX_FRUITLESS} times in a row, with {rows} changes pending"),
            None => format!("neither, {MAX_FRUITLESS} times in a row"),
        },
    }
}

/// Reads the next page of the rest. Whatever fails, the rest is asked for anew.
async fn read_on(mut rest: Box<ChangesRest>) -> Answered {
    let page = rest.next().await;
    let more = page.as_ref().is_ok_and(|page| page.extent == Extent::Part);
    (page, if more { Rest::Open(rest) } else { Rest::Wanted })
}

/// How a feed goes on after a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There are, or may be, more changes: the next page.
    More,
    /// There are more in the same answer.
    ReadOn,
    /// There may be more, and no writer is to move their end away: all the rest, as it is now.
    Rest,
    /// The page was empty and isn't the end: the same question after a pause.
    Again,
    /// All changes have been read: the next page waits for one.
    Wait,
    /// The replication has what it came for.
    End,
}

/// How far a feed is to be read.
#[derive(Debug)]
pub(crate) struct Course {
    continuous: bool,
    /// Whether the filter lets `pending` come down to 0.
    counted: bool,
    rows_read: u64,
    /// Rows after which the rest is asked for: those that were there at the first page.
    enough: Option<u64>,
    /// The rest was asked for.
    resting: bool,
    /// Empty pages in a row.
    empty: u32,
}

impl Course {
    /// At the beginning of a feed. `counted`: what is pending comes down to 0 ([`Filter::is_counted`]).
    pub(crate) fn new(continuous: bool, counted: bool) -> Self {
        Self { continuous, counted, rows_read: 0, enough: None, resting: false, empty: 0 }
    }

    /// How it goes on after this page.
    pub(crate) fn after(&mut self, page: &ChangesPage) -> Next {
        let rows = page.changes.len() as u64;
        let enough = *self.enough.get_or_insert(page.pending.rows().map_or(MANY_ROWS, |pending| rows + pending));
        self.rows_read += rows;
        self.empty = if rows == 0 { self.empty + 1 } else { 0 };
        if page.extent == Extent::Part {
            return Next::ReadOn;
        }
        let short = page.changes.len() < page.limit;
        if self.continuous {
            let caught_up = match page.pending {
                Pending::Rows(pending) => rows == 0 || pending == 0,
                Pending::Untold | Pending::Unknown => short,
            };
            return if caught_up { Next::Wait } else { Next::More };
        }
        let at_end = match page.pending {
            Pending::Rows(0) => true,
            Pending::Rows(_) => !self.counted && self.empty >= EMPTY_IN_A_ROW,
            Pending::Untold => rows == 0 || page.extent == Extent::Last,
            Pending::Unknown => false,
        };
        let enough = self.rows_read >= enough || (page.pending == Pending::Untold && short);
        self.resting |= enough && rows > 0;
        match rows {
            _ if at_end => Next::End,
            0 => Next::Again,
            _ if self.resting => Next::Rest,
            _ => Next::More,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::peer::Change;

    fn change(id: &str, seq: u64) -> Change {
        Change { seq: seq.into(), id: id.into(), revs: Vec::new() }
    }

    fn page(rows: usize, pending: Pending) -> ChangesPage {
        let (changes, last_seq, extent) = (vec![change("a", 0); rows], Seq::zero(), Extent::Limited);
        ChangesPage { changes, limit: 10, last_seq, pending, extent }
    }

    fn rest(extent: Extent, rows: usize, pending: Pending) -> ChangesPage {
        ChangesPage { extent, ..page(rows, pending) }
    }

    fn course(continuous: bool, pages: &[(usize, Pending)]) -> Vec<Next> {
        let mut course = Course::new(continuous, true);
        pages.iter().map(|(rows, pending)| course.after(&page(*rows, *pending))).collect()
    }

    use Pending::{Rows, Unknown, Untold};

    #[test]
    fn a_one_shot_ends_where_the_source_says_that_nothing_is_pending() {
        assert_eq!(course(false, &[(10, Rows(5)), (5, Rows(0))]), [Next::More, Next::End]);
        assert_eq!(course(false, &[(10, Rows(0))]), [Next::End]);
        assert_eq!(course(false, &[(0, Rows(0))]), [Next::End]);
    }

    /// A count of rows was an end: edits moved documents behind it, and a cluster whose node died reached it with rows that
    /// it gave twice.
    #[test]
    fn neither_a_count_of_rows_nor_a_short_or_empty_page_is_the_end() {
        let pages = [(10, Rows(10)), (10, Rows(7)), (3, Rows(7)), (0, Rows(7)), (0, Unknown), (2, Unknown)];
        let next = [Next::More, Next::Rest, Next::Rest, Next::Again, Next::Again, Next::Rest];
        assert_eq!(course(false, &pages), next);
        assert_eq!(course(false, &[(3, Rows(20)), (10, Rows(10))]), [Next::More, Next::More]);
    }

    #[test]
    fn a_source_that_does_not_count_ends_at_an_empty_page_or_with_all_the_rest() {
        assert_eq!(course(false, &[(10, Untold), (9, Untold), (0, Untold)]), [Next::More, Next::Rest, Next::End]);
        let mut course = Course::new(false, true);
        assert_eq!(course.after(&page(9, Untold)), Next::Rest);
        assert_eq!(course.after(&rest(Extent::Part, 10, Unknown)), Next::ReadOn);
        assert_eq!(course.after(&rest(Extent::Last, 3, Untold)), Next::End);
    }

    #[test]
    fn all_the_rest_is_no_end_while_a_cluster_says_that_more_is_pending() {
        let mut course = Course::new(false, true);
        assert_eq!(course.after(&page(10, Rows(3))), Next::More);
        assert_eq!(course.after(&page(10, Rows(3))), Next::Rest);
        assert_eq!(course.after(&rest(Extent::Last, 3, Rows(3))), Next::Rest);
        assert_eq!(course.after(&rest(Extent::Last, 0, Unknown)), Next::Again);
        assert_eq!(course.after(&rest(Extent::Last, 3, Rows(0))), Next::End);
    }

    /// The first empty page was the end, as a cluster gives one whose node dies.
    #[test]
    fn with_a_filter_by_ids_the_end_is_that_nothing_is_pending_or_empty_pages_again_and_again() {
        let mut course = Course::new(false, false);
        assert_eq!(course.after(&page(2, Rows(9))), Next::More);
        assert_eq!(course.after(&page(0, Rows(0))), Next::End);
        let mut busy = Course::new(false, false);
        let pages = [page(2, Rows(9)), page(0, Rows(9)), page(0, Unknown), page(1, Rows(8))];
        let next = pages.map(|page| busy.after(&page));
        assert_eq!(next, [Next::More, Next::Again, Next::Again, Next::More]);
        let next = [0; EMPTY_IN_A_ROW as usize].map(|rows| busy.after(&page(rows, Rows(3))));
        assert_eq!(next, [Next::Again, Next::Again, Next::Again, Next::End]);
    }

    #[test]
    fn a_continuous_feed_waits_when_it_has_caught_up_and_never_ends() {
        let pages = [(10, Rows(3)), (3, Rows(0)), (0, Rows(0)), (10, Rows(9)), (2, Untold), (0, Unknown)];
        let next = [Next::More, Next::Wait, Next::Wait, Next::More, Next::Wait, Next::Wait];
        assert_eq!(course(true, &pages), next);
    }

    /// A source of numbered places, as one shard of a CouchDB keeps them.
    struct Model {
        places: BTreeMap<u64, u32>,
        newest: u64,
    }

    /// What happens at one answer.
    #[derive(Debug, Clone)]
    struct Trouble {
        edits: Vec<u32>,
        /// Rows given again, as of a shard whose place was lost.
        repeated: u64,
        /// The answer closes well after so many rows.
        closes_after: Option<usize>,
    }

    impl Model {
        fn edit(&mut self, doc: u32) {
            self.places.retain(|_, other| *other != doc);
            self.newest += 1;
            self.places.insert(self.newest, doc);
        }

        fn answer(&self, since: u64, limit: usize, tells: bool, trouble: &Trouble) -> (Vec<u32>, u64, Pending) {
            let since = since.saturating_sub(trouble.repeated);
            let rows = limit.min(trouble.closes_after.filter(|_| tells).unwrap_or(usize::MAX));
            let given: Vec<_> = self.places.range(since + 1..).take(rows).map(|(seq, doc)| (*seq, *doc)).collect();
            let last_seq = given.last().map_or(since, |(seq, _)| *seq);
            let pending = self.places.range(last_seq + 1..).count() as u64;
            let pending = if tells { Rows(pending) } else { Untold };
            (given.into_iter().map(|(_, doc)| doc).collect(), last_seq, pending)
        }
    }

    fn trouble() -> impl Strategy<Value = Trouble> {
        let closes_after = prop_oneof![3 => Just(None), 1 => (0..6usize).prop_map(Some)];
        (prop::collection::vec(0..60u32, 0..12), prop_oneof![3 => Just(0), 1 => 0..9u64], closes_after)
            .prop_map(|(edits, repeated, closes_after)| Trouble { edits, repeated, closes_after })
    }

    proptest! {
        /// Edits beside it, rows given twice, answers closed early, a source that counts or doesn't: when the feed ends, all
        /// that was there at the beginning was read; and it ends although 12 edits come between any two pages of 10.
        #[test]
        fn at_the_end_everything_that_was_there_at_the_beginning_was_read(
            docs in 0..60u32,
            tells in any::<bool>(),
            troubles in prop::collection::vec(trouble(), 1..40),
        ) {
            let mut model = Model { places: BTreeMap::new(), newest: 0 };
            (0..docs).for_each(|doc| model.edit(doc));
            let at_start: BTreeSet<_> = model.places.values().copied().collect();
            let (mut course, mut since, mut read) = (Course::new(false, true), 0, BTreeSet::new());
            // One that doesn't count is known by its short pages; else it would take a million rows.
            let edits = if tells { 0..12 } else { 0..6 };
            let writer = Trouble { edits: edits.collect(), repeated: 0, closes_after: None };
            let mut troubles = troubles.into_iter().chain(std::iter::repeat(writer)).take(400);
            let mut resting = false;
            loop {
                let trouble = troubles.next().expect("a busy writer keeps it going for ever");
                let limit = if resting { usize::MAX } else { 10 };
                let (docs, last_seq, pending) = model.answer(since, limit, tells, &trouble);
                trouble.edits.iter().for_each(|doc| model.edit(*doc));
                since = last_seq;
                let changes: Vec<_> = docs.iter().map(|doc| change(&doc.to_string(), 0)).collect();
                read.extend(docs);
                let extent = if resting { Extent::Last } else { Extent::Limited };
                match course.after(&ChangesPage { changes, extent, ..page(0, pending) }) {
                    Next::End => break,
                    Next::Rest => resting = true,
                    Next::More | Next::Again => {}
                    other => panic!("{other:?}"),
                }
            }
            prop_assert!(at_start.is_subset(&read), "{:?} are lacking", at_start.difference(&read));
        }
    }
}
