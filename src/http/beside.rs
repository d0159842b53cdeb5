//! The router of a server beside a CouchDB: the replicator's requests are answered here, all others pass through.
//!
//! # Whose a request is
//! The replicator's are `/_replicate` and its failures, `/_active_tasks`, `/_scheduler/jobs`, `/_metrics` and the page `/_couchrep` ([`our_path`]), in whatever
//! way their paths are written: CouchDB decodes its path before it looks who is meant, so `/%5Freplicate` is no way round us.
//! - `/_scheduler/docs` is CouchDB's, as long as documents of `_replicator` are its own scheduler's; if they are run here, it is CouchDB's
//!   list with our word on those that aren't at their ends.
//! - `/_up` is CouchDB's: whoever asks it through this port (a balancer, a container's health check) wants to know whether a database
//!   will answer here, and CouchDB in maintenance says no. While this server stops, it says no itself.
//! - `/_utils` is CouchDB's, unless `--utils-dir` names another admin UI.
//! - `OPTIONS` is CouchDB's everywhere: its settings say what another site's page may do. What they say of an answer to a page, our
//!   own answers say too ([`identify`]).
//!
//! What passes through meets none of the layers around our own routes: nothing counts it among open requests, puts headers on it,
//! or asks who sends it.

pub mod identify;
pub mod lists;
pub mod documents;
pub mod replicate;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::extract::{OriginalUri, Request};
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Uri};
use axum::response::{IntoResponse as _, Response};
use futures::future::{BoxFuture, FutureExt as _};
use percent_encoding::percent_decode_str;
use tower::Service;

use super::error::ApiError;
use super::{AppState, pass_through};
use crate::beside::Upstream;

/// Answers all requests. Cheap to clone.
#[derive(Clone)]
pub struct RouterBeside {
    routes: Router,
    state: AppState,
    upstream: Upstream,
    /// CouchDB didn't answer the last request.
    away: Arc<AtomicBool>,
}

impl RouterBeside {
    /// `routes` are the replicator's.
    pub fn new(routes: Router, state: AppState, upstream: Upstream) -> Self {
        Self { routes, state, upstream, away: Arc::default() }
    }

    async fn answer(mut self, mut request: Request) -> Result<Response, Infallible> {
        if request.method() != Method::OPTIONS
            && let Some(path) = our_path(request.uri().path(), || self.ours_now())
        {
            let asked = OriginalUri(request.uri().clone());
            request.extensions_mut().insert(asked);
            set_path(&mut request, &path);
            return self.routes.call(request).await;
        }
        let (method, started) = (request.method().clone(), Instant::now());
        let stops = path_is(request.uri().path(), &["_up"]) && self.state.availability.has_stopped();
        let answer = match stops {
            true => Ok(super::welcome::up(axum::extract::State(self.state.clone())).await.into_response()),
            false => pass_through::pass(&self.upstream, request).await,
        };
        self.notice(answer.as_ref().err());
        let response = answer.unwrap_or_else(|error| pass_through::refused(error, &method));
        self.state.traffic.answered(&method, response.status(), started);
        Ok(response)
    }

    fn ours_now(&self) -> OursNow {
        OursNow {
            documents: self.state.jobs.runs_couchdbs_documents(),
            utils: self.state.settings.current().utils_dir.is_some(),
        }
    }

    /// Logs that CouchDB is away, and that it is back, once each.
    fn notice(&self, error: Option<&ApiError>) {
        let is_away = matches!(error, Some(ApiError::BadGateway(_)));
        if self.away.swap(is_away, Ordering::Relaxed) != is_away {
            let couchdb = &self.upstream.settings().url;
            match error {
                Some(error) => tracing::warn!(%error, %couchdb, "requests don't get through to CouchDB"),
                None => tracing::info!(%couchdb, "requests get through to CouchDB again"),
            }
        }
    }
}

impl Service<Request> for RouterBeside {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.clone().answer(request).boxed()
    }
}

/// The replicator's paths, as their segments begin; a `*` is any segment.
const OURS: [&[&str]; 6] = [
    &["_replicate"],
    &["_replicate", "*", "failures"],
    &["_active_tasks"],
    &["_scheduler", "jobs"],
    &["_scheduler", "jobs", "*"],
    &["_metrics"],
];

/// What else is ours, if the settings have it so.
struct OursNow {
    /// Documents of replications.
    documents: bool,
    /// An admin UI.
    utils: bool,
}

