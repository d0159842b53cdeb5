//! Lists of what replications couldn't copy, for those who may see them and have it tried again.

use std::sync::Arc;

use super::{Answer, Jobs, KnownSource};
use crate::access::Caller;
use crate::effort::pulse::Pulse;
use crate::endpoint::Endpoint;
use crate::peer::PeerError;
use crate::replicate::ReplicateError;
use crate::replicate::failures::list::ListLocation;
use crate::replicate::failures::{FailureList, RecordedFailure};
use crate::replicate::request::Request;

impl Jobs {
    /// What the replications with this id's base id couldn't copy, running or not: how many there are, and, after `skip` of them,
    /// at most `limit`, the newest first. Those of a replication that somebody else started are missing, unless an admin asks.
    ///
    /// After a restart it is known whose replications had failures. The source is known without credentials: if it wants some, the list can be
    /// read again when the replication has been asked for again.
    pub async fn failures(
        &self,
        id: &str,
        (skip, limit): (u64, usize),
        caller: &Arc<Caller>,
    ) -> Result<(u64, Vec<RecordedFailure>), ReplicateError> {
        caller.may_replicate()?;
        let base = id.split('+').next().unwrap_or(id);
        // The base id becomes a file's name.
        if base.len() != 32 || !base.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ReplicateError::NotFound("missing".into()));
        }
        let mut running = self.running.list();
        running.retain(|job| job.id.base == base && caller.may_manage(job.owner()));
        let runs = running.first().map(|job| KnownSource::of(&job.request.source, &job.caller));
        let source = runs.or_else(|| self.source(base, caller));
        // Who isn't let in doesn't learn whether there is something.
        if source.is_none() && !self.is_noted_as_his(base, caller).await? {
            return Err(ReplicateError::NotFound("missing".into()));
        }
        let unkept: Vec<_> = running.iter().flat_map(|job| job.failures.unkept()).collect();
        let unkept_count = unkept.len() as u64;
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut failures: Vec<_> = unkept.into_iter().skip(skipped).take(limit).collect();
        let (list, noted) = self.failure_list(base, source, caller).await?;
        let part = list.part(skip.saturating_sub(unkept_count), limit - failures.len()).await;
        let (kept_count, kept) = part.map_err(|error| match noted {
            Some(source) if matches!(error, PeerError::Unauthorized { .. }) => ReplicateError::Unauthorized(format!(
                "the list stands in {source}, whose credentials are known when the replication has been asked for again"
            )),
            _ => error.into(),
        })?;
        failures.extend(kept);
        Ok((unkept_count + kept_count, failures))
    }

    /// Copies again what a job couldn't copy, with its owner's rights, and waits until that is done.
    ///
    /// # Errors
    /// [`ReplicateError::NotFound`] if the caller manages no such job, [`ReplicateError::Paused`], and what such a replication ends with.
    pub async fn retry_failures(&self, id: &str, caller: &Caller) -> Result<Answer, ReplicateError> {
        let job = self.manageable(id, caller)?;
        if job.status().paused {
            return Err(ReplicateError::Paused);
        }
        // Not those that he had when it began.
        let owner = self.scheduler.caller(&job).await?;
        // Those that no checkpoint has come after yet.
        if !job.failures.unkept().is_empty() {
            let source = self.context.databases.open(&job.request.source, &owner, &Pulse::default()).await?;
            let whose = (job.id.base.as_str(), job.owner());
            let list = FailureList::of_job(&job.request, whose, &source, (&self.context.failures, &job.failures));
            list.keep(&job.failures).await?;
        }
        let request = Request { retry_failures: true, continuous: false, keep: false, ..Request::clone(&job.request) };
        self.run(request, &owner).await
    }

    /// The source of a replication that the caller started, or, if an admin asks, that anybody did.
    fn source(&self, base_id: &str, caller: &Arc<Caller>) -> Option<KnownSource> {
        let own = self.sources.get(&(base_id.to_owned(), caller.name.clone())).map(|known| known.value().clone());
        own.or_else(|| {
            let theirs =
                |(base, owner): &(String, Option<String>)| base == base_id && caller.may_manage(owner.as_deref());
            self.sources.iter().find(|known| theirs(known.key())).map(|known| known.value().clone())
        })
    }

    /// Whether a replication whose source isn't known any more was the caller's to look into.
    async fn is_noted_as_his(&self, base_id: &str, caller: &Caller) -> Result<bool, PeerError> {
        let Some(name) = caller.name.as_deref() else { return Ok(caller.may_manage(None)) };
        let is_owner = self.context.failures.has_owner(base_id, name).await?;
        Ok(caller.may_manage(is_owner.then_some(name)))
    }

    /// A list of failures; also its source, if that was only noted, and so is without credentials.
    async fn failure_list(
        &self,
        base_id: &str,
        known: Option<KnownSource>,
        caller: &Arc<Caller>,
    ) -> Result<(FailureList, Option<String>), ReplicateError> {
        let files = &self.context.failures;
        let noted = match known {
            Some(_) => None,
            None => files.pointed(base_id).await.map_err(PeerError::from)?,
        };
        let parsed = noted.clone().map(|noted| Endpoint::parse("source", Some(&noted.into()))).transpose()?;
        let source = known.or(parsed.map(|endpoint| KnownSource { endpoint, owner: caller.clone() }));
        let source = match source {
            Some(KnownSource { endpoint, owner }) => {
                // Databases of this server are read with the rights of who asks now.
                let reader = if matches!(endpoint, Endpoint::Local(_)) { caller } else { &owner };
                let peer = self.context.databases.open(&endpoint, reader, &Pulse::default()).await?;
                Some((peer, endpoint.without_secrets()))
            }
            None => None,
        };
        let may_hold = Arc::new(true.into());
        let place =
            ListLocation { base_id, source, owner: None, files, writes_source: false, must_keep: false, may_hold };
        Ok((FailureList::new(place), noted))
    }
}
