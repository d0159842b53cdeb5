//! The HTTP API: CouchDB's, but for what [`ABSENT`] names, over the store and the jobs; or, beside a CouchDB, the replicator's part
//! of it alone, while everything else passes through ([`beside`]).
//!
//! Every route stands in one of three lists ([`replication_routes`], [`routes_beside`], [`database_routes`]), and what CouchDB has
//! besides in [`ABSENT`]; one file a resource holds the handlers.
//! Handlers own no long work: a replication is a job's task, a long answer is written by a task that ends when the client
//! hangs up. Paths are canonical before they are matched ([`path`]): a trailing slash makes no difference, `_design/x` is
//! one segment.
//!
//! Outside in: [`traffic::count`] counts, [`envelope::complete`] gives every answer CouchDB's headers, [`cors::tell`] tells browsers who may read it, a
//! panic becomes a 500, [`open_requests::limit`] counts open requests, [`method_override::meant`] finds out which method is
//! meant, [`identify::identify`] who asks, then the routes, each for whom it names.
//! [`error`] knows what errors look like.
//!
//! Where it differs from CouchDB 3.5 on purpose: update seqs are integers; `multipart/…` is answered only where
//! `Accept` names it, not to `*/*`; `POST /_session` is 404 where there are no admins, so that CouchDB's replicator sends
//! Basic credentials; a write with `batch=ok` is done before it is answered, but not yet synced; `offset` of `_all_docs` is
//! only about right while somebody writes.

mod answer;
mod path;
mod query;
mod request;
mod question;
mod blob;
mod outgoing;
mod state;
mod envelope;
mod method_override;
mod traffic;
mod held;
mod open_requests;
mod cors;
mod session_cookie;
mod cross_origin;
mod identify;
mod auth;
mod absent;
mod error;
mod welcome;
mod utils;
mod page;
mod session;
mod replication;
mod scheduler;
mod nodes;
mod metrics;
mod config;
mod databases;
mod dbs_info;
mod rendered;
mod documents;
mod batch;
mod copy;
mod open_revs;
mod related;
mod attachments;
mod local_docs;
mod bulk_docs;
mod bulk_get;
mod revs_diff;
mod purge;
mod all_docs;
mod feed;
mod changes;
mod db_updates;
mod pass_through;
mod beside;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_request};
use axum::routing::{any, get, post, put};
use tower::Layer;
use tower_http::catch_panic::CatchPanicLayer;

pub use self::answer::Answers;
use self::auth::{
    Routes, designers, everybody, listers, maintainers, members, members_of_others, replicators, server_admins,
    server_admins_of_database, watchers,
};
pub use self::beside::RouterBeside;
pub use self::held::Held;
pub use self::open_requests::{Reader, RequestPermits};
pub use self::session_cookie::Https;
pub(crate) use self::state::COUCHDB_VERSION;
pub use self::state::{AppState, Availability, Backend, Shared};
pub use self::traffic::Traffic;
use crate::beside::Callers;

/// Every route of a server with databases of its own.
pub fn router(state: AppState) -> Router {
    let traffic = state.traffic.clone();
    let routes = database_routes(Routes::new(&state));
    let routes = absent::add(routes, &ABSENT).served();
    Router::new()
        .fallback_service(map_request(path::canonical).layer(routes))
        .layer(from_fn_with_state(state.clone(), identify::identify))
        .layer(map_request(method_override::meant))
        .layer(from_fn_with_state(state.permits.clone(), open_requests::limit))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(from_fn_with_state(state, cors::tell))
        .layer(from_fn(envelope::complete))
        .layer(from_fn_with_state(traffic, traffic::count))
}

/// The router of a server beside a CouchDB, which `callers` ask.
pub fn router_beside(state: AppState, callers: Callers) -> RouterBeside {
    let traffic = state.traffic.clone();
    let upstream = callers.upstream().clone();
    let routes = routes_beside(Routes::new(&state));
    let routes = Router::new()
        .fallback_service(routes.served())
        .layer(from_fn_with_state((state.clone(), callers), beside::identify::identify))
        .layer(from_fn_with_state(state.permits.clone(), open_requests::limit))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(from_fn(envelope::complete))
        .layer(from_fn_with_state(traffic, traffic::count));
    RouterBeside::new(routes, state, upstream)
}

