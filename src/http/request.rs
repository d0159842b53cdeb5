//! What handlers take out of a request: the database, document or attachment that its path names, and its body.
//!
//! A body is read whole only up to `config.http.max_body_bytes`, and all such bodies together only up to
//! `max_bodies_bytes`: memory is taken as bytes come, so announcing many takes none from others, and a request that
//! finds none left is refused rather than kept waiting with what it holds. Of a gzipped one that is what it unpacks to,
//! found out while it unpacks. Attachments stream and have no limit but the one for the pause between two pieces, which
//! every body has.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::stream::{self, BoxStream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::access::{Caller, Denied};
use crate::document::{DocId, DocumentError, Rev};
use crate::effort::guarded::guarded;
use crate::store::{Database, DbName, Durability, StoreError};
use crate::users;

use super::AppState;
use super::error::ApiError;
use super::query::Query;

/// The database that the path names, which the caller may open.
#[derive(Clone)]
pub struct Db(pub Arc<Database>);

/// The document that the path names, and its database.
pub struct DocPath {
    /// The database.
    pub db: Arc<Database>,
    /// The document, which may not exist.
    pub id: DocId,
}

/// The attachment that the path names, its document and its database.
pub struct AttachmentPath {
    /// The database.
    pub db: Arc<Database>,
    /// The document, which may not exist.
    pub id: DocId,
    /// The attachment's name; it may contain slashes.
    pub name: String,
}

/// The database's name as the path has it, valid or not.
pub struct NamePath(pub String);

/// This node, which the path names; a path without a node means it too.
pub struct ThisNode;

/// The setting that the path names.
pub struct SettingPath {
    /// The section.
    pub section: String,
    /// The key; empty if the path names a section alone.
    pub key: String,
}

type PathParams = HashMap<String, String>;

async fn params(parts: &mut Parts, state: &AppState) -> Result<PathParams, ApiError> {
    let params = Path::<PathParams>::from_request_parts(parts, state).await;
    params.map(|Path(params)| params).map_err(|_| ApiError::bad_request("The path is not UTF-8."))
}

fn take(params: &mut PathParams, name: &str) -> String {
    params.remove(name).unwrap_or_default()
}

/// What a path says of a database, before anybody knows whether the caller may open it ([`super::auth`]).
pub struct DatabasePath {
    database: String,
    doc: Option<String>,
}

impl DatabasePath {
    /// The path's parameters `db` and, where it has one, `doc`.
    pub async fn of(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let mut params = params(parts, state).await?;
        Ok(Self { database: take(&mut params, "db"), doc: params.remove("doc") })
    }

    /// A database alone.
    pub fn named(database: &str) -> Self {
        Self { database: database.into(), doc: None }
    }

    /// Whether it is rather something of the server's own, that isn't there.
    pub fn is_servers_own(&self) -> bool {
        self.database.starts_with('_') && DbName::parse(&self.database).is_err()
    }

    /// Opens the database. An illegal name is as good as one of a database that doesn't exist.
    pub async fn open(&self, state: &AppState) -> Result<Arc<Database>, ApiError> {
        let name = DbName::parse(&self.database).map_err(|_| StoreError::NoDatabase)?;
        Ok(state.store()?.database(&name).await?)
    }

    /// Whether the caller, who is no admin of the users' database, may read what the path names there: each sees only
    /// himself (`couch_users_db:after_doc_read/2`).
    pub fn may_read_user(&self, caller: &Caller) -> Result<(), ApiError> {
        let Some(id) = &self.doc else { return Ok(()) };
        users::document::after_read(id, caller).map_err(|refusal| match refusal {
            users::document::Refusal::NotFound => ApiError::Missing,
            users::document::Refusal::Forbidden(_) => Denied::UsersDesign.into(),
        })
    }
}

/// The database that the check of the caller's rights has opened. A route without that check has none.
fn checked(parts: &Parts) -> Result<Arc<Database>, ApiError> {
    parts.extensions.get::<Db>().map(|Db(db)| Arc::clone(db)).ok_or(ApiError::Unguarded)
}

impl FromRequestParts<AppState> for NamePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        Ok(Self(take(&mut params(parts, state).await?, "db")))
    }
}

impl FromRequestParts<AppState> for ThisNode {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match params(parts, state).await?.remove("node") {
            Some(node) if node != "_local" && node != state.jobs.node() => Err(ApiError::NoNode(node)),
            _ => Ok(Self),
        }
    }
}

impl FromRequestParts<AppState> for SettingPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let mut params = params(parts, state).await?;
        Ok(Self { section: take(&mut params, "section"), key: take(&mut params, "key") })
    }
}

impl FromRequestParts<AppState> for Db {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        checked(parts).map(Self)
    }
}

