//! The text of a filter function, which enters the replication id: a filter whose code changes makes another replication.
//!
//! `GET {source}/_design/{ddoc}`, the member `filters.{name}`, read before the id is computed. Built-in filters (`_design`,
//! `_view`) have no code. A function that isn't there is the caller's mistake, told before anything runs.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::ReplicateError;
use super::id::ReplicationId;
use super::job::Context;
use super::request::Request;
use crate::access::Caller;
use crate::effort::pulse::Pulse;
use crate::endpoint::Endpoint;
use crate::peer::PeerError;

/// A replication's id, and those under which its checkpoints may stand.
pub type Ids = (ReplicationId, Vec<String>);

impl Context {
    /// A request as it is run, with the secrets that it names; its replication's id, and the ids under which its checkpoints may
    /// stand, the newest version first. A user's filter enters with its code, which the source is asked for.
    pub async fn identify(
        &self,
        request: impl Into<Arc<Request>>,
        caller: &Arc<Caller>,
    ) -> Result<(Arc<Request>, Ids), ReplicateError> {
        let request = request.into().with_secrets(&self.settings.secrets, caller)?;
        let code = fetch(self, &request, caller).await?;
        let id = ReplicationId::of(&request, &self.identity, caller, code.as_deref());
        let log_ids = ReplicationId::log_ids(&request, &self.identity, caller, code.as_deref());
        Ok((request, (id, log_ids)))
    }
}

/// Fetches the filter function's text from the source, within `retry_time_limit`; `None` if the request names none.
///
/// # Errors
/// [`ReplicateError::NotFound`] if the source has no such design document, or that no such filter.
async fn fetch(context: &Context, request: &Request, caller: &Arc<Caller>) -> Result<Option<String>, ReplicateError> {
    let Some((ddoc, name)) = request.filter.as_ref().and_then(|filter| filter.name.split_once('/')) else {
        return Ok(None);
    };
    let decoded = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let (ddoc, name) = (decoded(ddoc), decoded(name));
    let design = design_doc(context, &request.source, caller, &ddoc).await?;
    let design: Value = design.map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap_or_default());
    let source = request.source.display(&context.identity.address);
    if !design.is_object() {
        let reason = format!("Couldn't open document `_design/{ddoc}` from source database `{source}`: not found");
        return Err(ReplicateError::NotFound(reason));
    }
    let code = design.get("filters").and_then(|filters| filters.get(&name)).and_then(Value::as_str);
    code.map(|code| Some(code.to_owned())).ok_or_else(|| {
        let reason = format!("Couldn't find filter `{name}` in document `_design/{ddoc}` on `{source}`");
        ReplicateError::NotFound(reason)
    })
}

async fn design_doc(
    context: &Context,
    source: &Endpoint,
    caller: &Arc<Caller>,
    ddoc: &str,
) -> Result<Option<bytes::Bytes>, ReplicateError> {
    let peer = context.databases.open(source, caller, &Pulse::default()).await?;
    let limit = context.settings.retry_time_limit;
    let asking = tokio::time::timeout(limit, peer.design_doc(ddoc));
    let answer = context.tasks.stopping().run_until_cancelled(asking).await.ok_or(ReplicateError::ShuttingDown)?;
    let timed_out = |_| PeerError::Broken {
        request: format!("GET {}_design/{ddoc}", peer.name()),
        reason: format!("it took longer than {limit:?}"),
    };
    answer.unwrap_or_else(|elapsed| Err(timed_out(elapsed))).map_err(|error| match error {
        PeerError::DatabaseMissing { .. } => {
            ReplicateError::DatabaseNotFound(source.display(&context.identity.address))
        }
        error => error.into(),
    })
}
