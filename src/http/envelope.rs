//! What stands around every answer: CouchDB's headers, the body of a 405, and the limit of open requests.
//!
//! A request counts as open until its answer's last byte is sent or its client hung up, so its [`Place`] travels with the
//! body. A feed that waits leaves its place to others: thousands may wait, which costs next to nothing. `Server` starts with a CouchDB release, since clients look there for what they may ask for.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, SERVER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use super::COUCHDB_VERSION;
use super::error::ApiError;
use super::request::BodyTime;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-couch-request-id");
const BODY_TIME: HeaderName = HeaderName::from_static("x-couchdb-body-time");

/// Gives the answer CouchDB's headers, and what is logged on the way the request's id.
pub async fn dress(mut request: Request, next: Next) -> Response {
    let id = format!("{:010x}", rand::random::<u64>() >> 24);
    let time = BodyTime::default();
    request.extensions_mut().insert(time.clone());
    let span =
        tracing::debug_span!("request", request.id = %id, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    if let Some(allowed) = bare_405(&response) {
        response = ApiError::MethodNotAllowed(allowed).into_response();
    }
    let headers = response.headers_mut();
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

/// Answers 503 where too many requests are open; handlers find their [`Place`] in the request's extensions.
pub async fn limit(State(open): State<Arc<Semaphore>>, mut request: Request, next: Next) -> Response {
    match open.clone().try_acquire_owned() {
        Ok(permit) => {
            let place = Place { open, held: Arc::new(Mutex::new(Some(permit))) };
            request.extensions_mut().insert(place.clone());
            next.run(request).await.map(|body| Body::new(Held { body, _place: place }))
        }
        Err(_) => ApiError::Busy.into_response(),
    }
}

/// A request's place among those that are open; free again when the last clone is dropped.
#[derive(Clone)]
pub struct Place {
    open: Arc<Semaphore>,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Place {
    /// Leaves it to others while there is nothing to do.
    pub fn leave(&self) {
        self.hold(None);
    }

    /// Waits for one again.
    pub async fn take(&self) {
        // The semaphore is never closed.
        self.hold(self.open.clone().acquire_owned().await.ok());
    }

    fn hold(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

/// A body that holds its request's place.
struct Held {
    body: Body,
    _place: Place,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::routing::get;
    use futures::FutureExt as _;
    use tower::ServiceExt;

    fn app(open: usize) -> Router {
        let routes = Router::new().route("/", get(async || "hello").put(async || ""));
        // As in the real router, the layers stand around the routes' own answers to wrong methods.
        Router::new()
            .fallback_service(routes)
            .layer(from_fn_with_state(Arc::new(Semaphore::new(open)), limit))
            .layer(from_fn(dress))
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
        let response = app(1).oneshot(request("GET")).await.unwrap();
        assert_eq!(response.headers()[CACHE_CONTROL], "must-revalidate");
        assert!(response.headers()[SERVER].to_str().unwrap().starts_with("CouchDB/3.5.0 (couchrep/"));
        assert_eq!(response.headers()[REQUEST_ID].len(), 10);
        assert_eq!(response.headers()[BODY_TIME], "0");
    }

    #[tokio::test]
    async fn a_wrong_method_is_told_the_right_ones() {
        let response = app(1).oneshot(request("POST")).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD,PUT");
        let body = "{\"error\":\"method_not_allowed\",\"reason\":\"Only GET,HEAD,PUT allowed\"}\n";
        assert_eq!(text(response).await, body);
    }

    #[tokio::test]
    async fn a_request_is_open_until_its_body_is_gone() {
        let app = app(1);
        let first = app.clone().oneshot(request("GET")).await.unwrap();
        let refused = app.clone().oneshot(request("GET")).await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text(first).await, "hello");
        assert_eq!(app.oneshot(request("GET")).await.unwrap().status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_place_that_was_left_is_for_others_until_it_is_taken_again() {
        let open = Arc::new(Semaphore::new(1));
        let place = Place { open: open.clone(), held: Arc::new(Mutex::new(open.clone().try_acquire_owned().ok())) };
        place.leave();
        let other = open.clone().try_acquire_owned().unwrap();
        assert!(place.take().now_or_never().is_none());
        drop(other);
        place.take().now_or_never().unwrap();
        assert!(open.try_acquire().is_err());
        drop(place);
        assert!(open.try_acquire().is_ok());
    }
}
