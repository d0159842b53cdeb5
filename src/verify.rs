//! Proves that one database has all that another has: every leaf revision, or those that a filter lets
//! through, and, if asked for, every attachment.
//!
//! Reads the feed of the one, page by page, and asks the other which of a page's leaves it lacks, some pages at once;
//! nothing else of either is looked at, and memory is bounded by the pages. A revision names its content and its history,
//! so having the same revisions is having the same documents (`_changes?style=all_docs`, `_revs_diff`). Equal both ways
//! are two databases of which each has all leaves of the other. Nothing is written.
//!
//! Attachments ([`attachments`]) are compared apart: a revision doesn't prove that their bytes came along.
//!
//! While somebody writes, the result is that of no one moment: what is reported missing may only be late.

mod report;
mod asking;
mod attachments;

use futures::stream::{self, Stream, TryStreamExt as _};

use self::asking::repeated;
pub use self::report::{Difference, Problem, Report};
use crate::document::Seq;
use crate::effort::budget::Budget;
use crate::effort::pauses::Pauses;
use crate::peer::{Change, ChangesQuery, Filter, Peer, PeerError};
use crate::replicate::changes::{FeedEnd, MAX_FRUITLESS, Next, never_ends};

/// Rows of a page.
const PAGE: usize = 1000;
/// Bytes of a page, which has fewer rows if they are long.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// Bytes of documents that are looked at, for their attachments.
const BUDGET_BYTES: usize = 256 << 20;
/// Pages asked about at once.
const PAGES_AT_ONCE: usize = 4;
/// Compares: is all of `this` that its filter lets through in `other`? `seen` is shown the report as it grows.
pub async fn compare(
    (this, filter): (&Peer, Filter),
    other: &Peer,
    with_attachments: bool,
    mut seen: impl FnMut(&Report),
) -> Result<Report, PeerError> {
    let budget = Budget::new(BUDGET_BYTES);
    // A missing database is told as such, even by a peer whose feed would only say 404.
    futures::future::try_join(this.info(), other.info()).await?;
    let pages =
        pages(this, filter).map_ok(|changes| compare_page(this, other, changes, with_attachments.then_some(&budget)));
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
fn pages(peer: &Peer, filter: Filter) -> impl Stream<Item = Result<Vec<Change>, PeerError>> {
    let (limit, max_bytes) = (PAGE, MAX_PAGE_BYTES);
    let (since, is_counted) = (Seq::zero(), filter.is_counted());
    let query = ChangesQuery { since, limit, max_bytes, filter, winners_only: false };
    let start = (query, FeedEnd::new(false, is_counted));
    stream::try_unfold(Some(start), move |place| async move {
        let Some((mut query, mut end)) = place else { return Ok(None) };
        let mut patience = Pauses::between_tries(MAX_FRUITLESS);
        loop {
            let page = repeated(|| peer.changes(&query)).await?;
            let next = end.after(&page);
            query.since = page.last_seq;
            if next != Next::Again {
                return Ok(Some((page.changes, (next != Next::End).then_some((query, end)))));
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
    for wanted in repeated(|| other.revs_diff(&changes)).await? {
        for rev in wanted.revs {
            report.lacks(Difference { id: wanted.id.clone(), rev, attachment: None, problem: Problem::Missing });
        }
    }
    if let Some(budget) = with_attachments {
        attachments::compare(this, other, &changes, budget, &mut report).await?;
    }
    Ok(report)
}
