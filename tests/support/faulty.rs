//! A peer that stands before a real server and fails on demand.
//!
//! Requests go through untouched, except the ones that a queued [`Fault`] waits for. So every fault can be put at every
//! stage of a replication, and what came through is seen in the leaves of the real server behind.

mod fault;
mod answering;
mod door;

pub use self::fault::{Fault, Gateway};

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use couchrep::tasks::Tasks;
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use self::door::Door;
use super::{Server, client};

/// The peer; ends with the test.
pub struct FaultyPeer {
    addr: SocketAddr,
    script: Arc<Script>,
    tasks: Tasks,
}

struct Script {
    /// The server behind, which may be started anew at another address.
    upstream: Mutex<String>,
    client: Client,
    /// Method, a part of the path and query, what to do; each is used once, in order.
    faults: Mutex<Vec<(Method, String, Fault)>>,
    /// The same, for every request as long as it lasts.
    lasting: Mutex<Vec<Lasting>>,
    /// What happens to any other request.
    chance: Mutex<Chance>,
    /// Databases don't tell when they were made: `instance_start_time` is `"0"`.
    hides_start_times: AtomicBool,
    /// Rows that an answer of the feed has at most, whatever its limit.
    most_rows: Mutex<Option<usize>>,
    /// `METHOD /path?query` of every request, in the order of arrival.
    seen: watch::Sender<Vec<String>>,
    /// The same of requests that say who asks, and what they say.
    credentials: Mutex<Vec<String>>,
    /// Whether a document of this id is refused (`_bulk_docs`); the others are passed on.
    refuses: Mutex<Refuses>,
    down_until: watch::Sender<Instant>,
}

/// Decides about a document by its id: with which error and reason it is refused.
type Refuses = Box<dyn Fn(&str) -> Option<(&'static str, &'static str)> + Send>;

/// A fault that every request with this method meets whose path and query contain a part.
struct Lasting {
    method: Method,
    part: String,
    /// What its content type or its body contain.
    holds: Option<String>,
    fault: Fault,
    /// How long, from the first request on that met it.
    during: Option<Duration>,
    met: Option<Instant>,
}

impl Lasting {
    fn meet(&mut self) -> Option<Fault> {
        let met = *self.met.get_or_insert_with(Instant::now);
        self.during.is_none_or(|during| met.elapsed() < during).then(|| self.fault.clone())
    }
}

/// Decides about a request that no queued fault waits for.
type Chance = Box<dyn FnMut(&str) -> Option<Fault> + Send>;

impl FaultyPeer {
    /// Stands before this server.
    pub async fn before(server: &Server) -> Self {
        Self::before_url(server.anonymous_url("")).await
    }

