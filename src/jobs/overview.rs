//! What couchrep's own page shows: all jobs at a glance, the failing ones first, and of some of them everything.
//!
//! Many pages may be open, and each asks again every few seconds. So a snapshot of all jobs is shared by everybody who asks within its
//! time, which is so long that taking snapshots takes a quarter of a per cent of one core ([`snapshot`]), however many jobs there are. It
//! holds what is counted and ordered; words are read when they are asked for, of one page of jobs. Whoever isn't a server admin is told of his own
//! jobs alone, their servers and their numbers.
//!
//! Documents that have no job yet, or none because another one has it, are among the jobs. Those at their ends aren't: they stand in their
//! databases, and `_scheduler/docs` tells of them.

mod wanted;
mod snapshot;
mod row;
mod origins;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::origins::{Origin, origins};
pub use self::row::JobRow;
pub use self::snapshot::{EncodedOverview, SnapshotCache};
use self::snapshot::{JobSummary, JobsSnapshot};
pub use self::wanted::Wanted;
use super::Jobs;
use super::history::Event;
use super::replication::State;
use super::trends::{STEP, Trend, rounded};
use crate::access::Caller;
use crate::takeover::DocumentRunner;
use crate::tasks::{Panicked, blocking};

/// How often a page is to ask, if a snapshot doesn't last longer.
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
    /// Notes how fast jobs are, for the page's lines, and drops the page's snapshot when nobody asks any more.
    pub(super) async fn follow_trends(self) {
        loop {
            tokio::time::sleep(STEP).await;
            let jobs = self.clone();
            // A crash was logged where it happened.
            _ = blocking("note how fast jobs are", move || {
                jobs.trends.sample(&jobs.running.list());
                jobs.snapshot.forget_old(STEP);
            })
            .await;
        }
    }

    /// What the page shows of the jobs that the caller may see, as `encode` makes JSON of it.
    pub async fn overview(
        &self,
        wanted: Wanted,
        caller: &Arc<Caller>,
        encode: impl FnOnce(&Overview) -> Vec<u8> + Send + 'static,
    ) -> Result<Arc<EncodedOverview>, Panicked> {
        let (jobs, caller) = (self.clone(), caller.clone());
        let work = move || {
            let snapshot = jobs.snapshot();
            snapshot.answer(&wanted, &caller, || encode(&jobs.overview_of(&snapshot, &wanted, &caller)))
        };
        blocking("make an overview of all jobs", work).await
    }

    /// Somebody has done something, and wants to see it in the next overview.
    pub fn is_wanted_anew(&self) {
        self.snapshot.is_wanted_anew();
    }

    /// All of one job that the caller may see.
    pub fn details(&self, id: &str, caller: &Caller) -> Option<JobDetails> {
        let job = self.manageable(id, caller).ok()?;
        let history = job.status().history.events().cloned().collect();
        Some(JobDetails { row: self.job_row(&job), history })
    }

    fn overview_of(&self, snapshot: &JobsSnapshot, wanted: &Wanted, caller: &Caller) -> Overview {
        let visible = || snapshot.jobs.iter().filter(|one| caller.may_manage(one.job.owner()));
        let mut overview = Overview {
            documents: self.documents_runner(),
            refresh: snapshot.lasts().max(REFRESH),
            states: State::ALL.iter().map(|(_, word)| (*word, 0)).collect(),
            paused: 0,
            caught_up: 0,
            docs_per_second: 0.0,
            changes_pending: None,
            doc_write_failures: 0,
            trend: caller.is_server_admin().then(|| self.trends.of_all()),
            origins_total: 0,
            origins: Vec::new(),
            total: 0,
            jobs: Vec::new(),
        };
        let mut rate = 0.0;
        for one in visible() {
            *overview.states.entry(one.state.word()).or_default() += 1;
            overview.paused += u64::from(one.paused);
            overview.caught_up += u64::from(one.caught_up);
            overview.doc_write_failures += one.doc_write_failures;
            rate += one.docs_per_second;
            if let Some(pending) = one.changes_pending {
                let sum = overview.changes_pending.get_or_insert_default();
                // Peers tell any number.
                *sum = sum.saturating_add(pending);
            }
        }
        overview.docs_per_second = rounded(rate);
        let mut origins = origins(visible(), &self.scheduler);
        overview.origins_total = origins.len();
        origins.truncate(MAX_ORIGINS);
        overview.origins = origins;
        let search = wanted.search.to_lowercase();
        let is_wanted = |one: &&JobSummary| {
            (wanted.states.is_empty() || wanted.states.contains(&one.state))
                && (search.is_empty() || one.job.has(&search, &self.context.identity.address))
        };
        for one in visible().filter(is_wanted) {
            if overview.total >= wanted.skip && overview.jobs.len() < wanted.limit {
                overview.jobs.push(self.row(one));
            }
            overview.total += 1;
        }
        overview
    }

    fn snapshot(&self) -> Arc<JobsSnapshot> {
        let list = || {
            let documents = self.documents.as_ref().map(|documents| documents.without_jobs());
            (self.running.list(), documents.unwrap_or_default())
        };
        self.snapshot.newest_or(|| JobsSnapshot::take(list))
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
