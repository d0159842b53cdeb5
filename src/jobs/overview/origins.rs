//! How the servers are that jobs talk to.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::SystemTime;

use serde::Serialize;
use url::Position;

use super::snapshot::{JobOrDocument, JobSummary};
use crate::endpoint::{Endpoint, RemoteEndpoint};
use crate::jobs::history::rfc3339_text;
use crate::jobs::replication::server;
use crate::jobs::scheduler::Scheduler;

/// A server, and how its jobs fare.
#[derive(Debug, Serialize)]
pub struct Origin {
    origin: String,
    /// That have their source or target there.
    jobs: u64,
    /// Those of them that fail.
    failing: u64,
    /// It was found to be down: jobs wait, and one after the other tries it.
    shut: bool,
    /// When the next one may.
    next_try: Option<String>,
    /// Why one that fails does.
    reason: Option<String>,
}

/// What is counted of a server.
struct Counted<'a> {
    endpoint: &'a RemoteEndpoint,
    jobs: u64,
    failing: u64,
    /// One that fails.
    example: Option<&'a JobSummary>,
}

/// The servers of these jobs, those that are down first, then those with the most jobs that fail.
pub fn origins<'a>(jobs: impl Iterator<Item = &'a JobSummary>, scheduler: &Scheduler) -> Vec<Origin> {
    let mut counted: HashMap<(&str, &str), Counted<'_>> = HashMap::new();
    for job in jobs {
        let [source, target] = job.job.endpoints().map(remote);
        let names = [source, target].map(|remote| remote.map(name));
        let target = target.filter(|_| names[0] != names[1]);
        for endpoint in [source, target].into_iter().flatten() {
            let one = counted.entry(name(endpoint)).or_insert(Counted { endpoint, jobs: 0, failing: 0, example: None });
            one.jobs += 1;
            if job.fails && !job.paused && is_blamed(endpoint, job) {
                one.failing += 1;
                one.example.get_or_insert(job);
            }
        }
    }
    let origin = |one: Counted<'_>| {
        let shut = scheduler.shut(&server(one.endpoint));
        Origin {
            origin: one.endpoint.url.origin().ascii_serialization(),
            jobs: one.jobs,
            failing: one.failing,
            shut: shut.is_some(),
            next_try: shut.flatten().map(|left| rfc3339_text(SystemTime::now() + left)),
            reason: one.example.and_then(|job| match &job.job {
                JobOrDocument::Job(job) => job.status().reason.as_deref().map(str::to_owned),
                JobOrDocument::Document(..) => None,
            }),
        }
    };
    let mut origins: Vec<_> = counted.into_values().map(origin).collect();
    origins.sort_by_cached_key(|one| (Reverse(one.shut), Reverse(one.failing), Reverse(one.jobs), one.origin.clone()));
    origins
}

/// Whether the reason why a job fails is about this end: one that names neither end is about both.
fn is_blamed(endpoint: &RemoteEndpoint, job: &JobSummary) -> bool {
    let JobOrDocument::Job(replication) = &job.job else { return true };
    let Some(reason) = replication.status().reason.clone() else { return true };
    let names = |remote: &RemoteEndpoint| reason.contains(name(remote).1);
    names(endpoint) || !job.job.endpoints().into_iter().filter_map(remote).any(names)
}

fn remote(endpoint: &Endpoint) -> Option<&RemoteEndpoint> {
    match endpoint {
        Endpoint::Remote(remote) if remote.local_name.is_none() => Some(remote),
        // This server's own, wherever they are.
        Endpoint::Remote(_) | Endpoint::Local(_) => None,
    }
}

/// A name for its origin that needs no memory.
fn name(remote: &RemoteEndpoint) -> (&str, &str) {
    (remote.url.scheme(), &remote.url[Position::BeforeHost..Position::AfterPort])
}
