//! `GET` and `POST /_dbs_info`: what `GET /{db}` tells, of several databases at once.
//!
//! GET lists databases as `_all_dbs` does, with its parameters; POST names up to [`MAX_KEYS`], in the order of its answer. A
//! database is opened when it is its turn, so that a list of thousands keeps no more open than others need.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::json;
use crate::store::{DbName, Store, StoreError};

use super::answer::{APPLICATION_JSON, Sink, Stopped};
use super::databases::select;
use super::error::ApiError;
use super::query::Query;
use super::question::List;
use super::request::Payload;
use super::{AppState, answer};

/// Databases that one request may name: CouchDB's `max_db_number_for_dbs_info_req`.
const MAX_KEYS: usize = 100;

/// `GET /_dbs_info`.
pub async fn get(State(state): State<AppState>, query: Query) -> Result<Response, ApiError> {
    let names = state.store()?.names();
    let names = names.iter().map(DbName::as_str).collect();
    let keys = select(names, &query)?.into_iter().map(Value::from).collect();
    described(&state, keys).await
}

/// `POST /_dbs_info`.
pub async fn post(State(state): State<AppState>, payload: Payload) -> Result<Response, ApiError> {
    let question = payload.json().await?;
    json::check(&question)?;
    if !question.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_request("Request body must be a JSON object"));
    }
    let keys = List::of(&question, "keys", "`keys` member must be an array.")?;
    let keys = keys.ok_or_else(|| ApiError::bad_request("`keys` member must exist."))?;
    if keys.count() > MAX_KEYS {
        return Err(ApiError::bad_request("too_many_keys"));
    }
    let keys = serde_json::from_slice(keys.text()).map_err(|_| ApiError::bad_request("invalid UTF-8 JSON"))?;
    described(&state, keys).await
}

async fn described(state: &AppState, keys: Vec<Value>) -> Result<Response, ApiError> {
    let store = state.store()?.clone();
    let write = |sink| async move { write(&sink, &store, keys).await };
    let body = answer::streamed(&state.tasks, "_dbs_info", write).await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
}

async fn write(sink: &Sink, store: &Store, keys: Vec<Value>) -> Result<(), Stopped> {
    let mut separator = "[";
    for key in keys {
        let row = match info(store, &key).await {
            Ok(info) => json!({ "key": key, "info": info }),
            Err(StoreError::NoDatabase) => json!({ "key": key, "error": "not_found" }),
            Err(error) => return Err(error.into()),
        };
        sink.send(format!("{separator}{row}")).await?;
        separator = ",";
    }
    sink.send(if separator == "[" { "[]\n" } else { "]\n" }).await
}

async fn info(store: &Store, key: &Value) -> Result<Value, StoreError> {
    let name = key.as_str().and_then(|name| DbName::parse(name).ok()).ok_or(StoreError::NoDatabase)?;
    let db = store.database(&name).await?;
    Ok(db.stats().await?.info(name.as_str()))
}
