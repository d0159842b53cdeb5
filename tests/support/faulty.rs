//! A peer that stands before a real server and fails on demand.
//!
//! Requests go through untouched, except the ones that a queued [`Fault`] waits for. So every fault can be put at every
//! stage of a replication, and what came through is seen in the leaves of the real server behind.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::serve::Listener;
use bytes::Bytes;
use couchrep::tasks::Tasks;
use futures::{StreamExt, stream};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Server, client};

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers this, and doesn't do it: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Does it, then answers this status: the success gets lost.
    ApplyThenFail(u16),
    /// Does it, then closes the connection without an answer.
    ApplyThenDisconnect,
    /// Does it, and never answers.
    ApplyThenHang,
    /// Closes the connection without doing it.
    Disconnect,
    /// The same, and refuses every connection for a while.
    Down(Duration),
    /// Never answers.
    Hang,
    /// Answers the head of a success, and nothing behind it.
    Silence,
    /// The same, and breaks off.
    BreakOff,
    /// Does it, answers, and breaks off after so many bytes of the body.
    Cut(usize),
    /// Does it, and answers so many bytes of the body as if they were the whole.
    Truncate(usize),
    /// Does it, and announces so many bytes more, or fewer, than it has.
    WrongLength(isize),
    /// Does it, and answers in so many pieces with pauses between.
    Drip(usize, Duration),
    /// Waits first.
    Slow(Duration),
    /// Waits for the signal first, then does it, or answers this status and body.
    Until(Arc<Notify>, Option<(u16, &'static str)>),
    /// Answers the head of a success, and line ends for ever.
    LineEnds(Duration),
}

impl Fault {
    /// Answers a status in CouchDB's words for it.
    pub fn status(status: u16) -> Self {
        let error = match status {
            400 => "bad_request",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            409 => "conflict",
            413 => "too_large",
            _ => "fault",
        };
        let body = format!("{{\"error\":\"{error}\",\"reason\":\"scripted {status}\"}}");
        Self::Answer(status, vec![("content-type", "application/json".into())], body)
    }

    /// Answers as whatever stands before a database does: a page, JSON of its own, or nothing at all.
    pub fn gateway(status: u16, body: Gateway) -> Self {
        let (content_type, text) = match body {
            Gateway::Page => ("text/html", "<html><body>Nothing to see here</body></html>"),
            Gateway::Json => ("application/json", r#"{"message":"Forbidden"}"#),
            Gateway::JsonError => ("application/json", r#"{"status":404,"error":"Not Found","path":"/"}"#),
            Gateway::Object => ("application/json", "{}"),
            Gateway::Empty => ("text/plain", ""),
        };
        Self::Answer(status, vec![("content-type", content_type.into())], text.into())
    }
}

/// What a gateway puts into its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// HTML.
    Page,
    /// JSON without CouchDB's words.
    Json,
    /// JSON with a word of CouchDB's, but not the other.
    JsonError,
    /// `{}`.
    Object,
    /// No body.
    Empty,
}

impl Gateway {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Page, Self::Json, Self::JsonError, Self::Object, Self::Empty];
}

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
    /// `METHOD /path?query` of every request, in the order of arrival.
    seen: Mutex<Vec<String>>,
    /// Whether a document of this id is refused (`_bulk_docs`); the others are passed on.
    refuses: Mutex<Refuses>,
    down_until: watch::Sender<Instant>,
}

/// Decides about a document by its id.
type Refuses = Box<dyn Fn(&str) -> bool + Send>;

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
type Chance = Box<dyn FnMut() -> Option<Fault> + Send>;

impl FaultyPeer {
    /// Stands before this server.
    pub async fn before(server: &Server) -> Self {
        Self::before_url(server.anonymous_url("")).await
    }

