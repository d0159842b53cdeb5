//! Finds out who asks.
//!
//! What proves it is looked for in this order, and the first that proves anything counts: the cookie of a session, Basic
//! credentials, a JSON web token, the word of a proxy. As in CouchDB, a cookie that is forged or expired proves nothing, and
//! its owner is nobody; wrong credentials and tokens are refused wherever they come, and a cookie that can't be read is too.
//! Without administrators everyone is one, whatever he sends.
//!
//! A session's cookie is made anew with an answer after a tenth of its time. What only a cookie proves, or nothing where there are no
//! admins, must not come from another site's page ([`cross_origin`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, SET_COOKIE};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use crate::access::{Caller, REPLICATOR};
use crate::accounts::{Accounts, Refused};
use crate::config::auth::Auth;
use crate::endpoint::Credentials;
use crate::users::{Account, cookie, proxy};

use super::error::ApiError;
use super::session_cookie;
use super::{AppState, cross_origin};

/// What has proven who asks, by CouchDB's names; handlers find it in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenBy(pub Option<&'static str>);

/// Who asks.
struct Identified {
    caller: Caller,
    by: ProvenBy,
    /// The value of a new cookie.
    renewed: Option<String>,
}

/// Finds out who asks; what comes after it finds an `Arc<Caller>` and a [`ProvenBy`] in the request's extensions.
pub async fn identify(State(state): State<AppState>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let config = state.settings.current();
    let (settings, headers) = (&config.auth, request.headers());
    if !state.accounts()?.has_admins() && !is_asked_by_address(headers, &config.listen) {
        return Err(ApiError::ForeignHost);
    }
    let Identified { caller, by, renewed } =
        identified(state.accounts()?, settings, headers, address(&request)).await?;
    if caller.name.is_none() && state.accounts()?.has_admins() && is_closed(settings, &request) {
        return Err(ApiError::NotLoggedIn("Authentication required."));
    }
    if by == ProvenBy(Some(COOKIE_HANDLER)) {
        cross_origin::check(request.method(), headers, |origin| config.cors.trusts(origin))?;
    } else if !state.accounts()?.has_admins() {
        cross_origin::check(request.method(), headers, |origin| config.cors.admits(origin))?;
    }
    let https = session_cookie::is_https(&request);
    request.extensions_mut().insert(Arc::new(caller));
    request.extensions_mut().insert(by);
    let mut response = next.run(request).await;
    // A login or logout has set its own.
    if let Some(value) = renewed.filter(|_| !response.headers().contains_key(SET_COOKIE)) {
        session_cookie::set(&mut response, &value, settings, https);
    }
    Ok(response)
}

/// Whether a request says that it is for this machine. Where everyone is admin, a page of any site could be: its own name may
/// lead here as soon as its browser has loaded it. A number, a name without a dot and the name listened on can't be such a site's.
fn is_asked_by_address(headers: &HeaderMap, listen: &str) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = |text: &str| {
        let port = text.rfind(':').filter(|at| text[at + 1..].bytes().all(|byte| byte.is_ascii_digit()));
        let name = &text[..port.unwrap_or(text.len())];
        name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
    };
    let asked = name(host);
    !asked.contains('.') || asked.parse::<IpAddr>().is_ok() || asked == name(listen)
}

const COOKIE_HANDLER: &str = "cookie";
const PROXY_HANDLER: &str = "proxy";

/// Where a request comes from.
pub fn address(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
}

/// Whether nobody but users is answered. Everybody may try to log in.
fn is_closed(settings: &Auth, request: &Request) -> bool {
    let path = request.uri().path().trim_end_matches('/');
    match path {
        "/_session" if request.method() == Method::POST => false,
        "/_up" => settings.require_valid_user && !settings.require_valid_user_except_for_up,
        _ => settings.require_valid_user || settings.require_valid_user_except_for_up,
    }
}

async fn identified(
    accounts: &Accounts,
    settings: &Auth,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> Result<Identified, ApiError> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let mut identified = match accounts.has_admins() {
        true => proven(accounts, settings, headers, authorization, address).await?,
        false => Identified { caller: Caller::server_admin(), by: ProvenBy(None), renewed: None },
    };
    // A token or a proxy may claim any role; a document of `_users` has none of the server's own.
    identified.caller.roles.retain(|role| role != REPLICATOR);
    // It enters replication ids: what proved nothing there would give him another's.
    let proves = !matches!(identified.by, ProvenBy(Some(COOKIE_HANDLER | PROXY_HANDLER)));
    let proof = authorization.filter(|_| proves);
    identified.caller.authorization = proof.map(|text| SecretString::from(text.to_owned()));
    Ok(identified)
}

