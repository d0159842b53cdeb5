//! Connects only where the policy allows it: a client, and the judge before each of its requests and connections.
//!
//! Whatever a replication sends, it sends through [`GuardedClient::send`]: questions to databases and to servers as a whole, logins,
//! tokens, and each hop of a redirect. There the URL is judged, and with it every address that is written in one. A name is judged when
//! the HTTP client looks it up for a connection: it connects to the addresses that it gets from here and to no others, so nothing can
//! change between the look and the connection. Of the addresses that a name stands for, those that are allowed are left.
//!
//! The port isn't among what an HTTP client tells its resolver. So a connection is made in the scope of the request that wants it
//! ([`WANTED`]), from its first step on, also if the request has ended meanwhile: it got another one's connection, and its own is
//! finished by a task of the HTTP client. A look-up out of any scope is refused.
//!
//! Connections are kept, and used again without another look: by requests of the same policy only, since each has clients of its own
//! (`clients.rs`).

use std::sync::{Arc, OnceLock};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, Request, RequestBuilder, Response};
use url::Url;

use super::transport::NoAddress;
use crate::endpoint::connection::Proxy;
use crate::policy::{Destination, Forbidden, Policy};

/// A client that connects only where its policy allows it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct GuardedClient {
    http: reqwest::Client,
    guard: Guard,
}

/// Judges URLs and addresses, for one policy and one proxy.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    policy: Policy,
    proxy: Option<Destination>,
}

/// What a connection is wanted for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    to: Destination,
    /// Why it isn't made. Whatever the HTTP client makes of an error, it is found here.
    forbidden: Arc<OnceLock<Forbidden>>,
}

tokio::task_local! {
    /// Of the request that is being sent, or of the connection that is being made.
    pub(super) static WANTED: Wanted;
}

/// Why a request failed.
pub(super) enum SendError {
    /// It wasn't sent.
    Forbidden(Forbidden),
    /// In the HTTP client's words.
    Failed(reqwest::Error),
}

impl GuardedClient {
    pub(super) fn new(http: reqwest::Client, guard: Guard) -> Self {
        Self { http, guard }
    }

    /// A request to be sent by [`GuardedClient::send`], and by nothing else.
    pub(super) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends a request, if it may be sent there.
    pub(super) async fn send(&self, request: Request) -> Result<Response, SendError> {
        let to = Destination::of(request.url());
        self.guard.policy.check(&to, self.guard.proxy.as_ref()).map_err(SendError::Forbidden)?;
        let wanted = Wanted { to, forbidden: Arc::default() };
        let forbidden = wanted.forbidden.clone();
        let sent = WANTED.scope(wanted, self.http.execute(request)).await;
        sent.map_err(|error| match forbidden.get() {
            Some(forbidden) => SendError::Forbidden(forbidden.clone()),
            None => SendError::Failed(error),
        })
    }
}

impl Guard {
    pub(super) fn new(policy: Policy, proxy: Option<&Proxy>) -> Self {
        Self { policy, proxy: proxy.map(|proxy| proxy.destination().clone()) }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let wanted = WANTED.try_with(Clone::clone).ok();
        let policy = self.policy.clone();
        // Both, if they are the same host.
        let asked_of = wanted.iter().map(|wanted| &wanted.to).chain(&self.proxy);
        let asked_of: Vec<_> = asked_of.filter(|to| to.is_called(name.as_str())).cloned().collect();
        Box::pin(async move {
            let wanted = wanted.filter(|_| !asked_of.is_empty()).ok_or(Unwanted)?;
            // A SOCKS proxy's destination comes as it stands in the URL.
            let host = name.as_str().trim_start_matches('[').trim_end_matches(']');
            let found = tokio::net::lookup_host((host, 0)).await.map_err(NoAddress)?;
            let (mut allowed, mut forbidden) = (Vec::new(), None);
            for address in found {
                match asked_of.iter().try_for_each(|to| policy.check_address(to, address.ip())) {
                    Ok(()) => allowed.push(address),
                    Err(error) => forbidden = Some(error),
                }
            }
            match forbidden {
                Some(forbidden) if allowed.is_empty() => {
                    _ = wanted.forbidden.set(forbidden.clone());
                    Err(forbidden.into())
                }
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no request wants this connection")]
struct Unwanted;
