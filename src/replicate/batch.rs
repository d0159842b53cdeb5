//! One batch: missing, fetch, write, for one page of the feed.
//!
//! A batch either ends with everything that the page named on the target (or refused by it, and counted), or with an
//! error, and then may be done again from its start: what is there already is not fetched again. Where an answer of the
//! source breaks off, it does so by itself, some times, with growing pauses.
//!
//! Memory: what is copied in bulk is held within a share of the budget ([`super::budget`]), which is given back before
//! documents with attachments stream.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Places};
use super::failures::FailureLog;
use super::pauses::Pauses;
use super::progress::{Counts, Progress};
use super::write::Attached;
use super::{ReplicateError, fetch, missing, write};
use crate::document::{DocId, Rev, Wanted};
use crate::peer::{Change, Failure, Peer, PeerError, Unavailable, Why};

/// Documents with attachments on their way at once, a batch.
const ATTACHED_AT_ONCE: usize = 4;
/// How often a revision that the source announced and then says it doesn't have is asked for again. What it couldn't give
/// for trouble that may pass is asked for as often as what broke off.
const ASK_AGAIN: usize = 2;

/// From where to where, and within what limits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Route {
    /// From here.
    pub source: Peer,
    /// To here.
    pub target: Peer,
    /// What is counted.
    pub progress: Arc<Progress>,
    /// What didn't get there.
    pub failures: Arc<FailureLog>,
    /// Memory, all replications together.
    pub budget: Budget,
    /// The job's own part of it.
    pub places: Places,
    /// Bytes of documents gathered before they are written.
    pub batch_bytes: usize,
    /// Tries of what broke off.
    pub tries: u32,
    /// Cancelled: reads and pauses end at once, writes are finished.
    pub stop: CancellationToken,
}

impl Route {
    /// Waits for something that changes nothing, unless the route is stopped.
    pub async fn unless_stopped<T>(&self, wait: impl Future<Output = T>) -> Result<T, ReplicateError> {
        self.stop.run_until_cancelled(wait).await.ok_or(ReplicateError::Cancelled)
    }

    /// Pauses after an answer that broke off; gives any other error back, and this one when there were tries enough.
    pub async fn repeat_after(&self, error: ReplicateError, pauses: &mut Pauses) -> Result<(), ReplicateError> {
        let broken = matches!(&error, ReplicateError::Peer(error) if matches!(**error, PeerError::Broken { .. }));
        match pauses.next().filter(|_| broken) {
            Some(pause) => {
                tracing::warn!(error = %error.chain(), pause_ms = pause.as_millis() as u64, "trying again");
                self.unless_stopped(tokio::time::sleep(pause)).await
            }
            None => Err(error),
        }
    }
}

/// Copies what the target lacks of a page's changes.
pub async fn copy(route: Route, changes: Vec<Change>) -> Result<(), ReplicateError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut batch = Batch { route: &route, refused: HashSet::new() };
    let mut pauses = Pauses::between_tries(route.tries);
    let mut first = true;
    loop {
        let wanted = missing::ask(&route, &changes, first).await?;
        first = false;
        match batch.copy(wanted).await {
            Ok(()) => return Ok(()),
            Err(error) => route.repeat_after(error, &mut pauses).await?,
        }
    }
}

/// Copies all leaves of these documents, whether the target has them or not. Documents that don't exist are passed over.
pub async fn copy_docs(route: Route, ids: Vec<DocId>) -> Result<(), ReplicateError> {
    let mut batch = Batch { route: &route, refused: HashSet::new() };
    let mut pauses = Pauses::between_tries(route.tries);
    loop {
        let all_leaves = |id: &DocId| Wanted { id: id.clone(), revs: Vec::new(), atts_since: Vec::new() };
        match batch.copy(ids.iter().map(all_leaves).collect()).await {
            Ok(()) => return Ok(()),
            Err(error) => route.repeat_after(error, &mut pauses).await?,
        }
    }
}

struct Batch<'a> {
    route: &'a Route,
    /// What the target refused: not asked for again when the batch is repeated. Other revisions of the same document
    /// are, since each is taken or refused for itself.
    refused: HashSet<(DocId, Rev)>,
}

/// What a bulk answer named without giving it.
#[derive(Default)]
struct Named {
    attached: Vec<(DocId, Rev)>,
    unavailable: Vec<Unavailable>,
}

