//! Ends jobs of users whose sessions are over: whose password has changed, who are gone, whose time has passed.
//!
//! A life that goes on learns it when its cookie is to be renewed, and a parked job when it is woken, which may be never. So somebody
//! looks at the users of such jobs every now and then: at each user once, however many jobs he has. A job whose session is over
//! is taken off, and those who wait for it are told why. Whoever asks for it again before that begins it anew ([`ask_again`]). A CouchDB that doesn't answer says nothing of anybody: it is asked again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::replication::Replication;
use super::running::RunningJobs;
use super::scheduler::Scheduler;
use crate::access::Caller;
use crate::beside::{AdminError, LastingSession, SessionOver, Sessions};
use crate::endpoint::Endpoint;
use crate::replicate::ReplicateError;
use crate::replicate::request::Request;

/// Jobs that run under sessions, by the user's name.
type JobsByUser<'a> = BTreeMap<&'a str, Vec<(&'a Replication, &'a LastingSession)>>;

/// Looks for as long as the server runs.
pub async fn watch(sessions: Sessions, running: RunningJobs, scheduler: Scheduler) {
    loop {
        tokio::time::sleep(sessions.check_every()).await;
        let all = running.list();
        let mut by_user = JobsByUser::new();
        for (job, session) in all.iter().filter_map(|job| Some((&**job, session(&job.request)?))) {
            match session.is_within_its_time() {
                Ok(()) => by_user.entry(session.name()).or_default().push((job, session)),
                Err(over) => end(job, over, &running, &scheduler),
            }
        }
        if let Err(error) = look(by_user, &sessions, &running, &scheduler).await {
            tracing::debug!(%error, "whether sessions are over couldn't be found out; CouchDB is asked again");
        }
    }
}

async fn look(
    by_user: JobsByUser<'_>,
    sessions: &Sessions,
    running: &RunningJobs,
    scheduler: &Scheduler,
) -> Result<(), AdminError> {
    if by_user.is_empty() {
        return Ok(());
    }
    let salts = sessions.salts().await?;
    for (name, jobs) in by_user {
        let salt = match salts.of(name).await {
            // What is wrong with one of them, or with what is answered of him, needn't be with the others.
            Err(error) if error.is_answer() => {
                tracing::debug!(%error, user = name, "whether a session is over couldn't be found out");
                continue;
            }
            salt => salt?,
        };
        for (job, session) in jobs {
            if let Err(over) = session.is_his(salt.as_ref()) {
                end(job, over, running, scheduler);
            }
        }
    }
    Ok(())
}

/// Somebody asks for a continuous job, which may run already under a session of his: that lasts longer then. If it can't, since it is
/// of an old password, or since he now asks with his password itself, the job makes way for the one that he asks for.
///
/// It may be another one's: the id says which user's name stands in the URLs, and not who asked. He joins it, and changes nothing.
pub fn ask_again((request, caller): (&Request, &Caller), id: &str, running: &RunningJobs, scheduler: &Scheduler) {
    let Some(job) = running.get(id).filter(|job| caller.may_manage(job.owner())) else { return };
    let Some(before) = session(&job.request) else { return };
    let lasts = session(request).is_some_and(|now| before.extend(now).is_ok());
    if !lasts && running.remove(id, job.number).is_some() {
        tracing::info!(replication.id = id, "a replication begins anew: its user has proven himself otherwise");
        scheduler.removed(&job);
    }
}

/// The session that a job runs under.
fn session(request: &Request) -> Option<&LastingSession> {
    [&request.source, &request.target].into_iter().find_map(|endpoint| match endpoint {
        Endpoint::Remote(remote) => remote.session().map(Arc::as_ref),
        Endpoint::Local(_) => None,
    })
}

fn end(job: &Replication, over: SessionOver, running: &RunningJobs, scheduler: &Scheduler) {
    let id = job.id.to_string();
    let reason = over.to_string();
    if running.remove_because(&id, job.number, &ReplicateError::SessionOver(over)).is_some() {
        tracing::warn!(replication.id = id, reason, "a replication is ended: its user's session is over");
        scheduler.removed(job);
    }
}
