//! Lists of what runs: CouchDB's own entries and ours, as one.
//!
//! CouchDB goes on with tasks of its own (compactions, indexes), and with its documents' replications, and whoever looks through us
//! wants to see all. It is asked in the caller's name: what he may not see there, he doesn't see here.

use std::collections::BTreeMap;

use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{Response, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::identify::{Proofs, as_it_came};
use crate::beside::{Unanswered, Upstream};
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::scheduler::{count, paged};
use crate::http::{AppState, answer};

/// What CouchDB answers to whoever has these proofs. If it refuses, its refusal is the answer to him, as it came.
pub(super) async fn couchdbs_own<T: DeserializeOwned>(
    upstream: &Upstream,
    Proofs(proofs): Proofs,
    path: &str,
) -> Result<T> {
    let answered = upstream.ask(path, proofs).await.map_err(ApiError::from)?;
    if answered.status != StatusCode::OK {
        return Err(as_it_came(answered).into());
    }
    let malformed = |_| ApiError::from(Unanswered::Malformed(path.to_owned()));
    Ok(serde_json::from_slice(&answered.body).map_err(malformed)?)
}

/// `GET /_active_tasks`: CouchDB's, and then ours.
pub async fn active_tasks(
    State(state): State<AppState>,
    Extension(upstream): Extension<Upstream>,
    Extension(proofs): Extension<Proofs>,
) -> Result<Response> {
    let mut tasks: Vec<Value> = couchdbs_own(&upstream, proofs, "/_active_tasks").await?;
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
) -> Result<Response> {
    #[derive(Deserialize)]
    struct Page {
        jobs: Vec<Value>,
    }
    let (skip, limit) = paged(&query)?;
    let path = format!("/_scheduler/jobs?limit={ALL}");
    let Page { mut jobs } = couchdbs_own(&upstream, proofs, &path).await?;
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
