//! What is known of documents that aren't at their end, and which of them wait for another one's job.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::description::{Description, Fingerprint, duplicate_reason};
use super::states::StateChange;
use crate::jobs::replication::{JobDocument, Replication};
use crate::jobs::schedule::Number;
use crate::store::DbName;

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct KnownDocuments {
    documents: BTreeMap<JobDocument, Known>,
    /// Those whose job another one has, by the replication's id: as their stages say.
    duplicates: HashMap<String, BTreeSet<JobDocument>>,
}

/// A document that isn't at its end.
#[derive(Debug)]
pub(super) struct Known {
    /// Which of all that were known: whoever acts for an earlier one acts no more.
    pub(super) serial: u64,
    pub(super) description: Arc<Description>,
    stage: DocumentStage,
    pub(super) since: SystemTime,
    /// Ends what is being done for it.
    pub(super) stop: CancellationToken,
    /// Cancelled when the job that the document had before has ended.
    pub(super) ended: Option<CancellationToken>,
    /// The replication id that it is to take over: if it goes before it has, another one is to.
    pub(super) handed: Option<String>,
}

/// How far a document is.
#[derive(Debug, Clone)]
pub enum DocumentStage {
    /// Its replication's id isn't known yet.
    Initializing,
    /// The id couldn't be found out, or belongs to a job that has no document.
    Error {
        /// Failures in a row.
        count: u32,
        /// Why.
        reason: Arc<str>,
        /// When it is tried again.
        next_try: SystemTime,
    },
    /// Another document has the job.
    Duplicate {
        /// The replication's id.
        id: String,
        /// Which one has it, in CouchDB's words.
        reason: Arc<str>,
    },
    /// It has a job.
    Job(Arc<Replication>),
}

/// What `_scheduler/docs` tells of a document that isn't at its end.
#[derive(Debug, Clone)]
pub struct DocumentStatus {
    /// How far it is.
    pub stage: DocumentStage,
    /// What it describes.
    pub description: Arc<Description>,
    /// Since when.
    pub since: SystemTime,
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Replication").field(&self.id.to_string()).finish()
    }
}

impl KnownDocuments {
    pub(super) fn get(&self, place: &JobDocument) -> Option<&Known> {
        self.documents.get(place)
    }

    pub(super) fn get_mut(&mut self, place: &JobDocument) -> Option<&mut Known> {
        self.documents.get_mut(place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&JobDocument, &Known)> {
        self.documents.iter()
    }

    /// Those of a database.
    pub(super) fn of_database(&self, name: &DbName) -> Vec<JobDocument> {
        self.documents.keys().filter(|place| place.database == *name).cloned().collect()
    }

    /// Notes a document that has no stage yet.
    pub(super) fn insert(&mut self, place: JobDocument, known: Known) {
        self.remove(&place);
        self.documents.insert(place, known);
    }

    pub(super) fn remove(&mut self, place: &JobDocument) -> Option<Known> {
        let known = self.documents.remove(place)?;
        if let DocumentStage::Duplicate { id, .. } = &known.stage
            && let Some(duplicates) = self.duplicates.get_mut(id)
        {
            duplicates.remove(place);
            if duplicates.is_empty() {
                self.duplicates.remove(id);
            }
        }
        Some(known)
    }

    /// Notes how far a document is; answers whether it is still the one of this serial.
    pub(super) fn set_stage(&mut self, place: &JobDocument, serial: u64, stage: DocumentStage) -> bool {
        if self.get(place).is_none_or(|known| known.serial != serial) {
            return false;
        }
        let Some(known) = self.remove(place) else { return false };
        if let DocumentStage::Duplicate { id, .. } = &stage {
            self.duplicates.entry(id.clone()).or_default().insert(place.clone());
        }
        self.documents.insert(place.clone(), Known { stage, ..known });
        true
    }

    /// The first document that waits for a replication's job.
    pub(super) fn first_duplicate(&self, id: &str) -> Option<(&JobDocument, &Known)> {
        let place = self.duplicates.get(id)?.first()?;
        Some((place, self.get(place)?))
    }

    /// Notes that `first` has the job that a document describes; what is to stand in that.
    pub(super) fn double(&mut self, place: &JobDocument, job: &str, first: &JobDocument) -> Option<StateChange> {
        let reason = duplicate_reason(job, place.id.as_str(), (first.id.as_str(), first.database.as_str()));
        let known = self.get_mut(place)?;
        known.handed = None;
        let (serial, fingerprint) = (known.serial, known.description.fingerprint);
        self.set_stage(place, serial, DocumentStage::Duplicate { id: job.to_owned(), reason: reason.as_str().into() });
        Some(StateChange::failed(Some(fingerprint), &reason))
    }

    /// Notes that `first` has a job now that others describe too, who may name another one; what is to stand in them.
    pub(super) fn double_others(&mut self, job: &str, first: &JobDocument) -> Vec<(JobDocument, StateChange)> {
        let others = self.duplicates.get(job).cloned().unwrap_or_default();
        let double = |other: JobDocument| self.double(&other, job, first).map(|change| (other, change));
        others.into_iter().filter_map(double).collect()
    }
}

impl Known {
    /// One that nothing was done for yet.
    pub(super) fn new(serial: u64, description: Arc<Description>, stop: CancellationToken) -> Self {
        let (stage, since) = (DocumentStage::Initializing, SystemTime::now());
        Self { serial, description, stage, since, stop, ended: None, handed: None }
    }