    /// Stands before the server at this address.
    pub async fn before_url(upstream: String) -> Self {
        let (faults, seen) = (Mutex::default(), watch::Sender::default());
        let chance: Mutex<Chance> = Mutex::new(Box::new(|_| None));
        let (down_until, down) = watch::channel(Instant::now());
        let upstream = Mutex::new(upstream);
        let refuses: Mutex<Refuses> = Mutex::new(Box::new(|_| None));
        let script = Arc::new(Script {
            upstream,
            client: client(),
            faults,
            lasting: Mutex::default(),
            chance,
            hides_start_times: AtomicBool::default(),
            most_rows: Mutex::default(),
            seen,
            credentials: Mutex::default(),
            refuses,
            down_until,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, tasks) = (listener.local_addr().unwrap(), Tasks::default());
        let listener = Door { addr, listener: Some(listener), down };
        let router = Router::new().fallback(answering::answer).with_state(Arc::clone(&script));
        let stopping = tasks.stopping().clone();
        tasks.spawn("faulty peer", async move {
            let serving = std::future::IntoFuture::into_future(axum::serve(listener, router));
            stopping.run_until_cancelled(serving).await
        });
        Self { addr, script, tasks }
    }

    /// Stands before the same server, which has another address now.
    pub fn moved(&self, upstream: String) {
        *self.script.upstream.lock().unwrap() = upstream;
    }

    /// The URL of a path that starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Lets the next request with this method, whose path and query contain `part`, meet a fault. A `part` that ends in
    /// `$` means the end.
    pub fn fail(&self, method: Method, part: &str, fault: Fault) -> &Self {
        self.script.faults.lock().unwrap().push((method, part.into(), fault));
        self
    }

    /// Lets every such request meet a fault, until so long after the first of them, or until [`FaultyPeer::heal`].
    pub fn keep_failing(&self, method: Method, part: &str, fault: Fault, during: Option<Duration>) -> &Self {
        let lasting = Lasting { method, part: part.into(), holds: None, fault, during, met: None };
        self.script.lasting.lock().unwrap().push(lasting);
        self
    }

    /// The same, for requests alone whose content type or body contain `holds`, until [`FaultyPeer::heal`].
    pub fn keep_failing_with(&self, method: Method, part: &str, holds: &str, fault: Fault) -> &Self {
        let lasting = Lasting { method, part: part.into(), holds: Some(holds.into()), fault, during: None, met: None };
        self.script.lasting.lock().unwrap().push(lasting);
        self
    }

    /// Whether a request met a fault that keeps on.
    pub fn has_failed(&self) -> bool {
        self.script.lasting.lock().unwrap().iter().any(|lasting| lasting.met.is_some())
    }

    /// Ends all faults that keep on.
    pub fn heal(&self) {
        self.script.lasting.lock().unwrap().clear();
    }

    /// Lets databases say `"0"` for their `instance_start_time` from now on, as those of some servers do.
    pub fn hide_start_times(&self) {
        self.script.hides_start_times.store(true, Ordering::Relaxed);
    }

    /// Lets answers of the feed that are asked for with a limit have so many rows at most: as a source gives them that has
    /// its own limit, or a cluster in trouble.
    pub fn shorten_feeds(&self, most_rows: Option<usize>) {
        *self.script.most_rows.lock().unwrap() = most_rows;
    }

    /// Lets `chance` decide about every request from now on that no queued fault waits for. It is told the request as
    /// [`FaultyPeer::requests`] tells it.
    pub fn fail_at_random(&self, chance: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        *self.script.chance.lock().unwrap() = Box::new(chance);
    }

    /// Lets documents of these ids be refused, as a validation function does it.
    pub fn refuse(&self, refuses: impl Fn(&str) -> bool + Send + 'static) {
        self.refuse_saying("forbidden", "not here", refuses);
    }

    /// The same in other words: an error and its reason.
    pub fn refuse_saying(
        &self,
        error: &'static str,
        reason: &'static str,
        refuses: impl Fn(&str) -> bool + Send + 'static,
    ) {
        *self.script.refuses.lock().unwrap() = Box::new(move |id| refuses(id).then_some((error, reason)));
    }

    /// Every request so far: `METHOD /path?query`.
    pub fn requests(&self) -> Vec<String> {
        self.script.seen.borrow().clone()
    }

    /// Every request so far that said who asks: `METHOD /path?query Basic …`, or a cookie in its place.
    pub fn credentials(&self) -> Vec<String> {
        self.script.credentials.lock().unwrap().clone()
    }

    /// Waits until a request was seen, written as [`FaultyPeer::requests`] tells it, that contains this.
    pub async fn saw(&self, part: &str) {
        self.saw_after(0, part).await;
    }

    /// The same, for requests after so many others. Whoever calls has a limit of its own: a test that waits for ever is
    /// ended by its runner.
    pub async fn saw_after(&self, before: usize, part: &str) {
        let mut seen = self.script.seen.subscribe();
        let met = |seen: &Vec<String>| seen[before..].iter().any(|request| request.contains(part));
        seen.wait_for(met).await.unwrap();
    }

    /// How many requests so far begin with this.
    pub fn count(&self, request: &str) -> usize {
        self.script.seen.borrow().iter().filter(|seen| seen.starts_with(request)).count()
    }

    /// How many lives of replications asked how this database is: each does once, at its start.
    pub fn lives(&self, database: &str) -> usize {
        let question = format!("GET /{database}/");
        self.script.seen.borrow().iter().filter(|seen| **seen == question).count()
    }

    /// Waits until every queued fault was met.
    pub async fn met_all(&self) {
        let mut seen = self.script.seen.subscribe();
        seen.wait_for(|_| self.faults_left() == 0).await.unwrap();
    }

    /// Faults that no request has met yet.
    pub fn faults_left(&self) -> usize {
        self.script.faults.lock().unwrap().len()
    }
}

impl Drop for FaultyPeer {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Script {
    /// The request with what it holds as text, if a fault asks for that.
    async fn looked_into(&self, request: Request) -> (Request, String) {
        if !self.lasting.lock().unwrap().iter().any(|lasting| lasting.holds.is_some()) {
            return (request, String::new());
        }
        let (head, body) = request.into_parts();
        let body = answering::all(body).await;
        let content_type = head.headers.get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
        let text = content_type + "\n" + &String::from_utf8_lossy(&body);
        (Request::from_parts(head, Body::from(body)), text)
    }

    /// What the request meets. It is seen when that is decided.
    fn fault(&self, request: &Request, text: &str) -> Option<Fault> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let fault = self.met(request.method(), target, text);
        let said = ["authorization", "cookie"].into_iter().filter_map(|name| request.headers().get(name));
        let said = said.map(|said| format!("{} {target} {}", request.method(), said.to_str().unwrap()));
        self.credentials.lock().unwrap().extend(said);
        self.seen.send_modify(|seen| seen.push(format!("{} {target}", request.method())));
        fault
    }

    fn met(&self, method: &Method, target: &str, text: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let meets = |part: &str| match part.strip_suffix('$') {
            Some(end) => target.ends_with(end),
            None => target.contains(part),
        };
        let place = faults.iter().position(|(of, part, _)| of == method && meets(part));
        if let Some(place) = place {
            return Some(faults.remove(place).2);
        }
        let mut lasting = self.lasting.lock().unwrap();
        let met = lasting.iter_mut().find(|lasting| {
            let holds = lasting.holds.as_ref().is_none_or(|holds| text.contains(holds));
            lasting.method == *method && meets(&lasting.part) && holds
        });
        match met.and_then(Lasting::meet) {
            Some(fault) => Some(fault),
            None => (self.chance.lock().unwrap())(&format!("{method} {target}")),
        }
    }
}
