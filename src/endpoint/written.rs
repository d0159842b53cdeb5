//! A URL as it was written, since its parts enter the replication id that way.

use super::invalid::InvalidEndpoint;

/// A URL's parts as they were written.
#[derive(Clone)]
pub struct Written {
    /// The URL without userinfo and fragment; ends in `/` unless it has a query.
    pub url: String,
    /// An IPv6 address stands without its brackets.
    pub host: String,
    /// `None` if it is the scheme's own, or 5984 with http.
    pub port: Option<u16>,
    /// Query included.
    pub path: String,
}

impl Written {
    /// Takes a URL apart, and its userinfo out. One with control characters is none: what is sent would be another one, without them, than
    /// what is logged.
    pub fn parse(text: &str) -> Result<(Self, Option<&str>), InvalidEndpoint> {
        if text.contains(char::is_control) {
            return Err(InvalidEndpoint::Url);
        }
        let (scheme, rest) = text.split_once("://").ok_or(InvalidEndpoint::Url)?;
        let own_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(InvalidEndpoint::Url),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (userinfo, place) =
            authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
        let (host, port) = split_port(place)?;
        let mut path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if !path.contains('?') && !path.ends_with('/') {
            path.push('/');
        }
        if host.is_empty() {
            return Err(InvalidEndpoint::Url);
        }
        let default = port.is_none_or(|port| port == own_port || (scheme == "http" && port == 5984));
        let url = format!("{scheme}://{place}{path}");
        Ok((Self { url, host: host.to_owned(), port: port.filter(|_| !default), path }, userinfo))
    }
}

fn split_port(place: &str) -> Result<(&str, Option<u16>), InvalidEndpoint> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':'))).ok_or(InvalidEndpoint::Url)?
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.filter(|port| !port.is_empty()).map(|port| port.parse().map_err(|_| InvalidEndpoint::Url));
    Ok((host, port.transpose()?))
}
