//! A source or a target, as a request names it: parsed once, here, and nowhere again.
//!
//! A bare name is a database of this server; everything else is a URL, alone or in an object with headers and
//! credentials. Credentials, strongest first: `auth.basic`, the URL's own, an `Authorization: Basic` header; they are
//! taken out of URL and headers here, so that the URL that is left may be logged and answered. It may name a secret of this server's
//! settings in place of all of them ([`secrets`]). What is sent is checked
//! here too: whoever opens an endpoint can't fail at its words any more.
//!
//! The parts of a URL are also kept as they were written, since they enter the replication id that way.

mod invalid;
mod written;
mod credentials;
pub mod auth;
pub mod oauth1;
pub mod connection;
mod reach;
mod secrets;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest as _, Md5};
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use url::Url;

use self::auth::Auth;
use self::connection::Connection;
use self::invalid::MAX_BYTES;
use crate::beside::LastingSession;
use crate::config::Replicator;
use crate::config::secrets::is_name;
use crate::json::fields::BadField;
use crate::percent;
use crate::store::DbName;

pub use self::credentials::{Credentials, take_basic};
pub use self::invalid::InvalidEndpoint;
pub use self::secrets::SecretRefused;
pub use self::written::Written;

/// A source or a target.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// A database of this server.
    Local(DbName),
    /// A database over HTTP.
    Remote(Box<RemoteEndpoint>),
}

/// A database over HTTP, its secrets apart from its URL.
#[derive(Clone)]
pub struct RemoteEndpoint {
    /// Without userinfo and fragment; its path ends in `/` unless there is a query.
    pub url: Url,
    /// The parts of the URL as they were written.
    pub written: Written,
    /// Who logs in.
    pub credentials: Option<Credentials>,
    /// Sent with every request to this host: all headers but a Basic `Authorization`.
    pub headers: Vec<(String, SecretString)>,
    /// Credentials of another kind than name and password.
    pub auth: Option<Auth>,
    /// The name of the declared secret that is in place of both, or is to be ([`RemoteEndpoint::with_secret`]).
    pub secret: Option<Box<str>>,
    /// How it is reached.
    pub connection: Connection,
    /// It was named without a URL: a database of the CouchDB beside which this server stands.
    pub local_name: Option<DbName>,
    /// It is a server as a whole ([`RemoteEndpoint::server`]).
    is_server: bool,
}

/// How somebody proves who he is to the CouchDB beside which this server stands.
pub enum CouchDbProof {
    /// As long as it is right; `None`: he is nobody in particular.
    Password(Option<Credentials>),
    /// As they came, while they last.
    Headers(Vec<(String, SecretString)>),
    /// Made anew while he is who he was.
    Session(Arc<LastingSession>),
}

/// Headers that say how the message itself travels: another's value would break it.
const RESERVED: [&str; 6] = ["connection", "content-length", "host", "te", "transfer-encoding", "upgrade"];

impl Endpoint {
    /// Reads `source` and `target` of a request, and the fields that say how both are reached.
    pub fn both(request: &Map<String, Value>) -> Result<(Self, Self), InvalidEndpoint> {
        let mut source = Self::parse("source", request.get("source"))?;
        let mut target = Self::parse("target", request.get("target"))?;
        let (to_source, to_target) = connection::read(request)?;
        source.reached_by(to_source);
        target.reached_by(to_target);
        Ok((source, target))
    }

    /// Reads the field `field` (`source` or `target`) of a request.
    pub fn parse(field: &'static str, value: Option<&Value>) -> Result<Self, InvalidEndpoint> {
        match value {
            Some(value) if text_bytes(value) > MAX_BYTES => Err(InvalidEndpoint::TooLong(field)),
            None | Some(Value::Null) => Err(InvalidEndpoint::Missing(field)),
            Some(Value::String(text)) if text.is_empty() => Err(InvalidEndpoint::Missing(field)),
            Some(Value::String(text)) if text.contains("://") => {
                Ok(Self::Remote(Box::new(RemoteEndpoint::parse(text, Vec::new(), None)?)))
            }
            Some(Value::String(name)) => match DbName::parse(name) {
                Ok(name) => Ok(Self::Local(name)),
                // Not a name but a URL without its scheme, and maybe with a password, which no answer may repeat.
                Err(_) if name.contains('@') => Err(InvalidEndpoint::Url),
                Err(_) => Err(InvalidEndpoint::Name(name.clone())),
            },
            Some(Value::Object(object)) => Ok(Self::Remote(Box::new(RemoteEndpoint::from_object(field, object)?))),
            Some(_) => Err(BadField(format!("`{field}` must be a string or an object")).into()),
        }
    }

