//! The HTTP face: CouchDB's API, as much of it as replication needs, over the store and the jobs.
//!
//! Every route stands in [`router`]; one file a resource holds the handlers. Handlers own no long work: a replication
//! is a job's task, a long answer is written by a task that ends when the client hangs up. Paths are canonical
//! before they are matched ([`path`]): a trailing slash is no matter, `_design/x` is one segment.
//!
//! Outside in: [`envelope::dress`] gives every answer CouchDB's headers, a panic becomes a 500, [`places::limit`]
//! counts open requests, [`auth::identify`] finds out who asks, then the routes, each for whom it names.
//! [`error`] knows what errors look like.
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
mod state;
mod envelope;
mod places;
mod auth;
mod error;
mod welcome;
mod replication;
mod databases;
mod rendered;
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

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_request};
use axum::routing::{any, get, post, put};
use tower::Layer;
use tower_http::catch_panic::CatchPanicLayer;

pub use self::answer::Answers;
pub use self::auth::Admins;
use self::auth::{Routes, everybody, makers, members, replicators, server_admins};
use self::places::Places;
pub use self::places::Reader;
pub use self::state::AppState;
pub(crate) use self::state::COUCHDB_VERSION;

/// Every route of the server.
pub fn router(state: AppState) -> Router {
    let places = Places::new(state.config.http.max_requests, state.config.http.max_slow_readers);
    let routes = Routes::new()
        .route("/", everybody(get(welcome::welcome)))
        .route("/_up", everybody(get(welcome::up)))
        .route("/_uuids", everybody(get(welcome::fresh_uuids)))
        .route("/_session", everybody(get(welcome::session).post(welcome::no_sessions).delete(welcome::no_sessions)))
        .route("/_all_dbs", server_admins(get(databases::list)))
        .route("/_replicate", replicators(any(replication::replicate)))
        .route("/_replicate/{id}/failures", replicators(get(replication::failures)))
        .route("/_active_tasks", server_admins(get(replication::active_tasks)))
        .route(
            "/{db}",
            members(get(databases::info).post(documents::create))
                .and(makers(put(databases::create).delete(databases::delete))),
        )
        .route("/{db}/_all_docs", members(get(all_docs::get).post(all_docs::post)))
        .route("/{db}/_changes", members(get(changes::get).post(changes::post)))
        .route("/{db}/_bulk_docs", members(post(bulk_docs::post)))
        .route("/{db}/_bulk_get", members(post(bulk_get::post)))
        .route("/{db}/_revs_diff", members(post(revs_diff::revs_diff)))
        .route("/{db}/_missing_revs", members(post(revs_diff::missing_revs)))
        .route("/{db}/_ensure_full_commit", members(post(databases::ensure_full_commit)))
        .route("/{db}/_security", members(get(databases::security)))
        .route("/{db}/_revs_limit", members(get(databases::revs_limit)))
        .route("/{db}/_local_docs", members(get(local_docs::list)))
        .route("/{db}/_local/{doc}", members(get(local_docs::get).put(local_docs::put).delete(local_docs::delete)))
        .route("/{db}/_local/{doc}/{*attachment}", members(any(local_docs::no_attachments)))
        .route("/{db}/{doc}", members(get(documents::get).put(documents::put).delete(documents::delete)))
        .route(
            "/{db}/{doc}/{*attachment}",
            members(get(attachments::get).put(attachments::put).delete(attachments::delete)),
        )
        .with_state(state.clone());
    Router::new()
        .fallback_service(map_request(path::canonical).layer(routes))
        .layer(from_fn_with_state(state, auth::identify))
        .layer(from_fn_with_state(places, places::limit))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(from_fn(envelope::dress))
}
