//! Cross-origin requests, as CouchDB's `chttpd_cors` answers them.
//!
//! A browser asks first (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) before it lets another site's page do
//! more than a form could. An origin, method and headers that are admitted are answered 204, before anybody asks who calls, for
//! that question carries no credentials; anything else goes on as if it were no such question. Every answer to an admitted
//! origin, errors too, says so; browsers hide all others from the page. What a page may do with its user's cookie,
//! [`super::cross_origin`] decides.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES, LAST_MODIFIED, ORIGIN,
    PRAGMA, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::config::cors::{Cors, list};

use super::AppState;

/// Headers of answers that are named to the page if they are there, as CouchDB names them.
const NAMED: [HeaderName; 6] = [CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES, LAST_MODIFIED, PRAGMA];

/// Answers the questions that browsers ask first, and tells them with every answer who may read it.
pub async fn tell(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let config = state.settings.current();
    let cors = &config.cors;
    let origin = match request.headers().get(ORIGIN) {
        Some(origin) if cors.enabled => origin.clone(),
        _ => return next.run(request).await,
    };
    if !origin.to_str().is_ok_and(|origin| cors.admits(origin)) {
        let mut response = next.run(request).await;
        // A cache mustn't give this answer to a page of another origin.
        response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
        return response;
    }
    if request.method() == Method::OPTIONS
        && let Some(mut answer) = preflight(cors, request.headers())
    {
        admit(cors, origin, answer.headers_mut());
        return answer;
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let named = NAMED.iter().filter(|name| headers.contains_key(*name)).map(HeaderName::as_str);
    let exposed = named.chain(cors.exposed_headers.iter().map(String::as_str)).collect::<Vec<_>>().join(", ");
    insert(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &exposed);
    admit(cors, origin, headers);
    response
}

fn admit(cors: &Cors, origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// The answer to a browser's question, unless it is none or asks for what no page may.
fn preflight(cors: &Cors, asked: &HeaderMap) -> Option<Response> {
    let method = asked.get(ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()?;
    let wanted = match asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        Some(wanted) => wanted.to_str().ok()?,
        None => "",
    };
    let may_send = |name: &String| cors.headers.contains(&name.to_ascii_lowercase());
    if !cors.methods.iter().any(|own| own == method) || !list(wanted).iter().all(may_send) {
        return None;
    }
    let mut answer = StatusCode::NO_CONTENT.into_response();
    let headers = answer.headers_mut();
    insert(headers, ACCESS_CONTROL_MAX_AGE, &cors.max_age.as_secs().to_string());
    insert(headers, ACCESS_CONTROL_ALLOW_METHODS, &cors.methods.join(", "));
    insert(headers, ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    Some(answer)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = value.parse() {
        headers.insert(name, value);
    }
}
