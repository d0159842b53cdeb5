//! The HTTP face: CouchDB's API, as much of it as replication needs, over the store and the registry.
//!
//! Every route stands in [`router`]; one file a resource holds the handlers. Handlers own no long work: a replication
//! is the registry's task, a long answer is written by a task that ends when the client hangs up. Paths are canonical
//! before they are matched ([`path`]): a trailing slash is no matter, `_design/x` is one segment.
//!
//! Outside in: [`envelope::dress`] gives every answer CouchDB's headers, a panic becomes a 500, [`places::limit`]
//! counts open requests, [`auth::check`] lets in who may, then the routes. [`error`] knows what errors look like.
//!
//! Where it differs from CouchDB 3.5 on purpose: update seqs are integers; `multipart/…` is answered only where
//! `Accept` names it, not to `*/*`; `POST /_session` is 404, which is what makes CouchDB's replicator fall back to
//! Basic; `batch=ok` is written at once; `offset` of `_all_docs` is about right only, if somebody writes while it is counted.

mod answer;
mod path;
mod query;
mod request;
mod question;
mod blob;
mod draft;
mod envelope;
mod places;
mod auth;
mod error;
mod welcome;
mod replication;
mod databases;
mod documents;
mod open_revs;
mod related;
mod attachments;
mod local_docs;
mod bulk_docs;
mod bulk_get;
mod revs_diff;
mod all_docs;
mod changes;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_request};
use axum::routing::{any, get, post};
use tokio::sync::Semaphore;
use tower::Layer;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::Config;
use crate::registry::Registry;
use crate::store::Store;
use crate::tasks::Tasks;

pub use self::answer::Answers;
pub use self::auth::Admins;
use self::error::ApiError;
use self::places::Places;
pub use self::places::Reader;
use self::question::Room;

/// The CouchDB release whose answers these are, for clients that look before they ask.
const COUCHDB_VERSION: &str = "3.5.0";

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The databases.
    pub store: Store,
    /// The running replications.
    pub registry: Registry,
    /// Bytes that request bodies may still take in memory, all together.
    pub bodies: Arc<Semaphore>,
    /// Memory of answers to slow readers.
    pub answers: Answers,
    /// Who may do everything.
    pub admins: Arc<Admins>,
    /// All settings.
    pub config: Arc<Config>,
    /// The server's uuid.
    pub uuid: String,
    /// The owner of the tasks that write long answers; they end feeds cleanly when it is told to stop.
    pub tasks: Tasks,
}

impl AppState {
    /// Memory for what is made of questions.
    fn room(&self) -> Room {
        Room::new(Arc::clone(&self.bodies), self.config.http.max_bodies_bytes)
    }
}

/// Every route of the server.
pub fn router(state: AppState) -> Router {
    let places = Places::new(state.config.http.max_requests, state.config.http.max_slow_readers);
    let routes = Router::new()
        .route("/", get(welcome::welcome))
        .route("/_up", get(welcome::up))
        .route("/_uuids", get(welcome::uuids))
        .route("/_all_dbs", get(databases::list))
        .route("/_session", get(welcome::session).post(welcome::no_sessions).delete(welcome::no_sessions))
        .route("/_replicate", any(replication::replicate))
        .route("/_replicate/{id}/failures", get(replication::failures))
        .route("/_active_tasks", get(replication::active_tasks))
        .route("/{db}", get(databases::info).put(databases::create).delete(databases::delete).post(documents::create))
        .route("/{db}/_all_docs", get(all_docs::get).post(all_docs::post))
        .route("/{db}/_changes", get(changes::get).post(changes::post))
        .route("/{db}/_bulk_docs", post(bulk_docs::post))
        .route("/{db}/_bulk_get", post(bulk_get::post))
        .route("/{db}/_revs_diff", post(revs_diff::revs_diff))
        .route("/{db}/_missing_revs", post(revs_diff::missing_revs))
        .route("/{db}/_ensure_full_commit", post(databases::ensure_full_commit))
        .route("/{db}/_security", get(databases::security))
        .route("/{db}/_revs_limit", get(databases::revs_limit))
        .route("/{db}/_local_docs", get(local_docs::list))
        .route("/{db}/_local/{doc}", get(local_docs::get).put(local_docs::put).delete(local_docs::delete))
        .route("/{db}/_local/{doc}/{*attachment}", any(local_docs::no_attachments))
        .route("/{db}/{doc}", get(documents::get).put(documents::put).delete(documents::delete))
        .route("/{db}/{doc}/{*attachment}", get(attachments::get).put(attachments::put).delete(attachments::delete))
        .fallback(async || ApiError::Missing)
        .with_state(state.clone());
    Router::new()
        .fallback_service(map_request(path::canonical).layer(routes))
        .layer(from_fn_with_state(state, auth::check))
        .layer(from_fn_with_state(places, places::limit))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(from_fn(envelope::dress))
}
