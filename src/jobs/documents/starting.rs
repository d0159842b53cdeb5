//! Makes a job of what a document describes, and tries again as long as it can't.
//!
//! The replication's id is needed first, and the code of a filter with it. What is done here is for one serial of the document: once
//! that isn't known any more, nothing is done.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::description::Description;
use super::home::HomeError;
use super::states::StateChange;
use super::{DocumentStage, Documents, FILTER_LIMIT, Inner, states};
use crate::access::Caller;
use crate::effort::pauses::Pauses;
use crate::jobs::replication::{JobDocument, Replication};
use crate::jobs::scheduler::life::reason;
use crate::policy::Forbidden;
use crate::replicate::ReplicateError;
use crate::replicate::id::ReplicationId;
use crate::replicate::request::{NamedFilter, Request};

/// Before a document that said that another one has its job looks for it.
const DUPLICATE_PAUSE: Duration = Duration::from_secs(1);
/// Before it is looked again whether a source may be asked.
const WAITS_PAUSE: Duration = Duration::from_secs(1);
/// A job that holds the id but has no document may end at any time.
const TAKEN_PAUSE: Duration = Duration::from_secs(5);

/// Why a document in a CouchDB may name no secret.
const OWNER_UNKNOWN: &str =
    "others than server admins may write to its database, so it may name no secret: nobody knows whose document it is";

/// What came of a try.
enum Tried {
    /// There is a job, or there will be none; this is to be written, into other documents maybe.
    Done(Vec<(JobDocument, StateChange)>),
    /// A job without a document has this id.
    Taken(String),
    /// The settings forbid it; the id that CouchDB has for it, if that is known.
    Forbidden(Forbidden, Option<String>),
    /// Its source is down, or refuses its login, which others found out; it may be asked then.
    Waits(Option<Instant>),
}

