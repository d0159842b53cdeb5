//! Who asks, and whether they may.
//!
//! Basic authentication against the admins of the settings ([`admins`]). Without admins everyone is one. With them
//! everybody may greet the server (`/`, `/_up`, `/_uuids`, `/_session`), and only admins may do anything else, since
//! databases have CouchDB 3's default security. Credentials that are wrong are refused everywhere, as in CouchDB.

mod admins;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use crate::registry::Caller;

use super::AppState;
use super::error::ApiError;

pub use self::admins::Admins;

/// Finds out who asks and refuses who may not; handlers find an `Arc<Caller>` in the request's extensions.
pub async fn check(State(state): State<AppState>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let caller = caller(&state.admins, request.headers()).await?;
    if !caller.is_admin
        && let Some(reason) = refusal(request.method(), request.uri().path())
    {
        return Err(ApiError::Unauthorized(reason));
    }
    request.extensions_mut().insert(Arc::new(caller));
    Ok(next.run(request).await)
}

async fn caller(admins: &Admins, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let secret = |text: &str| SecretString::from(text.to_owned());
    let mut caller = Caller { name: None, is_admin: admins.is_empty(), authorization: authorization.map(secret) };
    if !admins.is_empty()
        && let Some((name, password)) = authorization.and_then(basic)
    {
        if !admins.know(&name, password).await? {
            return Err(ApiError::Unauthorized("Name or password is incorrect."));
        }
        caller.is_admin = true;
        caller.name = Some(name);
    }
    Ok(caller)
}

/// What an `Authorization: Basic` header says; `None` for another kind, which is nobody's here.
fn basic(authorization: &str) -> Option<(String, SecretString)> {
    let (scheme, credentials) = authorization.split_once(' ')?;
    let decoded = STANDARD.decode(credentials.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.into(), SecretString::from(password.to_owned())))
}

/// Why somebody who is no admin may not do this; `None` where everybody may.
fn refusal(method: &Method, path: &str) -> Option<&'static str> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let (first, second) = (segments.next().unwrap_or_default(), segments.next());
    match first {
        "" | "_up" | "_uuids" | "_session" => None,
        "_replicate" => Some("You are not an authenticated user"),
        "_all_dbs" | "_active_tasks" => Some("You are not a server admin."),
        _ if second.is_none() && matches!(*method, Method::PUT | Method::DELETE) => Some("You are not a server admin."),
        _ => Some("You are not authorized to access this db."),
    }
}

#[cfg(test)]
mod tests {
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
        assert!(caller.is_admin);
        assert_eq!(caller.name.as_deref(), Some("admin"));
    }

    #[tokio::test]
    async fn wrong_credentials_are_refused_and_none_are_nobodys() {
        for user in ["admin:wrong", "nobody:se:cret", "admin:"] {
            let error = caller(&admins(), &headers(user)).await.unwrap_err();
            assert_eq!(error.pair(), ("unauthorized", "Name or password is incorrect.".into()));
        }
        assert!(!caller(&admins(), &HeaderMap::new()).await.unwrap().is_admin);
    }

    #[tokio::test]
    async fn without_admins_everyone_is_one_without_a_name() {
        let caller = caller(&Admins::new(Vec::new()), &headers("a:b")).await.unwrap();
        assert!(caller.is_admin && caller.name.is_none() && caller.authorization.is_some());
    }

    #[test]
    fn strangers_may_greet_and_nothing_else() {
        let get = |path: &str| refusal(&Method::GET, path);
        assert_eq!((get("/"), get("/_up"), get("/_session/")), (None, None, None));
        assert_eq!(get("/_replicate"), Some("You are not an authenticated user"));
        assert_eq!(get("/db/doc"), Some("You are not authorized to access this db."));
        assert_eq!(refusal(&Method::PUT, "/db/"), Some("You are not a server admin."));
    }
}