    /// Stands before the server at this address.
    pub async fn before_url(upstream: String) -> Self {
        let (faults, seen) = (Mutex::default(), Mutex::default());
        let chance: Mutex<Chance> = Mutex::new(Box::new(|| None));
        let (down_until, down) = watch::channel(Instant::now());
        let upstream = Mutex::new(upstream);
        let refuses: Mutex<Refuses> = Mutex::new(Box::new(|_| false));
        let script = Arc::new(Script {
            upstream,
            client: client(),
            faults,
            lasting: Mutex::default(),
            chance,
            hides_start_times: AtomicBool::default(),
            seen,
            refuses,
            down_until,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, tasks) = (listener.local_addr().unwrap(), Tasks::default());
        let listener = Door { addr, listener: Some(listener), down };
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
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

    /// Lets `chance` decide about every request from now on that no queued fault waits for.
    pub fn fail_at_random(&self, chance: impl FnMut() -> Option<Fault> + Send + 'static) {
        *self.script.chance.lock().unwrap() = Box::new(chance);
    }

    /// Lets documents of these ids be refused, as a validation function does it.
    pub fn refuse(&self, refuses: impl Fn(&str) -> bool + Send + 'static) {
        *self.script.refuses.lock().unwrap() = Box::new(refuses);
    }

    /// Every request so far: `METHOD /path?query`.
    pub fn requests(&self) -> Vec<String> {
        self.script.seen.lock().unwrap().clone()
    }

    /// Waits until a request was seen, written as [`FaultyPeer::requests`] tells it, that contains this.
    pub async fn saw(&self, part: &str) {
        while !self.requests().iter().any(|request| request.contains(part)) {
            // Whoever calls has a limit of its own: a test that waits for ever is ended by its runner.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
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
        let body = all(body).await;
        let content_type = head.headers.get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
        let text = content_type + "\n" + &String::from_utf8_lossy(&body);
        (Request::from_parts(head, Body::from(body)), text)
    }

    fn fault(&self, request: &Request, text: &str) -> Option<Fault> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        self.seen.lock().unwrap().push(format!("{} {target}", request.method()));
        let mut faults = self.faults.lock().unwrap();
        let meets = |part: &str| match part.strip_suffix('$') {
            Some(end) => target.ends_with(end),
            None => target.contains(part),
        };
        let place = faults.iter().position(|(method, part, _)| method == request.method() && meets(part));
        if let Some(place) = place {
            return Some(faults.remove(place).2);
        }
        let mut lasting = self.lasting.lock().unwrap();
        let met = lasting.iter_mut().find(|lasting| {
            let holds = lasting.holds.as_ref().is_none_or(|holds| text.contains(holds));
            lasting.method == request.method() && meets(&lasting.part) && holds
        });
        match met.and_then(Lasting::meet) {
            Some(fault) => Some(fault),
            None => (self.chance.lock().unwrap())(),
        }
    }

    /// Passes on what isn't refused of the documents.
    async fn pass_on_docs(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        let mut body: Value = serde_json::from_slice(&all(body).await).unwrap();
        let docs = body["docs"].as_array_mut().unwrap();
        let mut refused = Vec::new();
        docs.retain(|doc| {
            let takes = !(self.refuses.lock().unwrap())(doc["_id"].as_str().unwrap());
            if !takes {
                let (id, rev) = (&doc["_id"], &doc["_rev"]);
                refused.push(json!({ "id": id, "rev": rev, "error": "forbidden", "reason": "not here" }));
            }
            takes
        });
        if refused.is_empty() || !docs.is_empty() {
            head.headers.remove(CONTENT_LENGTH);
            let passed = self.pass_on(Request::from_parts(head, Body::from(body.to_string()))).await;
            if refused.is_empty() || !passed.status().is_success() {
                return passed;
            }
        }
        response(201, &[("content-type", "application/json".into())], Body::from(json!(refused).to_string()))
    }

    async fn pass_on(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let upstream = self.upstream.lock().unwrap().clone();
        let url = format!("{upstream}{}", head.uri.path_and_query().map_or("/", |target| target.as_str()));
        let mut request = self.client.request(head.method, url).headers(head.headers.clone());
        if head.headers.get(CONTENT_LENGTH).is_none_or(|length| length != "0") {
            request = request.body(reqwest::Body::wrap_stream(body.into_data_stream()));
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return response(502, &[], Body::from(format!("the server behind failed: {error:?}"))),
        };
        let mut passed = Response::new(Body::empty());
        *passed.status_mut() = answer.status();
        *passed.headers_mut() = answer.headers().clone();
        for name in [CONNECTION, TRANSFER_ENCODING] {
            passed.headers_mut().remove(name);
        }
        *passed.body_mut() = Body::from_stream(answer.bytes_stream());
        passed
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    if *script.down_until.borrow() > Instant::now() {
        disconnect();
    }
    let (request, text) = script.looked_into(request).await;
    match script.fault(&request, &text) {
        None if request.uri().path().ends_with("/_bulk_docs") => script.pass_on_docs(request).await,
        None if script.hides_start_times.load(Ordering::Relaxed) && tells_start_time(&request) => {
            changed(script.pass_on(request).await, |bytes| {
                let mut told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                if let Some(time) = told.get_mut("instance_start_time") {
                    *time = "0".into();
                }
                let text = Bytes::from(told.to_string());
                (text.len(), vec![text])
            })
            .await
        }
        None => script.pass_on(request).await,
        Some(Fault::Answer(status, headers, body)) => {
            // Read to the end, or the client may see a reset instead of the answer.
            let _ = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            response(status, &headers, Body::from(body))
        }
        Some(Fault::ApplyThenFail(status)) => {
            whole(script.pass_on(request).await).await;
            response(status, &[], Body::from("{\"error\":\"fault\",\"reason\":\"applied, then failed\"}"))
        }
        Some(Fault::ApplyThenHang) => {
            whole(script.pass_on(request).await).await;
            std::future::pending().await
        }
        Some(Fault::ApplyThenDisconnect) => {
            whole(script.pass_on(request).await).await;
            disconnect()
        }
        Some(Fault::Disconnect) => disconnect(),
        Some(Fault::Down(pause)) => {
            script.down_until.send_replace(Instant::now() + pause);
            disconnect()
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Silence) => {
            let silence = stream::iter([Ok("\n")]).chain(stream::pending::<Result<_, io::Error>>());
            response(200, &[], Body::from_stream(silence))
        }
        Some(Fault::BreakOff) => {
            let cut = stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::other("cut"))
            });
            response(200, &[], Body::from_stream(stream::iter([Ok("\n")]).chain(cut)))
        }
        Some(Fault::Cut(length)) => {
            let (mut head, body) = script.pass_on(request).await.into_parts();
            let bytes = all(body).await;
            head.headers.remove(CONTENT_LENGTH);
            let piece = Ok(bytes.slice(..length.min(bytes.len())));
            // The first piece leaves on its own: hyper drops what is still unsent when a body fails.
            let cut = stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("cut"))
            });
            Response::from_parts(head, Body::from_stream(stream::iter([piece]).chain(cut)))
        }
        Some(Fault::Truncate(length)) => {
            changed(script.pass_on(request).await, |bytes| {
                (bytes.len().min(length), vec![bytes.slice(..bytes.len().min(length))])
            })
            .await
        }
        Some(Fault::WrongLength(more)) => {
            changed(script.pass_on(request).await, |bytes| (bytes.len().saturating_add_signed(more), vec![bytes])).await
        }
        Some(Fault::Drip(pieces, pause)) => {
            let (mut head, body) = script.pass_on(request).await.into_parts();
            let bytes = all(body).await;
            head.headers.remove(CONTENT_LENGTH);
            let step = bytes.len().div_ceil(pieces).max(1);
            let pieces: Vec<_> = bytes.chunks(step).map(Bytes::copy_from_slice).collect();
            let drip = stream::iter(pieces).then(move |piece| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, io::Error>(piece)
            });
            Response::from_parts(head, Body::from_stream(drip))
        }
        Some(Fault::Until(signal, answer)) => {
            signal.notified().await;
            match answer {
                None => script.pass_on(request).await,
                Some((status, body)) => {
                    response(status, &[("content-type", "application/json".into())], Body::from(body))
                }
            }
        }
        Some(Fault::LineEnds(pause)) => {
            let line_ends = stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, io::Error>("\n")
            });
            response(200, &[], Body::from_stream(line_ends))
        }
        Some(Fault::Slow(pause)) => {
            tokio::time::sleep(pause).await;
            script.pass_on(request).await
        }
    }
}

