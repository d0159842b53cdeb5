//! How hard each server is worked, all replications together.
//!
//! A server that answers 429 or 503 has enough: every request to it then waits a little first, twice as long with each
//! such answer, a tenth less with each good one, and less with time (as CouchDB's `couch_replicator_rate_limiter`: additive
//! towards more, multiplicative towards less). Answers within one window count once, since requests that were sent
//! together are refused together.
//!
//! Requests under way to one server are bounded too. Two kinds aren't counted: a feed that waits, which costs the server nothing, and a
//! document that streams through, whose body may need a request to the same server before it can end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::Url;

use crate::counters::Gauge;
use crate::effort::pauses::jittered;
use crate::effort::pulse::Pulse;
use crate::endpoint::connection::Proxy;
use crate::peer::remote::retry::Operation;

/// The first pause, and the least that a good answer takes off.
const STEP: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that is believed.
const MAX_ASKED: Duration = Duration::from_secs(3600);
/// Refusals so close together count as one.
const WINDOW: Duration = Duration::from_millis(80);
/// What is left of a pause after a second without news.
const DECAY: f64 = 0.9;
/// Servers remembered before those are forgotten that nobody talks to.
const REMEMBERED: usize = 1000;

/// Every server that replications talk to. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    by_origin: Arc<DashMap<String, Arc<Server>>>,
    /// Through which proxy of a replication's own they are reached: it may say of them what it likes.
    proxy: Option<Arc<str>>,
    requests: usize,
}

/// How busy all servers together are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLoad {
    /// Servers that are remembered.
    pub servers: usize,
    /// Requests under way, of those that take a place.
    pub requests: usize,
    /// Requests that wait for a place.
    pub waiting: u64,
}

/// One server: a scheme, a host and a port.
#[derive(Debug)]
pub(super) struct Server {
    /// Requests that may be under way.
    permits: Arc<Semaphore>,
    /// Requests that wait for a place here, or among their peer's.
    waiting: Gauge,
    /// Guards what is known of the server's mood.
    pace: Mutex<Pace>,
}

#[derive(Debug)]
struct Pace {
    pause: Duration,
    changed: Instant,
    /// It asked not to be tried before (`Retry-After`).
    not_before: Option<Instant>,
}

/// Lets one request be under way; gives its place back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    _places: [OwnedSemaphorePermit; 2],
}

impl Servers {
    pub(super) fn new(requests: usize) -> Self {
        Self { by_origin: Arc::default(), proxy: None, requests }
    }

    /// The same, as they are reached through a proxy.
    pub(super) fn through(&self, proxy: Option<&Proxy>) -> Self {
        Self { proxy: proxy.map(|proxy| format!("{proxy:?}").into()), ..self.clone() }
    }

    /// The server that a URL belongs to.
    pub(super) fn of(&self, url: &Url) -> Arc<Server> {
        let mut origin = url.origin().ascii_serialization();
        if let Some(proxy) = &self.proxy {
            origin.push_str(proxy);
        }
        if let Some(server) = self.by_origin.get(&origin) {
            return server.clone();
        }
        if self.by_origin.len() >= REMEMBERED {
            self.by_origin.retain(|_, server| Arc::strong_count(server) > 1);
        }
        self.by_origin.entry(origin).or_insert_with(|| Arc::new(Server::new(self.requests))).clone()
    }

    /// How busy they are.
    pub(super) fn load(&self) -> PeerLoad {
        let (mut requests, mut waiting) = (0, 0);
        for server in self.by_origin.iter() {
            requests += self.requests.saturating_sub(server.permits.available_permits());
            waiting += server.waiting.get();
        }
        PeerLoad { servers: self.by_origin.len(), requests, waiting }
    }
}

impl Server {
    fn new(requests: usize) -> Self {
        let pace = Pace { pause: Duration::ZERO, changed: Instant::now(), not_before: None };
        Self { permits: Arc::new(Semaphore::new(requests)), waiting: Gauge::default(), pace: Mutex::new(pace) }
    }

    /// Waits as long as the server needs.
    pub(super) async fn pause(&self) {
        let pause = self.pace().at(Instant::now());
        if !pause.is_zero() {
            tokio::time::sleep(jittered(pause)).await;
        }
    }

    /// Waits for a place among the peer's requests and the server's. `None` for a request that takes no place.
    ///
    /// Whoever holds a place waits for the network alone, within the limits of its own job, so one comes free.
    pub(super) async fn permit(&self, operation: Operation, peers: &Arc<Semaphore>, pulse: &Pulse) -> Option<Permit> {
        if matches!(operation, Operation::Wait | Operation::StreamDoc) {
            return None;
        }
        let own = self.place(peers, operation, pulse).await?;
        Some(Permit { _places: [own, self.place(&self.permits, operation, pulse).await?] })
    }

