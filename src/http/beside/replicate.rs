//! `POST /_replicate` beside a CouchDB.
//!
//! All of it is ours, but for one thing: CouchDB may have jobs of its own, from before we stood here or asked of it directly, and whoever sees
//! them in our lists wants to cancel them here. So a cancel of what isn't ours is passed on, in the caller's name.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::Method;
use axum::response::Response;
use serde_json::Value;

use super::identify::{Proofs, as_it_came};
use crate::access::Caller;
use crate::beside::Upstream;
use crate::http::error::ApiError;
use crate::http::open_requests::RequestPermit;
use crate::http::request::Payload;
use crate::http::{AppState, replication};
use crate::replicate::ReplicateError;

/// Starts, joins or cancels a replication.
pub async fn replicate(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(place): Extension<RequestPermit>,
    (Extension(upstream), Extension(Proofs(proofs))): (Extension<Upstream>, Extension<Proofs>),
    method: Method,
    payload: Payload,
) -> Result<Response, ApiError> {
    let request = replication::asked(method, payload).await?;
    place.leave();
    let unknown = replication::unknown(&request);
    let cancel = (request.get("cancel") == Some(&Value::Bool(true))).then(|| Value::Object(request.clone()));
    match (state.jobs.replicate(request, &caller).await, cancel) {
        (Err(ReplicateError::NotFound(_)), Some(cancel)) => {
            Ok(as_it_came(upstream.post("/_replicate", proofs, &cancel).await?))
        }
        (answered, _) => Ok(replication::told(answered, unknown)),
    }
}
