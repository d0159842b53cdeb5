//! What this server asks of CouchDB in its own name, as a server admin: what callers can't do or needn't see.
//!
//! Whoever writes such a question says what comes of it twice: of one that wasn't answered nobody knows whether it was carried out.

use std::net::Ipv6Addr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Answered, Unanswered, Upstream};
use crate::access::Caller;
use crate::config::couchdb::CouchDbAdmin;

/// The CouchDB, asked by its admin. Cheap to clone.
#[derive(Clone)]
pub struct CouchDbAsAdmin {
    upstream: Upstream,
    /// Never shown.
    authorization: HeaderValue,
    /// From where we ask, for CouchDB. It locks a name out by the address that wrong passwords came from, and ours is that of many.
    asks_from: HeaderValue,
}

/// A question wasn't answered, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// It doesn't answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// In its own words.
    #[error("CouchDB answers {status} to {path}: {error}: {reason}")]
    Refused {
        /// The path that was asked, without a query.
        path: String,
        /// Its status.
        status: StatusCode,
        /// Its `error`, or nothing.
        error: String,
        /// Its `reason`, or nothing.
        reason: String,
    },
    /// Name and password are right.
    #[error("CouchDB doesn't call `{0}` a server admin")]
    NoAdmin(String),
}

impl AdminError {
    /// Whether CouchDB itself says that there is no such thing. A bare status says nothing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, error, .. } if error == "not_found")
    }

    /// Whether CouchDB, or whoever stands before it, has answered: it is about what was asked for, and says nothing of other things.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Unanswered(Unanswered::TooLarge(_) | Unanswered::Malformed(_)) => true,
            Self::Unanswered(_) | Self::NoAdmin(_) => false,
        }
    }

    /// Whether CouchDB itself says that somebody else was there before.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::CONFLICT, error, .. } if error == "conflict")
    }
}

impl CouchDbAsAdmin {
    /// Nothing is asked yet.
    pub fn new(upstream: Upstream, admin: &CouchDbAdmin) -> Self {
        let proof = BASE64_STANDARD.encode(format!("{}:{}", admin.name, admin.password.expose_secret()));
        let mut authorization = HeaderValue::from_str(&format!("Basic {proof}")).expect("base64 is ASCII");
        authorization.set_sensitive(true);
        let address = Ipv6Addr::from(0xfd << 120 | rand::random::<u128>() >> 8);
        let asks_from = HeaderValue::from_str(&address.to_string()).expect("an address is ASCII");
        Self { upstream, authorization, asks_from }
    }

    /// Whether CouchDB takes him for an admin. One that isn't there yet is waited for. Asked once, since wrong passwords lock an account.
    pub async fn prove(&self, admin: &CouchDbAdmin) -> Result<(), AdminError> {
        let answered = self.upstream.waited_for("/_session", self.headers()).await?;
        let session: Value = read("/_session", answered)?;
        let is_admin = |roles: &Vec<Value>| roles.iter().any(|role| role == "_admin");
        match session["userCtx"]["roles"].as_array().is_some_and(is_admin) {
            true => Ok(()),
            false => Err(AdminError::NoAdmin(admin.name.clone())),
        }
    }

    /// `host:port` that local names stand for in CouchDB's own replication ids: its `[chttpd] bind_address`, as it was written, and `port`.
    /// `None` if it doesn't say both, or draws its port.
    pub async fn local_address(&self) -> Result<Option<String>, AdminError> {
        #[derive(Deserialize)]
        struct Chttpd {
            bind_address: Option<String>,
            port: Option<String>,
        }
        let Chttpd { bind_address, port } = self.get("/_node/_local/_config/chttpd").await?;
        let port = port.filter(|port| port != "0");
        Ok(bind_address.zip(port).map(|(host, port)| format!("{host}:{port}")))
    }

    /// The CouchDB, for those who ask in another name.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn headers(&self) -> HeaderMap {
        let asks_from = (HeaderName::from_static("x-forwarded-for"), self.asks_from.clone());
        HeaderMap::from_iter([(AUTHORIZATION, self.authorization.clone()), asks_from])
    }

    /// Reads what is at a path, which may have a query.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        self.ask(Method::GET, path, None).await
    }

    /// The same of something that may be very long.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        read(path, self.upstream.ask(path, self.headers()).await?)
    }

    /// What is at a path; `None` if CouchDB says that it isn't there.
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, AdminError> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a method with a JSON body, if any.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, AdminError> {
        self.answer(request(method, path, body)?, self.upstream.settings().answer_timeout).await
    }

    /// The same in a caller's name, with what proves it.
    pub async fn ask_as<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, AdminError> {
        let mut request = request(method, path, body)?;
        request.headers_mut().extend(proofs(caller));
        read(path, self.upstream.answer(request, self.upstream.settings().answer_timeout).await?)
    }

    /// Sends any request, and waits so long for its answer.
    pub async fn answer<T: DeserializeOwned>(
        &self,
        mut request: Request<Bytes>,
        limit: Duration,
    ) -> Result<T, AdminError> {
        let path = request.uri().path().to_owned();
        request.headers_mut().extend(self.headers());
        read(&path, self.upstream.answer(request, limit).await?)
    }
}

fn request(method: Method, path: &str, body: Option<&Value>) -> Result<Request<Bytes>, Unanswered> {
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json").body(body);
    request.map_err(|_| Unanswered::Malformed(path.to_owned()))
}

/// What proves who a caller is, as it came.
fn proofs(caller: &Caller) -> HeaderMap {
    let text = |name: &str, value: &SecretString| {
        let mut value = HeaderValue::from_str(value.expose_secret()).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    };
    let password = caller.authorization.iter().filter(|_| caller.temporary_proofs.is_empty());
    let password = password.filter_map(|value| text(AUTHORIZATION.as_str(), value));
    password.chain(caller.temporary_proofs.iter().filter_map(|(name, value)| text(name, value))).collect()
}

fn read<T: DeserializeOwned>(path: &str, Answered { status, body, .. }: Answered) -> Result<T, AdminError> {
    if status.is_success() {
        return Ok(serde_json::from_slice(&body).map_err(|_| Unanswered::Malformed(path.to_owned()))?);
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Refusal {
        error: String,
        reason: String,
    }
    let Refusal { error, reason } = serde_json::from_slice(&body).unwrap_or_default();
    Err(AdminError::Refused { path: path.to_owned(), status, error, reason })
}
