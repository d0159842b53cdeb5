//! How a peer is reached, as far as a request says.
//!
//! What it doesn't say is the server's setting. The values were checked here, so that a replication doesn't start with
//! one that makes no sense; certificate files are looked at when the peer is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::config;
use crate::config::connection::{SocketOptions, Tls};

/// How a peer is reached.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Through which proxy.
    pub proxy: Option<Proxy>,
    /// With what certificates.
    pub tls: Tls,
    /// With what sockets.
    pub socket_options: Option<SocketOptions>,
    /// Requests under way at once.
    pub http_connections: Option<usize>,
    /// To connect, and between two pieces of an answer.
    pub connection_timeout: Option<Duration>,
    /// Tries of a request, the first included.
    pub retries_per_request: Option<u32>,
}

impl Connection {
    /// The server's settings, with this peer's own limits.
    pub(super) fn settings(&self, server: Arc<config::Replicator>) -> Arc<config::Replicator> {
        if self.connection_timeout.is_none() && self.retries_per_request.is_none() {
            return server;
        }
        Arc::new(config::Replicator {
            connection_timeout: self.connection_timeout.unwrap_or(server.connection_timeout),
            retries_per_request: self.retries_per_request.unwrap_or(server.retries_per_request),
            ..(*server).clone()
        })
    }
}

/// The URL of a proxy; may hold a name and a password, which `Debug` leaves out.
#[derive(Clone)]
pub struct Proxy(SecretString);

impl Proxy {
    /// Reads the URL of an http, https or socks5 proxy; `None` where it isn't one.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let known = matches!(url.scheme(), "http" | "https" | "socks5");
        let usable = known && url.host_str().is_some_and(|host| !host.is_empty()) && reqwest::Proxy::all(text).is_ok();
        usable.then(|| Self(text.into()))
    }

    pub(super) fn for_client(&self) -> reqwest::Result<reqwest::Proxy> {
        reqwest::Proxy::all(self.0.expose_secret())
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(self.0.expose_secret()).ok();
        let place = url.as_ref().map(|url| (url.scheme(), url.host_str().unwrap_or_default(), url.port()));
        f.debug_tuple("Proxy").field(&place).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_http_https_or_socks5_and_print_no_password() {
        for url in ["http://u:s3cret@h:3128", "https://h", "socks5://u:s3cret@h:1080"] {
            assert!(!format!("{:?}", Proxy::parse(url).unwrap()).contains("s3cret"));
        }
        for url in ["", "h:3128", "ftp://h", "socks4://h", "http://"] {
            assert!(Proxy::parse(url).is_none(), "{url}");
        }
    }
}