    pub(super) fn stage(&self) -> &DocumentStage {
        &self.stage
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.description.fingerprint
    }

    /// Its job, if it has one.
    pub(super) fn job(&self) -> Option<&Arc<Replication>> {
        if let DocumentStage::Job(job) = &self.stage { Some(job) } else { None }
    }

    /// Takes off that it is to have the job of another id than this, which it turns out to have: another one is to have that.
    pub(super) fn hand_back(&mut self, id: &str) -> Option<String> {
        self.handed.take_if(|handed| handed != id)
    }

    pub(super) fn is_job(&self, number: Number) -> bool {
        matches!(&self.stage, DocumentStage::Job(job) if job.number == number)
    }

    pub(super) fn status(&self) -> DocumentStatus {
        DocumentStatus { stage: self.stage.clone(), description: self.description.clone(), since: self.since }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(id: &str) -> JobDocument {
        JobDocument { database: DbName::parse("_replicator").unwrap(), id: id.into() }
    }

    fn known(serial: u64) -> Known {
        let body = json!({"source": "http://h/a", "target": "http://h/b"});
        let description = Description::parse(body.as_object().unwrap()).unwrap();
        Known::new(serial, Arc::new(description), CancellationToken::new())
    }

    /// Who waits for whose job was looked for among all documents, at each start and each end.
    #[test]
    fn whoever_waits_for_a_job_is_found_by_its_id_as_long_as_he_waits() {
        let mut all = KnownDocuments::default();
        for (serial, id) in (1..).zip(["a", "b", "c"]) {
            all.insert(place(id), known(serial));
        }
        let first = |all: &KnownDocuments, job| all.first_duplicate(job).map(|(place, _)| place.id.to_string());
        for (id, job) in [("c", "1"), ("b", "1"), ("a", "2")] {
            assert!(all.double(&place(id), job, &place("x")).is_some());
        }
        assert_eq!((first(&all, "1"), first(&all, "2")), (Some("b".into()), Some("a".into())));
        let renamed: Vec<_> = all.double_others("1", &place("y")).into_iter().map(|(place, _)| place).collect();
        assert_eq!(renamed, [place("b"), place("c")]);
        // One describes something else now, one has got the job, one was replaced.
        all.double(&place("b"), "2", &place("x"));
        assert_eq!((first(&all, "1"), first(&all, "2")), (Some("c".into()), Some("a".into())));
        assert!(!all.set_stage(&place("a"), 7, DocumentStage::Initializing), "it is of another serial");
        assert!(all.set_stage(&place("a"), 1, DocumentStage::Initializing));
        assert_eq!(first(&all, "2"), Some("b".into()));
        let handed = all.get_mut(&place("c")).unwrap();
        handed.handed = Some("1".into());
        assert_eq!(
            (handed.hand_back("1"), handed.hand_back("3"), handed.hand_back("3")),
            (None, Some("1".into()), None)
        );
        all.insert(place("c"), known(4));
        all.remove(&place("b"));
        assert_eq!((first(&all, "1"), all.duplicates.len(), all.documents.len()), (None, 0, 2));
    }
}