/// Whether a request is answered with an `instance_start_time`.
fn tells_start_time(request: &Request) -> bool {
    let path = request.uri().path();
    let is_database = request.method() == Method::GET && path.trim_matches('/').split('/').count() == 1;
    is_database || path.ends_with("/_ensure_full_commit")
}

/// An answer with another body, and the length that is told of it, whether it is true or not.
async fn changed(response: Response, change: impl FnOnce(Bytes) -> (usize, Vec<Bytes>)) -> Response {
    let (mut head, body) = response.into_parts();
    let (length, pieces) = change(all(body).await);
    head.headers.insert(CONTENT_LENGTH, length.into());
    let body = stream::iter(pieces).map(Ok::<_, io::Error>).chain(stream::once(async {
        // What came before leaves on its own: hyper drops what is still unsent when a connection fails.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(Bytes::new())
    }));
    Response::from_parts(head, Body::from_stream(body))
}

/// Accepts connections, or refuses them while the peer is down.
struct Door {
    addr: SocketAddr,
    /// `None` while the peer is down.
    listener: Option<TcpListener>,
    down: watch::Receiver<Instant>,
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let down_until = *self.down.borrow_and_update();
            if down_until > Instant::now() {
                self.listener = None;
                tokio::time::sleep_until(down_until).await;
            }
            let listener = match self.listener.take() {
                Some(listener) => listener,
                None => TcpListener::bind(self.addr).await.unwrap(),
            };
            let listener = self.listener.insert(listener);
            tokio::select! {
                biased;
                _ = self.down.changed() => {}
                accepted = listener.accept() => return accepted,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

async fn whole(response: Response) -> Bytes {
    all(response.into_body()).await
}

/// A body's bytes; where the server behind dies meanwhile, the connection ends as well.
async fn all(body: Body) -> Bytes {
    axum::body::to_bytes(body, usize::MAX).await.unwrap_or_else(|_| disconnect())
}

fn response(status: u16, headers: &[(&'static str, String)], body: Body) -> Response {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(body).unwrap()
}

/// Ends the connection's task, and the connection with it, without the noise of a panic.
fn disconnect() -> ! {
    std::panic::resume_unwind(Box::new("disconnect"))
}
