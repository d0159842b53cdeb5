//! A source or a target, as a request names it.
//!
//! A bare name is a database of the embedded store; everything else is a URL, alone or in an object with headers and
//! credentials. Credentials, strongest first: `auth.basic`, the URL's own, an `Authorization: Basic` header; they are
//! taken out of URL and headers here, so that the URL that is left may be logged and answered.
//!
//! The parts of a URL are kept as they were written, since they enter the replication id that way (FACTS 4).

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::job::Context;
use super::{ReplicateError, connection};
use crate::config::Replicator;
use crate::effort::pulse::Pulse;
use crate::peer::Peer;
use crate::peer::local::LocalPeer;
use crate::peer::remote::{self, RemotePeer};
use crate::store::DbName;

/// A source or a target.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// A database of the embedded store.
    Local(DbName),
    /// A database over HTTP.
    Remote(Box<Site>),
}

/// A database over HTTP, its credentials apart from its URL.
#[derive(Clone)]
pub struct Site {
    /// Without credentials; ends in `/` unless it has a query.
    pub url: String,
    /// As written, an IPv6 address without its brackets.
    pub host: String,
    /// As written; `None` where it is the scheme's own, or 5984 with http.
    pub port: Option<u16>,
    /// As written, query included.
    pub path: String,
    /// Who logs in.
    pub credentials: Option<Credentials>,
    /// All headers but a Basic `Authorization`. May hold secrets.
    pub headers: Vec<(String, String)>,
    /// Credentials of another kind than name and password.
    pub auth: Option<remote::Auth>,
    /// How it is reached.
    pub connection: remote::Connection,
}

/// A name and a password.
#[derive(Clone)]
pub struct Credentials {
    /// The name as it was written: not percent-decoded where it stood in a URL.
    pub written_name: String,
    /// The name.
    pub name: String,
    /// The password.
    pub password: SecretString,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Site").field(&self.host).field(&self.port).finish()
    }
}

impl Endpoint {
    /// Reads the field `field` (`source` or `target`) of a request.
    ///
    /// # Errors
    /// [`ReplicateError::MissingDatabase`], [`ReplicateError::InvalidReplication`] for a URL that is none,
    /// [`ReplicateError::DatabaseNotFound`] for a name that no database can have.
    pub fn parse(field: &'static str, value: Option<&Value>) -> Result<Self, ReplicateError> {
        match value {
            None | Some(Value::Null) => Err(ReplicateError::MissingDatabase(field)),
            Some(Value::String(text)) if text.is_empty() => Err(ReplicateError::MissingDatabase(field)),
            Some(Value::String(text)) if text.contains("://") => {
                Ok(Self::Remote(Box::new(Site::parse(text, Vec::new(), None)?)))
            }
            Some(Value::String(name)) => match DbName::parse(name) {
                Ok(name) => Ok(Self::Local(name)),
                // Not a name but a URL without its scheme, and maybe with a password, which no answer may repeat.
                Err(_) if name.contains('@') => Err(invalid_url()),
                Err(_) => Err(ReplicateError::DatabaseNotFound(name.clone())),
            },
            Some(Value::Object(object)) => Ok(Self::Remote(Box::new(Site::from_object(field, object)?))),
            Some(_) => Err(ReplicateError::BadRequest(format!("`{field}` must be a string or an object"))),
        }
    }

    /// What the endpoint is called in answers, logs and tasks: a URL that ends in `/`, without credentials, and without
    /// its query, which may hold some too.
    ///
    /// `address` is this server's own.
    pub fn display(&self, address: &str) -> String {
        match self {
            Self::Local(name) => format!("{}/", local_url(address, name.as_str())),
            Self::Remote(site) => match site.url.split_once('?') {
                Some((url, _)) => format!("{}/", url.trim_end_matches('/')),
                None => site.url.clone(),
            },
        }
    }

    /// The endpoint as a request may name it again: a name, or a URL as above.
    pub fn without_secrets(&self) -> String {
        match self {
            Self::Local(name) => name.as_str().to_owned(),
            Self::Remote(_) => self.display(""),
        }
    }

    /// The longest silence of the peer that isn't taken for death.
    pub fn connection_timeout(&self, settings: &Replicator) -> Duration {
        match self {
            Self::Local(_) => Duration::ZERO,
            Self::Remote(site) => site.connection.connection_timeout.unwrap_or(settings.connection_timeout),
        }
    }

