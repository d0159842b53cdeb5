//! What couchrep's own page shows: all jobs at a glance, the failing ones first, and of some of them everything.
//!
//! Many pages may be open, and each asks again every few seconds. So a *look* at all jobs is shared by everybody who asks within its
//! time, and lasts so long that looking takes at most half a per cent of one core ([`look`]), however many jobs there are. A look holds what is counted and
//! ordered; what is told of a job in words is read when it is asked for, of one page of jobs. Whoever isn't a server admin is told of his own
//! jobs alone, their servers and their numbers.
//!
//! Documents that have no job yet, or none because another one has it, are among the jobs. Those at their ends aren't: they stand in their
//! databases, and `_scheduler/docs` tells of them.

mod wanted;
mod look;
mod row;
mod origins;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;

pub use self::look::{LastLook, Told};
use self::look::{Look, Seen};
use self::origins::{Origin, origins};
pub use self::row::JobRow;
pub use self::wanted::Wanted;
use super::Jobs;
use super::history::Event;
use super::replication::State;
use super::trends::{STEP, Trend, rounded};
use crate::access::Caller;
use crate::takeover::DocumentRunner;
use crate::tasks::{Panicked, blocking};

/// How often a page is to ask, if looks are short.
const REFRESH: Duration = Duration::from_secs(2);
/// Servers that are told of.
const MAX_ORIGINS: usize = 20;

/// All jobs at a glance.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// Who runs documents of replications; `None` where nobody follows them.
    #[serde(skip)]
    pub documents: Option<&'static str>,
    /// After which it is worth asking again.
    #[serde(skip)]
    pub refresh: Duration,
    states: BTreeMap<&'static str, u64>,
    paused: u64,
    caught_up: u64,
    docs_per_second: f32,
    changes_pending: Option<u64>,
    doc_write_failures: u64,
    /// Of all jobs, for whoever may see all.
    trend: Option<Trend>,
    origins_total: usize,
    origins: Vec<Origin>,
    total: usize,
    jobs: Vec<JobRow>,
}

/// All of one job.
#[derive(Debug, Serialize)]
pub struct JobDetails {
    #[serde(flatten)]
    row: JobRow,
    history: Vec<Event>,
}

impl Jobs {
    /// Takes looks for the lines of the page, and forgets the page's look when nobody asks any more.
    pub(super) async fn follow_trends(self) {
        loop {
            tokio::time::sleep(STEP).await;
            let jobs = self.clone();
            // A crash was logged where it happened.
            _ = blocking("look at how fast jobs are", move || {
                jobs.trends.look(&jobs.running.list());
                jobs.look.forget_old(STEP);
            })
            .await;
        }
    }

    /// What the page shows of the jobs that the caller may see, as `tell` makes JSON of it.
    pub async fn overview(
        &self,
        wanted: Wanted,
        caller: &Arc<Caller>,
        tell: impl FnOnce(&Overview) -> Vec<u8> + Send + 'static,
    ) -> Result<Arc<Told>, Panicked> {
        let (jobs, caller) = (self.clone(), caller.clone());
        let work = move || {
            let look = jobs.look();
            look.told(&wanted, &caller, || tell(&jobs.seen(&look, &wanted, &caller)))
        };
        blocking("look at all jobs", work).await
    }

    /// Somebody has done something, and wants to see it.
    pub fn look_again(&self) {
        self.look.forget();
    }

    /// All of one job that the caller may see.
    pub fn details(&self, id: &str, caller: &Caller) -> Option<JobDetails> {
        let job = self.running.get(id).filter(|job| caller.may_manage(job.owner()))?;
        let history = job.status().history.events().cloned().collect();
        Some(JobDetails { row: self.job_row(&job), history })
    }

    fn seen(&self, look: &Look, wanted: &Wanted, caller: &Caller) -> Overview {
        let all_may_be_seen = caller.is_server_admin();
        let seen = || look.jobs.iter().filter(|seen| all_may_be_seen || caller.may_manage(seen.job.owner()));
        let mut overview = Overview {
            documents: self.documents_runner(),
            refresh: look.lasts().max(REFRESH),
            states: State::ALL.iter().map(|(_, word)| (*word, 0)).collect(),
            paused: 0,
            caught_up: 0,
            docs_per_second: 0.0,
            changes_pending: None,
            doc_write_failures: 0,
            trend: all_may_be_seen.then(|| self.trends.of_all()),
            origins_total: 0,
            origins: Vec::new(),
            total: 0,
            jobs: Vec::new(),
        };
        let mut rate = 0.0;
        for one in seen() {
            *overview.states.entry(one.state.word()).or_default() += 1;
            overview.paused += u64::from(one.paused);
            overview.caught_up += u64::from(one.caught_up);
            overview.doc_write_failures += one.doc_write_failures;
            rate += one.docs_per_second;
            if let Some(pending) = one.changes_pending {
                *overview.changes_pending.get_or_insert_default() += pending;
            }
        }
        overview.docs_per_second = rounded(rate);
        let mut origins = origins(seen(), &self.scheduler);
        overview.origins_total = origins.len();
        origins.truncate(MAX_ORIGINS);
        overview.origins = origins;
        let search = wanted.search.to_lowercase();
        let is_wanted = |seen: &&Seen| {
            (wanted.states.is_empty() || wanted.states.contains(&seen.state))
                && (search.is_empty() || seen.job.has(&search, &self.context.identity.address))
        };
        for one in seen().filter(is_wanted) {
            if overview.total >= wanted.skip && overview.jobs.len() < wanted.limit {
                overview.jobs.push(self.row(one));
            }
            overview.total += 1;
        }
        overview
    }

    /// The newest look, or a new one.
    fn look(&self) -> Arc<Look> {
        // Whoever comes meanwhile waits for it instead of looking too.
        let mut newest = self.look.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = newest.as_ref().filter(|look| look.is_new()) {
            return look.clone();
        }
        let documents = self.documents.as_ref().map(|documents| documents.without_jobs()).unwrap_or_default();
        let look = Arc::new(Look::at(self.running.list(), documents));
        *newest = Some(look.clone());
        look
    }

    fn documents_runner(&self) -> Option<&'static str> {
        let documents = self.documents.as_ref()?;
        Some(match documents.runner() {
            _ if !self.context.settings.run_documents => "nobody",
            DocumentRunner::Us => "couchrep",
            DocumentRunner::CouchDb => "couchdb",
            DocumentRunner::AnotherCouchrep => "another couchrep",
            DocumentRunner::Nobody => "nobody",
        })
    }
}
