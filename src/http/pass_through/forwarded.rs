//! Tells CouchDB what the client's own connection would have told it: `X-Forwarded-For`, `-Host` and `-Proto`.
//!
//! CouchDB builds URLs (`Location`) and finds virtual hosts by `X-Forwarded-Host` and `-Proto`, and counts wrong passwords by the last
//! address of `X-Forwarded-For`, if it is asked from this machine or a private network. A proxy before us has set host and protocol
//! already, and knows better. It knows the client's address better too, if CouchDB had believed it: else all clients of a proxy on this
//! machine were one, and whoever guesses passwords locked all others out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::header::HOST;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};

use crate::http::session_cookie::Https;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Adds what a request doesn't have yet; a client's address that isn't believed is followed by his own.
pub fn tell(request: &mut Request) {
    let found = found(request.headers(), request.extensions());
    request.headers_mut().extend(found.into_iter().map(|(name, value)| (Some(name), value)));
}

/// All that CouchDB is to be told, where nothing else of the request is passed on.
pub fn told(headers: &HeaderMap, extensions: &Extensions) -> HeaderMap {
    let mut told: HeaderMap = found(headers, extensions).into_iter().collect();
    if !told.contains_key(FOR) {
        told.extend(headers.get_all(FOR).iter().map(|value| (FOR, value.clone())));
    }
    told
}

/// What tells it besides what a request with these headers has.
fn found(headers: &HeaderMap, extensions: &Extensions) -> Vec<(HeaderName, HeaderValue)> {
    let mut found = Vec::new();
    if let Some(ConnectInfo(address)) = extensions.get::<ConnectInfo<SocketAddr>>()
        && !(headers.contains_key(FOR) && is_believed(address.ip().to_canonical()))
    {
        let before = headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<_> = before.map(str::to_owned).chain([address.ip().to_canonical().to_string()]).collect();
        found.extend(HeaderValue::try_from(all.join(", ")).map(|value| (FOR, value)));
    }
    if let Some(host) = headers.get(FORWARDED_HOST).or_else(|| headers.get(HOST)) {
        found.push((FORWARDED_HOST, host.clone()));
    }
    let https = extensions.get::<Https>().is_some();
    let own = HeaderValue::from_static(if https { "https" } else { "http" });
    found.push((PROTO, headers.get(PROTO).cloned().unwrap_or(own)));
    found
}

/// Whether CouchDB believes an `X-Forwarded-For` that comes from there, as `mochiweb_request:get(peer)` has it.
fn is_believed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let shared = matches!(address.octets(), [100, 64..=127, ..]);
            address == Ipv4Addr::LOCALHOST || address.is_private() || shared
        }
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn passed(lines: &[(&'static str, &'static str)], https: bool) -> Vec<String> {
        passed_from([10, 0, 0, 7], lines, https)
    }

    fn passed_from(client: [u8; 4], lines: &[(&'static str, &'static str)], https: bool) -> Vec<String> {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((client, 1))));
        if https {
            request.extensions_mut().insert(Https);
        }
        for (name, value) in lines {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        tell(&mut request);
        let names = [FOR, FORWARDED_HOST, PROTO];
        let values = names.iter().flat_map(|name| request.headers().get_all(name));
        values.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn couchdb_learns_who_asked_and_under_which_name() {
        assert_eq!(passed(&[("host", "couch.example")], true), ["10.0.0.7", "couch.example", "https"]);
        assert_eq!(passed(&[], false), ["10.0.0.7", "http"], "a client of HTTP/1.0");
    }

    /// Without it all clients of a proxy were one, and whoever guesses passwords locked the others out.
    #[test]
    fn where_nothing_else_is_passed_on_a_believed_address_is() {
        let headers = HeaderMap::from_iter([(FOR, HeaderValue::from_static("5.6.7.8"))]);
        for (client, expected) in [([127, 0, 0, 1], "5.6.7.8"), ([9, 9, 9, 9], "5.6.7.8, 9.9.9.9")] {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(SocketAddr::from((client, 1))));
            assert_eq!(told(&headers, &extensions)[FOR], expected);
        }
    }

    #[test]
    fn what_a_proxy_before_us_told_counts() {
        let before = [
            ("host", "127.0.0.1:5985"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("x-forwarded-host", "couch.example"),
            ("x-forwarded-proto", "https"),
        ];
        let believed = ["1.2.3.4", "5.6.7.8", "couch.example", "https"];
        assert_eq!(passed(&before, false), believed, "CouchDB would count by the last one, too");
        let not_believed = ["1.2.3.4, 5.6.7.8, 9.9.9.9", "couch.example", "https"];
        assert_eq!(passed_from([9, 9, 9, 9], &before, false), not_believed);
    }
}
