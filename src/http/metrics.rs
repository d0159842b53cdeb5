//! What is told to whoever watches the server: for Prometheus (`/_metrics`, and `/_node/{node}/_prometheus` as in CouchDB), and
//! as CouchDB's JSON for older exporters (`/_node/{node}/_stats` and `_system`).
//!
//! The rooms count; here it is asked what they counted, when somebody wants to know. Names are CouchDB's where it has the
//! same number (`couchdb_…`), Prometheus' own for the process (`process_…`), else `couchrep_…`. What CouchDB counts and
//! nothing here corresponds to isn't told: a zero would be a lie. Each answer is made by a recorder of its own, so that
//! what is gone (a job, a state) is gone from the next answer too.
//!
//! For server admins, and for users with the role `_metrics`. No label holds a credential: sources and targets are named as
//! `_active_tasks` names them.

mod figure;
mod couchdb;
mod own;
mod jobs;

use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use metrics_process::collector;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::request::ThisNode;
use super::state::Backend;
use super::{AppState, answer};
use crate::tasks;

/// The text format that every Prometheus reads.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// `GET /_metrics` and `GET /_node/{node}/_prometheus`.
pub async fn prometheus(_: ThisNode, State(state): State<AppState>) -> Result<Response, ApiError> {
    let file_bytes = match &state.backend {
        Backend::Embedded { store, .. } => store.file_bytes().await?,
        Backend::CouchDb(_) => 0,
    };
    // Of thousands of jobs it is megabytes.
    let text = tasks::blocking("write the metrics", move || {
        let process = collector::collect();
        let jobs = state.jobs.figures();
        let mut figures = couchdb::figures(&state, &process, &jobs);
        figures.extend(own::figures(&state, &process, file_bytes));
        figures.extend(jobs::figures(jobs, state.settings.current().http.metrics_jobs));
        let mut text = figure::rendered(&figures);
        text.push_str(&state.traffic.durations());
        text
    });
    Ok((StatusCode::OK, [(CONTENT_TYPE, TEXT_FORMAT)], text.await?).into_response())
}

/// `GET /_node/{node}/_stats`: CouchDB's tree of statistics, as far as they are true here.
pub async fn stats(_: ThisNode, State(state): State<AppState>) -> Response {
    answer::json(StatusCode::OK, &tree(&state))
}

/// `GET /_node/{node}/_stats/{section…}`: a part of it; as in CouchDB `null`, if there is no such part.
pub async fn stats_part(
    _: ThisNode,
    State(state): State<AppState>,
    Path((_, section)): Path<(String, String)>,
) -> Response {
    let names = section.split('/').filter(|name| !name.is_empty());
    let part = names.fold(tree(&state), |mut part, name| part.get_mut(name).map_or(Value::Null, Value::take));
    answer::json(StatusCode::OK, &part)
}

fn tree(state: &AppState) -> Value {
    let mut tree = Map::new();
    for figure in couchdb::figures(state, &collector::collect(), &state.jobs.figures()) {
        figure.add_to(&mut tree);
    }
    Value::Object(tree)
}

/// `GET /_node/{node}/_system`: what isn't Erlang's own. All memory stands under `memory.other`, tasks are processes.
pub async fn system(_: ThisNode, State(state): State<AppState>) -> Response {
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let system = json!({
        "uptime": state.started.elapsed().as_secs(),
        "memory": { "other": collector::collect().resident_memory_bytes.unwrap_or(0) },
        "os_proc_count": 0,
        "stale_proc_count": 0,
        "process_count": tasks,
        "message_queues": {},
        "internal_replication_jobs": 0,
        "distribution": {},
        "distribution_events": {},
    });
    answer::json(StatusCode::OK, &system)
}