impl FromRequestParts<AppState> for DocPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let mut params = params(parts, state).await?;
        Ok(Self { db: checked(parts)?, id: take(&mut params, "doc").into() })
    }
}

impl FromRequestParts<AppState> for AttachmentPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let mut params = params(parts, state).await?;
        let (id, name) = (take(&mut params, "doc").into(), take(&mut params, "attachment"));
        Ok(Self { db: checked(parts)?, id, name })
    }
}

/// Milliseconds that a request's body took to come: `X-CouchDB-Body-Time`.
#[derive(Debug, Clone, Default)]
pub struct BodyTime(pub Arc<AtomicU64>);

/// A request's body, not read yet.
pub struct Payload {
    body: Body,
    headers: HeaderMap,
    limit: usize,
    memory: Arc<Semaphore>,
    pause: Duration,
    time: BodyTime,
}

/// A body, or a part of one, that is gathered in memory.
pub struct BodyBuffer {
    bytes: Vec<u8>,
    limit: usize,
    memory: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl BodyBuffer {
    /// Adds what came: 413 if it is too much for one request, 503 if it is for all together.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        if self.bytes.len() + chunk.len() > self.limit {
            return Err(ApiError::TooLarge);
        }
        let more = u32::try_from(chunk.len()).map_err(|_| ApiError::TooLarge)?;
        let more = Arc::clone(&self.memory).try_acquire_many_owned(more).map_err(|_| ApiError::Busy)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// What was gathered so far. It counts in memory until the last slice of it is dropped.
    pub fn whole(self) -> Bytes {
        guarded(self.bytes, self.taken)
    }
}

impl FromRequest<AppState> for Payload {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let time = parts.extensions.get().cloned().unwrap_or_default();
        let config = state.settings.current();
        let (limit, pause) = (config.http.max_body_bytes, config.http.body_pause);
        Ok(Self { body, headers: parts.headers, limit, memory: Arc::clone(&state.bodies), pause, time })
    }
}

impl Payload {
    /// The request's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The request's `Content-Type`.
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(CONTENT_TYPE)?.to_str().ok()
    }

    /// The same, which may have so many bytes at most where it is read whole.
    pub fn limited(self, bytes: usize) -> Self {
        Self { limit: self.limit.min(bytes), ..self }
    }

    /// Where to gather what is read into memory.
    pub fn gathering(&self) -> BodyBuffer {
        BodyBuffer { bytes: Vec::new(), limit: self.limit, memory: Arc::clone(&self.memory), taken: None }
    }

    /// Reads all of it, unpacked.
    pub async fn whole(self) -> Result<Bytes, ApiError> {
        let started = Instant::now();
        let gzipped = self.is_gzipped()?;
        let length = self.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > self.limit) {
            return Err(ApiError::TooLarge);
        }
        let (mut gathered, time) = (self.gathering(), self.time.clone());
        let mut stream = self.stream();
        if gzipped {
            gathered = unpack(stream, gathered).await?;
        } else {
            while let Some(chunk) = stream.next().await {
                gathered.push(&chunk?)?;
            }
        }
        time.0.store(started.elapsed().as_millis() as u64, Ordering::Relaxed);
        Ok(gathered.whole())
    }

    /// Whether a body that is read whole comes gzipped; 415 for any other coding.
    fn is_gzipped(&self) -> Result<bool, ApiError> {
        match self.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(false),
            Some(b"gzip") => Ok(true),
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                Err(ApiError::BadContentType(format!("{other} is not a supported content encoding.").into()))
            }
        }
    }

    /// Reads all of it where its `Content-Type` says that it is JSON; it isn't checked and may be empty.
    pub async fn json(self) -> Result<Bytes, ApiError> {
        if !is_json(self.content_type()) {
            return Err(ApiError::BadContentType("Content-Type must be application/json".into()));
        }
        self.whole().await
    }

    /// Reads all of it as JSON of this type; `wrong` is said of JSON that is something else.
    pub async fn parsed<T: DeserializeOwned>(self, wrong: &'static str) -> Result<T, ApiError> {
        let body = self.json().await?;
        let value: serde_json::Value = serde_json::from_slice(&body).map_err(|_| DocumentError::InvalidJson)?;
        serde_json::from_value(value).map_err(|_| ApiError::bad_request(wrong))
    }

    /// The body as it comes; a client that pauses too long is told so, and takes no place any more.
    pub fn stream(self) -> BoxStream<'static, Result<Bytes, ApiError>> {
        let pieces = stream::unfold(self.body.into_data_stream(), move |mut body| async move {
            let piece = match timeout(self.pause, body.next()).await {
                Ok(piece) => piece?.map_err(|_| ApiError::bad_request("The request's body ended early.")),
                Err(_) => Err(ApiError::SlowBody),
            };
            Some((piece, body))
        });
        pieces.boxed()
    }
}

