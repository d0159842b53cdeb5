//! The HTTP client that all replications share, and what its errors mean.

use std::error::Error;
use std::io;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::config;
use crate::replicate::retry::Failure;

/// One client for all jobs, so that they share its pool of connections.
#[derive(Debug, Clone)]
pub struct Clients {
    client: reqwest::Client,
}

/// The HTTP client can't be set up, as where the system has no certificates to trust.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client")]
pub struct ClientError(#[from] reqwest::Error);

impl Clients {
    /// Sets up the client. It follows no redirects and keeps no cookies: peers do, with an eye on credentials.
    pub fn new(settings: &config::Replicator) -> Result<Self, ClientError> {
        // An error means that a provider was installed before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("CouchDB-Replicator/couchrep-", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(settings.connection_timeout)
            .tcp_nodelay(true)
            .no_proxy()
            .dns_resolver(Arc::new(SystemResolver))
            .build()?;
        Ok(Self { client })
    }

    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }
}

/// Asks the system, and gives failures a type, by which they are told from other failures to connect.
struct SystemResolver;

#[derive(Debug, thiserror::Error)]
#[error("no address found")]
struct NoAddress(#[source] io::Error);

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(NoAddress)?;
            let addresses: Vec<_> = addresses.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// What went wrong before an answer came.
pub(super) fn failure(error: &reqwest::Error) -> Failure {
    let has = |wanted: fn(&(dyn Error + 'static)) -> bool| causes(error).any(wanted);
    if has(|cause| cause.is::<NoAddress>()) {
        Failure::Unresolved
    } else if has(is_tls) {
        Failure::Tls
    } else if error.is_connect() {
        Failure::NoConnection
    } else if error.is_builder() {
        Failure::Unsendable
    } else {
        Failure::Broke
    }
}

/// The innermost cause in words; the outer ones name the URL or say nothing.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let innermost = causes(error).last().map(ToString::to_string).unwrap_or_default();
    match error.is_timeout() {
        true => "timed out".into(),
        false if innermost.is_empty() => "the connection failed".into(),
        false => innermost,
    }
}

/// Every cause below the error itself, whose own text has the URL in it.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source())
}

fn is_tls(cause: &(dyn Error + 'static)) -> bool {
    let wrapped = |cause: &io::Error| cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    cause.is::<rustls::Error>() || cause.downcast_ref::<io::Error>().is_some_and(wrapped)
}
