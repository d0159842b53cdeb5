//! `_scheduler/docs` if CouchDB's documents are run here: its own list, with our word on those that aren't at their ends.
//!
//! CouchDB's document processor knows all of them, and calls pending what its scheduler doesn't run. It is asked in the caller's
//! name, so who may see what, and in which order, is its to say. Only states it can't choose by: then all are asked for, and chosen here.

use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use axum::response::{Response, Result};
use serde_json::{Value, json};

use super::identify::Proofs;
use super::lists::couchdbs_own;
use crate::beside::Upstream;
use crate::document::DocId;
use crate::http::query::Query;
use crate::http::scheduler::{docs, page, states};
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
) -> Result<Response> {
    let wanted = states(&query)?;
    let path = match wanted.is_empty() {
        true => uri.path_and_query().map_or(uri.path(), |path| path.as_str()).to_owned(),
        false => uri.path().to_owned(),
    };
    let mut answer: Value = couchdbs_own(&upstream, proofs, &path).await?;
    match answer.get_mut("docs").and_then(Value::as_array_mut) {
        None => tell(&state, &mut answer),
        Some(entries) => {
            entries.iter_mut().for_each(|entry| tell(&state, entry));
            if !wanted.is_empty() {
                let mut page = page(&query)?;
                let is_wanted = |entry: &Value| wanted.iter().any(|state| entry["state"] == json!(state));
                entries.drain(..).filter(is_wanted).for_each(|entry| page.add(entry));
                return Ok(docs(page));
            }
        }
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