async fn proven(
    accounts: &Accounts,
    settings: &Auth,
    headers: &HeaderMap,
    authorization: Option<&str>,
    address: Option<IpAddr>,
) -> Result<Identified, ApiError> {
    let is = |name: String, roles, by| Identified {
        caller: Caller { name: Some(name), roles, ..Caller::default() },
        by: ProvenBy(Some(by)),
        renewed: None,
    };
    if let Some(value) = cookie(headers)
        && let Some(session) = accounts.by_cookie(value).await?
    {
        let Account { name, roles, .. } = session.account;
        return Ok(Identified { renewed: session.renewed, ..is(name, roles, COOKIE_HANDLER) });
    }
    if let Some((name, password)) = authorization.map(basic).transpose()?.flatten() {
        let account = accounts.by_password(&name, &password, address).await?;
        return Ok(is(account.name, account.roles, "default"));
    }
    if let Some(token) = authorization.and_then(|text| text.strip_prefix("Bearer "))
        && let Some(claims) = accounts.by_token(token.trim())?
    {
        return Ok(is(claims.name, claims.roles, "jwt"));
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if settings.handlers.proxy
        && let Some(name) = text(&settings.proxy.x_auth_username)
        && accounts.believes_proxy(name, text(&settings.proxy.x_auth_token))
    {
        let roles = text(&settings.proxy.x_auth_roles).map(proxy::roles).unwrap_or_default();
        return Ok(is(name.to_owned(), roles, PROXY_HANDLER));
    }
    Ok(Identified { caller: Caller::default(), by: ProvenBy(None), renewed: None })
}

/// The value of the first session cookie, unless it is empty.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    cookie::find(headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()))
}

/// Reads Basic credentials. `_:_` is how a browser is told to forget its own.
fn basic(authorization: &str) -> Result<Option<(String, SecretString)>, ApiError> {
    if let Some(Credentials { name, password, .. }) = Credentials::from_header(authorization) {
        let forgotten = name == "_" && secrecy::ExposeSecret::expose_secret(&password) == "_";
        return Ok((!forgotten).then_some((name, password)));
    }
    let Some((scheme, encoded)) = authorization.split_once(' ') else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    match STANDARD.decode(encoded.trim()) {
        Err(_) => Err(ApiError::bad_request("Authorization header has invalid base64 value")),
        // Names and passwords are UTF-8.
        Ok(text) if text.contains(&b':') => Err(Refused::WrongPassword.into()),
        Ok(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_session_cookie_is_found_among_others() {
        let found = |values: &[&str]| cookie(&headers("cookie", values)).map(str::to_owned);
        for values in [&["AuthSession=a"][..], &["x=1; AuthSession=a;y"], &["x=1", "AuthSession=\"a\""]] {
            assert_eq!(found(values).as_deref(), Some("a"), "{values:?}");
        }
        assert_eq!(found(&["AuthSession=a; AuthSession=b"]).as_deref(), Some("a"));
        for values in [&[][..], &["AuthSession="], &["authsession=a"], &["XAuthSession=a"]] {
            assert_eq!(found(values), None, "{values:?}");
        }
    }

    #[test]
    fn where_everyone_is_admin_no_other_sites_name_leads_here() {
        let is = |host: &str| is_asked_by_address(&headers("host", &[host]), "couch.local:5984");
        for host in [
            "127.0.0.1:5984",
            "127.0.0.1",
            "[::1]:5984",
            "localhost:5984",
            "LOCALHOST",
            "couch:5984",
            "couch.local:5984",
        ] {
            assert!(is(host), "{host}");
        }
        for host in ["evil.example:5984", "localhost.evil.example", "127.0.0.1.evil.example:5984", "couch.local.x"] {
            assert!(!is(host), "{host}");
        }
        assert!(is_asked_by_address(&HeaderMap::new(), "127.0.0.1:5984"), "a client of HTTP/1.0");
    }

    #[test]
    fn basic_credentials_are_read_as_couchdb_reads_them() {
        let read = |text: &[u8]| {
            let read = basic(&format!("Basic {}", STANDARD.encode(text)));
            read.map(|found| found.map(|(name, _)| name)).map_err(|error| error.pair().1.into_owned())
        };
        assert_eq!(read(b"ann:a:b"), Ok(Some("ann".into())));
        assert_eq!((read(b"ann"), read(b"_:_")), (Ok(None), Ok(None)));
        assert_eq!(read(b"j\xf6rg:x"), Err("Name or password is incorrect.".into()));
        assert!(basic("Basic !!!").is_err());
        assert!(matches!(basic("Bearer x"), Ok(None)));
    }
}
