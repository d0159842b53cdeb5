//! Accepts connections and serves each one in a task of its own, HTTP/1 only, over TLS where there is a certificate.
//!
//! `axum::serve` knows neither limits of headers nor of connections, so hyper is driven by hand here. When the group is
//! told to stop, the listener closes at once, idle connections close, and a connection that answers a request closes
//! after that answer.
//!
//! Between it and hyper stands what hyper doesn't do: an eye on slow readers, encoding of targets as people type them, and answers
//! for clients that have closed their half.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::pin;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};

use crate::config::Http;
use crate::counters::Gauge;
use crate::http::{Https, Reader};
use crate::tasks::Tasks;

use super::client_stream::ClientStream;
use super::hang_up::{HangUp, UnansweredRequests};
use super::raw_targets::RawTargets;
use super::slow_reader::SlowReader;
use super::tls::ServerCertificate;

/// After a failed accept: most likely there are no file descriptors left, and only time brings new ones.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Headers of a request: as many as CouchDB's own HTTP server takes.
const MAX_HEADERS: usize = 1000;

/// What answers all requests.
pub trait HttpService:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static> HttpService
    for S
{
}

/// How connections are served.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Their limits.
    pub limits: Http,
    /// Names of headers keep the letters they were written in, on their way through.
    pub keeps_case: bool,
}

/// Accepts until `tasks`, which own the connections, are told to stop.
///
/// `open` counts them.
pub async fn accept(
    (listener, certificate): (TcpListener, Option<ServerCertificate>),
    service: impl HttpService,
    serving: Serving,
    open: Gauge,
    tasks: Tasks,
) {
    let connections = Arc::new(Semaphore::new(serving.limits.max_connections));
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&connections).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let client = Client { reader: Reader::default(), unanswered: UnansweredRequests::default() };
                    let (is_https, asks) = (certificate.is_some(), client.reader.clone());
                    let service = service.clone().map_request(move |request: hyper::Request<Incoming>| {
                        let mut request = request.map(Body::new);
                        request.extensions_mut().insert(ConnectInfo(peer));
                        request.extensions_mut().insert(asks.clone());
                        if is_https {
                            request.extensions_mut().insert(Https);
                        }
                        request
                    });
                    // Without it small answers wait for acknowledgements of earlier ones; a socket that refuses is closed already.
                    let _ = stream.set_nodelay(true);
                    let (serving, stopping) = (serving.clone(), tasks.stopping().clone());
                    let (tls, counted) = (certificate.as_ref().map(ServerCertificate::acceptor), open.enter());
                    tasks.spawn("connection", async move {
                        let _counted = counted;
                        let Some(tls) = tls else {
                            return serve(stream, client, service, serving, stopping, place).await;
                        };
                        let Some(stream) = encrypted(&tls, stream, &serving.limits, &stopping).await else { return };
                        serve(stream, client, service, serving, stopping, place).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tasks.stopping().run_until_cancelled(accepting).await;
}

/// Agrees on TLS with a client, within the time for headers; `None` if they don't agree.
async fn encrypted(
    tls: &TlsAcceptor,
    stream: TcpStream,
    limits: &Http,
    stopping: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    let agreed = stopping.run_until_cancelled(timeout(limits.header_timeout, tls.accept(stream))).await?;
    match agreed {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client doesn't speak TLS as we do");
            None
        }
        Err(_) => None,
    }
}

/// Who is at the other end of a connection.
struct Client {
    reader: Reader,
    unanswered: UnansweredRequests,
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Client { reader, unanswered }: Client,
    service: impl Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone,
    Serving { limits, keeps_case }: Serving,
    stopping: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let targets = RawTargets::new(limits.max_header_bytes, MAX_HEADERS);
    let (reader, hang_up) = (SlowReader::new(reader, limits.reader_pause), HangUp::new(unanswered.clone()));
    let stream = ClientStream::new(stream, targets, reader, hang_up);
    let service = service_fn(move |request| {
        let (answering, request_of) = (service.clone().oneshot(request), unanswered.one_more());
        async move { answering.await.map(|response| request_of.until_end_of(response)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header_bytes)
        .max_headers(MAX_HEADERS)
        .preserve_header_case(keeps_case)
        .serve_connection(TokioIo::new(stream), service);
    pin!(connection);
    let ended = tokio::select! {
        biased;
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    /// `/` answers at once; `/slow` tells that it was reached and answers once the server is told to stop.
    async fn server(limits: Http) -> (SocketAddr, Tasks) {
        let (addr, tasks, _) = slow_server(limits).await;
        (addr, tasks)
    }

    async fn slow_server(limits: Http) -> (SocketAddr, Tasks, Arc<Notify>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, tasks) = (listener.local_addr().unwrap(), Tasks::default());
        let stopping = tasks.stopping().clone();
        let reached = Arc::new(Notify::new());
        let reaching = Arc::clone(&reached);
        let slow = get(async move || {
            reaching.notify_one();
            stopping.cancelled().await;
            "finished"
        });
        let router = Router::new().route("/", get(async || "here")).route("/slow", slow);
        let serving = Serving { limits, keeps_case: false };
        tasks.spawn("accept", accept((listener, None), router, serving, Gauge::default(), tasks.clone()));
        (addr, tasks, reached)
    }

    async fn send(addr: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        // A reset after the answer is as good an end.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn headers_over_the_limit_are_refused() {
        let (addr, _tasks) = server(Http { max_header_bytes: 8192, ..Http::default() }).await;
        let answer = rest(send(addr, &format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "y".repeat(9000))).await).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_headers_is_dropped() {
        let (addr, _tasks) = server(Http { header_timeout: Duration::from_millis(50), ..Http::default() }).await;
        assert_eq!(rest(send(addr, "GET / HTTP/1.1\r\nHost: x\r\n").await).await, "");
    }

    #[tokio::test]
    async fn at_a_stop_idle_connections_close_and_open_requests_finish() {
        let (addr, tasks, reached) = slow_server(Http::default()).await;
        let mut idle = send(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut answer = [0; 15];
        idle.read_exact(&mut answer).await.unwrap();
        let busy = send(addr, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
        reached.notified().await;
        tasks.stop();
        assert!(tasks.ended_within(Duration::from_secs(30)).await);
        assert!(rest(idle).await.ends_with("here"));
        assert!(rest(busy).await.ends_with("finished"));
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn further_connections_wait_for_a_place() {
        let (addr, _tasks) = server(Http { max_connections: 1, ..Http::default() }).await;
        let first = send(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut second = send(addr, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let mut byte = [0; 1];
        let early = tokio::time::timeout(Duration::from_millis(100), second.read_exact(&mut byte)).await;
        assert!(early.is_err(), "the second was served beside the first");
        drop(first);
        assert!(rest(second).await.contains(" 200 OK"));
    }
}