    /// Opens the database for a job with this pulse; that it is there is found out by the first question to it.
    pub async fn open(&self, context: &Context, pulse: &Pulse) -> Result<Peer, ReplicateError> {
        match self {
            Self::Local(name) => match &context.store {
                Some(store) => Ok(Peer::Local(LocalPeer::new(store.clone(), name.clone(), pulse.clone()))),
                None => Err(ReplicateError::BadRequest(format!("there is no store to look `{name}` up in"))),
            },
            Self::Remote(site) => {
                let headers = site.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
                let mut endpoint = remote::Endpoint::parse(&site.url, headers)
                    .map_err(|error| ReplicateError::InvalidReplication(error.to_string()))?;
                endpoint.basic = site.credentials.as_ref().map(Credentials::pair);
                endpoint.auth.clone_from(&site.auth);
                endpoint.connection.clone_from(&site.connection);
                let (settings, pulse) = (context.settings.clone(), pulse.clone());
                Ok(Peer::Remote(RemotePeer::new(&context.clients, endpoint, settings, pulse).await?))
            }
        }
    }
}

/// What CouchDB's `mochiweb_util:quote_plus/1` keeps besides letters and digits.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The URL, without a slash at its end, under which this server offers a database of its store.
pub fn local_url(address: &str, name: &str) -> String {
    format!("http://{address}/{}", utf8_percent_encode(name, NAME))
}

impl Site {
    /// Takes a URL apart. `basic` is the strongest of the credentials.
    pub fn parse(
        text: &str,
        mut headers: Vec<(String, String)>,
        basic: Option<Credentials>,
    ) -> Result<Self, ReplicateError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid_url)?;
        let own_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(invalid_url()),
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
        let url = format!("{scheme}://{place}{path}");
        if host.is_empty() || url::Url::parse(&url).is_err() {
            return Err(invalid_url());
        }
        let from_headers = take_basic(&mut headers);
        let default = port.is_none_or(|port| port == own_port || (scheme == "http" && port == 5984));
        Ok(Self {
            host: host.to_owned(),
            port: port.filter(|_| !default),
            credentials: basic.or_else(|| userinfo.and_then(Credentials::from_userinfo)).or(from_headers),
            url,
            path,
            headers,
            auth: None,
            connection: remote::Connection::default(),
        })
    }

    fn from_object(field: &'static str, object: &Map<String, Value>) -> Result<Self, ReplicateError> {
        let bad = |what: &str| ReplicateError::BadRequest(format!("`{field}.{what}"));
        let url = object.get("url").and_then(Value::as_str).ok_or_else(invalid_url)?;
        let headers = match object.get("headers") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(headers)) => headers
                .iter()
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect::<Option<_>>()
                .ok_or_else(|| bad("headers` must be an object of strings"))?,
            Some(_) => return Err(bad("headers` must be an object of strings")),
        };
        let basic = match object.get("auth").and_then(|auth| auth.get("basic")) {
            None | Some(Value::Null) => None,
            Some(basic) => {
                let text = |key| basic.get(key).and_then(Value::as_str);
                let (Some(name), Some(password)) = (text("username"), text("password")) else {
                    return Err(bad("auth.basic` must have a `username` and a `password`, both strings"));
                };
                Some(Credentials::new(name.to_owned(), password.to_owned()))
            }
        };
        let auth = match object.get("auth") {
            None | Some(Value::Null) => None,
            Some(auth) => remote::Auth::parse(auth).map_err(|problem| bad(&format!("auth{problem}")))?,
        };
        let mut site = Self::parse(url, headers, basic)?;
        site.auth = auth;
        site.connection.tls = connection::tls(field, object.get("tls"))?;
        Ok(site)
    }
}

impl Credentials {
    fn new(name: String, password: String) -> Self {
        Self { written_name: name.clone(), name, password: password.into() }
    }

    /// Name and password as the HTTP client takes them.
    pub fn pair(&self) -> (String, SecretString) {
        (self.name.clone(), self.password.clone())
    }

    /// Reads `name:password` as it stands in a URL; a name alone has an empty password.
    fn from_userinfo(text: &str) -> Option<Self> {
        let (name, password) = text.split_once(':').unwrap_or((text, ""));
        let decoded = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let credentials = Self::new(decoded(name), decoded(password));
        (!name.is_empty()).then(|| Self { written_name: name.to_owned(), ..credentials })
    }

    /// Reads the value of an `Authorization` header; `None` where it isn't a Basic one.
    pub fn from_header(value: &str) -> Option<Self> {
        let (scheme, encoded) = value.split_once(' ')?;
        let text = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let (name, password) = std::str::from_utf8(&text).ok()?.split_once(':')?;
        Some(Self::new(name.to_owned(), password.to_owned()))
    }
}

