//! Questions of our own to CouchDB: small ones, answered within a limit of time and of memory.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{Unanswered, Upstream, empty, full};

/// Bytes of an answer.
const MAX_BYTES: usize = 16 << 20;
/// The same of a list that somebody sees: a hundred thousand documents' states fit.
const MAX_LIST_BYTES: usize = 128 << 20;
/// Between two tries of a CouchDB that isn't there yet.
const PAUSE: Duration = Duration::from_millis(500);

/// What CouchDB said, whole.
#[derive(Debug, Clone)]
pub struct Answered {
    /// How it went.
    pub status: StatusCode,
    /// Hop-by-hop headers and all.
    pub headers: HeaderMap,
    /// In memory.
    pub body: Bytes,
}

/// CouchDB doesn't say who it is.
#[derive(Debug, thiserror::Error)]
pub enum UuidError {
    /// It doesn't answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// As where it answers nobody who has no name.
    #[error("CouchDB answers {0} to `GET /`, and so doesn't tell its uuid: give it with --uuid")]
    Refused(StatusCode),
    /// As an old one, or a server that is no CouchDB.
    #[error("the answer to `GET /` tells no uuid: give it with --uuid, if that is a CouchDB")]
    None,
}

impl Upstream {
    /// Asks with these headers, which say who asks.
    pub async fn ask(&self, path: &str, headers: HeaderMap) -> Result<Answered, Unanswered> {
        let mut request = Request::get(path).body(Bytes::new()).map_err(|_| Unanswered::Malformed(path.to_owned()))?;
        *request.headers_mut() = headers;
        self.answer_of(request, self.settings().answer_timeout, MAX_LIST_BYTES).await
    }

    /// Posts JSON with these headers, which say who asks. Nobody knows whether it was carried out if no answer comes.
    pub async fn post(&self, path: &str, headers: HeaderMap, body: &Value) -> Result<Answered, Unanswered> {
        let request = Request::post(path).body(Bytes::from(body.to_string()));
        let mut request = request.map_err(|_| Unanswered::Malformed(path.to_owned()))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.answer_of(request, self.settings().answer_timeout, MAX_LIST_BYTES).await
    }

    /// The answer to a request, if it comes whole within a limit of time.
    pub(super) async fn answer(&self, request: Request<Bytes>, limit: Duration) -> Result<Answered, Unanswered> {
        self.answer_of(request, limit, MAX_BYTES).await
    }

    async fn answer_of(
        &self,
        request: Request<Bytes>,
        limit: Duration,
        max_bytes: usize,
    ) -> Result<Answered, Unanswered> {
        let mut request = request.map(|body| if body.is_empty() { empty() } else { full(body) });
        request.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let asking = async {
            let (parts, body) = self.send(request).await?.into_parts();
            let whole = Limited::new(body, max_bytes).collect().await;
            let body = whole.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => Unanswered::TooLarge(max_bytes),
                None => Unanswered::BrokeOff(error.to_string()),
            });
            let body = body?.to_bytes();
            Ok(Answered { status: parts.status, headers: parts.headers, body })
        };
        timeout(limit, asking).await.unwrap_or(Err(Unanswered::Silent(limit)))
    }

    /// The uuid that enters its replication ids. One that isn't there yet is waited for.
    pub async fn uuid(&self) -> Result<String, UuidError> {
        uuid(&self.waited_for("/", HeaderMap::new()).await?)
    }

    /// The same as [`ask`](Self::ask), of a CouchDB that may not be there yet.
    pub(super) async fn waited_for(&self, path: &str, headers: HeaderMap) -> Result<Answered, Unanswered> {
        let until = Instant::now() + self.settings().start_patience;
        loop {
            match self.ask(path, headers.clone()).await {
                Ok(answered) => return Ok(answered),
                Err(error) if Instant::now() + PAUSE >= until => return Err(error),
                Err(error) => tracing::info!(%error, couchdb = %self.settings().url, "waiting for CouchDB"),
            }
            sleep(PAUSE).await;
        }
    }
}

fn uuid(answered: &Answered) -> Result<String, UuidError> {
    #[derive(Deserialize)]
    struct Welcome {
        uuid: String,
    }
    match answered.status {
        StatusCode::OK => {
            serde_json::from_slice::<Welcome>(&answered.body).map(|welcome| welcome.uuid).map_err(|_| UuidError::None)
        }
        status => Err(UuidError::Refused(status)),
    }
}