impl Documents {
    /// Finds out a replication's id, and starts its job. Tries again as long as it can't.
    pub(super) async fn find_job(&self, place: &JobDocument, serial: u64, description: Arc<Description>) {
        let settings = &self.inner.context.settings;
        if description.was_duplicate {
            // The first one may not be known yet.
            tokio::time::sleep(DUPLICATE_PAUSE).await;
        }
        let mut pauses = Pauses::growing(settings.restart_pause, settings.max_restart_pause);
        let mut count = 0;
        loop {
            let (reason, pause) = match self.try_job(place, serial, &description).await {
                Ok(Tried::Done(changes)) => {
                    // A CouchDB marks duplicates itself, and may have another one of them be the first.
                    for (place, change) in changes.into_iter().filter(|_| !self.inner.home.has_processor()) {
                        self.write(&place, change).await;
                    }
                    return;
                }
                Ok(Tried::Forbidden(forbidden, id)) => {
                    match self.forbid(place, (serial, id), &description, forbidden).await {
                        Ok(()) => return,
                        // It couldn't be written.
                        Err(error) => (reason(&error.into()), settings.max_restart_pause),
                    }
                }
                Ok(Tried::Taken(id)) => (format!("replication `{id}` runs already, without a document"), TAKEN_PAUSE),
                Ok(Tried::Waits(next)) => {
                    let left = next.map(|next| next.saturating_duration_since(Instant::now()));
                    let reason = "the source's server is down, or refuses the login, as other replications have found";
                    (reason.to_owned(), left.unwrap_or_default().max(WAITS_PAUSE))
                }
                // Of a filter's code. The rules stay; what a name stands for may change.
                Err(error @ ReplicateError::Forbidden(_)) => (reason(&error), settings.max_restart_pause),
                Err(error) => {
                    let pause = pauses.next().unwrap_or(settings.max_restart_pause);
                    (reason(&error), pause)
                }
            };
            count += 1;
            if count == 1 {
                let doc = place.id.as_str();
                tracing::warn!(doc.id = doc, error = reason, "no replication can be made of a document for now");
            }
            let next_try = SystemTime::now() + pause;
            let stage = DocumentStage::Error { count, reason: reason.as_str().into(), next_try };
            if !self.known().set_stage(place, serial, stage) {
                return;
            }
            if self.updates_docs() {
                self.write(place, StateChange::error(description.fingerprint, &reason)).await;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_job(
        &self,
        place: &JobDocument,
        serial: u64,
        description: &Arc<Description>,
    ) -> Result<Tried, ReplicateError> {
        let Inner { context, scheduler, owners, .. } = &*self.inner;
        let caller = Arc::new(owners.find(&place.database, description.owner.as_deref()).await?);
        let names_secret =
            [&description.request.source, &description.request.target].iter().any(|at| at.names_secret());
        if names_secret && !owners.are_known(&place.database).await? {
            return Err(ReplicateError::Unauthorized(OWNER_UNKNOWN.into()));
        }
        let request = description.request.clone().with_secrets(&context.settings.secrets, &caller)?;
        for endpoint in [&request.source, &request.target] {
            if let Err(forbidden) = context.databases.may_connect(endpoint, &caller) {
                let id = self.id_elsewhere(&request, &caller).await;
                return Ok(Tried::Forbidden(forbidden, id));
            }
        }
        let asking = context.identify(request.clone(), &caller);
        let asked = match request.filter.as_ref().is_some_and(NamedFilter::has_code) {
            true => scheduler.ask((&request.source, caller.name.as_deref()), asking).await,
            false => Ok(asking.await),
        };
        let (request, (id, log_ids)) = match asked {
            Ok(identified) => identified?,
            Err(next) => return Ok(Tried::Waits(next)),
        };
        let (tried, freed) = self.begin_identified(place, (serial, description), (request, id, log_ids), caller);
        if let Some(freed) = freed {
            self.hand_over(&freed);
        }
        Ok(tried)
    }

    /// The id under which a CouchDB's scheduler knows it; `None` if nobody else runs it, or a filter's code can't be read now.
    async fn id_elsewhere(&self, request: &Arc<Request>, caller: &Arc<Caller>) -> Option<String> {
        if !self.inner.home.has_processor() {
            return None;
        }
        let asking = self.inner.context.identify(request.clone(), caller);
        let (_, (id, _)) = tokio::time::timeout(FILTER_LIMIT, asking).await.ok()?.ok()?;
        Some(id.to_string())
    }

    /// Begins the job of a document, unless another one has it; answers the id, too, of which another one may have the job now.
    fn begin_identified(
        &self,
        place: &JobDocument,
        (serial, description): (u64, &Description),
        (request, id, log_ids): (Arc<Request>, ReplicationId, Vec<String>),
        caller: Arc<Caller>,
    ) -> (Tried, Option<String>) {
        let Inner { context, running, scheduler, .. } = &*self.inner;
        let mut all = self.known();
        let Some(known) = all.get_mut(place).filter(|known| known.serial == serial) else {
            return (Tried::Done(Vec::new()), None);
        };
        let text = id.to_string();
        let freed = known.hand_back(&text);
        // It may have been paused meanwhile, or brought with a state.
        let (paused, stated) = (known.description.paused, description.stated || known.description.stated);
        let new = |number| {
            let what = (request.clone(), caller.clone());
            let job = Replication::new(context, number, (id.clone(), log_ids), what, Some(place.clone()));
            {
                let mut status = job.status();
                (status.paused, status.stated) = (paused, stated);
            }
            job
        };
        known.since = SystemTime::now();
        let begun = running.start_alone(&id, new, |job, span| scheduler.add(job, false, span));
        // A try that crashed may have begun it.
        let is_own = |job: &Replication| job.document.as_ref() == Some(place);
        let first = match begun.or_else(|other| if is_own(&other) { Ok(other) } else { Err(other) }) {
            Ok(job) => {
                if self.updates_docs() || stated && paused {
                    scheduler.note(&job);
                }
                all.set_stage(place, serial, DocumentStage::Job(job));
                return (Tried::Done(all.double_others(&text, place)), freed);
            }
            Err(other) => match &other.document {
                None => return (Tried::Taken(text), freed),
                Some(first) => first.clone(),
            },
        };
        context.databases.counters().jobs_added_again.increment();
        let (doc, first_doc) = (place.id.as_str(), first.id.as_str());
        tracing::warn!(doc.id = doc, first = first_doc, "a document describes what another one does");
        let change = all.double(place, &text, &first);
        (Tried::Done(change.map(|change| (place.clone(), change)).into_iter().collect()), freed)
    }

    /// Gives up a document whose URLs the settings forbid: `failed`, as one that makes no sense. A rule isn't worth another try, and
    /// whoever changes it writes the document again.
    async fn forbid(
        &self,
        place: &JobDocument,
        (serial, id): (u64, Option<String>),
        description: &Description,
        forbidden: Forbidden,
    ) -> Result<(), HomeError> {
        let reason = reason(&ReplicateError::from(forbidden));
        let (db, doc) = (place.database.as_str(), place.id.as_str());
        tracing::warn!(db, doc.id = doc, error = reason, "a document describes what is forbidden");
        self.inner.context.databases.counters().docs_failed.increment();
        let change = StateChange::failed(Some(description.fingerprint), &reason);
        self.write_failed(&place.database, vec![(place.id.clone(), change)]).await?;
        // A CouchDB's processor leaves the jobs of failed documents be.
        self.end_elsewhere(id.into_iter().collect());
        self.forget_serial(place, serial);
        Ok(())
    }

    async fn write(&self, place: &JobDocument, change: StateChange) {
        let change = vec![(place.id.clone(), change)];
        if let Err(error) = states::write(&self.inner.home, &place.database, change).await {
            let (db, doc) = (place.database.as_str(), place.id.as_str());
            let error = &error as &dyn std::error::Error;
            tracing::warn!(db, doc.id = doc, error, "a replication's state can't be written");
        }
    }
}
