//! Looks at both ends of a replication before it is asked for: would it find them, and be let in?
//!
//! Each database is asked how it is, as a life of the replication does first, with its asker's rights and credentials, and under the same
//! endpoint policy. Nothing is written, no job is made, and nothing is tried again: whoever waits for this wants to know what is
//! wrong now. Shut gates don't count either, since the password may have been mended. That somebody may write to the target only writing
//! would show.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Jobs, may_run};
use crate::access::Caller;
use crate::effort::pulse::Pulse;
use crate::endpoint::Endpoint;
use crate::peer::{DatabaseInfo, PeerError};
use crate::replicate::ReplicateError;
use crate::replicate::request::{Command, Request};

/// How long each end may take to answer.
const LIMIT: Duration = Duration::from_secs(15);

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// Of the source.
    pub source: CheckedEnd,
    /// Of the target.
    pub target: CheckedEnd,
    /// The id that the replication would have, or what is wrong with it besides its ends.
    pub id: Result<String, ReplicateError>,
    /// A job has this id.
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
        let id = self.check_whole(request, caller).await;
        let running = id.as_ref().is_ok_and(|id| self.running.get(id).is_some());
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
        let peer = databases.open(endpoint, caller, &Pulse::default()).await?;
        Ok(peer.info().await?)
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
