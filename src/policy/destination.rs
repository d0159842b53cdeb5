//! The server that a URL names: all that a rule asks of it before its address is known.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

/// The server that a URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub(super) scheme: String,
    host: Host<String>,
    pub(super) port: u16,
}

impl Destination {
    /// The server of a URL, as it was parsed: names in lower case, addresses in their one spelling.
    pub fn of(url: &Url) -> Self {
        let host = match url.host().map(|host| host.to_owned()) {
            // Of other schemes than HTTP's (a proxy's), hosts are kept as they were written.
            Some(Host::Domain(name)) => Host::parse(&name).unwrap_or(Host::Domain(name)),
            Some(address) => address,
            None => Host::Domain(String::new()),
        };
        let usual = if url.scheme() == "socks5" { 1080 } else { 0 };
        Self { scheme: url.scheme().to_owned(), host, port: url.port_or_known_default().unwrap_or(usual) }
    }

    /// Whether an HTTP client calls its host so.
    pub fn is_called(&self, name: &str) -> bool {
        let unbracketed = name.trim_start_matches('[').trim_end_matches(']');
        match &self.host {
            Host::Domain(own) => own.eq_ignore_ascii_case(name),
            Host::Ipv4(own) => unbracketed.parse() == Ok(*own),
            Host::Ipv6(own) => unbracketed.parse() == Ok(*own),
        }
    }

    /// Its name, if it has one. A dot at the end says only that nothing is to be put after it.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Domain(name) => Some(name.strip_suffix('.').unwrap_or(name)),
            Host::Ipv4(_) | Host::Ipv6(_) => None,
        }
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}