/// What is the same with and without a CouchDB. Each path stands in [`beside`]'s list too, else it passes through there.
fn replication_routes(routes: Routes) -> Routes {
    routes
        .route("/_replicate/{id}/failures", replicators(get(replication::failures)))
        .route("/_metrics", watchers(get(metrics::prometheus)))
        .route("/_couchrep", everybody(get(page::index)))
        .route("/_couchrep/{*file}", everybody(get(page::file)))
        .route("/_couchrep/jobs", replicators(get(page::requests::jobs)))
        .route("/_couchrep/jobs/{id}", replicators(get(page::requests::job).post(page::requests::act)))
        .route("/_couchrep/check", replicators(post(page::requests::check)))
        .route("/_couchrep/verify", replicators(post(page::requests::verify)))
        .route("/_utils", everybody(any(utils::file)))
        .route("/_utils/{*file}", everybody(any(utils::file)))
}

/// Beside a CouchDB: the replicator, and lists that are CouchDB's and ours.
fn routes_beside(routes: Routes) -> Routes {
    replication_routes(routes)
        .route("/_replicate", replicators(any(beside::replicate::replicate)))
        .route("/_active_tasks", server_admins(get(beside::lists::active_tasks)))
        .route("/_scheduler/jobs", server_admins(get(beside::lists::jobs)))
        .route("/_scheduler/jobs/{id}", server_admins(get(beside::lists::job).post(scheduler::act)))
        .route("/_scheduler/docs", everybody(get(beside::documents::list)))
        .route("/_scheduler/docs/{*place}", everybody(get(beside::documents::list)))
}

/// A server's with databases of its own: the replicator's without a CouchDB's entries, and all that passes through beside one.
fn database_routes(routes: Routes) -> Routes {
    replication_routes(routes)
        .route("/_replicate", replicators(any(replication::replicate)))
        .route("/favicon.ico", everybody(any(utils::icon)))
        .route("/_active_tasks", server_admins(get(replication::active_tasks)))
        .route("/_scheduler/jobs", server_admins(get(scheduler::jobs)))
        .route("/_scheduler/jobs/{id}", server_admins(get(scheduler::job).post(scheduler::act)))
        .route("/", everybody(get(welcome::welcome)))
        .route("/_up", everybody(get(welcome::up)))
        .route("/_uuids", everybody(get(welcome::fresh_uuids)))
        .route("/_session", everybody(get(session::get).post(session::log_in).delete(session::log_out)))
        .route("/_all_dbs", server_admins(get(databases::list)))
        .route("/_dbs_info", server_admins(get(dbs_info::get).post(dbs_info::post)))
        .route("/_db_updates", server_admins(get(db_updates::get)))
        .route("/_membership", server_admins(get(nodes::membership)))
        .route("/_node/{node}", server_admins(get(nodes::name)))
        .route("/_node/{node}/{*rest}", server_admins(any(absent::answer("_node", "other parts of a node"))))
        .route("/_node/{node}/_prometheus", watchers(get(metrics::prometheus)))
        .route("/_node/{node}/_stats", watchers(get(metrics::stats)))
        .route("/_node/{node}/_stats/{*section}", watchers(get(metrics::stats_part)))
        .route("/_node/{node}/_system", watchers(get(metrics::system)))
        .route("/_node/{node}/_config", server_admins(get(config::all)))
        .route("/_node/{node}/_config/_reload", server_admins(post(config::reload)))
        .route("/_node/{node}/_config/{section}", server_admins(get(config::section)))
        .route(
            "/_node/{node}/_config/{section}/{key}",
            server_admins(get(config::get).put(config::put).delete(config::delete)),
        )
        .route("/_config", server_admins(get(config::all)))
        .route("/_config/{section}", server_admins(get(config::section)))
        .route("/_config/{section}/{key}", server_admins(get(config::get).put(config::put).delete(config::delete)))
        .route("/_scheduler/docs", server_admins(get(scheduler::documents)))
        .route("/_scheduler/docs/{*place}", server_admins(get(scheduler::of_database)))
        .route(
            "/{db}",
            members(get(databases::info).post(documents::create))
                .and(server_admins(put(databases::create).delete(databases::delete))),
        )
        .route("/{db}/_all_docs", listers(get(all_docs::get).post(all_docs::post)))
        .route("/{db}/_design_docs", members_of_others(get(all_docs::get_design).post(all_docs::post_design)))
        .route("/{db}/_changes", listers(get(changes::get).post(changes::post)))
        .route("/{db}/_bulk_docs", members(post(bulk_docs::post)))
        .route("/{db}/_bulk_get", members_of_others(post(bulk_get::post)))
        .route("/{db}/_revs_diff", members_of_others(post(revs_diff::revs_diff)))
        .route("/{db}/_missing_revs", members_of_others(post(revs_diff::missing_revs)))
        .route("/{db}/_ensure_full_commit", members(post(databases::ensure_full_commit)))
        .route("/{db}/_purge", server_admins_of_database(post(purge::purge)))
        .route(
            "/{db}/_purged_infos_limit",
            server_admins_of_database(get(purge::infos_limit).put(purge::set_infos_limit)),
        )
        .route("/{db}/_compact", maintainers(post(databases::compact)))
        .route("/{db}/_compact/{doc}", maintainers(post(databases::compact_views)))
        .route("/{db}/_view_cleanup", maintainers(post(databases::cleanup)))
        .route("/{db}/_nouveau_cleanup", maintainers(post(databases::cleanup)))
        .route("/{db}/_security", members(get(databases::security)).and(designers(put(databases::set_security))))
        .route("/{db}/_revs_limit", members(get(databases::revs_limit)).and(designers(put(databases::set_revs_limit))))
        .route("/{db}/_local_docs", members_of_others(get(local_docs::list)))
        .route(
            "/{db}/_local/{doc}",
            members(get(local_docs::get).put(local_docs::put).delete(local_docs::delete).fallback(copy::local)),
        )
        .route("/{db}/_local/{doc}/{*attachment}", members(any(local_docs::no_attachments)))
        .route(
            "/{db}/{doc}",
            members(
                get(documents::get)
                    .put(documents::put)
                    .post(attachments::post)
                    .delete(documents::delete)
                    .fallback(copy::document),
            ),
        )
        .route(
            "/{db}/{doc}/{*attachment}",
            members(get(attachments::get).put(attachments::put).delete(attachments::delete)),
        )
}

