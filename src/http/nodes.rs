//! `/_membership` and `/_node/{node}`: the one node that this server is, under the name that `_active_tasks` has too.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::request::ThisNode;
use super::{AppState, answer};

/// `GET /_membership`.
pub async fn membership(State(state): State<AppState>) -> Response {
    let nodes = [state.jobs.node()];
    answer::json(StatusCode::OK, &json!({ "all_nodes": nodes, "cluster_nodes": nodes }))
}

/// `GET /_node/{node}`.
pub async fn name(_: ThisNode, State(state): State<AppState>) -> Response {
    answer::json(StatusCode::OK, &json!({ "name": state.jobs.node() }))
}
