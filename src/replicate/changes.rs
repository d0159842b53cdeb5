//! Stage 1: reads the source's feed, batch by batch, the next one while this one is worked on.
//!
//! A request of the feed is not a batch: one asks for thousands of rows ([`ANSWER_ROWS`]), since that costs the source less
//! and a far one fewer waits, and batches are cut out of its answer as it arrives (a page of it is a batch). The next
//! answer is asked for as soon as the last page of this one has come, while as many batches as may be are under way. A
//! page's `last_seq` counts as progress even where no change passed the filter.
//!
//! A page that has come takes a place ([`crate::effort::budget::JobBudget`]) before the next is read, and holds it until its
//! changes are copied. So each job holds a page, and one that is on its way, whatever the others hold; what else has come of
//! an answer waits where the HTTP client keeps it. If batches are slow, the connection stands still. Whoever cuts it then,
//! or at any other moment, or answers with something else, is asked again from the last page on, after a pause, and
//! carefully: for a batch's rows at once, each with its seq, until one such answer was good. The same is asked after a page
//! that is too long; a single row that is too long for a page is asked for alone, when its turn has come.
//!
//! A continuous replication that has caught up waits for a change ([`Peer::changed`]), and then reads it like any other.
//! Waits break off every day (proxies cut what is idle): they are begun again from where they were. After each that was in vain there is an
//! empty page, so that somebody may look whether the source still is the same database ([`super::session`]).
//!
//! Where somebody else tells of changes, a feed that has caught up ends instead ([`Linger`]).
//!
//! `end.rs` says where a one-shot ends, and why there.

mod end;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::Stream;
use futures::stream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

pub(crate) use self::end::{FeedEnd, Next};
use super::ReplicateError;
use crate::document::Seq;
use crate::effort::budget::{BudgetPermit, JobBudget, PAGE_BYTES, ROW_BYTES};
use crate::effort::pauses::Pauses;
use crate::peer::{ChangesAnswer, ChangesPage, ChangesQuery, Extent, Filter, Peer, PeerError, Pending};
use crate::tasks::Tasks;

/// A longpoll that ended without a change isn't asked again at once: a source may answer without waiting.
const PAUSE_AFTER_EMPTY_WAIT: Duration = Duration::from_millis(250);

/// Before a source is asked again that gave rows, and the same place after them as before them.
const PAUSE_WHERE_IT_STANDS: Duration = Duration::from_secs(5);

/// Answers in a row that broke off, or gave nothing and weren't the end, after which the source counts as failed.
pub(crate) const MAX_FRUITLESS: u32 = 10;
/// A wait that lasted so long before it broke off was a good one.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// After so long it is looked again whether somebody else tells of changes; each time it takes twice as long.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// Rows of one answer, about: with more, CouchDB's cost of a row stays the same.
const ANSWER_ROWS: usize = 4000;

/// What a feed is read from and how.
pub struct FeedOptions {
    /// The source.
    pub source: Peer,
    /// After which place.
    pub since: Seq,
    /// Rows a batch.
    pub limit: usize,
    /// What the source lets through.
    pub filter: Filter,
    /// Winners alone, no other leaves.
    pub winners_only: bool,
    /// Go on when it has caught up.
    pub continuous: bool,
    /// When it ends then; `None`: never.
    pub linger: Option<Linger>,
}

/// When a feed that has caught up ends: if somebody else tells of changes, after so long a wait for one.
#[derive(Debug, Clone)]
pub struct Linger {
    /// How long it waits.
    pub time: Duration,
    /// Whether somebody else tells of changes. If this is so before a page is asked for which then is empty, no change is missed.
    pub told: Arc<AtomicBool>,
}

impl Linger {
    /// Whether somebody else tells of changes, from now on.
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }
}

/// Reads the feed. Ends at its end, when `stop` is cancelled, or after the first error. `caught_up` is called when there is
/// nothing more for now.
pub fn pages<'a>(
    options: FeedOptions,
    caught_up: impl Fn() + Send + 'a,
    tasks: Tasks,
    places: JobBudget,
    stop: CancellationToken,
) -> impl Stream<Item = Result<(ChangesPage, Option<BudgetPermit>), ReplicateError>> + 'a {
    let end = FeedEnd::new(options.continuous, options.filter.is_counted());
    let FeedOptions { source, since, limit, filter, winners_only, linger, .. } = options;
    let query = ChangesQuery { since, limit, max_bytes: PAGE_BYTES, filter, winners_only };
    let feed = Feed {
        source,
        query,
        end,
        linger,
        told: false,
        look: FIRST_LOOK,
        caught_up,
        question: Question::Answer,
        careful: false,
        open: None,
        woken: false,
        tasks,
        places,
        stop,
        asked: None,
        patience: Pauses::between_tries(MAX_FRUITLESS),
    };
    stream::unfold(feed.begun(), |mut feed| async move { feed.next().await.map(|page| (page, feed)) })
}

