//! `POST /_replicate`, `GET /_replicate/{id}/failures` and `GET /_active_tasks`.
//!
//! The job has a task of its own; this only awaits its end, so a client that hangs up stops nothing.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::access::Caller;
use crate::document::DocumentError;
use crate::jobs::Answer;
use crate::json::MAX_VALUE_BYTES;
use crate::replicate::ReplicateError;
use crate::replicate::request::unknown_fields;

use super::error::ApiError;
use super::open_requests::RequestPermit;
use super::query::Query;
use super::request::Payload;
use super::{AppState, answer};

/// `POST /_replicate`: starts, joins or cancels a replication.
///
/// As in CouchDB, GET is a POST that lacks its body, and other methods are refused.
pub async fn replicate(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(place): Extension<RequestPermit>,
    method: Method,
    payload: Payload,
) -> Result<Response, ApiError> {
    let request = asked(method, payload).await?;
    // Whoever waits for a replication costs next to nothing, and may wait for days: neither room for bodies nor a request's place.
    place.leave();
    let unknown = unknown(&request);
    Ok(told(state.jobs.replicate(request, &caller).await, unknown))
}

/// What is asked for.
pub async fn asked(method: Method, payload: Payload) -> Result<Map<String, Value>, ApiError> {
    match method {
        Method::POST => {}
        Method::GET | Method::HEAD => return Err(ApiError::bad_request("Missing request body")),
        _ => return Err(ApiError::MethodNotAllowed("POST".into())),
    }
    let body = payload.limited(MAX_VALUE_BYTES).json().await?;
    if body.is_empty() {
        return Err(ApiError::bad_request("Missing request body"));
    }
    match serde_json::from_slice(&body).map_err(|_| DocumentError::InvalidJson)? {
        Value::Object(request) => Ok(request),
        _ => Err(ApiError::bad_request("Request body must be a JSON object")),
    }
}

/// The answer; `unknown`: fields of the request that mean nothing.
pub fn told(answered: Result<Answer, ReplicateError>, unknown: Option<HeaderValue>) -> Response {
    let mut response = match answered {
        Ok(Answer::Completed(id, result)) => named(id, answer::json(StatusCode::OK, &result)),
        Ok(Answer::Started(id)) => answer::json(StatusCode::ACCEPTED, &json!({ "ok": true, "_local_id": id })),
        Ok(Answer::Cancelled(id)) => answer::json(StatusCode::OK, &json!({ "ok": true, "_local_id": id })),
        Err(error) => ApiError::from(error).into_response(),
    };
    response.headers_mut().extend(unknown.map(|names| (UNKNOWN_FIELDS, names)));
    response
}

/// Names the fields of a request that mean nothing, in the log and in a header: `"continous":true` was a one-shot, and nobody said why.
pub fn unknown(request: &Map<String, Value>) -> Option<HeaderValue> {
    let mut names = unknown_fields(request);
    names.truncate(MAX_UNKNOWN);
    // Whatever a name is made of, it stays one, and no header ends in it.
    let names = names.iter().map(|name| utf8_percent_encode(name, NAME).to_string().chars().take(MAX_NAME).collect());
    let names = names.collect::<Vec<String>>().join(", ");
    if names.is_empty() {
        return None;
    }
    tracing::warn!(fields = names, "a request to replicate has fields that mean nothing; they are ignored");
    HeaderValue::try_from(names).ok()
}

const UNKNOWN_FIELDS: HeaderName = HeaderName::from_static("x-couchrep-unknown-fields");
/// Names that are shown.
const MAX_UNKNOWN: usize = 20;
/// Characters of a name that are shown.
const MAX_NAME: usize = 64;
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

/// CouchDB's answer to a one-shot doesn't tell its id, under which its failures are listed: a header does.
fn named(id: String, mut answer: Response) -> Response {
    answer.headers_mut().extend(HeaderValue::try_from(id).ok().map(|id| (REPLICATION_ID, id)));
    answer
}

const REPLICATION_ID: HeaderName = HeaderName::from_static("x-couchrep-replication-id");

/// Failures of an answer: by default, and at most.
const MAX_FAILURES: usize = 1000;

/// `GET /_replicate/{id}/failures`: documents that didn't get to the target.
pub async fn failures(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let limit = query.number("limit")?.map_or(MAX_FAILURES, |limit| usize::try_from(limit).unwrap_or(MAX_FAILURES));
    let part = (query.number("skip")?.unwrap_or(0), limit.min(MAX_FAILURES));
    let (total, failures) = state.jobs.failures(&id, part, &caller).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "total": total, "failures": failures })))
}

/// `GET /_active_tasks`.
pub async fn active_tasks(State(state): State<AppState>) -> Response {
    answer::json(StatusCode::OK, &state.jobs.active_tasks())
}
