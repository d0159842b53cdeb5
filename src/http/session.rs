//! `/_session`: who one is, logging in and out.

use std::sync::Arc;

use axum::extract::{Extension, FromRequest, Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use crate::access::Caller;
use crate::accounts::{Refused, USERS};
use crate::document::DocumentError;
use crate::json::fields;
use crate::users::Account;

use super::error::ApiError;
use super::identify::{self, ProvenBy};
use super::query::Query;
use super::request::Payload;
use super::session_cookie::{self, is_https};
use super::{AppState, answer, cross_origin};

/// Bytes of a login.
const MAX_LOGIN_BYTES: usize = 64 << 10;

/// `GET /_session`; with `basic=true` for somebody alone, so that a browser asks for a password.
pub async fn get(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(ProvenBy(by)): Extension<ProvenBy>,
    query: Query,
) -> Result<Response, ApiError> {
    if caller.name.is_none() && query.get("basic") == Some("true") {
        return Err(ApiError::NotLoggedIn("Please login."));
    }
    let mut info = json!({
        // CouchDB 3.5 names it only if it is set; without it Futon neither makes users nor changes their passwords.
        "authentication_db": USERS,
        "authentication_handlers": state.accounts()?.handlers(),
    });
    if let Some(by) = by {
        info["authenticated"] = by.into();
    }
    let session = json!({ "ok": true, "userCtx": { "name": caller.name, "roles": caller.roles }, "info": info });
    Ok(answer::json(StatusCode::OK, &session))
}

/// `POST /_session`: gives who proves by name and password who he is a cookie that proves it from then on.
///
/// Without administrators there is nobody to be: 404 is what CouchDB's replicator takes as the advice to send Basic
/// credentials.
pub async fn log_in(State(state): State<AppState>, query: Query, request: Request) -> Result<Response, ApiError> {
    if !state.accounts()?.has_admins() {
        return Err(ApiError::NoSessions);
    }
    // Another site's form, which needs no cookie for it, would log its reader out, or in as somebody whom he doesn't expect.
    let settings = state.settings.current();
    cross_origin::check(request.method(), request.headers(), |origin| settings.cors.trusts(origin))?;
    let (https, address) = (is_https(&request), identify::address(&request));
    let (next, fail) = (location(&query, "next")?, location(&query, "fail")?);
    let payload = Payload::from_request(request, &state).await?;
    let Login { name, password } = Login::read(payload).await?;

    match state.accounts()?.by_password(&name, &password, address).await {
        Ok(account) => {
            let cookie = state.accounts()?.cookie(&account);
            let Account { name, roles, .. } = account;
            let answer = answer::json(StatusCode::OK, &json!({ "ok": true, "name": name, "roles": roles }));
            Ok(with_cookie(redirected(answer, next), &cookie, &state, https))
        }
        Err(refused @ Refused::WrongPassword) => {
            Ok(with_cookie(redirected(ApiError::from(refused).into_response(), fail), "", &state, https))
        }
        Err(refused) => Err(refused.into()),
    }
}

/// `DELETE /_session`: takes the cookie back.
pub async fn log_out(State(state): State<AppState>, query: Query, request: Request) -> Result<Response, ApiError> {
    let https = is_https(&request);
    let next = location(&query, "next")?;
    let answer = answer::json(StatusCode::OK, &json!({ "ok": true }));
    Ok(with_cookie(redirected(answer, next), "", &state, https))
}

fn with_cookie(mut response: Response, value: &str, state: &AppState, https: bool) -> Response {
    session_cookie::set(&mut response, value, &state.settings.current().auth, https);
    response
}

/// Sends a browser elsewhere with its answer, where it asked for that.
fn redirected(mut response: Response, location: Option<HeaderValue>) -> Response {
    if let Some(location) = location {
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Where a browser wants to go: a path of this server, and nowhere else.
fn location(query: &Query, name: &str) -> Result<Option<HeaderValue>, ApiError> {
    let Some(path) = query.get(name) else { return Ok(None) };
    let wrong = || ApiError::bad_request("path must begin with a /.");
    if !path.starts_with('/') {
        return Err(wrong());
    }
    HeaderValue::from_str(path).map(Some).map_err(|_| wrong())
}

/// What somebody logs in with.
struct Login {
    name: String,
    password: SecretString,
}

impl Login {
    async fn read(payload: Payload) -> Result<Self, ApiError> {
        let media_type = payload.content_type().unwrap_or_default().to_ascii_lowercase();
        let payload = payload.limited(MAX_LOGIN_BYTES);
        if media_type.starts_with("application/x-www-form-urlencoded") {
            let form = payload.whole().await?;
            // The first of several counts.
            let pairs = form_urlencoded::parse(&form).into_owned().collect::<Vec<_>>();
            return Self::of(pairs.into_iter().rev().map(|(name, value)| (name, value.into())).collect());
        }
        if media_type.starts_with("application/json") {
            let body = payload.whole().await?;
            return match serde_json::from_slice(&body).map_err(|_| DocumentError::InvalidJson)? {
                Value::Object(login) => Self::of(login),
                _ => Err(ApiError::bad_request("Request body must be a JSON object")),
            };
        }
        let reason = "Content-Type must be 'application/x-www-form-urlencoded' or 'application/json'";
        Err(ApiError::BadContentType(reason.into()))
    }

    fn of(login: Map<String, Value>) -> Result<Self, ApiError> {
        let text = |name: &str| fields::text(&login, name).map_err(|wrong| ApiError::bad_request(wrong.to_string()));
        let name = match (text("name")?, text("username")?) {
            (None, None) => return Err(ApiError::bad_request("request body must contain a username")),
            (Some(one), Some(other)) if one != other => {
                return Err(ApiError::bad_request("request body contains different usernames"));
            }
            (Some(name), _) | (None, Some(name)) => name,
        };
        Ok(Self { name: name.to_owned(), password: text("password")?.unwrap_or_default().into() })
    }
}
