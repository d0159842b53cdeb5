//! `/_scheduler/jobs` and `/_scheduler/docs`: what replicates, and what documents say of it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::ApiError;
use super::query::Query;
use super::request::Payload;
use super::{AppState, answer};
use crate::document::DocId;
use crate::jobs::listing::{Action, Page};
use crate::jobs::replication::State as JobState;
use crate::store::{DbName, StoreError};

/// Jobs of an answer that doesn't say how many it wants, as in CouchDB.
const JOBS: u64 = 100;
/// Bytes of an action.
const MAX_ACTION_BYTES: usize = 1 << 10;

/// `GET /_scheduler/jobs?limit=&skip=`.
pub async fn jobs(State(state): State<AppState>, query: Query) -> Result<Response, ApiError> {
    let (skip, limit) = paged(&query)?;
    let (total, jobs) = state.jobs.entries((count(skip), count(limit)));
    Ok(answer::json(StatusCode::OK, &json!({ "total_rows": total, "offset": skip, "jobs": jobs })))
}

/// How many jobs of `_scheduler/jobs` are passed over, and how many are wanted.
pub fn paged(query: &Query) -> Result<(u64, u64), ApiError> {
    Ok((query.number("skip")?.unwrap_or(0), query.number("limit")?.unwrap_or(JOBS)))
}

/// `GET /_scheduler/jobs/{id}`.
pub async fn job(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let entry = state.jobs.job_entry(&id).ok_or(ApiError::Missing)?;
    Ok(answer::json(StatusCode::OK, &entry))
}

/// `POST /_scheduler/jobs/{id}` with `{"action": "pause" | "resume" | "retry_now"}`, which CouchDB doesn't have.
pub async fn act(
    State(state): State<AppState>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Response, ApiError> {
    #[derive(Deserialize)]
    struct Wanted {
        action: Action,
    }
    let unknown = "`action` must be `pause`, `resume` or `retry_now`";
    let Wanted { action } = payload.limited(MAX_ACTION_BYTES).parsed(unknown).await?;
    let entry = state.jobs.act(&id, action).await?.ok_or(ApiError::Missing)?;
    Ok(answer::json(StatusCode::OK, &entry))
}

/// `GET /_scheduler/docs?limit=&skip=&states=`.
pub async fn documents(State(state): State<AppState>, query: Query) -> Result<Response, ApiError> {
    of(&state, state.jobs.document_databases(), &query).await
}

/// `GET /_scheduler/docs/{db}` and `GET /_scheduler/docs/{db}/{doc}`. A slash in the database's name may be raw.
pub async fn of_database(
    State(state): State<AppState>,
    Path(place): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let parts: Vec<_> = place.split('/').collect();
    let end = parts.iter().position(|part| *part == "_replicator").ok_or(StoreError::NoDatabase)?;
    let name = DbName::parse(&parts[..=end].join("/")).map_err(|_| StoreError::NoDatabase)?;
    if parts.len() == end + 1 {
        return of(&state, vec![name], &query).await;
    }
    let id = DocId::from(parts[end + 1..].join("/"));
    let entry = state.jobs.document_entry(state.store()?, &name, &id).await?.ok_or(ApiError::Missing)?;
    Ok(answer::json(StatusCode::OK, &entry))
}

async fn of(state: &AppState, databases: Vec<DbName>, query: &Query) -> Result<Response, ApiError> {
    let wanted = states(query)?;
    let all_states = wanted.is_empty();
    let wanted: Arc<dyn Fn(JobState) -> bool + Send + Sync> =
        Arc::new(move |state| wanted.is_empty() || wanted.contains(&state));
    let mut page = page(query)?;
    for name in databases {
        let database = match state.store()?.database(&name).await {
            Err(StoreError::NoDatabase) if !all_states || page.total() > 0 => continue,
            database => database?,
        };
        page = state.jobs.document_entries(&database, wanted.clone(), page).await?;
    }
    Ok(docs(page))
}

/// Which entries of `_scheduler/docs` are wanted: `skip`, `limit` and `descending`.
pub fn page<E>(query: &Query) -> Result<Page<E>, ApiError> {
    let (skip, limit) = (query.number("skip")?.unwrap_or(0), query.number("limit")?.unwrap_or(u64::MAX));
    Ok(Page::new((count(skip), count(limit)), query.flag("descending")?))
}

/// The answer of `_scheduler/docs`.
pub fn docs(page: Page<impl Serialize>) -> Response {
    let (total, skip) = (page.total(), page.skip());
    answer::json(StatusCode::OK, &json!({ "total_rows": total, "offset": skip, "docs": page.into_entries() }))
}

/// The states of `states=a,b`.
pub fn states(query: &Query) -> Result<Vec<JobState>, ApiError> {
    let words = query.get("states").unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    let state = |word: &str| {
        let known = JobState::ALL.iter().find(|(_, known)| *known == word).map(|(state, _)| *state);
        known.ok_or_else(|| ApiError::bad_request(format!("Unknown replication state `{word}`")))
    };
    words.map(state).collect()
}

/// As many as there can be.
pub fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
