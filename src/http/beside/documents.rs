//! `_scheduler/docs` if CouchDB's documents are run here: its own list, with our word on those that aren't at their ends.
//!
//! CouchDB's document processor knows all of them, and calls pending what its scheduler doesn't run. It is asked in the caller's
//! name, so who may see what, and in which order, is its to say. Only states it can't choose by: then all are asked for, and chosen here.

use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};

use super::identify::{Proofs, as_it_came};
use super::lists::{Theirs, theirs};
use crate::beside::Upstream;
use crate::document::DocId;
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::scheduler::{count, states};
use crate::http::{AppState, answer};
use crate::jobs::replication::JobDocument;
use crate::store::DbName;

/// `GET /_scheduler/docs`, of one database, or one document.
pub async fn list(
    State(state): State<AppState>,
    Extension(upstream): Extension<Upstream>,
    Extension(proofs): Extension<Proofs>,
    uri: Uri,
    query: Query,
) -> Result<Response, ApiError> {
    let wanted = states(&query)?;
    let path = match wanted.is_empty() {
        true => uri.path_and_query().map_or(uri.path(), |path| path.as_str()).to_owned(),
        false => uri.path().to_owned(),
    };
    let mut answer: Value = match theirs(&upstream, proofs, &path).await? {
        Theirs::Said(answer) => answer,
        Theirs::Refused(answered) => return Ok(as_it_came(answered)),
    };
    let Some(docs) = answer.get_mut("docs").and_then(Value::as_array_mut) else {
        tell(&state, &mut answer);
        return Ok(answer::json(StatusCode::OK, &answer));
    };
    docs.iter_mut().for_each(|entry| tell(&state, entry));
    if !wanted.is_empty() {
        let is_wanted = |entry: &Value| wanted.iter().any(|state| entry["state"] == json!(state));
        docs.retain(is_wanted);
        if query.flag("descending")? {
            docs.reverse();
        }
        let (skip, limit) = (query.number("skip")?.unwrap_or(0), query.number("limit")?.unwrap_or(u64::MAX));
        let total = docs.len();
        let docs: Vec<_> = docs.drain(..).skip(count(skip)).take(count(limit)).collect();
        answer = json!({ "total_rows": total, "offset": skip, "docs": docs });
    }
    Ok(answer::json(StatusCode::OK, &answer))
}

/// Our word on a document, if we run it.
fn tell(state: &AppState, entry: &mut Value) {
    let text = |name: &str| entry[name].as_str();
    let place = text("database").and_then(|name| DbName::parse(name).ok()).zip(text("doc_id"));
    let place = place.map(|(database, id)| JobDocument { database, id: DocId::from(id) });
    if let Some(ours) = place.and_then(|place| state.jobs.live_entry(&place)) {
        *entry = json!(ours);
    }
}
