//! Where redirects lead, and where they may not.

use std::net::IpAddr;

use reqwest::Response;
use reqwest::header::LOCATION;
use url::{Host, Url};

use crate::policy;

/// Where a redirect leads; `None` for any other answer, an error where it leads nowhere.
pub(super) fn redirect(response: &Response, from: &Url) -> Option<Result<Url, String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().unwrap_or_default();
    let next = from.join(location).ok().filter(|next| matches!(next.scheme(), "http" | "https"));
    if next.as_ref().is_some_and(|next| leads_inside(from, next)) {
        return Some(Err("a redirect into a network that the peer isn't in".into()));
    }
    Some(next.ok_or_else(|| "a redirect that leads nowhere".to_owned()).map(|mut next| {
        // Credentials come from the request alone, never from a peer.
        let _ = next.set_username("").and_then(|()| next.set_password(None));
        next
    }))
}

/// Whether a peer elsewhere points at an address that only this machine, or its network, can reach: it could read, or write, there
/// with our hands. What a name stands for is judged when it is looked up ([`Policy::from_outside`]).
///
/// [`Policy::from_outside`]: crate::policy::Policy::from_outside
pub(super) fn leads_inside(from: &Url, next: &Url) -> bool {
    let is_inside = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        _ => address(url).is_some_and(policy::is_inside),
    };
    let is_link_local = |url: &Url| match address(url).map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => address.is_link_local(),
        Some(IpAddr::V6(address)) => address.is_unicast_link_local(),
        None => false,
    };
    (is_inside(next) && !is_inside(from)) || (is_link_local(next) && !is_link_local(from))
}

fn address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}
