//! `batch=ok`: the client wants neither to hear how its write went nor to wait until it is safe.
//!
//! The write is done before it is answered, unsynced, so that the store's next sync makes it safe (`writer.rs`), and a
//! shutdown loses nothing. As in CouchDB, it means something only to documents that are written as JSON.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::access::Denied;

use super::answer;
use super::error::ApiError;
use super::query::Query;

/// Whether the client wants it.
pub fn is_wanted(query: &Query) -> bool {
    query.get("batch") == Some("ok")
}

/// Whether an error is a verdict on the document.
fn is_refusal(error: &ApiError) -> bool {
    match error {
        ApiError::Conflict
        | ApiError::MissingStub(_)
        | ApiError::InvalidDesign(_)
        | ApiError::Compilation(_)
        | ApiError::Denied(Denied::MayNotDesign { .. }) => true,
        ApiError::Script(error) => error.is_verdict(),
        _ => false,
    }
}

/// Answers such a write: 202, without a revision. A document that is refused is logged and no more, as in CouchDB; but if
/// nothing can be written at all, the client hears of it.
pub fn answer(id: &str, written: Result<(), ApiError>) -> Result<Response, ApiError> {
    match written {
        Err(refused) if is_refusal(&refused) => {
            tracing::debug!(error = %refused, "a document of `batch=ok` was refused");
        }
        written => written?,
    }
    Ok(answer::json(StatusCode::ACCEPTED, &json!({ "ok": true, "id": id })))
}
