//! Looks at both ends of a replication before it is asked for: would it find them, and be let in?
//!
//! Each database is asked how it is, as a life of the replication does first, with its asker's rights and credentials, and under the same
//! endpoint policy. Nothing is written, no job is made, and nothing is tried again: whoever waits for this wants to know what is
//! wrong now. Shut gates don't count either, since the password may have been mended; but servers lock accounts after some refused logins,
//! so a login that was refused too often isn't tried for a while ([`refused_checks`](super::refused_checks)). That somebody may write to the target only writing would
//! show.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::replication::login;
use super::{Jobs, may_run};
use crate::access::Caller;
use crate::effort::pulse::Pulse;
use crate::endpoint::Endpoint;
use crate::peer::{DatabaseInfo, PeerError};
use crate::replicate::ReplicateError;
use crate::replicate::request::{Command, Request};

/// How long each end may take to answer, and the source to give a filter's code.
const LIMIT: Duration = Duration::from_secs(15);
/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// Of the source.
    pub source: CheckedEnd,
    /// Of the target.
    pub target: CheckedEnd,
    /// The id that the replication would have, if its source answers, or what is wrong with it besides its ends.
    pub id: Result<Option<String>, ReplicateError>,
    /// A job of the caller's has this id.
    pub running: bool,
}

/// What was found of one end.
#[derive(Debug)]
pub struct CheckedEnd {
    /// Its URL, without credentials.
    pub url: String,
    /// How it is.
    pub found: Result<Found, ReplicateError>,
}

/// How a database is.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there, with so many documents, if it tells.
    Documents(Option<u64>),
    /// It isn't there, and will be made.
    ToBeMade,
}

impl Jobs {
    /// Checks what would be asked for at `_replicate`.
    ///
    /// # Errors
    /// What makes no sense by itself; what is wrong at an end, or with its rights, is in the answer.
    pub async fn check(&self, body: &Map<String, Value>, caller: &Arc<Caller>) -> Result<Checked, ReplicateError> {
        caller.may_replicate()?;
        let request = match Command::parse(body).map_err(|error| self.as_url(error))? {
            Command::Run(request) => request,
            Command::Cancel(_) | Command::CancelId(_) => {
                return Err(ReplicateError::BadRequest("a cancel can't be checked".into()));
            }
        };
        let (source, target) = futures::join!(
            self.check_end(&request.source, false, caller),
            self.check_end(&request.target, request.create_target, caller),
        );
        let id = match &source.found {
            Ok(_) => match tokio::time::timeout(LIMIT, self.check_whole(request, caller)).await {
                Ok(id) => id.map(Some),
                Err(_) => Err(late(&source.url).into()),
            },
            // A filter's code stands there, and the whole is no better than its end.
            Err(_) => Ok(None),
        };
        let runs = |id: &String| self.running.get(id).is_some_and(|job| caller.may_manage(job.owner()));
        let running = id.as_ref().is_ok_and(|id| id.as_ref().is_some_and(runs));
        Ok(Checked { source, target, id, running })
    }

    async fn check_end(&self, endpoint: &Endpoint, will_be_made: bool, caller: &Arc<Caller>) -> CheckedEnd {
        let url = endpoint.display(&self.context.identity.address);
        let asked = tokio::time::timeout(LIMIT, self.ask(endpoint, caller)).await;
        let late =
            |_| PeerError::Broken { request: format!("GET {url}"), reason: format!("it took longer than {LIMIT:?}") };
        let found = match asked.unwrap_or_else(|elapsed| Err(late(elapsed).into())) {
            Ok(info) => Ok(Found::Documents(info.documents)),
            Err(ReplicateError::DatabaseNotFound(_)) if will_be_made => Ok(Found::ToBeMade),
            Err(ReplicateError::DatabaseNotFound(_)) => Err(ReplicateError::DatabaseNotFound(url.clone())),
            Err(error) => Err(error),
        };
        CheckedEnd { url, found }
    }

    async fn ask(&self, endpoint: &Endpoint, caller: &Arc<Caller>) -> Result<DatabaseInfo, ReplicateError> {
        let databases = self.context.databases.without_repetition();
        match endpoint {
            Endpoint::Local(name) if databases.has_store() => databases.may_open(name, caller).await?,
            endpoint => databases.may_connect(endpoint, caller)?,
        }
        let login = match endpoint {
            Endpoint::Remote(remote) => login(remote, caller.name.as_deref()),
            Endpoint::Local(_) => None,
        };
        if login.is_some_and(|login| !self.refused_checks.may_try(&login, Instant::now())) {
            let reason = "this login was refused too often to be tried again now, which might lock its account: wait five minutes";
            return Err(ReplicateError::Unauthorized(reason.into()));
        }
        let peer = databases.open(endpoint, caller, &Pulse::default()).await?;
        let answer = peer.info().await.map_err(ReplicateError::from);
        if let (Some(login), Err(ReplicateError::WrongCredentials { .. } | ReplicateError::Unauthorized(_))) =
            (login, &answer)
        {
            self.refused_checks.note(login, Instant::now());
        }
        answer
    }

    /// Whether somebody may run it, and its id.
    async fn check_whole(&self, request: Request, caller: &Arc<Caller>) -> Result<String, ReplicateError> {
        let Command::Run(request) = self.placed(Command::Run(request), caller).await? else {
            return Err(ReplicateError::Crashed);
        };
        may_run(&self.context.databases, caller, &request).await?;
        let (_, (id, _)) = self.context.identify(request, caller).await?;
        Ok(id.to_string())
    }
}

fn late(url: &str) -> PeerError {
    PeerError::Broken { request: format!("GET {url}"), reason: format!("it took longer than {LIMIT:?}") }
}