/// Unpacks a gzipped body; it may have several members.
async fn unpack(
    mut stream: BoxStream<'static, Result<Bytes, ApiError>>,
    gathered: BodyBuffer,
) -> Result<BodyBuffer, ApiError> {
    let mut decoder = MultiGzDecoder::new(Unpacked { gathered, error: None });
    let wrong = || ApiError::bad_request("Request body is not properly gzipped.");
    while let Some(chunk) = stream.next().await {
        for some in chunk?.chunks(UNPACKED_AT_ONCE) {
            let written = decoder.write_all(some);
            written.map_err(|_| decoder.get_mut().error.take().unwrap_or_else(wrong))?;
            // Others may have their turn.
            tokio::task::yield_now().await;
        }
    }
    decoder.try_finish().map_err(|_| decoder.get_mut().error.take().unwrap_or_else(wrong))?;
    decoder.finish().map(|unpacked| unpacked.gathered).map_err(|_| wrong())
}

/// Where a body unpacks to.
struct Unpacked {
    gathered: BodyBuffer,
    /// Why it took no more.
    error: Option<ApiError>,
}

impl io::Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.push(bytes).map_err(|error| {
            self.error = Some(error);
            io::Error::other("there is no room for the body")
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are unpacked at a time: a hostile kilobyte unpacks to a megabyte at most.
const UNPACKED_AT_ONCE: usize = 1024;

fn is_json(content_type: Option<&str>) -> bool {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

/// When the client wants its write to be safe.
pub fn durability(headers: &HeaderMap) -> Durability {
    match headers.get("x-couch-full-commit").map(|value| value.as_bytes()) {
        Some(b"false") => Durability::Unsynced,
        _ => Durability::Synced,
    }
}

/// The text of the revision that a write goes over: `rev` of the query, or `If-Match`.
pub fn parent_text(query: &Query, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let if_match = headers.get(IF_MATCH).and_then(|value| value.to_str().ok()).map(|value| value.trim_matches('"'));
    match (query.get("rev"), if_match) {
        (Some(rev), Some(etag)) if rev != etag => {
            Err(ApiError::bad_request("Document rev from query string and If-Match header have different values"))
        }
        (rev, etag) => Ok(rev.or(etag).map(Into::into)),
    }
}

/// The revision that a write goes over, where query or headers name it.
pub fn parent(query: &Query, headers: &HeaderMap) -> Result<Option<Rev>, ApiError> {
    let text = parent_text(query, headers)?;
    Ok(text.map(|text| Rev::parse(&text).ok_or(DocumentError::BadRev)).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_json_with_or_without_a_charset() {
        assert!(is_json(Some("application/json")));
        assert!(is_json(Some("Application/JSON; charset=utf-8")));
        assert!(!is_json(Some("application/x-www-form-urlencoded")));
        assert!(!is_json(None));
    }

    #[test]
    fn a_write_names_its_parent_once_or_the_same_twice() {
        let mut headers = HeaderMap::new();
        let (none, rev) = (Query::default(), Query::parse("rev=1-a"));
        assert_eq!(parent(&none, &headers).unwrap(), None);
        assert_eq!(parent(&rev, &headers).unwrap(), Rev::parse("1-a"));
        headers.insert(IF_MATCH, "\"1-a\"".parse().unwrap());
        assert_eq!(parent(&none, &headers).unwrap(), Rev::parse("1-a"));
        assert_eq!(parent(&rev, &headers).unwrap(), Rev::parse("1-a"));
        assert!(parent(&Query::parse("rev=2-b"), &headers).is_err());
        assert!(parent(&Query::parse("rev=2"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn bodies_share_one_memory_and_give_it_back() {
        let memory = Arc::new(Semaphore::new(10));
        let gather = |limit| BodyBuffer { bytes: Vec::new(), limit, memory: Arc::clone(&memory), taken: None };
        let mut one = gather(8);
        one.push(b"123456").unwrap();
        assert!(matches!(one.push(b"789"), Err(ApiError::TooLarge)));
        let mut other = gather(8);
        other.push(b"1234").unwrap();
        assert!(matches!(other.push(b"5"), Err(ApiError::Busy)));
        let slice = one.whole().slice(1..2);
        assert!(matches!(other.push(b"5"), Err(ApiError::Busy)), "the slice keeps its body's place");
        drop(slice);
        other.push(b"5").unwrap();
    }

    #[test]
    fn writes_are_synced_unless_the_client_says_otherwise() {
        let mut headers = HeaderMap::new();
        assert_eq!(durability(&headers), Durability::Synced);
        headers.insert("X-Couch-Full-Commit", "false".parse().unwrap());
        assert_eq!(durability(&headers), Durability::Unsynced);
    }
}
