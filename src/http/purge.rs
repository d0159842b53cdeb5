//! `POST /{db}/_purge`: revisions that go as if they had never been written, and how many purges are remembered.
//!
//! Only leaves can be purged; the answer names those that were. As in CouchDB, nothing tells replications of it: a peer
//! that has a purged revision still may bring it back.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::document::{DocId, DocumentError, Rev};
use crate::json;

use super::answer;
use super::error::ApiError;
use super::request::{Db, Payload};

/// Documents of one request at most: CouchDB's `[purge] max_document_id_number`.
const MAX_DOCUMENTS: usize = 100;
/// Revisions of one request at most: CouchDB's `[purge] max_revisions_number`.
const MAX_REVISIONS: usize = 1000;

/// `POST /{db}/_purge`.
pub async fn purge(Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    let wanted = parse(&payload.json().await?)?;
    let purged = db.purge(wanted.clone()).await?;
    let ids = wanted.into_iter().map(|(id, _)| id);
    let mut text = br#"{"purge_seq":null,"purged":{"#.to_vec();
    for (number, (id, revs)) in ids.zip(purged).enumerate() {
        if number > 0 {
            text.push(b',');
        }
        json::push_string(&mut text, id.as_str());
        text.extend_from_slice(format!(":{}", json!(revs)).as_bytes());
    }
    text.extend_from_slice(b"}}");
    Ok(answer::text(StatusCode::CREATED, text))
}

fn parse(body: &[u8]) -> Result<Vec<(DocId, Vec<Rev>)>, ApiError> {
    json::check(body)?;
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_request("Request body must be a JSON object"));
    }
    let (mut wanted, mut revisions) = (Vec::<(DocId, Vec<Rev>)>::new(), 0);
    for member in json::members(body)? {
        let list = serde_json::from_slice::<Vec<Value>>(member.value);
        let list = list.map_err(|_| ApiError::bad_request("Invalid list of revisions"))?;
        let rev = |value: &Value| value.as_str().and_then(Rev::parse).ok_or(DocumentError::BadRev);
        let revs = list.iter().map(rev).collect::<Result<Vec<_>, _>>()?;
        revisions += revs.len();
        // The last of equal names counts.
        wanted.retain(|(id, _)| id.as_str() != member.key);
        wanted.push((member.key.as_ref().into(), revs));
        if wanted.len() > MAX_DOCUMENTS {
            return Err(ApiError::bad_request("Exceeded maximum number of documents."));
        }
    }
    match revisions > MAX_REVISIONS {
        true => Err(ApiError::bad_request("Exceeded maximum number of revisions.")),
        false => Ok(wanted),
    }
}

/// `GET /{db}/_purged_infos_limit`.
pub async fn infos_limit(Db(db): Db) -> Result<Response, ApiError> {
    Ok(answer::json(StatusCode::OK, &db.stats().await?.purged_infos_limit))
}

/// `PUT /{db}/_purged_infos_limit`.
pub async fn set_infos_limit(Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    let body = payload.whole().await?;
    if body.is_empty() {
        return Err(ApiError::bad_request("Missing request body"));
    }
    json::check(&body)?;
    let limit = serde_json::from_slice::<u64>(&body).ok().filter(|limit| *limit > 0);
    let limit = limit.ok_or_else(|| ApiError::bad_request("`purged_infos_limit` must be positive integer"))?;
    db.set_purged_infos_limit(limit).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "ok": true })))
}
