//! A peer that stands before a real server and fails on demand.
//!
//! Requests go through untouched, except the ones that a queued [`Fault`] waits for. So every fault can be put at every
//! stage of a replication, and what came through is seen in the leaves of the real server behind.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use couchrep::tasks::Tasks;
use futures::{StreamExt, stream};
use reqwest::Client;
use tokio::net::TcpListener;

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
    /// Closes the connection without doing it.
    Disconnect,
    /// Never answers.
    Hang,
    /// Does it, answers, and breaks off after so many bytes of the body.
    Cut(usize),
    /// Waits first.
    Slow(Duration),
}

impl Fault {
    /// Answers a status with CouchDB's kind of body.
    pub fn status(status: u16) -> Self {
        let body = format!("{{\"error\":\"fault\",\"reason\":\"scripted {status}\"}}");
        Self::Answer(status, vec![("content-type", "application/json".into())], body)
    }
}

/// The peer; ends with the test.
pub struct FaultyPeer {
    addr: SocketAddr,
    script: Arc<Script>,
    tasks: Tasks,
}

struct Script {
    upstream: String,
    client: Client,
    /// Method, a part of the path and query, what to do; each is used once, in order.
    faults: Mutex<Vec<(Method, String, Fault)>>,
    /// `METHOD /path?query` of every request, in the order of arrival.
    seen: Mutex<Vec<String>>,
}

impl FaultyPeer {
    /// Stands before this server.
    pub async fn before(server: &Server) -> Self {
        let (faults, seen) = (Mutex::default(), Mutex::default());
        let script = Arc::new(Script { upstream: server.anonymous_url(""), client: client(), faults, seen });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, tasks) = (listener.local_addr().unwrap(), Tasks::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let stopping = tasks.stopping().clone();
        tasks.spawn("faulty peer", async move {
            let serving = std::future::IntoFuture::into_future(axum::serve(listener, router));
            stopping.run_until_cancelled(serving).await
        });
        Self { addr, script, tasks }
    }

    /// The URL of a path that starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Lets the next request with this method, whose path and query contain `part`, meet a fault.
    pub fn fail(&self, method: Method, part: &str, fault: Fault) -> &Self {
        self.script.faults.lock().unwrap().push((method, part.into(), fault));
        self
    }

    /// Every request so far: `METHOD /path?query`.
    pub fn requests(&self) -> Vec<String> {
        self.script.seen.lock().unwrap().clone()
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
    fn fault(&self, request: &Request) -> Option<Fault> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        self.seen.lock().unwrap().push(format!("{} {target}", request.method()));
        let mut faults = self.faults.lock().unwrap();
        let place = faults.iter().position(|(method, part, _)| method == request.method() && target.contains(part));
        place.map(|place| faults.remove(place).2)
    }

    async fn pass_on(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let url = format!("{}{}", self.upstream, head.uri.path_and_query().map_or("/", |target| target.as_str()));
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
    match script.fault(&request) {
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
        Some(Fault::ApplyThenDisconnect) => {
            whole(script.pass_on(request).await).await;
            disconnect()
        }
        Some(Fault::Disconnect) => disconnect(),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Cut(length)) => {
            let (mut head, body) = script.pass_on(request).await.into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            head.headers.remove(CONTENT_LENGTH);
            let piece = Ok(bytes.slice(..length.min(bytes.len())));
            // The first piece leaves on its own: hyper drops what is still unsent when a body fails.
            let cut = stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("cut"))
            });
            Response::from_parts(head, Body::from_stream(stream::iter([piece]).chain(cut)))
        }
        Some(Fault::Slow(pause)) => {
            tokio::time::sleep(pause).await;
            script.pass_on(request).await
        }
    }
}

async fn whole(response: Response) -> Bytes {
    axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
}

fn response(status: u16, headers: &[(&'static str, String)], body: Body) -> Response {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(body).unwrap()
}

/// Ends the connection's task, and the connection with it, without the noise of a panic.
fn disconnect() -> Response {
    std::panic::resume_unwind(Box::new("disconnect"))
}
