//! Connections to CouchDB: how they are made, and who owns them.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use hyper::Uri;
use hyper::rt::Executor;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tower::Service;

use super::persistent_reader::PersistentReader;
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

/// Has the connections of the HTTP client run as tasks of a group, until they end or it is told to stop.
#[derive(Clone)]
pub struct Spawner(pub Tasks);

impl<F> Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, connection: F) {
        let stopping = self.0.stopping().clone();
        let connection = async move { _ = stopping.run_until_cancelled(connection).await };
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
    type Response = PersistentReader<MaybeHttpsStream<TokioIo<TcpStream>>>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.connector.call(uri), self.limit);
        async move {
            let connected = tokio::time::timeout(limit, connecting).await;
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"));
            connected.map_err(late)?.map(PersistentReader::new)
        }
        .boxed()
    }
}
