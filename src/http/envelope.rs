//! What stands around every answer: CouchDB's headers, whole URLs in `Location`, and the body of a 405.
//!
//! `Server` starts with a CouchDB release, since clients look there for what they may ask for.

use std::sync::atomic::Ordering;

use axum::extract::Request;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION, SERVER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::COUCHDB_VERSION;
use super::error::ApiError;
use super::request::BodyTime;
use super::session_cookie;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-couch-request-id");
const BODY_TIME: HeaderName = HeaderName::from_static("x-couchdb-body-time");

/// Gives the answer CouchDB's headers, and what is logged on the way the request's id.
pub async fn complete(mut request: Request, next: Next) -> Response {
    let id = format!("{:010x}", rand::random::<u64>() >> 24);
    let time = BodyTime::default();
    request.extensions_mut().insert(time.clone());
    let span =
        tracing::debug_span!("request", request.id = %id, method = %request.method(), path = request.uri().path());
    let address = Address::of(&request);
    let mut response = next.run(request).instrument(span).await;
    if let Some(allowed) = bare_405(&response) {
        response = ApiError::MethodNotAllowed(allowed).into_response();
    }
    let headers = response.headers_mut();
    if let Some(location) = headers.get(LOCATION).and_then(|path| address.with(path)) {
        headers.insert(LOCATION, location);
    }
    let multipart = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"multipart/"));
    if !multipart {
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("must-revalidate"));
    }
    if let Ok(server) = HeaderValue::from_str(&server()) {
        headers.insert(SERVER, server);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(BODY_TIME, time.0.load(Ordering::Relaxed).into());
    response
}

/// Where the client found this server, as it or the proxy before us says (`chttpd:absolute_uri/2`).
struct Address {
    host: Option<HeaderValue>,
    https: bool,
}

impl Address {
    fn of(request: &Request) -> Self {
        let headers = request.headers();
        let host = headers.get("x-forwarded-host").or_else(|| headers.get(HOST)).cloned();
        Self { host, https: session_cookie::is_https(request) }
    }

    /// A path of this server as a whole URL; `None` if it is one already.
    fn with(&self, path: &HeaderValue) -> Option<HeaderValue> {
        let path = path.to_str().ok().filter(|path| path.starts_with('/'))?;
        let host = self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        format!("{}://{host}{path}", if self.https { "https" } else { "http" }).parse().ok()
    }
}

fn server() -> String {
    format!("CouchDB/{COUCHDB_VERSION} (couchrep/{})", env!("CARGO_PKG_VERSION"))
}

/// The methods that the router would have taken, sorted, where it answers 405 by itself.
fn bare_405(response: &Response) -> Option<String> {
    let bare = response.status() == StatusCode::METHOD_NOT_ALLOWED && !response.headers().contains_key(CONTENT_TYPE);
    let allowed = response.headers().get(ALLOW).filter(|_| bare)?.to_str().ok()?;
    let mut methods = allowed.split(',').collect::<Vec<_>>();
    methods.sort_unstable();
    Some(methods.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt;

    fn app() -> Router {
        let routes = Router::new().route("/", get(async || "hello").put(async || ""));
        // As in the real router, the layer stands around the routes' own answers to wrong methods.
        Router::new().fallback_service(routes).layer(from_fn(complete))
    }

    fn request(method: &str) -> Request {
        Request::builder().method(method).uri("/").body(Body::empty()).unwrap()
    }

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_answer_has_couchdbs_headers() {
        let response = app().oneshot(request("GET")).await.unwrap();
        assert_eq!(response.headers()[CACHE_CONTROL], "must-revalidate");
        assert!(response.headers()[SERVER].to_str().unwrap().starts_with("CouchDB/3.5.0 (couchrep/"));
        assert_eq!(response.headers()[REQUEST_ID].len(), 10);
        assert_eq!(response.headers()[BODY_TIME], "0");
    }

    #[tokio::test]
    async fn a_wrong_method_is_told_the_right_ones() {
        let response = app().oneshot(request("POST")).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD,PUT");
        let body = "{\"error\":\"method_not_allowed\",\"reason\":\"Only GET,HEAD,PUT allowed\"}\n";
        assert_eq!(text(response).await, body);
    }
}
