//! Databases: made, described, listed, deleted, synced.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::access::Security;
use crate::store::{DbName, StoreError};

use super::documents::RequestedRev;
use super::error::ApiError;
use super::query::Query;
use super::request::{Db, DocPath, NamePath, Payload};
use super::{AppState, answer};

/// Bytes of a security object, which stays in memory while its database is open, and of a `_revs_limit`.
const MAX_SETTING_BYTES: usize = 1 << 20;

/// `PUT /{db}`. `q`, `n` and other parameters of clusters are ignored.
pub async fn create(State(state): State<AppState>, NamePath(name): NamePath) -> Result<Response, ApiError> {
    state.store()?.create(&DbName::parse(&name)?).await?;
    Ok(answer::located(answer::json(StatusCode::CREATED, &json!({ "ok": true })), &[&name]))
}

/// `DELETE /{db}`.
pub async fn delete(
    State(state): State<AppState>,
    NamePath(name): NamePath,
    query: Query,
) -> Result<Response, ApiError> {
    // So does CouchDB, for those who meant to delete a document and had an empty id.
    if query.get("rev").is_some() {
        let reason =
            "You tried to DELETE a database with a ?=rev parameter. Did you mean to DELETE a document instead?";
        return Err(ApiError::bad_request(reason));
    }
    let name = DbName::parse(&name).map_err(|_| StoreError::NoDatabase)?;
    state.store()?.delete(&name).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "ok": true })))
}

/// `GET /{db}`.
pub async fn info(Db(db): Db) -> Result<Response, ApiError> {
    let info = db.stats().await?.info(db.name().as_str());
    Ok(answer::json(StatusCode::OK, &info))
}

/// `GET /_all_dbs`.
pub async fn list(State(state): State<AppState>, query: Query) -> Result<Response, ApiError> {
    let names = state.store()?.names();
    let names = names.iter().map(DbName::as_str).collect();
    Ok(answer::json(StatusCode::OK, &select(names, &query)?))
}

/// The names between the keys, bounds included, in the order and number asked for. `names` are sorted.
pub fn select<'a>(mut names: Vec<&'a str>, query: &Query) -> Result<Vec<&'a str>, ApiError> {
    let descending = query.flag("descending")?;
    let (mut low, mut high) = query.range::<String>()?;
    if descending {
        names.reverse();
        std::mem::swap(&mut low, &mut high);
    }
    let limit = query.number("limit")?.unwrap_or(u64::MAX);
    let skip = query.number("skip")?.unwrap_or(0);
    let within =
        |name: &str| low.as_deref().is_none_or(|low| low <= name) && high.as_deref().is_none_or(|high| name <= high);
    let selected = names.into_iter().filter(|name| within(name));
    Ok(selected.skip(clamp(skip)).take(clamp(limit)).collect())
}

fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// `POST /{db}/_compact`: the file gives back what is free in it, later; `compact_running` tells until when.
pub async fn compact(State(state): State<AppState>, Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    payload.json().await?;
    state.store()?.compact(db);
    Ok(answer::json(StatusCode::ACCEPTED, &json!({ "ok": true })))
}

/// `POST /{db}/_compact/{ddoc}`: a design document has no index to compact.
pub async fn compact_views(DocPath { db, id }: DocPath, payload: Payload) -> Result<Response, ApiError> {
    payload.json().await?;
    let id = format!("_design/{id}");
    db.read(move |snapshot| RequestedRev::default().find(snapshot, &id)).await??;
    Ok(answer::json(StatusCode::ACCEPTED, &json!({ "ok": true })))
}

/// `POST /{db}/_view_cleanup` and its like: no index is there to be left over.
pub async fn cleanup(_: Db) -> Response {
    answer::json(StatusCode::ACCEPTED, &json!({ "ok": true }))
}

/// `POST /{db}/_ensure_full_commit`.
pub async fn ensure_full_commit(Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    payload.json().await?;
    let instance_start_time = db.ensure_full_commit().await?;
    Ok(answer::json(StatusCode::CREATED, &json!({ "ok": true, "instance_start_time": instance_start_time })))
}

/// `GET /{db}/_security`: the object as it was put.
pub async fn security(Db(db): Db) -> Response {
    answer::json(StatusCode::OK, &db.security().raw())
}

/// `PUT /{db}/_security`. That of the users' database stays as it is, as in CouchDB, unless a setting allows it.
pub async fn set_security(State(state): State<AppState>, Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    let text = payload.limited(MAX_SETTING_BYTES).whole().await?;
    if db.name().is_users() && !state.settings.current().users_db_security_editable {
        return Err(ApiError::UsersSecurity);
    }
    db.set_security(Security::parse(&text)?).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "ok": true })))
}

/// `GET /{db}/_revs_limit`.
pub async fn revs_limit(Db(db): Db) -> Response {
    answer::json(StatusCode::OK, &db.revs_limit())
}

/// `PUT /{db}/_revs_limit`: a number, for what is written from then on.
pub async fn set_revs_limit(Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    let text = payload.limited(MAX_SETTING_BYTES).whole().await?;
    let limit = serde_json::from_slice::<usize>(&text).ok().filter(|limit| *limit > 0);
    db.set_revs_limit(limit.ok_or_else(|| ApiError::bad_request("`_revs_limit` must be a positive integer."))?).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "ok": true })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(query: &str) -> Vec<&'static str> {
        select(vec!["a", "b", "c", "d"], &Query::parse(query)).unwrap()
    }

    #[test]
    fn names_are_selected_between_keys() {
        assert_eq!(selected(""), ["a", "b", "c", "d"]);
        assert_eq!(selected("startkey=%22b%22&endkey=%22c%22"), ["b", "c"]);
        assert_eq!(selected("descending=true&start_key=%22c%22&limit=2"), ["c", "b"]);
        assert_eq!(selected("skip=1&limit=1"), ["b"]);
        assert_eq!(selected("limit=0"), [""; 0]);
    }
}
