//! Ends of replications that can't be written into their documents: a validation refuses them, or others' edits come between.
//!
//! Such a document says nothing of its end, so it would begin anew at once, and again for ever. Therefore the end is kept here as long as
//! the document has the revision that it is the end of. `_scheduler/docs` tells of it, and it is written again after pauses that
//! grow. Nobody takes it off but who reads the document's next revision. After a restart the replication runs once more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::states::StateChange;
use crate::document::DocId;
use crate::jobs::history::rfc3339_text;
use crate::jobs::replication::JobDocument;
use crate::store::DbName;

/// Before the first try to write an end again; between two looks at which ones are due.
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// Before each further try at most.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Ends that can't be written.
#[derive(Debug, Default)]
pub(super) struct UntoldEnds {
    /// Guards nothing else; never held across an await.
    ends: Mutex<BTreeMap<JobDocument, End>>,
    /// Tells that there are some.
    kept: Notify,
}

#[derive(Debug)]
struct End {
    /// What is to stand in the document, over the revision that it is of.
    change: StateChange,
    since: SystemTime,
    pause: Duration,
    due: Instant,
}

impl UntoldEnds {
    /// Keeps an end that couldn't be written.
    pub(super) fn keep(&self, place: JobDocument, change: StateChange) {
        let end = End { change, since: SystemTime::now(), pause: PAUSE, due: Instant::now() + PAUSE };
        self.ends().insert(place, end);
        self.kept.notify_one();
    }

    /// Whether a document, as it is now, is at an end that isn't written into it. If it has another revision, its end is forgotten.
    pub(super) fn holds(&self, place: &JobDocument, document: &Map<String, Value>) -> bool {
        let mut ends = self.ends();
        let holds = ends.get(place).is_some_and(|end| end.change.is_over(document));
        if !holds {
            ends.remove(place);
        }
        holds
    }

    /// Puts into a document what can't be written there.
    pub(super) fn show(&self, place: &JobDocument, document: &mut Map<String, Value>) {
        if let Some(end) = self.ends().get(place).filter(|end| end.change.is_over(document)) {
            document.extend(end.change.members.clone());
            document.insert("_replication_state_time".into(), rfc3339_text(end.since).into());
        }
    }

    /// The document is gone.
    pub(super) fn forget(&self, place: &JobDocument) {
        self.ends().remove(place);
    }

    /// All of its documents are gone.
    pub(super) fn forget_database(&self, name: &DbName) {
        self.ends().retain(|place, _| place.database != *name);
    }

    /// They are no longer ours to run.
    pub(super) fn forget_all(&self) {
        self.ends().clear();
    }

    /// Waits until some may be due.
    pub(super) async fn wait(&self) {
        while self.ends().is_empty() {
            self.kept.notified().await;
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// Those that are to be tried now, by database. Each is due again after a longer pause.
    pub(super) fn due(&self, now: Instant) -> HashMap<DbName, Vec<(DocId, StateChange)>> {
        let mut due: HashMap<_, Vec<_>> = HashMap::new();
        for (place, end) in self.ends().iter_mut().filter(|(_, end)| end.due <= now) {
            end.pause = (end.pause * 2).min(MAX_PAUSE);
            end.due = now + end.pause;
            due.entry(place.database.clone()).or_default().push((place.id.clone(), end.change.clone()));
        }
        due
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<JobDocument, End>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_end_counts_for_its_revision_alone_and_is_due_less_and_less() {
        let place = JobDocument { database: DbName::parse("_replicator").unwrap(), id: "doc".into() };
        let ends = UntoldEnds::default();
        let change = StateChange { over: Some("1-a".into()), ..StateChange::failed(None, "no") };
        ends.keep(place.clone(), change.clone());
        let (mut now, mut waits) = (Instant::now(), Vec::new());
        for _ in 0..8 {
            let begun = now;
            while ends.due(now).is_empty() {
                now += Duration::from_secs(1);
            }
            waits.push((now - begun).as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        let mut document = json!({"_rev": "1-a", "source": 7}).as_object().unwrap().clone();
        assert!(ends.holds(&place, &document));
        ends.show(&place, &mut document);
        assert_eq!((&document["_replication_state"], &document["source"]), (&json!("failed"), &json!(7)));
        let mut next = json!({"_rev": "2-b"}).as_object().unwrap().clone();
        ends.show(&place, &mut next);
        assert_eq!(next.len(), 1);
        assert!(!ends.holds(&place, &next) && ends.due(now + MAX_PAUSE).is_empty());
    }
}
