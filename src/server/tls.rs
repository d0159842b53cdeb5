//! The server's own certificate, where it speaks TLS.
//!
//! Read at the start, and again whenever the server is told so: who connects from then on sees the new one, connections that are open go on,
//! and files that can't be used leave the old one. TLS 1.2 and 1.3, HTTP/1.1 only, and nobody is asked for a certificate of his own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// Why the server's certificate can't be used. Never shows what is in the files.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file that isn't there, or isn't what it should be.
    #[error("{option} {}: expected {expected}", path.display())]
    File {
        /// As on the command line.
        option: &'static str,
        /// As it was given.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// Why it isn't.
        #[source]
        source: pem::Error,
    },
    /// A certificate and a key that don't go together, or are of a kind that is not known.
    #[error("--tls-cert {}: it can't be used with that key", cert.display())]
    Pair {
        /// As it was given.
        cert: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// The certificate as it is now. Cheap to clone.
#[derive(Clone)]
pub struct ServerCertificate {
    files: Arc<TlsFiles>,
    acceptor: watch::Sender<TlsAcceptor>,
}

impl ServerCertificate {
    /// Reads it.
    pub fn read(files: &TlsFiles) -> Result<Self, CertificateError> {
        Ok(Self { files: Arc::new(files.clone()), acceptor: watch::Sender::new(acceptor(files)?) })
    }

    /// Reads it again. After an error it is what it was.
    pub fn read_again(&self) -> Result<(), CertificateError> {
        self.acceptor.send_replace(acceptor(&self.files)?);
        Ok(())
    }

    /// Takes up connections with it.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.borrow().clone()
    }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, CertificateError> {
    // An error means that there is one already.
    _ = rustls::crypto::ring::default_provider().install_default();
    let wrong = |option, path: &Path, expected| {
        let path = path.to_owned();
        move |source| CertificateError::File { option, path, expected, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(wrong("--tls-cert", &files.cert, "a PEM file with a certificate and its chain"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong(
        "--tls-key",
        &files.key,
        "a PEM file with an unencrypted key",
    ))?;
    let paired = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = paired.map_err(|source| CertificateError::Pair { cert: files.cert.clone(), source })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