    /// Sets how a database over HTTP is reached, but for its own certificates.
    fn reached_by(&mut self, connection: Connection) {
        if let Self::Remote(remote) = self {
            let tls = std::mem::take(&mut remote.connection.tls);
            remote.connection = Connection { tls, ..connection };
        }
    }

    /// What the endpoint is called in answers, logs and tasks: a URL that ends in `/`, without credentials, and without
    /// its query, which may hold some too.
    ///
    /// `address` is this server's own.
    pub fn display(&self, address: &str) -> String {
        match self {
            Self::Local(name) => format!("{}/", local_url(address, name.as_str())),
            Self::Remote(remote) => match &remote.local_name {
                Some(name) => format!("{}/", local_url(address, name.as_str())),
                None => remote.name(),
            },
        }
    }

    /// The endpoint as a request may name it again: a name, or a URL as above.
    pub fn without_secrets(&self) -> String {
        match self {
            Self::Local(name) => name.as_str().to_owned(),
            Self::Remote(remote) => remote.local_name.as_ref().map_or_else(|| remote.name(), ToString::to_string),
        }
    }

    /// The longest silence of the peer that isn't taken for death.
    pub fn connection_timeout(&self, settings: &Replicator) -> Duration {
        match self {
            Self::Local(_) => Duration::ZERO,
            Self::Remote(remote) => remote.connection.connection_timeout.unwrap_or(settings.connection_timeout),
        }
    }
}