/// A path of ours, as its routes have it; `None` if it is CouchDB's. `now` is asked only if it may be one.
fn our_path(path: &str, now: impl FnOnce() -> OursNow) -> Option<String> {
    // Most are databases' and begin with a letter.
    let begins = path.trim_start_matches('/').as_bytes().first();
    if !matches!(begins, Some(b'_' | b'%')) {
        return None;
    }
    if let Some(page) = path_below(path, &["_couchrep"]) {
        return Some(page);
    }
    let now = now();
    if now.documents
        && let Some(place) = path_below(path, &["_scheduler", "docs"])
    {
        return Some(place);
    }
    if now.utils
        && let Some(file) = path_below(path, &["_utils"])
    {
        return Some(file);
    }
    let ours = OURS.iter().find(|ours| path_is(path, ours))?;
    let raw = path.split('/').filter(|segment| !segment.is_empty());
    let segments = ours.iter().zip(raw).map(|(own, raw)| if *own == "*" { raw } else { own });
    Some(segments.flat_map(|segment| ["/", segment]).collect())
}

/// A path of these segments, and whatever is below it as it was written.
fn path_below(path: &str, own: &[&'static str]) -> Option<String> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let is_it = own.iter().all(|own| segments.next().is_some_and(|raw| percent_decode_str(raw).eq(own.bytes())));
    is_it.then(|| own.iter().copied().chain(segments).flat_map(|segment| ["/", segment]).collect())
}

fn path_is(path: &str, segments: &[&str]) -> bool {
    let raw: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let is = |(own, raw): (&&str, &&str)| *own == "*" || percent_decode_str(raw).eq(own.bytes());
    raw.len() == segments.len() && segments.iter().zip(&raw).all(is)
}

fn set_path(request: &mut Request, path: &str) {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(format!("{path}{query}")).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that is missing here passes through, whatever the table of routes says.
    #[test]
    fn ours_are_the_paths_of_the_routes_beside_a_couchdb() {
        let table = include_str!("../http.rs");
        let list = |name: &str| table.split(name).nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap();
        let lists = [list("\nfn replication_routes("), list("\nfn routes_beside(")];
        let paths = lists.iter().flat_map(|list| list.split(".route(").skip(1));
        let paths = paths.map(|route| route.split('"').nth(1).unwrap());
        let is_below =
            |path: &&str| ["/_scheduler/docs", "/_utils", "/_couchrep"].iter().any(|above| path.starts_with(above));
        let (below, others): (Vec<_>, Vec<_>) = paths.partition(is_below);
        let (page, others_below): (Vec<&str>, Vec<_>) =
            below.into_iter().partition(|path| path.starts_with("/_couchrep"));
        assert!(page.len() > 2, "{page:?}");
        assert_eq!(others_below, ["/_utils", "/_utils/{*file}", "/_scheduler/docs", "/_scheduler/docs/{*place}"]);
        let any = |segment| if str::starts_with(segment, '{') { "*" } else { segment };
        let segments = |path: &&'static str| path.split('/').skip(1).map(any).collect::<Vec<_>>();
        let (mut found, mut ours) = (others.iter().map(segments).collect::<Vec<_>>(), OURS.map(<[_]>::to_vec));
        found.sort();
        ours.sort();
        assert_eq!(found, ours);
    }

    const NO_MORE: OursNow = OursNow { documents: false, utils: false };
    const ALL: OursNow = OursNow { documents: true, utils: true };

    #[test]
    fn the_replicators_paths_are_ours_however_they_are_written() {
        for (path, ours) in [
            ("/_replicate", Some("/_replicate")),
            ("//_replicate/", Some("/_replicate")),
            ("/%5Freplicate", Some("/_replicate")),
            ("/%5f%72eplicate", Some("/_replicate")),
            ("/_replicate/a%2Bb/failures", Some("/_replicate/a%2Bb/failures")),
            ("/_active_tasks", Some("/_active_tasks")),
            ("/_couchrep/", Some("/_couchrep")),
            ("/_couchrep/vendor/x.js", Some("/_couchrep/vendor/x.js")),
            ("/_scheduler/jobs/a+continuous", Some("/_scheduler/jobs/a+continuous")),
            ("/_scheduler/docs", None),
            ("/_scheduler", None),
            ("/_replicate/x", None),
            ("/_replicator", None),
            ("/_up", None),
            ("/", None),
            ("*", None),
            ("/db/_replicate", None),
            ("/db%2F_replicate", None),
        ] {
            assert_eq!(our_path(path, || NO_MORE).as_deref(), ours, "{path}");
            assert_eq!(our_path(path, || ALL).is_some(), ours.is_some() || path == "/_scheduler/docs", "{path}");
        }
        for (path, ours) in [
            ("/%5Fscheduler/docs/", "/_scheduler/docs"),
            ("/_scheduler/docs/a%2F_replicator/x", "/_scheduler/docs/a%2F_replicator/x"),
            ("/_scheduler/docs/a/_replicator", "/_scheduler/docs/a/_replicator"),
            ("/_utils", "/_utils"),
            ("/%5Futils/", "/_utils"),
            ("/_utils//js/a%20b.js", "/_utils/js/a%20b.js"),
        ] {
            assert_eq!(our_path(path, || ALL).as_deref(), Some(ours));
            assert_eq!(our_path(path, || NO_MORE), None);
        }
    }
}
