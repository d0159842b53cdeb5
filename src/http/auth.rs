//! Finds out who asks, and holds each route's rights.
//!
//! Basic authentication against the admins of the settings ([`admins`]). Without admins everyone is one. Credentials that
//! are wrong are refused everywhere, as in CouchDB.
//!
//! A route says in the table ([`super::router`]) whom it is for, and can't stand there without saying it: [`Routes`] takes
//! [`Guarded`] handlers only. One function ([`check`]) asks the [`Caller`] and the database's security object, in the order
//! and with the words of `chttpd_auth_request:authorize_request_int/1`, and gives the database to the handlers, which have
//! no other way to it. A path that is no route is a database's, or the server's own if it starts with an underscore.

mod admins;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::MethodRouter;
use secrecy::SecretString;

use crate::access::{Caller, Denied};
use crate::endpoint::Credentials;

use super::AppState;
use super::error::ApiError;
use super::request::{DatabasePath, Db};

pub use self::admins::Admins;

/// Finds out who asks; what comes after it finds an `Arc<Caller>` in the request's extensions.
pub async fn identify(State(state): State<AppState>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let caller = caller(&state.admins, request.headers()).await?;
    request.extensions_mut().insert(Arc::new(caller));
    Ok(next.run(request).await)
}

async fn caller(admins: &Admins, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let mut caller = if admins.is_empty() { Caller::server_admin() } else { Caller::default() };
    if !admins.is_empty()
        && let Some(Credentials { name, password, .. }) = authorization.and_then(Credentials::from_header)
    {
        if !admins.know(&name, password).await? {
            return Err(Denied::WrongPassword.into());
        }
        caller = Caller { name: Some(name), ..Caller::server_admin() };
    }
    caller.authorization = authorization.map(|text| SecretString::from(text.to_owned()));
    Ok(caller)
}

/// Whom handlers are for. Where a database is meant, it must be there, and is opened before anybody is refused: one that
/// isn't there is 404 to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Everybody,
    /// Whoever may replicate.
    Replicators,
    ServerAdmins,
    /// Server admins, of a database that is there.
    ServerAdminsOfDatabase,
    Members,
    /// Members, but of the users' database server admins, since what all its documents say is nobody else's.
    MembersOfOthers,
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
    /// For server admins, of a database that is there.
    server_admins_of_database => ServerAdminsOfDatabase;
    /// For members of the database.
    members => Members;
    /// For members of the database, but of the users' database for server admins.
    members_of_others => MembersOfOthers;
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
        For::Members | For::MembersOfOthers | For::Designers | For::Maintainers => {}
    }
    if !matches!(whom, For::Replicators | For::ServerAdmins) {
        let (mut parts, body) = request.into_parts();
        let path = DatabasePath::of(&mut parts, &state).await?;
        if path.is_servers_own() {
            caller.may_administer()?;
        }
        let db = path.open(&state).await?;
        if whom == For::MembersOfOthers && db.name().is_users() {
            caller.may_administer()?;
        }
        let security = db.security();
        security.may_open(&caller)?;
        match whom {
            For::Designers => security.may_design(&caller)?,
            For::Maintainers => security.may_maintain(&caller)?,
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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::config::Admin;

    fn admins() -> Admins {
        Admins::new(vec![Admin { name: "admin".into(), password: "se:cret".into() }])
    }

    fn headers(user: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Basic {}", STANDARD.encode(user)).parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn an_admin_is_known_by_name_and_password() {
        let caller = caller(&admins(), &headers("admin:se:cret")).await.unwrap();
        assert!(caller.is_server_admin());
        assert_eq!(caller.name.as_deref(), Some("admin"));
    }

    #[tokio::test]
    async fn wrong_credentials_are_refused_and_none_are_nobodys() {
        for user in ["admin:wrong", "nobody:se:cret", "admin:"] {
            let error = caller(&admins(), &headers(user)).await.unwrap_err();
            assert_eq!(error.pair(), ("unauthorized", "Name or password is incorrect.".into()));
        }
        assert!(!caller(&admins(), &HeaderMap::new()).await.unwrap().is_server_admin());
    }

    #[tokio::test]
    async fn without_admins_everyone_is_one_without_a_name() {
        let caller = caller(&Admins::new(Vec::new()), &headers("a:b")).await.unwrap();
        assert!(caller.is_server_admin() && caller.name.is_none() && caller.authorization.is_some());
    }
}
