//! What CouchDB has and couchrep doesn't says so: 501 `not_implemented`, with its name.
//!
//! Without routes of their own these paths would be taken for names: a view for an attachment that is missing, a scheduler
//! for a database that doesn't exist. The list stands beside the routes in `http.rs`; what is built leaves it.

use std::future::{Ready, ready};

use axum::routing::any;

use super::auth::{Routes, members, server_admins, server_admins_of_database};
use super::error::ApiError;

/// Adds what is absent: each path, and all below it, with the feature that it is.
pub fn add(mut routes: Routes, absent: &[(&'static str, &'static str)]) -> Routes {
    for &(path, feature) in absent {
        let parameters = |segment: &&str| segment.is_empty() || segment.starts_with('{') || *segment == "_design";
        let name = path.split('/').find(|segment| !parameters(segment)).map_or(path, |first| {
            // The name goes on to the path's end: `_all_docs/queries`.
            &path[path.find(first).unwrap_or_default()..]
        });
        let whom = match name {
            "_sync_shards" => server_admins_of_database,
            _ if path.starts_with("/{db}") => members,
            _ => server_admins,
        };
        let handlers = || whom(any(answer(name, feature)));
        routes = routes.route(path, handlers()).route(&format!("{path}/{{*rest}}"), handlers());
    }
    routes
}

/// The handler of something that isn't there.
pub fn answer(
    name: &'static str,
    feature: &'static str,
) -> impl Fn() -> Ready<ApiError> + Clone + Send + Sync + 'static {
    move || ready(ApiError::Absent { name, feature })
}