    /// Learns that it wants to be left alone for longer than a request may wait: that is for whoever asks next.
    pub(super) fn asked_for(&self, pause: Duration) {
        self.pace().not_before = Some(Instant::now() + pause.min(MAX_ASKED));
    }

    /// How long it is still to be left alone.
    pub(super) fn left_alone(&self) -> Duration {
        self.pace().not_before.map_or(Duration::ZERO, |then| then.saturating_duration_since(Instant::now()))
    }

    /// Learns from an answer's status.
    pub(super) fn answered(&self, status: u16) {
        self.pace().answered(status, Instant::now());
    }

    /// Waits for a place. That isn't the peer's doing, so the job's watchdog doesn't count it; nor does the feed, which isn't
    /// at work, cover by it what hangs.
    async fn place(
        &self,
        places: &Arc<Semaphore>,
        operation: Operation,
        pulse: &Pulse,
    ) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        let _waiting = self.waiting.enter();
        let feed = operation == Operation::Changes;
        let (_idle, _rest) = (feed.then(|| pulse.idle()), (!feed).then(|| pulse.rest()));
        // Never closed.
        places.clone().acquire_owned().await.ok()
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// The pause that requests are to make.
    fn at(&self, now: Instant) -> Duration {
        if self.pause.is_zero() {
            return Duration::ZERO;
        }
        let left = self.pause.mul_f64(DECAY.powf((now - self.changed).as_secs_f64()));
        if left < STEP / 2 { Duration::ZERO } else { left }
    }

    fn answered(&mut self, status: u16, now: Instant) {
        let pause = self.at(now);
        let pause = match status {
            429 | 503 if self.pause.is_zero() || now - self.changed >= WINDOW => (pause * 2).clamp(STEP, MAX_PAUSE),
            429 | 503 => return,
            _ if self.pause.is_zero() => return,
            _ => pause.saturating_sub(STEP.max(pause / 10)),
        };
        (self.pause, self.changed) = (pause, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(requests: usize) -> (Servers, Arc<Server>) {
        let servers = Servers::new(requests);
        let server = servers.of(&Url::parse("http://h/a/").unwrap());
        (servers, server)
    }

    #[test]
    fn refusals_slow_a_server_down_and_answers_speed_it_up() {
        let mut now = Instant::now();
        let mut pace = Pace { pause: Duration::ZERO, changed: now, not_before: None };
        pace.answered(429, now);
        pace.answered(503, now);
        assert_eq!(pace.at(now), STEP);
        for _ in 0..20 {
            now += WINDOW;
            pace.answered(429, now);
        }
        assert_eq!(pace.at(now), MAX_PAUSE);
        pace.answered(200, now);
        assert_eq!(pace.at(now), MAX_PAUSE * 9 / 10);
        for _ in 0..80 {
            pace.answered(200, now);
        }
        assert_eq!(pace.at(now), Duration::ZERO);
    }

    #[test]
    fn a_pause_fades_with_time() {
        let now = Instant::now();
        let mut pace = Pace { pause: Duration::ZERO, changed: now, not_before: None };
        pace.answered(503, now);
        assert_eq!(pace.at(now + Duration::from_secs(60)), Duration::ZERO);
    }

    #[test]
    fn all_databases_of_a_server_share_its_pace_and_other_servers_have_their_own() {
        let (servers, server) = server(9);
        server.answered(429);
        let same = servers.of(&Url::parse("http://h:80/b/").unwrap());
        assert!(Arc::ptr_eq(&server, &same));
        let other = servers.of(&Url::parse("http://other/a/").unwrap());
        assert_eq!(other.pace().at(Instant::now()), Duration::ZERO);
    }

    #[tokio::test]
    async fn requests_are_bounded_by_peer_and_by_server_but_not_the_waiting_feed() {
        let (servers, server) = server(2);
        let (one, other) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(5)));
        let soon = Duration::from_millis(1);
        let pulse = Pulse::default();
        let admit = |operation, peer| tokio::time::timeout(soon, server.permit(operation, peer, &pulse));
        let first = admit(Operation::Fetch, &one).await.unwrap();
        assert!(admit(Operation::Fetch, &one).await.is_err());
        let second = admit(Operation::BulkDocs, &other).await.unwrap();
        assert_eq!(servers.load(), PeerLoad { servers: 1, requests: 2, waiting: 0 });
        assert!(admit(Operation::Fetch, &other).await.is_err());
        assert!(admit(Operation::Wait, &one).await.unwrap().is_none());
        drop(first);
        assert!(admit(Operation::Fetch, &other).await.unwrap().is_some());
        drop(second);
    }
}