/// What CouchDB has and couchrep doesn't: paths, answered 501 with what is below them, and the features that they are.
const ABSENT: [(&str, &str); 31] = [
    ("/_global_changes", "database behind _db_updates, which needs none here"),
    ("/_cluster_setup", "cluster"),
    ("/_reshard", "shards"),
    ("/_reload_query_servers", "query servers"),
    ("/_search_analyze", "full-text search"),
    ("/_nouveau_analyze", "full-text search"),
    ("/{db}/_find", "Mango queries"),
    ("/{db}/_explain", "Mango queries"),
    ("/{db}/_index", "Mango indexes"),
    ("/{db}/_design_docs/queries", "several queries at once"),
    ("/{db}/_all_docs/queries", "several queries at once"),
    ("/{db}/_local_docs/queries", "several queries at once"),
    ("/{db}/_partition", "partitions"),
    ("/{db}/_purged_infos", "memory of purges"),
    ("/{db}/_auto_purge", "purging by itself"),
    ("/{db}/_time_seq", "times of changes"),
    ("/{db}/_shards", "shards"),
    ("/{db}/_sync_shards", "shards"),
    ("/{db}/_temp_view", "views"),
    ("/{db}/_search_cleanup", "full-text search"),
    ("/{db}/_design/{ddoc}/_view", "views"),
    ("/{db}/_design/{ddoc}/_list", "list functions"),
    ("/{db}/_design/{ddoc}/_show", "show functions"),
    ("/{db}/_design/{ddoc}/_update", "update functions"),
    ("/{db}/_design/{ddoc}/_rewrite", "rewrites"),
    ("/{db}/_design/{ddoc}/_info", "views"),
    ("/{db}/_design/{ddoc}/_search", "full-text search"),
    ("/{db}/_design/{ddoc}/_search_info", "full-text search"),
    ("/{db}/_design/{ddoc}/_search_disk_size", "full-text search"),
    ("/{db}/_design/{ddoc}/_nouveau", "full-text search"),
    ("/{db}/_design/{ddoc}/_nouveau_info", "full-text search"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a path of theirs would lead nowhere.
    #[test]
    fn every_function_of_design_documents_has_its_line() {
        let lines = ABSENT.iter().filter_map(|(path, _)| path.strip_prefix("/{db}/_design/{ddoc}/"));
        assert_eq!(lines.collect::<Vec<_>>(), path::DESIGN_FUNCTIONS);
    }
}
