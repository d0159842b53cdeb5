//! Where a remote database is and what to tell it about who asks.

use std::fmt;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::auth::Auth;
use super::connection::Connection;

/// A remote database's address and credentials.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The database, without userinfo and fragment; its path ends in `/` unless there is a query.
    pub url: Url,
    /// Sent with every request to this host.
    pub headers: Vec<(String, SecretString)>,
    /// User and password.
    pub basic: Option<(String, SecretString)>,
    /// Stronger credentials of another kind.
    pub auth: Option<Auth>,
    /// How it is reached.
    pub connection: Connection,
}

/// Why something is no address of a remote database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not a URL, or without a host, or of another scheme.
    #[error("endpoint has an invalid url")]
    Url,
    /// A header that HTTP doesn't allow, or that couchrep sets by itself.
    #[error("endpoint has an invalid header `{0}`")]
    Header(String),
}

/// Headers that say how the message itself travels: another's value would break it.
const RESERVED: [&str; 6] = ["connection", "content-length", "host", "te", "transfer-encoding", "upgrade"];

impl Endpoint {
    /// Checks an address. Credentials have no place in the URL, and a Basic header none among the others: whoever takes
    /// them out ([`crate::replicate::endpoint`]) puts them into [`Endpoint::basic`].
    pub fn parse(url: &str, headers: Vec<(String, SecretString)>) -> Result<Self, InvalidEndpoint> {
        let mut url = Url::parse(url).map_err(|_| InvalidEndpoint::Url)?;
        let elsewhere = !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty);
        if elsewhere || !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidEndpoint::Url);
        }
        url.set_fragment(None);
        if url.query().is_none() && !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let endpoint = Self { url, headers, basic: None, auth: None, connection: Connection::default() };
        endpoint.check_headers()?;
        Ok(endpoint)
    }

    /// The URL for logs and answers: without userinfo, and without a query, which may hold secrets too. Ends in `/`.
    pub fn name(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        let mut name = String::from(url);
        if !name.ends_with('/') {
            name.push('/');
        }
        name
    }

    /// The custom headers, which go only to this very host.
    pub(super) fn header_map(&self) -> Result<HeaderMap, InvalidEndpoint> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let invalid = || InvalidEndpoint::Header(name.clone());
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
            let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| invalid())?;
            value.set_sensitive(true);
            map.append(key, value);
        }
        Ok(map)
    }

    fn check_headers(&self) -> Result<(), InvalidEndpoint> {
        let reserved = |name: &str| RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
        match self.headers.iter().find(|(name, _)| reserved(name)) {
            Some((name, _)) => Err(InvalidEndpoint::Header(name.clone())),
            None => self.header_map().map(drop),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, InvalidEndpoint> {
        Endpoint::parse(url, Vec::new())
    }

    #[test]
    fn the_name_ends_in_a_slash_and_holds_no_secret() {
        assert_eq!(parse("http://Host:5984/a%2Fb#x").unwrap().name(), "http://host:5984/a%2Fb/");
        assert_eq!(parse("https://h/p?key=s3cret").unwrap().name(), "https://h/p/");
        assert_eq!(parse("https://h/p?key=s3cret").unwrap().url.as_str(), "https://h/p?key=s3cret");
    }

    #[test]
    fn what_is_no_url_of_a_database_is_refused() {
        let bad = ["", "recipes", "ftp://h/db", "http://", "http:///", "http://h:port/db", "file:///tmp/db"];
        for url in bad.into_iter().chain(["http://user@h/db", "http://:s3cret@h/db"]) {
            assert_eq!(parse(url).err(), Some(InvalidEndpoint::Url), "{url}");
        }
    }

    #[test]
    fn headers_that_would_break_the_message_are_refused() {
        for (name, value) in [("Content-Length", "1"), ("a b", "1"), ("X", "a\nb"), ("host", "h")] {
            let headers = vec![(name.into(), value.into())];
            assert_eq!(Endpoint::parse("http://h/d", headers).err(), Some(InvalidEndpoint::Header(name.into())));
        }
    }
}
