//! Proves that one database has all that another has: every leaf revision, and, where asked for, every attachment.
//!
//! Reads the feed of the one, page by page, and asks the other which of a page's leaves it lacks, some pages at once;
//! nothing else of either is looked at, and memory is bounded by the pages. A revision names its content and its history,
//! so having the same revisions is having the same documents (`_changes?style=all_docs`, `_revs_diff`). Equal both ways
//! are two databases of which each has all leaves of the other. Nothing is written.
//!
//! Attachments ([`attachments`]) are a matter of their own: a revision doesn't prove that their bytes came along.
//!
//! While somebody writes, the result is that of no one moment: what is reported missing may only be late.

mod attachments;

use futures::stream::{self, Stream, TryStreamExt as _};
use serde::Serialize;

use crate::document::{DocId, Rev, Seq};
use crate::effort::budget::Budget;
use crate::effort::pauses::Pauses;
use crate::peer::{Blame, Change, ChangesQuery, Filter, Peer, PeerError};
use crate::replicate::changes::{Course, MAX_FRUITLESS, Next, never_ends};

/// Rows of a page.
const PAGE: usize = 1000;
/// Bytes of a page, which has fewer rows where they are long.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// Bytes of documents that are looked at, for their attachments.
const BUDGET_BYTES: usize = 256 << 20;
/// Pages asked about at once.
const PAGES_AT_ONCE: usize = 4;
/// Differences that are named; all are counted.
const MAX_NAMED: usize = 1000;
/// Tries of an answer that broke off.
const TRIES: u32 = 5;

/// What one database has that another lacks.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Documents read.
    pub docs: u64,
    /// Their leaves.
    pub leaves: u64,
    /// Attachments compared; 0 where that wasn't asked for.
    pub attachments: u64,
    /// How many differences there are.
    pub differences: u64,
    /// The first of them.
    pub named: Vec<Difference>,
}

/// Something that one database has and the other lacks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The document.
    pub id: DocId,
    /// The leaf.
    pub rev: Rev,
    /// The attachment that is absent or different; `None` where the whole leaf is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachment: Option<String>,
    /// What is the matter with it.
    pub problem: Problem,
}

/// What is the matter with a leaf or an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Problem {
    /// It isn't there.
    Missing,
    /// Its bytes are others.
    Different,
}

impl Report {
    /// Whether nothing is lacking.
    pub fn is_complete(&self) -> bool {
        self.differences == 0
    }

    fn add(&mut self, page: Self) {
        self.docs += page.docs;
        self.leaves += page.leaves;
        self.attachments += page.attachments;
        self.differences += page.differences;
        let places = MAX_NAMED - self.named.len();
        self.named.extend(page.named.into_iter().take(places));
    }

    fn lacks(&mut self, difference: Difference) {
        self.differences += 1;
        self.named.push(difference);
    }
}

/// Compares: is all of `this` in `other`? `seen` is shown the report as it grows.
pub async fn compare(
    this: &Peer,
    other: &Peer,
    with_attachments: bool,
    mut seen: impl FnMut(&Report),
) -> Result<Report, PeerError> {
    let budget = Budget::new(BUDGET_BYTES);
    // A missing database is told as such, even by a peer whose feed would only say 404.
    futures::future::try_join(this.info(), other.info()).await?;
    let pages = pages(this).map_ok(|changes| compare_page(this, other, changes, with_attachments.then_some(&budget)));
    let mut reports = std::pin::pin!(pages.try_buffered(PAGES_AT_ONCE));
    let mut report = Report::default();
    while let Some(page) = reports.try_next().await? {
        report.add(page);
        seen(&report);
    }
    Ok(report)
}

/// The feed, from its start to where a one-shot ends too ([`crate::replicate::changes`]): not at an empty page while changes
/// are pending, which a cluster in trouble gives.
fn pages(peer: &Peer) -> impl Stream<Item = Result<Vec<Change>, PeerError>> {
    let (limit, max_bytes) = (PAGE, MAX_PAGE_BYTES);
    let (since, filter) = (Seq::zero(), Filter::None);
    let query = ChangesQuery { since, limit, max_bytes, filter, winners_only: false };
    let start = (query, Course::new(false, true));
    stream::try_unfold(Some(start), move |place| async move {
        let Some((mut query, mut course)) = place else { return Ok(None) };
        let mut patience = Pauses::between_tries(MAX_FRUITLESS);
        loop {
            let page = repeated(async || peer.changes(&query).await).await?;
            let next = course.after(&page);
            query.since = page.last_seq;
            if next != Next::Again {
                return Ok(Some((page.changes, (next != Next::End).then_some((query, course)))));
            }
            let pause = patience.next().ok_or_else(|| never_ends(peer, page.pending))?;
            tokio::time::sleep(pause).await;
        }
    })
}

async fn compare_page(
    this: &Peer,
    other: &Peer,
    changes: Vec<Change>,
    with_attachments: Option<&Budget>,
) -> Result<Report, PeerError> {
    let leaves = changes.iter().map(|change| change.revs.len() as u64).sum();
    let mut report = Report { docs: changes.len() as u64, leaves, ..Report::default() };
    if changes.is_empty() {
        return Ok(report);
    }
    for wanted in repeated(async || other.revs_diff(&changes).await).await? {
        for rev in wanted.revs {
            report.lacks(Difference { id: wanted.id.clone(), rev, attachment: None, problem: Problem::Missing });
        }
    }
    if let Some(budget) = with_attachments {
        attachments::compare(this, other, &changes, budget, &mut report).await?;
    }
    Ok(report)
}

/// Asks again, some times, what may be answered another time.
async fn repeated<T>(question: impl AsyncFn() -> Result<T, PeerError>) -> Result<T, PeerError> {
    for pause in Pauses::between_tries(TRIES) {
        match question().await {
            too_long @ Err(PeerError::TooLong { .. }) => return too_long,
            Err(error) if matches!(error.blame(), Blame::Passing | Blame::Unclear { .. }) => {
                tokio::time::sleep(pause).await;
            }
            answered => return answered,
        }
    }
    question().await
}
