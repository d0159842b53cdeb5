//! `/_node/{node}/_config`, and `/_config` as older releases have it: settings, read and changed while the server runs.
//!
//! Answers are those of CouchDB's `chttpd_node`: a value is a JSON string, a change is answered with what was there before. A
//! setting that couchrep doesn't have is 400 rather than kept for nobody.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::access::Caller;
use crate::settings::{Persist, SettingRefused};

use super::error::ApiError;
use super::request::{Payload, SettingPath, ThisNode};
use super::{AppState, answer};

/// Bytes of a value.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// `GET …/_config`: sections, their keys and values.
pub async fn all(_: ThisNode, State(state): State<AppState>) -> Response {
    answer::json(StatusCode::OK, &json!(state.settings.sections().await))
}

/// `GET …/_config/{section}`; one that nobody knows is empty.
pub async fn section(_: ThisNode, State(state): State<AppState>, path: SettingPath) -> Response {
    let section = state.settings.sections().await.remove(&path.section).unwrap_or_default();
    answer::json(StatusCode::OK, &json!(section))
}

/// `GET …/_config/{section}/{key}`.
pub async fn get(_: ThisNode, State(state): State<AppState>, path: SettingPath) -> Result<Response, ApiError> {
    let value = state.settings.get(&path.section, &path.key).await.ok_or(SettingRefused::NotSet)?;
    Ok(answer::json(StatusCode::OK, &value))
}

/// `PUT …/_config/{section}/{key}`: the value before, which is empty if there was none.
pub async fn put(
    _: ThisNode,
    State(state): State<AppState>,
    Extension(author): Extension<Arc<Caller>>,
    path: SettingPath,
    payload: Payload,
) -> Result<Response, ApiError> {
    let persist = persist(payload.headers());
    let body = payload.limited(MAX_VALUE_BYTES).whole().await?;
    let value = value(&body)?;
    if path.section == "admins" {
        // The first administrator adds people there.
        state.accounts()?.make_users().await?;
    }
    let before = state.settings.put((&path.section, &path.key), &value, &author, persist).await?;
    Ok(answer::json(StatusCode::OK, &before.unwrap_or_default()))
}

/// `DELETE …/_config/{section}/{key}`: the value before.
pub async fn delete(
    _: ThisNode,
    State(state): State<AppState>,
    Extension(author): Extension<Arc<Caller>>,
    path: SettingPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let before = state.settings.delete((&path.section, &path.key), &author, persist(&headers)).await?;
    Ok(answer::json(StatusCode::OK, &before))
}

/// `POST …/_config/_reload`: does nothing, since files are read at the start alone.
pub async fn reload(_: ThisNode) -> Response {
    answer::json(StatusCode::OK, &json!({ "ok": true }))
}

fn persist(headers: &HeaderMap) -> Persist {
    match headers.get("x-couch-persist").map(|value| value.as_bytes()) {
        Some(b"false") => Persist::No,
        _ => Persist::Yes,
    }
}

/// A JSON string without what no `ini` file could hold.
fn value(body: &[u8]) -> Result<String, ApiError> {
    if body.is_empty() {
        return Err(ApiError::bad_request("Missing request body"));
    }
    let value = serde_json::from_slice::<serde_json::Value>(body);
    match value.map_err(|_| ApiError::bad_request("invalid UTF-8 JSON"))? {
        serde_json::Value::String(text) if text.contains(char::is_control) => {
            Err(ApiError::bad_request("Invalid configuration value"))
        }
        serde_json::Value::String(text) => Ok(text),
        _ => Err(ApiError::bad_request("a JSON string expected")),
    }
}
