//! Finds out who asks, and holds each route's rights.
//!
//! Basic authentication against the admins of the settings ([`admins`]). Without admins everyone is one. With them
//! everybody may greet the server (`/`, `/_up`, `/_uuids`, `/_session`), and only admins may do anything else, since
//! databases have CouchDB 3's default security. Credentials that are wrong are refused everywhere, as in CouchDB.
//!
//! A route says in the table ([`super::router`]) whom it is for, and can't stand there without saying it: [`Routes`] takes
//! [`Guarded`] handlers only. What he may is asked of the [`Caller`]; a path that is no route is for members of databases.

mod admins;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::MethodRouter;
use secrecy::SecretString;

use crate::access::{Caller, Denied};
use crate::endpoint::Credentials;

use super::AppState;
use super::error::ApiError;

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

/// A path's handlers, with the rights that they ask for.
pub struct Guarded(MethodRouter<AppState>);

impl Guarded {
    /// Handlers of other methods, with rights of their own. A method that none of them takes asks for these.
    pub fn and(self, Self(others): Self) -> Self {
        Self(others.merge(self.0))
    }
}

/// For everybody.
pub fn everybody(handlers: MethodRouter<AppState>) -> Guarded {
    Guarded(handlers)
}

/// For whoever may replicate.
pub fn replicators(handlers: MethodRouter<AppState>) -> Guarded {
    guarded(handlers, Caller::may_replicate)
}

/// For members of the database.
pub fn members(handlers: MethodRouter<AppState>) -> Guarded {
    guarded(handlers, Caller::may_open_databases)
}

/// For whoever may make and remove databases.
pub fn makers(handlers: MethodRouter<AppState>) -> Guarded {
    guarded(handlers, Caller::may_make_databases)
}

/// For server admins.
pub fn server_admins(handlers: MethodRouter<AppState>) -> Guarded {
    guarded(handlers, Caller::may_administer)
}

fn guarded(handlers: MethodRouter<AppState>, may: fn(&Caller) -> Result<(), Denied>) -> Guarded {
    let ask = move |Extension(caller): Extension<Arc<Caller>>, request: Request, next: Next| async move {
        may(&caller)?;
        Ok::<_, ApiError>(next.run(request).await)
    };
    Guarded(handlers.layer(from_fn(ask)))
}

/// The table of routes.
pub struct Routes(Router<AppState>);

impl Routes {
    /// No route yet, but an answer to all other paths.
    pub fn new() -> Self {
        Self(Router::new().fallback(no_route))
    }

    /// One more.
    pub fn route(self, path: &str, Guarded(handlers): Guarded) -> Self {
        Self(self.0.route(path, handlers))
    }

    /// The table, to be served.
    pub fn with_state(self, state: AppState) -> Router {
        self.0.with_state(state)
    }
}

async fn no_route(Extension(caller): Extension<Arc<Caller>>) -> ApiError {
    caller.may_open_databases().map_or_else(ApiError::from, |()| ApiError::Missing)
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
