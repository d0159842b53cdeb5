//! A database over HTTP.
//!
//! Speaks what CouchDB's replicator speaks, and makes do with less:
//! - no `_bulk_get`: `open_revs`, one request a document; no `_revs_diff`: `_missing_revs`; no `_ensure_full_commit`:
//!   `instance_start_time` counts as `"0"`;
//! - `open_revs` answered as JSON (express-pouchdb): each attachment is fetched by its name;
//! - a target that isn't known to take gzipped parts (anything but CouchDB and couchrep) gets them decoded.
//!
//! What an answer means is decided in one place (`judgement.rs`). A 401 or 403 to a question about one document is that
//! document's failure only if the database lets us in at that very moment; else the credentials have been revoked, and the
//! replication ends with [`PeerError::Unauthorized`] or [`PeerError::WrongCredentials`] rather than pass over everything as
//! refused.
//!
//! What failed for a reason that may pass was tried again before an error comes out (`send.rs`); only bodies that stream
//! are the caller's to ask for again ([`PeerError::Broken`]). Nothing here logs or returns a credential: names and
//! requests are written from the URL without userinfo, transport errors by their innermost cause.

mod auth;
mod connections;
mod clients;
mod pace;
mod path;
mod retry;
mod judgement;
mod shown;
mod call;
mod transport;
mod guard;
mod exchange;
mod redirect;
mod send;
mod answer;
mod feed;
mod changes_answer;
mod missing;
mod bulk_get;
mod element_reader;
mod results;
mod open_rev;
mod attachments;
mod bulk_docs;
mod put_doc;
mod local_docs;
mod plain;
pub mod server;

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, SERVER};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{OnceCell, Semaphore};
use url::Url;

use self::answer::Reply;
use self::auth::Authenticator;
use self::call::Call;
use self::guard::GuardedClient;
use self::judgement::Meaning;
use self::pace::Servers;
use self::retry::Operation;
use super::documents::{AttachedDoc, DatabaseInfo, Fetched, Opened, Put, SMALL_BYTES, Written};
use super::error::{Blame, PeerError};
use super::failure::{Failure, Why};
use super::feed::{Change, ChangesPage, ChangesQuery, Extent, Filter, Pending};
use crate::config;
use crate::counters::ReplicatorCounters;
use crate::document::{DocBatch, DocId, DocumentError, Rev, Seq, Wanted};
use crate::effort::budget::Share;
use crate::effort::pulse::Pulse;
use crate::endpoint::RemoteEndpoint;
use crate::endpoint::connection::Connection;
use crate::policy::Policy;

pub use bulk_get::RemoteBulkGet;
pub use changes_answer::RemoteChanges;
pub use clients::{ClientError, Clients};
pub use pace::PeerLoad;

/// A database over HTTP. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RemotePeer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    url: Url,
    /// It is a database of the CouchDB beside which this server stands.
    is_beside: bool,
    /// Its credentials are a declared secret.
    names_secret: bool,
    /// Below this path of its origin credentials and headers are sent, and nowhere else.
    own_path: String,
    /// Custom headers, for the URL's own origin only.
    headers: HeaderMap,
    /// Credentials, likewise.
    auth: Authenticator,
    http: HttpClients,
    /// For where servers outside have led.
    http_from_outside: OnceCell<HttpClients>,
    clients: Clients,
    policy: Policy,
    connection: Connection,
    servers: Servers,
    counters: Arc<ReplicatorCounters>,
    /// Places for requests under way.
    requests: Arc<Semaphore>,
    settings: Arc<config::Replicator>,
    /// Of the job that it was opened for.
    pulse: Pulse,
    /// Where a permanent redirect sent a request; guards nothing else.
    moved: RwLock<Option<Place>>,
    /// It answered once: later requests are tried longer.
    met: AtomicBool,
    /// It was found to have no `_bulk_get`.
    lacks_bulk_get: AtomicBool,
    /// It was found to have no `_revs_diff`.
    lacks_revs_diff: AtomicBool,
    /// It was silent to a document whose attachments streamed.
    ignores_multipart: AtomicBool,
    /// It calls itself CouchDB or couchrep, and so takes attachments gzipped.
    takes_gzip: AtomicBool,
}

/// Where a request goes.
#[derive(Debug, Clone)]
struct Place {
    url: Url,
    /// Whether a server outside has led there.
    from_outside: bool,
}

/// The HTTP clients of a peer.
#[derive(Debug)]
struct HttpClients {
    own: GuardedClient,
    /// For other origins: the same proxy, but the server's own certificates.
    elsewhere: GuardedClient,
}

impl HttpClients {
    async fn find(
        clients: &Clients,
        connection: &Connection,
        policy: &Policy,
        settings: &config::Replicator,
    ) -> Result<Self, ClientError> {
        let elsewhere = Connection { tls: Default::default(), ..connection.clone() };
        Ok(Self {
            own: clients.client(connection, policy, settings).await?,
            elsewhere: clients.client(&elsewhere, policy, settings).await?,
        })
    }
}

