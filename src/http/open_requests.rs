//! Places of open requests: how many are worked on at once, and how many may have slow readers.
//!
//! A request has a place until its answer's last byte is sent or its client hung up, so the place travels with the body.
//! Two kinds of requests leave their place to others, since they cost next to nothing while they stand: a feed that waits
//! for changes, and an answer whose client has stopped reading, which takes one of the places for slow readers instead
//! (`server/slow_reader.rs`). So neither thousands of feeds nor thousands of slow readers keep others out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::held::Held;
use crate::counters::{Counted, Counter, Gauge};

/// All places of a server. Cheap to clone.
#[derive(Clone)]
pub struct RequestPermits {
    requests: Arc<Semaphore>,
    slow_readers: Arc<Semaphore>,
    /// How many places there are of either.
    most: [usize; 2],
    open: Gauge,
    refused: Arc<Counter>,
}

impl RequestPermits {
    /// So many, all of them free.
    pub fn new(requests: usize, slow_readers: usize) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            requests: places(requests),
            slow_readers: places(slow_readers),
            most: [requests, slow_readers],
            open: Gauge::default(),
            refused: Arc::default(),
        }
    }

    /// How many requests may be worked on at once.
    pub fn most(&self) -> usize {
        self.most[0]
    }

    /// How many are worked on.
    pub fn working(&self) -> usize {
        self.most[0].saturating_sub(self.requests.available_permits())
    }

    /// How many have slow readers.
    pub fn slow_readers(&self) -> usize {
        self.most[1].saturating_sub(self.slow_readers.available_permits())
    }

    /// How many are open, whether they have a place or left it.
    pub fn open(&self) -> u64 {
        self.open.get()
    }

    /// How many found no place.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    fn request(&self, permit: OwnedSemaphorePermit) -> RequestPermit {
        let held = Mutex::new(HeldPermit::Request { _permit: permit });
        RequestPermit { inner: Arc::new(Inner { places: self.clone(), held, _open: self.open.enter() }) }
    }
}

/// Answers 503 if too many requests are open; handlers find their [`RequestPermit`] in the request's extensions.
pub async fn limit(State(places): State<RequestPermits>, mut request: Request, next: Next) -> Response {
    let Ok(permit) = places.requests.clone().try_acquire_owned() else {
        places.refused.increment();
        return ApiError::Busy.into_response();
    };
    let place = places.request(permit);
    if let Some(reader) = request.extensions().get::<Reader>() {
        reader.reads(&place);
    }
    request.extensions_mut().insert(place.clone());
    next.run(request).await.map(|body| Body::new(Held::new(body, place)))
}

/// A request's place among those that are open; free again when the last clone is dropped.
#[derive(Clone)]
pub struct RequestPermit {
    inner: Arc<Inner>,
}

struct Inner {
    places: RequestPermits,
    held: Mutex<HeldPermit>,
    _open: Counted,
}

enum HeldPermit {
    Nothing,
    Request { _permit: OwnedSemaphorePermit },
    SlowReader { _permit: OwnedSemaphorePermit },
}

impl RequestPermit {
    /// Leaves it to others while there is nothing to do.
    pub fn leave(&self) {
        *self.inner.held() = HeldPermit::Nothing;
    }

    /// Waits for one again. A slow reader keeps the one it has.
    pub async fn take(&self) {
        if matches!(*self.inner.held(), HeldPermit::SlowReader { .. }) {
            return;
        }
        // The semaphore is never closed.
        if let Ok(permit) = self.inner.places.requests.clone().acquire_owned().await {
            *self.inner.held() = HeldPermit::Request { _permit: permit };
        }
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, HeldPermit> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the place of a request for one of a slow reader, if there is one.
    fn is_slow(&self) -> bool {
        let mut held = self.held();
        if let HeldPermit::SlowReader { .. } = *held {
            return true;
        }
        let permit = self.places.slow_readers.clone().try_acquire_owned();
        permit.map(|permit| *held = HeldPermit::SlowReader { _permit: permit }).is_ok()
    }
}

/// The client at the other end of a connection, and the request whose answer it reads.
#[derive(Clone, Default)]
pub struct Reader {
    request: Arc<Mutex<Weak<Inner>>>,
}

impl Reader {
    fn reads(&self, place: &RequestPermit) {
        *self.request() = Arc::downgrade(&place.inner);
    }

    /// Tells that it has stopped reading; `false` if there is no place for one more such reader.
    pub fn is_slow(&self) -> bool {
        let request = self.request().upgrade();
        // Without a request there is only the rest of an answer, which is small.
        request.is_none_or(|request| request.is_slow())
    }

    fn request(&self) -> MutexGuard<'_, Weak<Inner>> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use futures::FutureExt as _;
    use tower::ServiceExt;

    fn place(places: &RequestPermits) -> RequestPermit {
        places.request(places.requests.clone().try_acquire_owned().unwrap())
    }

    #[tokio::test]
    async fn a_request_is_open_until_its_body_is_gone() {
        let routes = Router::new().route("/", get(async || "hello"));
        let places = RequestPermits::new(1, 1);
        let app = routes.layer(from_fn_with_state(places.clone(), limit));
        let ask = || app.clone().oneshot(Request::new(Body::empty()));
        let first = ask().await.unwrap();
        assert_eq!(ask().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((places.open(), places.working(), places.refused()), (1, 1, 1));
        assert_eq!(axum::body::to_bytes(first.into_body(), 100).await.unwrap(), "hello");
        assert_eq!(ask().await.unwrap().status(), StatusCode::OK);
        assert_eq!((places.open(), places.working()), (0, 0));
    }

    #[tokio::test]
    async fn a_place_that_was_left_is_for_others_until_it_is_taken_again() {
        let places = RequestPermits::new(1, 1);
        let waiting = place(&places);
        waiting.leave();
        assert_eq!((places.open(), places.working()), (1, 0));
        let other = place(&places);
        assert!(waiting.take().now_or_never().is_none());
        drop(other);
        waiting.take().now_or_never().unwrap();
        assert!(places.requests.try_acquire().is_err());
        drop(waiting);
        assert!(places.requests.try_acquire().is_ok());
    }

    #[tokio::test]
    async fn slow_readers_have_places_of_their_own() {
        let places = RequestPermits::new(1, 1);
        let readers = [(); 2].map(|()| Reader::default());
        let mut slow = Vec::new();
        for (reader, fits) in readers.iter().zip([true, false]) {
            let place = place(&places);
            reader.reads(&place);
            assert_eq!(reader.is_slow(), fits);
            assert_eq!(places.requests.available_permits(), usize::from(fits));
            if place.take().now_or_never().is_some() {
                slow.push(place);
            }
        }
        assert_eq!((slow.len(), places.slow_readers.available_permits()), (1, 0));
        drop(slow);
        assert_eq!((places.requests.available_permits(), places.slow_readers.available_permits()), (1, 1));
        assert!(readers[0].is_slow(), "whose request is over holds no place");
    }
}