impl Batch<'_> {
    async fn copy(&mut self, mut wanted: Vec<Wanted>) -> Result<(), ReplicateError> {
        let refused = |id: &DocId, rev: &Rev| self.refused.contains(&(id.clone(), rev.clone()));
        if !self.refused.is_empty() {
            wanted.retain_mut(|Wanted { id, revs, .. }| {
                let all_leaves = revs.is_empty();
                revs.retain(|rev| !refused(id, rev));
                all_leaves || !revs.is_empty()
            });
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let mut pauses = Pauses::between_tries(self.route.tries);
        for asked in 0.. {
            let unavailable = self.copy_once(wanted).await?;
            let pause = pauses.next();
            let hopeful = |one: &Unavailable| pause.is_some() && (one.passing || asked < ASK_AGAIN);
            let (hopeful, given_up): (Vec<_>, Vec<_>) = unavailable.into_iter().partition(hopeful);
            self.give_up(&given_up);
            let Some(pause) = pause.filter(|_| !hopeful.is_empty()) else { break };
            self.route.unless_stopped(tokio::time::sleep(pause)).await?;
            wanted = again(hopeful);
        }
        Ok(())
    }

    /// Copies; answers what the source couldn't give.
    async fn copy_once(&mut self, wanted: Vec<Wanted>) -> Result<Vec<Unavailable>, ReplicateError> {
        let atts_since: HashMap<DocId, Vec<Rev>> = wanted
            .iter()
            .filter(|wanted| !wanted.atts_since.is_empty())
            .map(|wanted| (wanted.id.clone(), wanted.atts_since.clone()))
            .collect();
        let Named { attached, mut unavailable } = self.copy_plain(wanted).await?;
        for copied in self.copy_attached(attached, &atts_since).await? {
            match copied {
                Attached::Written => {}
                Attached::Refused(id, rev) => _ = self.refused.insert((id, rev)),
                Attached::Unavailable(id, rev) => unavailable.push(Unavailable::missing(id, rev)),
            }
        }
        Ok(unavailable)
    }

    /// Copies documents with attachments, some at once. Behind the first error none is begun, yet those under way end.
    async fn copy_attached(
        &self,
        attached: Vec<(DocId, Rev)>,
        atts_since: &HashMap<DocId, Vec<Rev>>,
    ) -> Result<Vec<Attached>, ReplicateError> {
        let mut waiting = attached.into_iter();
        let mut under_way = FuturesUnordered::new();
        let (mut copied, mut failure) = (Vec::new(), None);
        loop {
            while under_way.len() < ATTACHED_AT_ONCE
                && failure.is_none()
                && let Some((id, rev)) = waiting.next()
            {
                let since = atts_since.get(&id).map_or(&[][..], Vec::as_slice);
                under_way.push(write::attached(self.route, id, rev, since));
            }
            match under_way.next().await {
                None => break,
                Some(Ok(attached)) => copied.push(attached),
                Some(Err(error)) => _ = failure.get_or_insert(error),
            }
        }
        failure.map_or(Ok(copied), Err)
    }

    async fn copy_plain(&mut self, wanted: Vec<Wanted>) -> Result<Named, ReplicateError> {
        let _work = self.route.progress.pulse().work();
        let mut named = Named::default();
        let mut fetching = fetch::ask(self.route, wanted).await?;
        while let Some(fetched) = fetching.next().await? {
            for refused in fetched.refused {
                write::refused_here(self.route, &refused);
                self.refused.extend(refused.rev.map(|rev| (refused.id, rev)));
            }
            let refused = write::docs(self.route, fetched.docs).await?;
            self.refused.extend(refused.into_iter().filter_map(|refused| Some((refused.id, refused.rev?))));
            named.attached.extend(fetched.attached);
            named.unavailable.extend(fetched.unavailable);
        }
        Ok(named)
    }

    /// A revision that its source can't give is a failure of that document, not of the batch: it would never end.
    fn give_up(&self, unavailable: &[Unavailable]) {
        for Unavailable { id, rev, reason, .. } in unavailable {
            let why = Why::new("unavailable", reason);
            self.route.failures.add(Failure { id: id.clone(), rev: Some(rev.clone()), why });
        }
        let failures = unavailable.len() as u64;
        self.route.progress.count(Counts { doc_write_failures: failures, ..Counts::default() });
    }
}

/// What to ask for again, revisions of one document together.
fn again(unavailable: Vec<Unavailable>) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for Unavailable { id, rev, .. } in unavailable {
        match wanted.last_mut() {
            Some(last) if last.id == id => last.revs.push(rev),
            _ => wanted.push(Wanted { id, revs: vec![rev], atts_since: Vec::new() }),
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_of_one_document_are_asked_for_together() {
        let rev = |text: &str| Rev::parse(text).unwrap();
        let named = |id: &str, text: &str| Unavailable::missing(DocId::from(id), rev(text));
        let wanted = again(vec![named("a", "1-x"), named("a", "1-y"), named("b", "2-z")]);
        let revs: Vec<_> = wanted.iter().map(|wanted| (wanted.id.as_str(), wanted.revs.len())).collect();
        assert_eq!(revs, [("a", 2), ("b", 1)]);
    }
}