/// Takes Basic `Authorization` headers out, and gives the credentials of the first.
pub fn take_basic(headers: &mut Vec<(String, String)>) -> Option<Credentials> {
    let mut found = None;
    headers.retain(|(name, value)| {
        let basic = name.eq_ignore_ascii_case("authorization").then(|| Credentials::from_header(value)).flatten();
        let keep = basic.is_none();
        found = found.take().or(basic);
        keep
    });
    found
}

fn split_port(place: &str) -> Result<(&str, Option<u16>), ReplicateError> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':'))).ok_or_else(invalid_url)?
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.filter(|port| !port.is_empty()).map(|port| port.parse().map_err(|_| invalid_url())).transpose()?;
    Ok((host, port))
}

fn invalid_url() -> ReplicateError {
    ReplicateError::InvalidReplication("endpoint has an invalid url".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use secrecy::ExposeSecret as _;

    use super::*;

    fn pair(site: &Site) -> (String, String) {
        let (name, password) = site.credentials.as_ref().unwrap().pair();
        (name, password.expose_secret().to_owned())
    }

    fn site(value: Value) -> Site {
        match Endpoint::parse("source", Some(&value)).unwrap() {
            Endpoint::Remote(site) => *site,
            Endpoint::Local(name) => panic!("{name} is local"),
        }
    }

    #[test]
    fn credentials_leave_the_url_and_the_strongest_win() {
        let basic = json!({"basic": {"username": "a", "password": "1"}});
        let all = json!({"url": "http://b:2@h/d", "auth": basic, "headers": {"authorization": "Basic Yzoz", "X": "y"}});
        let found = site(all);
        assert_eq!(found.url, "http://h/d/");
        assert_eq!(found.headers, [("X".to_owned(), "y".to_owned())]);
        assert_eq!(pair(&found), ("a".into(), "1".into()));
        let found = site(json!({"url": "http://b%40x:%32@h/d", "headers": {"authorization": "Basic Yzoz"}}));
        assert_eq!(pair(&found), ("b@x".into(), "2".into()));
        assert_eq!(found.credentials.unwrap().written_name, "b%40x");
        let found = site(json!({"url": "http://h/d", "headers": {"authorization": "Basic Yzoz"}}));
        assert_eq!(pair(&found), ("c".into(), "3".into()));
    }

    #[test]
    fn a_debug_print_shows_no_credentials() {
        let found = site(json!({"url": "http://b:2@h/d", "headers": {"authorization": "Bearer t"}}));
        assert_eq!(format!("{found:?}"), r#"Site("h", None)"#);
    }

    #[test]
    fn no_credentials_are_shown_in_answers() {
        for (url, shown) in [("http://b:2@h/d?key=s3cret", "http://h/d/"), ("http://h/d/?key=s3cret", "http://h/d/")] {
            let endpoint = Endpoint::parse("source", Some(&json!(url))).unwrap();
            assert_eq!(endpoint.display("127.0.0.1:5984"), shown);
            assert!(!format!("{endpoint:?}").contains("s3cret"));
        }
        let error = Endpoint::parse("source", Some(&json!("admin:s3cret@h/d"))).unwrap_err();
        assert!(!error.to_string().contains("s3cret"));
    }

    #[test]
    fn urls_that_are_none_are_refused() {
        for bad in ["ftp://h/x", "http:///x", "http://", "http://h:port/x", "http://[::1/x", "http://h h/"] {
            let error = Endpoint::parse("source", Some(&json!(bad))).unwrap_err();
            assert!(matches!(error, ReplicateError::InvalidReplication(_)), "{bad}: {error}");
        }
        let error = Endpoint::parse("source", Some(&json!({}))).unwrap_err();
        assert!(matches!(error, ReplicateError::InvalidReplication(_)));
    }

    #[test]
    fn a_query_keeps_its_end() {
        assert_eq!(site(json!("https://h:443/d?x=1")).url, "https://h:443/d?x=1");
        assert_eq!(site(json!("https://h:443/d?x=1")).port, None);
        assert_eq!(site(json!("https://h:5984")).port, Some(5984));
    }

    #[test]
    fn a_local_name_is_shown_as_this_servers_url() {
        let local = Endpoint::parse("source", Some(&json!("a/b"))).unwrap();
        assert_eq!(local.display("127.0.0.1:5984"), "http://127.0.0.1:5984/a%2Fb/");
        let error = Endpoint::parse("source", Some(&json!("UPPER"))).unwrap_err();
        assert!(matches!(error, ReplicateError::DatabaseNotFound(name) if name == "UPPER"));
    }
}
