//! The CouchDB beside which this server stands: it is sent requests, those that pass through and those of our own.
//!
//! Requests go out as they are given: what is changed in those of others, and what becomes of an answer, `http` decides.
//! Each takes a connection for itself, from a pool, and brings it back when request and answer are both at their end. Whoever
//! drops an answer before its end closes the connection at once, however silent it is: CouchDB learns so that nobody listens any
//! more.
//!
//! # What is tried again
//! A connection from the pool may have been closed by CouchDB a moment ago. A request of which nothing was written yet goes over another one,
//! whatever it is. One that was written is sent again once, if it is a GET or HEAD without a body and nothing of an answer came;
//! any other one may have been carried out, and is told to be unanswered. So that this is rare, unused connections are closed
//! long before CouchDB does it (after 300 s).
//!
//! # Time
//! There is a limit for connecting and none for an answer or a body: a feed may be silent for days.

mod persistent_reader;
mod connecting;
mod questions;
mod callers;
mod admin;
mod users;
mod sessions;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Request, Response, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use percent_encoding::percent_decode_str;

pub use self::admin::{AdminError, CouchDbAsAdmin};
pub use self::callers::{Authentication, Callers, KnownCaller};
pub use self::connecting::TrustError;
use self::connecting::{Connector, Spawner};
pub use self::questions::{Answered, UuidError};
pub use self::sessions::{LastingSession, MadeCookie, NotLasting, RenewError, Salts, SessionOver, Sessions};
pub use self::users::CouchDbUsers;
use crate::config::connection::Tls;
use crate::config::couchdb::CouchDb;
use crate::tasks::Tasks;

/// How long a connection is kept that nobody uses. CouchDB's own HTTP server waits for 300 s.
const IDLE: Duration = Duration::from_secs(90);
/// Unused connections that are kept: each takes one of CouchDB's 2,048 from others.
const MAX_IDLE: usize = 256;

/// Of an answer: as many as a request may have.
const MAX_HEADERS: usize = 1000;

/// What is wrong with a body on its way.
pub type BodyError = Box<dyn Error + Send + Sync>;
/// A request's body.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// The CouchDB. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

struct Inner {
    settings: CouchDb,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// The root's path without its last slash: empty unless CouchDB lies below another server's path.
    below: String,
    client: Client<Connector, RequestBody>,
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It isn't there.
    #[error("CouchDB can't be reached: {0}")]
    Unreachable(String),
    /// The body that was to be sent broke off: that isn't CouchDB's fault.
    #[error("the request broke off: {0}")]
    Unsent(String),
    /// It was sent something, and said nothing.
    #[error("CouchDB ended the connection before it answered: {0}")]
    BrokeOff(String),
    /// It took too long for a question of ours.
    #[error("CouchDB was silent for {0:?}")]
    Silent(Duration),
    /// More came than is taken.
    #[error("CouchDB's answer is longer than {0} bytes")]
    TooLarge(usize),
    /// What came is no answer to a question of ours.
    #[error("CouchDB's answer to {0} makes no sense")]
    Malformed(String),
}

impl Upstream {
    /// That of these settings; `tls` says whom to trust. Nothing is sent yet. `tasks` own its connections.
    pub fn new(settings: CouchDb, tls: &Tls, tasks: Tasks) -> Result<Self, TrustError> {
        let connector = Connector::new(&settings, tls)?;
        let client = Client::builder(Spawner(tasks))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_preserve_header_case(true)
            .http1_max_headers(MAX_HEADERS)
            .set_host(false)
            .build(connector);
        let url = &settings.url;
        let authority = url.port().map_or_else(
            || url.host_str().unwrap_or_default().to_owned(),
            |port| format!("{}:{port}", url.host_str().unwrap_or_default()),
        );
        let inner = Inner {
            scheme: if url.scheme() == "https" { Scheme::HTTPS } else { Scheme::HTTP },
            host: HeaderValue::from_str(&authority).expect("a URL's host and port"),
            authority: authority.parse().expect("a URL's host and port"),
            below: url.path().trim_end_matches('/').to_owned(),
            client,
            settings,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it is, without credentials.
    pub fn settings(&self) -> &CouchDb {
        &self.inner.settings
    }

    /// Whether a request's path may lead out of the root's: another server stands before CouchDB and something else, and takes dots for the
    /// directory above, encoded or not.
    pub fn leads_elsewhere(&self, path: &str) -> bool {
        let decoded: Vec<u8> = percent_decode_str(path).collect();
        !self.inner.below.is_empty() && decoded.split(|byte| *byte == b'/').any(|part| matches!(part, b"." | b".."))
    }

    /// Sends a request whose URI is a path with or without a query, byte for byte. `Host` is set here; the answer is as it came,
    /// hop-by-hop headers and all.
    pub async fn send(&self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, Unanswered> {
        let inner = &self.inner;
        *request.uri_mut() = inner.uri(request.uri().path_and_query())?;
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().insert(HOST, inner.host.clone());
        let may_go_again = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
        let (parts, body) = request.into_parts();
        let again = may_go_again.then(|| parts.clone());
        let mut sent = inner.client.request(Request::from_parts(parts, body)).await;
        if let (Err(error), Some(parts)) = (&sent, again)
            && !error.is_connect()
        {
            tracing::debug!(reason = innermost(error), "CouchDB closed a connection under a request; it is sent again");
            sent = inner.client.request(Request::from_parts(parts, empty())).await;
        }
        match sent {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_connect() => Err(Unanswered::Unreachable(innermost(&error))),
            Err(error) if is_senders_fault(&error) => Err(Unanswered::Unsent(innermost(&error))),
            Err(error) => Err(Unanswered::BrokeOff(innermost(&error))),
        }
    }
}

impl Inner {
    fn uri(&self, path: Option<&PathAndQuery>) -> Result<Uri, Unanswered> {
        let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let path = match self.below.as_str() {
            "" => Ok(path),
            below => PathAndQuery::try_from(format!("{below}{path}")),
        };
        let unsendable = |error: &dyn fmt::Display| Unanswered::BrokeOff(error.to_string());
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        uri.path_and_query(path.map_err(|error| unsendable(&error))?).build().map_err(|error| unsendable(&error))
    }
}

/// A body of nothing.
pub fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn full(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Whether it is the request's body that failed, and no connection.
fn is_senders_fault(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |cause| (*cause).source());
    causes.any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_user))
}

/// The innermost cause: the outer ones say little.
fn innermost(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}
