//! Connections to CouchDB: how they are made, who owns them, and how one is closed under an answer that nobody wants any more.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper::{Response, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::Service;

use crate::config::connection::Tls;
use crate::config::couchdb::CouchDb;
use crate::tasks::Tasks;

/// Of silence before the system probes a connection: a feed may be silent for days on one that is dead.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// No certificate could be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file of authorities.
    #[error("could not read certificates of `ssl_trusted_certificates_file` {}", path.display())]
    File {
        /// As it was given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: pem::Error,
    },
    /// The system's own, or all of them.
    #[error("could not find certificates to trust")]
    System(#[from] rustls::Error),
}

/// Has the connections of the HTTP client run as tasks of a group.
#[derive(Clone)]
pub struct Spawner(pub Tasks);

impl<F> Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, connection: F) {
        drop(self.0.spawn("connection to CouchDB", connection));
    }
}

/// Why no connection was made: hyper wants it so.
type ConnectError = Box<dyn Error + Send + Sync>;

/// Connects, over TLS if the URL says so, within a limit of time.
#[derive(Clone)]
pub struct Connector {
    connector: HttpsConnector<HttpConnector>,
    limit: Duration,
}

impl Connector {
    /// Reads whom to trust, if it is to be asked over TLS.
    pub fn new(settings: &CouchDb, tls: &Tls) -> Result<Self, TrustError> {
        // An error means that a provider was installed before, which is as good.
        _ = rustls::crypto::ring::default_provider().install_default();
        let builder = ClientConfig::builder();
        let builder = match &tls.ssl_trusted_certificates_file {
            _ if settings.url.scheme() == "http" => builder.with_root_certificates(RootCertStore::empty()),
            None => builder.with_platform_verifier()?,
            Some(path) => {
                let wrong = |source| TrustError::File { path: path.clone(), source };
                let mut trusted = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path).map_err(wrong)? {
                    trusted.add(certificate.map_err(wrong)?)?;
                }
                builder.with_root_certificates(trusted)
            }
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        Ok(Self { connector: (tcp, builder.with_no_client_auth()).into(), limit: settings.connect_timeout })
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Stream, ConnectError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.connector.call(uri), self.limit);
        async move {
            let connected = tokio::time::timeout(limit, connecting).await;
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"));
            Ok(Stream::new(connected.map_err(late)??))
        }
        .boxed()
    }
}

/// A connection that can be closed from elsewhere.
///
/// hyper notices that an answer's body was dropped only when the next piece of it comes: a silent feed would go on for nobody.
pub struct Stream {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    close: CancellationToken,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Stream {
    fn new(stream: MaybeHttpsStream<TokioIo<TcpStream>>) -> Self {
        let close = CancellationToken::new();
        let closed = Box::pin(close.clone().cancelled_owned());
        Self { stream, close, closed }
    }
}

/// How a connection is closed: travels with each of its answers.
#[derive(Clone)]
struct Close(CancellationToken);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(Close(self.close.clone()))
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closed.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "nobody wants the answer any more",
            )));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

/// Closes the connection of an answer when it is dropped, unless the answer has come to its end.
pub struct HangUp {
    close: Option<CancellationToken>,
}

impl HangUp {
    pub(super) fn of<B>(response: &mut Response<B>) -> Self {
        Self { close: response.extensions_mut().remove::<Close>().map(|Close(token)| token) }
    }

    /// The answer has come to its end, and its connection is another request's now.
    pub fn ended(&mut self) {
        self.close = None;
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(close) = &self.close {
            close.cancel();
        }
    }
}
