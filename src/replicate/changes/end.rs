//! Where a feed ends: where a one-shot ends, and when a continuous one waits. Does no I/O.
//!
//! A one-shot promises that whatever the source held when it began, or a successor, was read. A document stands at one place
//! of the feed, and an edit moves it to the feed's end. So at every moment each document that was there at the beginning has
//! either been read, in a version that isn't older, or stands after the last page: an edit can't move it to where we have
//! been. Hence we may stop once nothing stands after the last page, *in an answer asked for after all the
//! pages before it*. How many rows were read says nothing: edits put other documents before those that aren't read yet, and a
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
//! beginning the rest is asked for without `limit` ([`crate::peer::Peer::changes_answer`]): the source takes a snapshot, and
//! its end is the end. The same after a short page of a source that doesn't count: it may have been the end. An answer that
//! breaks off is asked for again from where it was; only a source that cuts each of them short, and is written to faster than
//! one of them is long, keeps a one-shot going.

use crate::peer::{ChangesPage, Extent, Pending};

/// Empty pages in a row that are the end of a feed whose filter isn't counted: over some two seconds.
const EMPTY_IN_A_ROW: u32 = 4;

/// Rows after which a source that doesn't count its changes is taken for one whose writer is faster than we are.
const MANY_ROWS: u64 = 1_000_000;

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

/// Finds the end of a feed, page by page.
#[derive(Debug)]
pub(crate) struct FeedEnd {
    continuous: bool,
    /// Whether the filter lets `pending` come down to 0.
    counted: bool,
    rows_read: u64,
    /// Rows of the answer in hand.
    rows_of_answer: u64,
    /// Rows after which the rest is asked for: those that were there at the first page.
    enough: Option<u64>,
    /// The rest was asked for.
    resting: bool,
    /// Empty pages in a row.
    empty: u32,
}

impl FeedEnd {
    /// At the beginning of a feed. `counted`: what is pending comes down to 0 ([`crate::peer::Filter::is_counted`]).
    pub(crate) fn new(continuous: bool, counted: bool) -> Self {
        Self { continuous, counted, rows_read: 0, rows_of_answer: 0, enough: None, resting: false, empty: 0 }
    }

    /// Whether the source says, or may mean, that nothing stands after a page that is the last of its answer.
    pub(crate) fn is_at_end(page: &ChangesPage, counted: bool) -> bool {
        match page.pending {
            Pending::Rows(pending) => pending == 0 || (!counted && page.changes.is_empty()),
            Pending::Untold => page.changes.len() < page.limit,
            Pending::Unknown => false,
        }
    }

    /// How it goes on after this page.
    pub(crate) fn after(&mut self, page: &ChangesPage) -> Next {
        self.rows_of_answer += page.changes.len() as u64;
        if page.extent == Extent::Part {
            return Next::ReadOn;
        }
        let rows = std::mem::take(&mut self.rows_of_answer);
        let enough = *self.enough.get_or_insert(page.pending.rows().map_or(MANY_ROWS, |pending| rows + pending));
        self.rows_read += rows;
        self.empty = if rows == 0 { self.empty + 1 } else { 0 };
        let short = rows < page.limit as u64;
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
    use crate::document::Seq;
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

    fn end(continuous: bool, pages: &[(usize, Pending)]) -> Vec<Next> {
        let mut end = FeedEnd::new(continuous, true);
        pages.iter().map(|(rows, pending)| end.after(&page(*rows, *pending))).collect()
    }

    use Pending::{Rows, Unknown, Untold};

    #[test]
    fn a_one_shot_ends_where_the_source_says_that_nothing_is_pending() {
        assert_eq!(end(false, &[(10, Rows(5)), (5, Rows(0))]), [Next::More, Next::End]);
        assert_eq!(end(false, &[(10, Rows(0))]), [Next::End]);
        assert_eq!(end(false, &[(0, Rows(0))]), [Next::End]);
    }

    /// A count of rows was an end: edits moved documents to after it, and a cluster whose node died reached it with rows that
    /// it gave twice.
    #[test]
    fn neither_a_count_of_rows_nor_a_short_or_empty_page_is_the_end() {
        let pages = [(10, Rows(10)), (10, Rows(7)), (3, Rows(7)), (0, Rows(7)), (0, Unknown), (2, Unknown)];
        let next = [Next::More, Next::Rest, Next::Rest, Next::Again, Next::Again, Next::Rest];
        assert_eq!(end(false, &pages), next);
        assert_eq!(end(false, &[(3, Rows(20)), (10, Rows(10))]), [Next::More, Next::More]);
    }

    #[test]
    fn a_source_that_does_not_count_ends_at_an_empty_page_or_with_all_the_rest() {
        assert_eq!(end(false, &[(10, Untold), (9, Untold), (0, Untold)]), [Next::More, Next::Rest, Next::End]);
        let mut end = FeedEnd::new(false, true);
        assert_eq!(end.after(&page(9, Untold)), Next::Rest);
        assert_eq!(end.after(&rest(Extent::Part, 10, Unknown)), Next::ReadOn);
        assert_eq!(end.after(&rest(Extent::Last, 3, Untold)), Next::End);
    }

    #[test]
    fn all_the_rest_is_no_end_while_a_cluster_says_that_more_is_pending() {
        let mut end = FeedEnd::new(false, true);
        assert_eq!(end.after(&page(10, Rows(3))), Next::More);
        assert_eq!(end.after(&page(10, Rows(3))), Next::Rest);
        assert_eq!(end.after(&rest(Extent::Last, 3, Rows(3))), Next::Rest);
        assert_eq!(end.after(&rest(Extent::Last, 0, Unknown)), Next::Again);
        assert_eq!(end.after(&rest(Extent::Last, 3, Rows(0))), Next::End);
    }

    /// The first empty page was the end, as a cluster gives one whose node dies.
    #[test]
    fn with_a_filter_by_ids_the_end_is_that_nothing_is_pending_or_empty_pages_again_and_again() {
        let mut end = FeedEnd::new(false, false);
        assert_eq!(end.after(&page(2, Rows(9))), Next::More);
        assert_eq!(end.after(&page(0, Rows(0))), Next::End);
        let mut busy = FeedEnd::new(false, false);
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
        assert_eq!(end(true, &pages), next);
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
            let (mut end, mut since, mut read) = (FeedEnd::new(false, true), 0, BTreeSet::new());
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
                match end.after(&ChangesPage { changes, extent, ..page(0, pending) }) {
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
