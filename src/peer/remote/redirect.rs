//! Where redirects lead, and where they may not.

use reqwest::Response;
use reqwest::header::LOCATION;
use url::{Host, Url};

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
/// with our hands. A name that stands for such an address isn't noticed.
pub(super) fn leads_inside(from: &Url, next: &Url) -> bool {
    let is_link_local = |url: &Url| match url.host() {
        Some(Host::Ipv4(address)) => address.is_link_local(),
        Some(Host::Ipv6(address)) => address.is_unicast_link_local(),
        _ => false,
    };
    let is_inside = |url: &Url| match url.host() {
        Some(Host::Ipv4(address)) => {
            address.is_loopback() || address.is_private() || address.is_link_local() || address.is_unspecified()
        }
        Some(Host::Ipv6(address)) => {
            let mapped = address.to_ipv4_mapped();
            mapped.is_some()
                || address.is_loopback()
                || address.is_unique_local()
                || address.is_unspecified()
                || address.is_unicast_link_local()
        }
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    };
    (is_inside(next) && !is_inside(from)) || (is_link_local(next) && !is_link_local(from))
}
