//! The server itself: its greeting, whether it is up, fresh uuids.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, PRAGMA};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::uuids;

use super::error::ApiError;
use super::query::Query;
use super::{AppState, COUCHDB_VERSION, answer};

/// `GET /`. The version is CouchDB's, the vendor's is couchrep's own.
pub async fn welcome(State(state): State<AppState>) -> Response {
    let greeting = json!({
        "couchdb": "Welcome",
        "version": COUCHDB_VERSION,
        "uuid": state.uuid,
        "features": [],
        "vendor": { "name": "couchrep", "version": env!("CARGO_PKG_VERSION") },
    });
    answer::json(StatusCode::OK, &greeting)
}

/// `GET /_up`: whether others may send work here. While the server starts or stops it is 503, so that balancers pass it by;
/// CouchDB says 404 while it is being maintained.
pub async fn up(State(state): State<AppState>) -> Response {
    let status = if state.availability.is_up() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, &json!({ "status": state.availability.status(), "seeds": {} }))
}

/// `GET /_uuids?count=`: ids for new documents, in CouchDB's `sequential` order.
pub async fn fresh_uuids(State(state): State<AppState>, query: Query) -> Result<Response, ApiError> {
    let count = query.number("count")?.unwrap_or(1);
    if count > state.settings.current().http.max_uuids as u64 {
        return Err(ApiError::bad_request("count parameter too large"));
    }
    let uuids = (0..count).map(|_| uuids::sequential()).collect::<Vec<_>>();
    let mut response = answer::json(StatusCode::OK, &json!({ "uuids": uuids }));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("must-revalidate, no-cache"));
    response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    Ok(response)
}