struct Feed<F> {
    source: Peer,
    query: ChangesQuery,
    end: FeedEnd,
    linger: Option<Linger>,
    /// Somebody else told of changes when the last page was asked for.
    told: bool,
    /// Until it is looked again whether somebody does.
    look: Duration,
    caught_up: F,
    /// What was asked last.
    question: Question,
    /// Answers are short and have all seqs.
    careful: bool,
    /// The answer that the next page is of.
    open: Option<Box<ChangesAnswer>>,
    /// A wait has ended well and nothing came yet.
    woken: bool,
    tasks: Tasks,
    places: JobBudget,
    stop: CancellationToken,
    /// What is being asked or read; its task gives `None` when it was stopped.
    asked: Option<AbortOnDropHandle<Option<Answered>>>,
    /// The pauses that are left before the source is asked again after an answer that was good for nothing.
    patience: Pauses,
}

/// What the source is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Some thousand rows.
    Answer,
    /// All the rest, as it is now.
    Rest,
    /// One row, however long it is.
    Row,
    /// Whether there is a change.
    Change,
}

/// What came of it.
enum Answered {
    /// A page, and the answer that it is of.
    Page(ChangesPage, Option<Box<ChangesAnswer>>),
    /// There is a change.
    Changed,
    /// The question failed, and was tried again as often as it may be.
    Failed(PeerError),
    /// An answer had begun, and failed.
    Spoilt(PeerError),
}

impl<F: Fn()> Feed<F> {
    fn begun(mut self) -> Self {
        self.ask(Question::Answer, Duration::ZERO);
        self
    }

