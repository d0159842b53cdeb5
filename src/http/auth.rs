//! Holds each route's rights.
//!
//! A route says in the table ([`super::router`]) whom it is for, and can't stand there without saying it: [`Routes`] takes
//! [`Guarded`] handlers only. One function ([`check`]) asks the [`Caller`] and the database's security object, in the order
//! and with the words of `chttpd_auth_request:authorize_request_int/1`, and gives the database to the handlers, which have
//! no other way to it. A path that is no route is a database's, or the server's own if it starts with an underscore.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::Uri;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::MethodRouter;

use crate::access::{Caller, Denied};
use crate::store::Database;

use super::AppState;
use super::error::ApiError;
use super::request::{DatabasePath, Db};

/// Whom handlers are for. Where a database is meant, it must be there, and is opened before anybody is refused: one that
/// isn't there is 404 to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Everybody,
    /// Whoever may replicate.
    Replicators,
    ServerAdmins,
    /// Whoever may read metrics.
    Watchers,
    /// Server admins, of a database that is there.
    ServerAdminsOfDatabase,
    Members,
    /// Members, but admins of databases whose documents others mustn't read all of ([`may_list`]).
    MembersOfOthers,
    /// The same; where server admins are, they are asked for first.
    Listers,
    /// Members who are admins of the database, to change it.
    Designers,
    /// Members who are admins of the database, to clean it up.
    Maintainers,
}

/// A path's handlers, with the rights that they ask for.
pub struct Guarded(Vec<(For, MethodRouter<AppState>)>);

impl Guarded {
    /// Handlers of other methods, with rights of their own. A method that none of them takes asks for these.
    pub fn and(self, Self(others): Self) -> Self {
        Self(self.0.into_iter().chain(others).collect())
    }
}

macro_rules! guards {
    ($($(#[$doc:meta])+ $name:ident => $whom:ident;)+) => {
        $($(#[$doc])+ pub fn $name(handlers: MethodRouter<AppState>) -> Guarded { Guarded(vec![(For::$whom, handlers)]) })+
    };
}

guards! {
    /// For everybody.
    everybody => Everybody;
    /// For whoever may replicate.
    replicators => Replicators;
    /// For server admins.
    server_admins => ServerAdmins;
    /// For whoever may read metrics.
    watchers => Watchers;
    /// For server admins, of a database that is there.
    server_admins_of_database => ServerAdminsOfDatabase;
    /// For members of the database.
    members => Members;
    /// For members of the database, but of users' and replicator databases for admins.
    members_of_others => MembersOfOthers;
    /// The same, where CouchDB asks for server admins first.
    listers => Listers;
    /// For admins of the database, to change it.
    designers => Designers;
    /// For admins of the database, to clean it up.
    maintainers => Maintainers;
}

/// The one check of rights. Handlers after it find the path's database in the request's extensions.
async fn check(
    State((state, whom)): State<(AppState, For)>,
    Extension(caller): Extension<Arc<Caller>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match whom {
        For::Everybody => return Ok(next.run(request).await),
        For::Replicators => caller.may_replicate()?,
        For::ServerAdmins | For::ServerAdminsOfDatabase => caller.may_administer()?,
        For::Watchers => caller.may_watch()?,
        For::Members | For::MembersOfOthers | For::Listers | For::Designers | For::Maintainers => {}
    }
    if !matches!(whom, For::Replicators | For::ServerAdmins | For::Watchers) {
        let (mut parts, body) = request.into_parts();
        let path = DatabasePath::of(&mut parts, &state).await?;
        if path.is_servers_own() {
            caller.may_administer()?;
        }
        let db = path.open(&state).await?;
        if whom == For::Listers && db.name().is_servers_own() {
            may_list(&db, &caller)?;
        }
        let security = db.security();
        security.may_open(&caller)?;
        match whom {
            For::Designers => security.may_design(&caller)?,
            For::Maintainers => security.may_maintain(&caller)?,
            For::MembersOfOthers | For::Listers => may_list(&db, &caller)?,
            // A copy reads what it copies.
            _ if db.name().is_users()
                && !security.is_admin(&caller)
                && (parts.method.is_safe() || parts.method.as_str() == "COPY") =>
            {
                path.may_read_user(&caller)?;
            }
            _ => {}
        }
        parts.extensions.insert(Db(db));
        request = Request::from_parts(parts, body);
    }
    Ok(next.run(request).await)
}

/// Whether the caller may read all documents of a database at once, and what is told of all of them. Those of `_users` and
/// `_replicator` are for server admins (CouchDB says so of `_all_docs` and `_changes`); those of other replicator databases are for
/// their admins: everybody else sees documents of others without their credentials, and one at a time. (CouchDB lists them so, and
/// lets credentials be guessed by selectors.)
fn may_list(db: &Database, caller: &Caller) -> Result<(), Denied> {
    match db.name() {
        name if name.is_users() || (name.is_replicator() && name.is_servers_own()) => caller.may_administer(),
        name if name.is_replicator() => db.security().may_maintain(caller),
        _ => Ok(()),
    }
}

/// The table of routes.
pub struct Routes {
    state: AppState,
    routes: Router<AppState>,
}

impl Routes {
    /// No route yet, but an answer to all other paths.
    pub fn new(state: &AppState) -> Self {
        Self { state: state.clone(), routes: Router::new().fallback(no_route) }
    }

    /// One more.
    pub fn route(self, path: &str, Guarded(handlers): Guarded) -> Self {
        let guard = |(whom, handlers): (For, MethodRouter<AppState>)| {
            handlers.layer(from_fn_with_state((self.state.clone(), whom), check))
        };
        // The first one's answer to wrong methods is the path's.
        let all = handlers.into_iter().rev().map(guard).reduce(MethodRouter::merge).unwrap_or_default();
        Self { routes: self.routes.route(path, all), ..self }
    }

    /// The table, to be served.
    pub fn served(self) -> Router {
        self.routes.with_state(self.state)
    }
}

/// A path that is no route: something of the server's, or of a database.
async fn no_route(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    uri: Uri,
) -> Result<ApiError, ApiError> {
    let path = DatabasePath::named(uri.path().split('/').find(|segment| !segment.is_empty()).unwrap_or_default());
    if path.is_servers_own() {
        caller.may_administer()?;
    } else {
        path.open(&state).await?.security().may_open(&caller)?;
    }
    Ok(ApiError::Missing)
}