impl RemotePeer {
    /// A peer at this address, for somebody who is held to this policy; nothing is sent yet.
    ///
    /// # Errors
    /// [`PeerError::Forbidden`] if it may not be connected to,
    /// [`PeerError::Malformed`] if name and password don't fit into a header, [`PeerError::Client`] if its certificate
    /// files can't be used.
    pub async fn new(
        clients: &Clients,
        endpoint: RemoteEndpoint,
        policy: &Policy,
        settings: Arc<config::Replicator>,
        pulse: Pulse,
    ) -> Result<Self, PeerError> {
        endpoint.check(policy, &settings.iam_token_url)?;
        let name = endpoint.name();
        let headers = endpoint.header_map();
        let auth = Authenticator::new(&endpoint, &settings.iam_token_url, &clients.sessions).ok_or_else(|| {
            PeerError::Malformed {
                request: name.clone(),
                expected: "headers that HTTP allows",
                found: "a name and a password that don't fit into one".into(),
            }
        })?;
        let own_path = match (&endpoint.secret, &endpoint.local_name) {
            // A secret was given for the database alone: on the same host there may be others' code.
            (Some(_), _) => endpoint.url.path().to_owned(),
            // There may be other servers below the host's other paths.
            (None, Some(_)) => endpoint.root().path().to_owned(),
            (None, None) => "/".to_owned(),
        };
        let connection = &endpoint.connection;
        let settings = connection.settings(settings);
        let inner = Inner {
            name,
            is_beside: endpoint.local_name.is_some(),
            names_secret: endpoint.secret.is_some(),
            own_path,
            url: endpoint.url,
            headers,
            auth,
            http: HttpClients::find(clients, connection, policy, &settings).await?,
            http_from_outside: OnceCell::new(),
            clients: clients.clone(),
            policy: policy.clone(),
            connection: connection.clone(),
            servers: clients.servers.through(connection.proxy.as_ref()),
            counters: clients.counters().clone(),
            requests: Arc::new(Semaphore::new(connection.http_connections.unwrap_or(settings.http_connections))),
            settings,
            pulse,
            moved: RwLock::default(),
            met: AtomicBool::default(),
            lacks_bulk_get: AtomicBool::default(),
            lacks_revs_diff: AtomicBool::default(),
            ignores_multipart: AtomicBool::default(),
            takes_gzip: AtomicBool::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The URL, ending in `/`, without credentials.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// `GET {db}/`.
    pub async fn info(&self) -> Result<DatabaseInfo, PeerError> {
        #[derive(Deserialize)]
        struct Info {
            instance_start_time: Option<serde_json::Value>,
            update_seq: Seq,
            doc_count: Option<u64>,
            doc_del_count: Option<u64>,
        }
        self.opening(&Call::get(Operation::Info, ""), |reply| {
            if reply.meaning() == Meaning::NotThere {
                return Err(PeerError::DatabaseMissing { database: self.inner.name.clone() });
            }
            let reply = self.expected(reply)?;
            let info: Info = reply.json("a database's information")?;
            let server = reply.headers.get(SERVER).map_or(b"".as_slice(), |server| server.as_bytes());
            let takes_gzip = server.starts_with(b"CouchDB") || server.starts_with(b"couchrep");
            self.inner.takes_gzip.store(takes_gzip, Ordering::Relaxed);
            Ok(DatabaseInfo {
                instance_start_time: start_time(info.instance_start_time),
                update_seq: info.update_seq,
                documents: info.doc_count.zip(info.doc_del_count).and_then(|(docs, deleted)| docs.checked_add(deleted)),
            })
        })
        .await
    }

    /// `PUT {db}/`; 412 says that it is there already.
    pub async fn create(&self, params: &[(String, String)]) -> Result<(), PeerError> {
        let pairs: Vec<_> =
            params.iter().map(|(key, value)| format!("{}={}", path::encode(key), path::encode(value))).collect();
        let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
        let call = Call::new(Operation::Create, Method::PUT, query);
        self.opening(&call, |reply| match reply.meaning() {
            Meaning::Conflict => Ok(()),
            // An illegal name.
            Meaning::NotTaken => Err(PeerError::DatabaseMissing { database: self.inner.name.clone() }),
            _ if reply.said().is_some_and(|why| why.error == "illegal_database_name") => {
                Err(PeerError::DatabaseMissing { database: self.inner.name.clone() })
            }
            _ => self.expected(reply)?.json::<Done>("`\"ok\":true`").map(drop),
        })
        .await
    }

    /// `GET {db}/_design/{name}`.
    pub async fn design_doc(&self, name: &str) -> Result<Option<Bytes>, PeerError> {
        let call = Call::get(Operation::DesignDoc, format!("_design/{}", path::encode(name)));
        self.ask(&call, |reply| match reply.meaning() {
            Meaning::NotThere => Ok(None),
            _ => {
                let reply = self.expected(reply)?;
                reply.json::<Head>("a document with a `_rev`")?;
                Ok(Some(reply.body))
            }
        })
        .await
    }

    /// As if the peer were known to have no `_bulk_get`.
    pub fn avoid_bulk_get(&self) {
        self.inner.lacks_bulk_get.store(true, Ordering::Relaxed);
    }

    /// `POST {db}/_ensure_full_commit`; `"0"` if the peer has no such thing.
    pub async fn ensure_full_commit(&self) -> Result<String, PeerError> {
        #[derive(Deserialize)]
        struct Committed {
            ok: bool,
            instance_start_time: Option<serde_json::Value>,
        }
        let call = Call::new(Operation::Commit, Method::POST, "_ensure_full_commit");
        self.ask(&call, |reply| {
            if reply.meaning().is_unknown_request() {
                return Ok("0".into());
            }
            let committed: Committed = self.expected(reply)?.json("`ok` and `instance_start_time`")?;
            match committed.ok {
                true => Ok(start_time(committed.instance_start_time)),
                false => Err(answer::malformed(&self.request_name(&call), "`\"ok\":true`", "`\"ok\":false`".into())),
            }
        })
        .await
    }

    /// Asks about the database as a whole: the one question whose answer's status counts, when all tries are over
    /// ([`judgement::of_whole_database`]).
    async fn opening<T>(&self, call: &Call, make: impl Fn(Reply) -> Result<T, PeerError>) -> Result<T, PeerError> {
        let last = AtomicU16::new(0);
        let made = self.ask(call, |reply| {
            // Credentials that were never taken aren't tried again, whoever refuses them.
            if reply.status == 401 && !self.inner.met.load(Ordering::Relaxed) && self.inner.auth.has_credentials() {
                return Err(self.not_allowed(&reply));
            }
            last.store(reply.status, Ordering::Relaxed);
            make(reply)
        });
        let made = match made.await {
            Err(error @ PeerError::Answered { .. }) => {
                let status = last.load(Ordering::Relaxed);
                Err(match judgement::of_whole_database(status) {
                    Some(Meaning::NoDatabase) => PeerError::DatabaseMissing { database: self.inner.name.clone() },
                    Some(Meaning::NotAllowed) => self.not_allowed_for(status, None),
                    _ => error,
                })
            }
            made => made,
        };
        if let Err(PeerError::WrongCredentials { reason, .. }) = &made {
            self.inner.auth.refused_for_good(reason.clone());
        }
        made
    }

    /// What a 401 or 403 means to the whole database.
    fn not_allowed(&self, reply: &Reply) -> PeerError {
        self.not_allowed_for(reply.status, reply.said().map(|why| why.reason))
    }

    /// The same, in the peer's words.
    fn not_allowed_for(&self, status: u16, reason: Option<String>) -> PeerError {
        let database = self.inner.name.clone();
        match status == 401 && self.inner.auth.has_credentials() {
            true => PeerError::WrongCredentials { database, reason },
            false => PeerError::Unauthorized { database, reason },
        }
    }

    /// Asks whether this database lets us read it. If it doesn't, a refusal was meant for the whole database.
    async fn let_in(&self) -> Result<(), PeerError> {
        self.info().await.map(drop)
    }

    /// The same, and whether it lets us write: a `_local` document, which no validation function sees. That it is there
    /// already shows as much.
    async fn let_in_to_write(&self) -> Result<(), PeerError> {
        self.let_in().await?;
        let probe = RawValue::from_string("{}".into()).map_err(|_| DocumentError::InvalidJson)?;
        match self.put_local_doc("couchrep-may-write", None, &probe).await {
            Ok(_) | Err(PeerError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The answer, if it tells of success; else the error that it is.
    fn expected(&self, reply: Reply) -> Result<Reply, PeerError> {
        if reply.meaning() == Meaning::Done { Ok(reply) } else { Err(self.refusal(reply)) }
    }

    /// The error that an answer is, if it isn't a success.
    fn refusal(&self, reply: Reply) -> PeerError {
        let database = || self.inner.name.clone();
        match reply.meaning() {
            Meaning::NoDatabase => PeerError::DatabaseMissing { database: database() },
            Meaning::NotAllowed => self.not_allowed(&reply),
            Meaning::Done
            | Meaning::NotThere
            | Meaning::NotTaken
            | Meaning::NotSupported
            | Meaning::Conflict
            | Meaning::MissingStub
            | Meaning::TooLarge
            | Meaning::Failed(_) => reply.into_error(),
        }
    }
}

/// `{"ok":true}`.
#[derive(Deserialize)]
struct Done {
    #[serde(rename = "ok")]
    _ok: bool,
}

/// What every document begins with, as far as it is looked at here.
#[derive(Deserialize)]
struct Head {
    _rev: String,
}

fn start_time(value: Option<serde_json::Value>) -> String {
    match value {
        Some(serde_json::Value::String(text)) => text,
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ => "0".into(),
    }
}

#[cfg(test)]
mod tests;