    async fn next(&mut self) -> Option<Result<(ChangesPage, Option<BudgetPermit>), ReplicateError>> {
        let mut place = None;
        let page = loop {
            let begun = Instant::now();
            let waited = self.question == Question::Change;
            let mut asked = self.asked.take()?;
            let limit =
                self.linger.as_ref().filter(|_| waited).map(|linger| if self.told { linger.time } else { self.look });
            let answered = match limit {
                Some(limit) => match tokio::time::timeout(limit, &mut asked).await {
                    Ok(answered) => answered,
                    // Dropped, the wait ends.
                    Err(_) if self.told && self.is_told() => return None,
                    Err(_) if self.is_told() => {
                        self.ask(Question::Answer, Duration::ZERO);
                        continue;
                    }
                    Err(_) => {
                        (self.told, self.look) = (false, (self.look * 2).min(LONGEST_LOOK));
                        self.asked = Some(asked);
                        continue;
                    }
                },
                None => asked.await,
            };
            let answered = match answered {
                Ok(answered) => answered?,
                Err(_) => return Some(Err(ReplicateError::Crashed)),
            };
            if waited && begun.elapsed() >= LONG_WAIT {
                self.patience = Pauses::between_tries(MAX_FRUITLESS);
            }
            let error = match answered {
                Answered::Page(page, open) => {
                    self.open = open;
                    break page;
                }
                Answered::Changed => {
                    self.woken = true;
                    self.ask(Question::Answer, Duration::ZERO);
                    continue;
                }
                Answered::Failed(error @ PeerError::Broken { .. }) if waited => {
                    // Asked for its rows: nobody knows what it was meanwhile.
                    (self.woken, self.question) = (true, Question::Answer);
                    error
                }
                Answered::Spoilt(PeerError::TooLong { .. }) if self.reads_many() => {
                    self.careful = true;
                    self.ask(self.question, Duration::ZERO);
                    continue;
                }
                Answered::Spoilt(PeerError::TooLong { .. }) => {
                    place = Some(self.stop.run_until_cancelled(self.places.row()).await?);
                    self.ask(Question::Row, Duration::ZERO);
                    continue;
                }
                Answered::Spoilt(error) => {
                    self.careful = true;
                    error
                }
                Answered::Failed(error) => return Some(Err(error.into())),
            };
            let Some(pause) = self.patience.next() else { return Some(Err(error.into())) };
            tracing::debug!(%error, ?pause, "asking the feed again");
            self.ask(self.question, pause);
        };
        if place.is_none() && !page.changes.is_empty() {
            place = Some(self.stop.run_until_cancelled(self.places.page()).await?);
        }
        match self.go_on(&page) {
            Ok(()) => Some(Ok((page, place))),
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Asks for what comes after a page.
    fn go_on(&mut self, page: &ChangesPage) -> Result<(), PeerError> {
        // A source that doesn't know of `since` gives the same rows for ever.
        let stands = !page.changes.is_empty() && page.extent != Extent::Part && page.last_seq == self.query.since;
        self.query.since = page.last_seq.clone();
        if !page.changes.is_empty() {
            self.patience = Pauses::between_tries(MAX_FRUITLESS);
        }
        if page.extent != Extent::Part {
            // Where a row was too long, the next one may be, too.
            self.careful = self.question == Question::Row;
        }
        let woken = std::mem::take(&mut self.woken);
        let next = self.end.after(page);
        if next == Next::Wait {
            (self.caught_up)();
            // A cluster in trouble gives empty pages, and says that there is more: the wait is its own then.
            self.told &= FeedEnd::is_at_end(page, self.query.filter.is_counted());
        }
        match next {
            Next::End => {}
            Next::Wait if self.told && self.linger.as_ref().is_some_and(|linger| linger.time.is_zero()) => {}
            Next::ReadOn => self.ask(self.question, Duration::ZERO),
            Next::More if stands => self.ask(Question::Answer, PAUSE_WHERE_IT_STANDS),
            Next::More => self.ask(Question::Answer, Duration::ZERO),
            Next::Wait if stands => self.ask(Question::Change, PAUSE_WHERE_IT_STANDS),
            Next::Rest => self.ask(Question::Rest, Duration::ZERO),
            Next::Wait if woken && page.changes.is_empty() => self.ask(Question::Change, PAUSE_AFTER_EMPTY_WAIT),
            Next::Wait => self.ask(Question::Change, Duration::ZERO),
            Next::Again => {
                let pause = self.patience.next().ok_or_else(|| never_ends(&self.source, page.pending))?;
                tracing::debug!(pending = ?page.pending, ?pause, "an empty page that isn't the feed's end");
                let question = if self.question == Question::Rest { Question::Rest } else { Question::Answer };
                self.ask(question, pause);
            }
        }
        Ok(())
    }

    fn reads_many(&self) -> bool {
        self.question == Question::Answer && !self.careful
    }

    fn is_told(&self) -> bool {
        self.linger.as_ref().is_some_and(Linger::is_told)
    }

    fn ask(&mut self, question: Question, pause: Duration) {
        self.question = question;
        if question != Question::Change && self.open.is_none() {
            self.told = self.is_told();
        }
        let (source, query, stop) = (self.source.clone(), self.query.clone(), self.stop.clone());
        let most = match question {
            Question::Answer if self.careful => Some(query.limit),
            Question::Answer => Some(rows_of_answer(query.limit)),
            Question::Rest | Question::Row | Question::Change => None,
        };
        let open = self.open.take();
        let answered = async move {
            tokio::time::sleep(pause).await;
            match (open, question) {
                (Some(answer), _) => read_on(answer).await,
                (None, Question::Answer | Question::Rest) => match source.changes_answer(&query, most).await {
                    Ok(answer) => read_on(Box::new(answer)).await,
                    Err(error) => Answered::Failed(error),
                },
                (None, Question::Row) => {
                    let query = ChangesQuery { limit: 1, max_bytes: ROW_BYTES, ..query };
                    let page = source.changes(&query).await;
                    page.map_or_else(Answered::Failed, |page| Answered::Page(page, None))
                }
                (None, Question::Change) => {
                    source.changed(&query).await.map_or_else(Answered::Failed, |()| Answered::Changed)
                }
            }
        };
        let answered = async move { stop.run_until_cancelled(answered).await }.in_current_span();
        self.asked = Some(AbortOnDropHandle::new(self.tasks.spawn("feed page", answered)));
    }
}

/// Rows of an answer that is cut into batches of so many: one less than a multiple, so that the source tells a seq where each
/// of them ends.
fn rows_of_answer(batch: usize) -> usize {
    match ANSWER_ROWS / batch.max(1) {
        0 | 1 => batch,
        batches => batches * batch - 1,
    }
}

/// Reads the next page of an answer.
async fn read_on(mut answer: Box<ChangesAnswer>) -> Answered {
    match answer.next().await {
        Ok(page) if page.extent == Extent::Part => Answered::Page(page, Some(answer)),
        Ok(page) => Answered::Page(page, None),
        Err(error) => Answered::Spoilt(error),
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
