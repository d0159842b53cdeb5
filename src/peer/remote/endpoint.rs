//! Where a remote database is and what to tell it about who asks.
//!
//! Credentials, strongest first: `auth.basic`, the URL's userinfo, an `Authorization: Basic` header. They leave the URL
//! here, so that a URL may be shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
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
    /// Checks an address and sorts out the credentials.
    pub fn parse(
        url: &str,
        headers: Vec<(String, SecretString)>,
        basic: Option<(String, SecretString)>,
    ) -> Result<Self, InvalidEndpoint> {
        let mut url = Url::parse(url).map_err(|_| InvalidEndpoint::Url)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidEndpoint::Url);
        }
        let userinfo = userinfo(&url);
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| InvalidEndpoint::Url)?;
        url.set_fragment(None);
        if url.query().is_none() && !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let (basic, connection) = (basic.or(userinfo), Connection::default());
        let mut endpoint = Self { url, headers, basic, auth: None, connection };
        endpoint.check_headers()?;
        endpoint.take_basic_header();
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

    /// Makes an `Authorization: Basic` header the credentials, where there are no stronger ones.
    fn take_basic_header(&mut self) {
        let basic = &mut self.basic;
        self.headers.retain(|(name, value)| {
            let is_basic = name.eq_ignore_ascii_case("authorization");
            let Some(credentials) = is_basic.then(|| decode_basic(value.expose_secret())).flatten() else {
                return true;
            };
            basic.get_or_insert(credentials);
            false
        });
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

fn userinfo(url: &Url) -> Option<(String, SecretString)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let present = !url.username().is_empty() || url.password().is_some();
    present.then(|| (decode(url.username()), decode(url.password().unwrap_or_default()).into()))
}

fn decode_basic(header: &str) -> Option<(String, SecretString)> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(token.trim()).ok()).flatten()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.into(), password.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, InvalidEndpoint> {
        Endpoint::parse(url, Vec::new(), None)
    }

    fn basic(endpoint: &Endpoint) -> Option<(&str, &str)> {
        endpoint.basic.as_ref().map(|(user, password)| (user.as_str(), password.expose_secret()))
    }

    #[test]
    fn the_name_ends_in_a_slash_and_holds_no_secret() {
        let endpoint = parse("http://us%40er:p%3Ass@Host:5984/a%2Fb#x").unwrap();
        assert_eq!(endpoint.name(), "http://host:5984/a%2Fb/");
        assert_eq!(basic(&endpoint), Some(("us@er", "p:ss")));
        assert_eq!(parse("https://h/p?key=s3cret").unwrap().name(), "https://h/p/");
        assert_eq!(parse("https://h/p?key=s3cret").unwrap().url.as_str(), "https://h/p?key=s3cret");
        assert!(!format!("{endpoint:?} {endpoint}").contains("p:ss"));
    }

    #[test]
    fn what_is_no_url_of_a_database_is_refused() {
        for url in ["", "recipes", "ftp://h/db", "http://", "http:///", "http://h:port/db", "file:///tmp/db"] {
            assert_eq!(parse(url).err(), Some(InvalidEndpoint::Url), "{url}");
        }
    }

    #[test]
    fn the_strongest_credentials_win() {
        let header =
            || vec![("authorization".into(), SecretString::from("Basic aGVhZGVyOng=")), ("X-A".into(), "1".into())];
        let strongest = Some(("auth".into(), "z".into()));
        let all = Endpoint::parse("http://url:y@h/db", header(), strongest).unwrap();
        assert_eq!(basic(&all), Some(("auth", "z")));
        let two = Endpoint::parse("http://url:y@h/db", header(), None).unwrap();
        assert_eq!(basic(&two), Some(("url", "y")));
        let one = Endpoint::parse("http://h/db", header(), None).unwrap();
        assert_eq!(basic(&one), Some(("header", "x")));
        assert_eq!(one.headers.len(), 1);
    }

    #[test]
    fn headers_that_would_break_the_message_are_refused() {
        for (name, value) in [("Content-Length", "1"), ("a b", "1"), ("X", "a\nb"), ("host", "h")] {
            let headers = vec![(name.into(), value.into())];
            assert_eq!(Endpoint::parse("http://h/d", headers, None).err(), Some(InvalidEndpoint::Header(name.into())));
        }
    }
}