/// Bytes of all that is written in a value.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(|value| 1 + text_bytes(value)).sum(),
        Value::Object(members) => members.iter().map(|(name, value)| name.len() + 1 + text_bytes(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// The URL, without a slash at its end, under which this server offers a database of its own.
pub fn local_url(address: &str, name: &str) -> String {
    format!("http://{address}/{}", percent::encode(name))
}

impl RemoteEndpoint {
    /// Takes a URL apart. `basic` is the strongest of the credentials.
    pub fn parse(
        text: &str,
        mut headers: Vec<(String, String)>,
        basic: Option<Credentials>,
    ) -> Result<Self, InvalidEndpoint> {
        let (written, userinfo) = Written::parse(text)?;
        let url = Url::parse(&written.url).map_err(|_| InvalidEndpoint::Url)?;
        let from_headers = take_basic(&mut headers);
        let headers = headers.into_iter().map(|(name, value)| checked_header(name, value)).collect::<Result<_, _>>()?;
        Ok(Self {
            url,
            written,
            credentials: basic.or_else(|| userinfo.and_then(Credentials::from_userinfo)).or(from_headers),
            headers,
            auth: None,
            secret: None,
            connection: Connection::default(),
            local_name: None,
            is_server: false,
        })
    }

    /// A database of the CouchDB with this root, as somebody may use it who proves by this who he is.
    pub fn beside(root: &Url, name: DbName, proof: CouchDbProof) -> Self {
        let (credentials, headers, auth) = match proof {
            CouchDbProof::Password(credentials) => (credentials, Vec::new(), None),
            CouchDbProof::Headers(headers) => (None, headers, None),
            CouchDbProof::Session(session) => (None, Vec::new(), Some(Auth::Session(session))),
        };
        let mut url = root.clone();
        url.set_path(&format!("{}{}/", root.path(), percent::encode(name.as_str())));
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let written = Written { url: url.to_string(), host, port: url.port(), path: url.path().to_owned() };
        let connection = Connection::default();
        let (secret, local_name) = (None, Some(name));
        Self { url, written, credentials, headers, auth, secret, connection, local_name, is_server: false }
    }

    fn from_object(field: &'static str, object: &Map<String, Value>) -> Result<Self, InvalidEndpoint> {
        let bad = |what: &str| BadField(format!("`{field}.{what}"));
        let url = object.get("url").and_then(Value::as_str).ok_or(InvalidEndpoint::Url)?;
        let headers = match object.get("headers") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(headers)) => headers
                .iter()
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect::<Option<_>>()
                .ok_or_else(|| bad("headers` must be an object of strings"))?,
            Some(_) => return Err(bad("headers` must be an object of strings").into()),
        };
        let basic = match object.get("auth").and_then(|auth| auth.get("basic")) {
            None | Some(Value::Null) => None,
            Some(basic) => {
                let text = |key| basic.get(key).and_then(Value::as_str);
                let (Some(name), Some(password)) = (text("username"), text("password")) else {
                    return Err(bad("auth.basic` must have a `username` and a `password`, both strings").into());
                };
                Some(Credentials::new(name.to_owned(), password.to_owned()))
            }
        };
        let secret = match object.get("auth").and_then(|auth| auth.get("secret")) {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) if is_name(name) => Some(name.as_str().into()),
            // Not repeated: it may be the secret itself.
            Some(_) => return Err(bad("auth.secret` must be the name of a secret").into()),
        };
        let auth = match object.get("auth") {
            None | Some(Value::Null) => None,
            Some(auth) => Auth::parse(auth).map_err(|problem| bad(&format!("auth{problem}")))?,
        };
        let mut remote = Self::parse(url, headers, basic)?;
        remote.auth = auth;
        if secret.is_some() {
            remote.credentials = None;
        }
        remote.secret = secret;
        remote.connection.tls = connection::tls(field, object.get("tls"))?;
        Ok(remote)
    }

    /// The URL for logs and answers: without userinfo, and without a query, which may hold secrets too. Ends in `/`.
    pub fn name(&self) -> String {
        let url = &self.written.url;
        let url = url.split_once('?').map_or(url.as_str(), |(url, _)| url);
        format!("{}/", url.trim_end_matches('/'))
    }

    /// The server as an endpoint, and the database's name there; `None` if the URL doesn't tell them apart.
    pub fn server(&self) -> Option<(Self, String)> {
        if self.url.query().is_some() {
            return None;
        }
        let path = self.url.path().strip_suffix('/')?;
        let (directory, database) = path.rsplit_once('/')?;
        let name = percent_decode_str(database).decode_utf8().ok()?.into_owned();
        let mut url = self.url.clone();
        url.set_path(&format!("{directory}/"));
        let written = Written { url: url.to_string(), path: url.path().to_owned(), ..self.written.clone() };
        (!name.is_empty()).then(|| (Self { url, written, is_server: true, ..self.clone() }, name))
    }

    /// Where the server's own requests are, as `_session`: the directory of the database. Ends in `/`.
    pub fn root(&self) -> Url {
        let mut root = self.url.clone();
        root.set_query(None);
        if !self.is_server {
            let path = root.path().trim_end_matches('/');
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
            root.set_path(&format!("{directory}/"));
        }
        root
    }

    /// The same for endpoints of one URL with the same credentials and headers, reached in the same way. `None` for those that sign
    /// each request, or fetch tokens, or whose secret wasn't asked for yet.
    pub fn fingerprint(&self) -> Option<[u8; 16]> {
        let session = self.session();
        if (self.auth.is_some() && session.is_none()) || (self.secret.is_some() && self.credentials.is_none()) {
            return None;
        }
        let mut hash = Md5::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        add(self.url.as_str());
        if let Some(Credentials { name, password, .. }) = &self.credentials {
            add(name);
            add(password.expose_secret());
        }
        for (name, value) in &self.headers {
            add(name);
            add(value.expose_secret());
        }
        if let Some(session) = session {
            ["session", session.name(), session.salt().expose_secret()].into_iter().for_each(&mut add);
        }
        add(&format!("{:?}", self.connection));
        Some(hash.finalize().into())
    }

    /// The session that is renewed for it.
    pub fn session(&self) -> Option<&Arc<LastingSession>> {
        match &self.auth {
            Some(Auth::Session(session)) => Some(session),
            _ => None,
        }
    }

    /// The name that logs in there, if it does with a password.
    pub fn login(&self) -> Option<&str> {
        self.credentials.as_ref().filter(|_| self.auth.is_none()).map(|credentials| credentials.name.as_str())
    }

    /// The custom headers, which go only to this very host.
    pub fn header_map(&self) -> HeaderMap {
        let header = |(name, value): &(String, SecretString)| {
            let mut value = HeaderValue::from_str(value.expose_secret()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in self.headers.iter().filter_map(header) {
            map.append(name, value);
        }
        map
    }
}

/// A header that HTTP allows, and that couchrep doesn't set by itself.
fn checked_header(name: String, value: String) -> Result<(String, SecretString), InvalidEndpoint> {
    let is_reserved = RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
    let is_sendable = HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(&value).is_ok();
    if is_reserved || !is_sendable {
        return Err(InvalidEndpoint::Header(name));
    }
    Ok((name, value.into()))
}

impl fmt::Debug for RemoteEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteEndpoint").field(&self.written.host).field(&self.written.port).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pair(remote: &RemoteEndpoint) -> (String, String) {
        let Credentials { name, password, .. } = remote.credentials.clone().unwrap();
        (name, password.expose_secret().to_owned())
    }

    fn remote(value: Value) -> RemoteEndpoint {
        match Endpoint::parse("source", Some(&value)).unwrap() {
            Endpoint::Remote(remote) => *remote,
            Endpoint::Local(name) => panic!("{name} is local"),
        }
    }

    #[test]
    fn credentials_leave_the_url_and_the_strongest_win() {
        let basic = json!({"basic": {"username": "a", "password": "1"}});
        let all = json!({"url": "http://b:2@h/d", "auth": basic, "headers": {"authorization": "Basic Yzoz", "X": "y"}});
        let found = remote(all);
        assert_eq!(found.url.as_str(), "http://h/d/");
        assert_eq!(found.headers.len(), 1);
        assert_eq!(found.header_map()["x"], "y");
        assert_eq!(pair(&found), ("a".into(), "1".into()));
        let found = remote(json!({"url": "http://b%40x:%32@h/d", "headers": {"authorization": "Basic Yzoz"}}));
        assert_eq!(pair(&found), ("b@x".into(), "2".into()));
        assert_eq!(found.credentials.unwrap().written_name, "b%40x");
        let found = remote(json!({"url": "http://h/d", "headers": {"authorization": "Basic Yzoz"}}));
        assert_eq!(pair(&found), ("c".into(), "3".into()));
    }

    #[test]
    fn a_debug_print_shows_no_credentials() {
        let found = remote(json!({"url": "http://b:2@h/d", "headers": {"authorization": "Bearer t"}}));
        assert_eq!(format!("{found:?}"), r#"RemoteEndpoint("h", None)"#);
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
            assert_eq!(error, InvalidEndpoint::Url, "{bad}");
        }
        let error = Endpoint::parse("source", Some(&json!({}))).unwrap_err();
        assert_eq!(error, InvalidEndpoint::Url);
    }

    #[test]
    fn a_server_is_the_directory_of_its_database() {
        let server = |url: &str| remote(json!(url)).server().map(|(server, name)| (server.name(), name));
        let expected = Some(("http://h:5984/".to_owned(), "a/b".to_owned()));
        assert_eq!(server("http://u:p@h:5984/a%2Fb/"), expected);
        assert_eq!(server("https://h/couch/db"), Some(("https://h/couch/".into(), "db".into())));
        assert_eq!((server("http://h/"), server("http://h/db?x=1")), (None, None));
    }

    /// The feed of all databases of a CouchDB below another server's path was asked for with that server's sessions.
    #[test]
    fn the_root_of_a_database_and_of_its_server_are_the_same() {
        let database = remote(json!("http://h/couch/a%2Fb/"));
        assert_eq!(database.root().as_str(), "http://h/couch/");
        assert_eq!(database.server().unwrap().0.root().as_str(), "http://h/couch/");
        for url in ["http://h/db?x=1", "http://h/db", "http://h/"] {
            assert_eq!(remote(json!(url)).root().as_str(), "http://h/", "{url}");
        }
    }

    #[test]
    fn a_query_keeps_its_end() {
        assert_eq!(remote(json!("https://h:443/d?x=1")).written.url.as_str(), "https://h:443/d?x=1");
        assert_eq!(remote(json!("https://h:443/d?x=1")).written.port, None);
        assert_eq!(remote(json!("https://h:5984")).written.port, Some(5984));
    }

    #[test]
    fn a_local_name_is_shown_as_this_servers_url() {
        let local = Endpoint::parse("source", Some(&json!("a/b"))).unwrap();
        assert_eq!(local.display("127.0.0.1:5984"), "http://127.0.0.1:5984/a%2Fb/");
        let error = Endpoint::parse("source", Some(&json!("UPPER"))).unwrap_err();
        assert_eq!(error, InvalidEndpoint::Name("UPPER".into()));
    }

    #[test]
    fn the_name_ends_in_a_slash_and_holds_no_secret() {
        for (url, name) in
            [("http://h:5984/a%2Fb#x", "http://h:5984/a%2Fb/"), ("https://h/p?key=s3cret", "https://h/p/")]
        {
            assert_eq!(remote(json!(url)).name(), name);
        }
        assert_eq!(remote(json!("https://h/p?key=s3cret")).url.as_str(), "https://h/p?key=s3cret");
    }

    /// The newline stayed in the name that is logged: what came after it looked like a line of the log.
    #[test]
    fn a_url_with_a_control_character_is_malformed() {
        for text in
            ["http://h/a\n2026-01-01T00:00:00Z  INFO forged", "http://h\t/a", "http://h/a\u{85}", "http://u\0:p@h/a"]
        {
            for value in [json!(text), json!({"url": text})] {
                assert_eq!(Endpoint::parse("source", Some(&value)).unwrap_err(), InvalidEndpoint::Url, "{text:?}");
            }
        }
    }

    /// A replication with such a header was started, and failed at every try to open its database.
    #[test]
    fn headers_that_would_break_the_message_are_refused_before_anything_runs() {
        for (name, value) in [("Content-Length", "1"), ("a b", "1"), ("X", "a\nb"), ("host", "h")] {
            let value = json!({"url": "http://h/d", "headers": {name: value}});
            let error = Endpoint::parse("source", Some(&value)).unwrap_err();
            assert_eq!(error, InvalidEndpoint::Header(name.into()));
        }
    }
}
