//! Lists of what runs: CouchDB's own entries and ours, as one.
//!
//! CouchDB goes on with tasks of its own (compactions, indexes), and with its documents' replications, and whoever looks through us
//! wants to see all. It is asked in the caller's name: what he may not see there, he doesn't see here.

use std::collections::BTreeMap;

use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::identify::{Proofs, as_it_came};
use crate::beside::{Answered, Unanswered, Upstream};
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::scheduler::{count, paged};
use crate::http::{AppState, answer};

/// What CouchDB has to say besides, or why it won't.
pub(super) enum Theirs<T> {
    Said(T),
    Refused(Answered),
}

pub(super) async fn theirs<T: for<'a> Deserialize<'a>>(
    upstream: &Upstream,
    Proofs(proofs): Proofs,
    path: &str,
) -> Result<Theirs<T>, ApiError> {
    let answered = upstream.ask(path, proofs).await?;
    if answered.status != StatusCode::OK {
        return Ok(Theirs::Refused(answered));
    }
    let said = serde_json::from_slice(&answered.body);
    Ok(Theirs::Said(said.map_err(|_| Unanswered::Malformed(path.to_owned()))?))
}

/// `GET /_active_tasks`: CouchDB's, and then ours.
pub async fn active_tasks(
    State(state): State<AppState>,
    Extension(upstream): Extension<Upstream>,
    Extension(proofs): Extension<Proofs>,
) -> Result<Response, ApiError> {
    let mut tasks: Vec<Value> = match theirs(&upstream, proofs, "/_active_tasks").await? {
        Theirs::Said(tasks) => tasks,
        Theirs::Refused(answered) => return Ok(as_it_came(answered)),
    };
    tasks.extend(state.jobs.active_tasks());
    Ok(answer::json(StatusCode::OK, &tasks))
}

/// More than there are.
const ALL: u32 = i32::MAX as u32;

/// `GET /_scheduler/jobs?limit=&skip=`: all of them in the order of their ids. CouchDB is asked for all of its, since ours may stand
/// before any of them, or be the same.
pub async fn jobs(
    State(state): State<AppState>,
    Extension(upstream): Extension<Upstream>,
    Extension(proofs): Extension<Proofs>,
    query: Query,
) -> Result<Response, ApiError> {
    #[derive(Deserialize)]
    struct Page {
        jobs: Vec<Value>,
    }
    let (skip, limit) = paged(&query)?;
    let Page { mut jobs } = match theirs(&upstream, proofs, &format!("/_scheduler/jobs?limit={ALL}")).await? {
        Theirs::Said(page) => page,
        Theirs::Refused(answered) => return Ok(as_it_came(answered)),
    };
    let (_, ours) = state.jobs.entries((0, usize::MAX));
    let ours: BTreeMap<_, _> =
        ours.iter().filter_map(|entry| Some((entry.id.as_str(), serde_json::to_value(entry).ok()?))).collect();
    // A job of a document that is run here stands still there.
    jobs.retain(|job| job["id"].as_str().is_none_or(|id| !ours.contains_key(id)));
    jobs.extend(ours.into_values());
    jobs.sort_by_cached_key(|job| job["id"].as_str().unwrap_or_default().to_owned());
    let total = jobs.len();
    let jobs: Vec<_> = jobs.into_iter().skip(count(skip)).take(count(limit)).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "total_rows": total, "offset": skip, "jobs": jobs })))
}

/// `GET /_scheduler/jobs/{id}`: ours, else CouchDB's.
pub async fn job(
    State(state): State<AppState>,
    Extension(upstream): Extension<Upstream>,
    Extension(Proofs(proofs)): Extension<Proofs>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    match state.jobs.job_entry(&id) {
        Some(entry) => Ok(answer::json(StatusCode::OK, &entry)),
        None => Ok(as_it_came(upstream.ask(uri.path(), proofs).await?)),
    }
}
