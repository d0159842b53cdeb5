//! How a peer is reached, as far as a request says.
//!
//! `proxy`, or `source_proxy` and `target_proxy`; `http_connections`, `connection_timeout`, `retries_per_request` and
//! `socket_options` for both peers; `tls` in an endpoint's object. They mean nothing to databases of this server.
//!
//! What it doesn't say is the server's setting. The values were checked here, so that a replication doesn't start with
//! one that makes no sense; certificate files are looked at when the peer is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use url::Url;

use crate::config;
use crate::config::connection::{SocketOptions, Tls};
use crate::json::fields::{BadField, at_most, positive, text};
use crate::policy::Destination;

/// How a peer is reached.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// Through which proxy.
    pub proxy: Option<Proxy>,
    /// With what certificates.
    pub tls: Tls,
    /// With what sockets.
    pub socket_options: Option<SocketOptions>,
    /// Requests under way at once.
    pub http_connections: Option<usize>,
    /// To connect, and between two pieces of an answer.
    pub connection_timeout: Option<Duration>,
    /// Tries of a request, the first included.
    pub retries_per_request: Option<u32>,
}

impl Connection {
    /// The server's settings, with this peer's own limits.
    pub fn settings(&self, server: Arc<config::Replicator>) -> Arc<config::Replicator> {
        if self.connection_timeout.is_none() && self.retries_per_request.is_none() {
            return server;
        }
        Arc::new(config::Replicator {
            connection_timeout: self.connection_timeout.unwrap_or(server.connection_timeout),
            retries_per_request: self.retries_per_request.unwrap_or(server.retries_per_request),
            ..(*server).clone()
        })
    }

    /// The same for peers that are reached in the same way; `None` for the server's own way.
    pub fn way(&self) -> Option<String> {
        let Self { proxy, tls, socket_options: _, http_connections: _, connection_timeout, retries_per_request } = self;
        let own = (proxy, tls, connection_timeout, retries_per_request);
        let is_own =
            proxy.is_some() || *tls != Tls::default() || connection_timeout.is_some() || retries_per_request.is_some();
        is_own.then(|| format!("{own:?}"))
    }
}

/// More requests at once than this are no use to anyone.
const MAX_CONNECTIONS: usize = 10_000;
/// More tries than this end at the limit of time anyway.
const MAX_TRIES: usize = 1000;

/// Reads how a request's source and target are reached.
pub(super) fn read(body: &Map<String, Value>) -> Result<(Connection, Connection), BadField> {
    let both = proxy(body, "proxy")?;
    let options = text(body, "socket_options")?.map(str::parse).transpose();
    let shared = Connection {
        socket_options: options.map_err(|problem: &str| BadField(format!("parameter `socket_options` {problem}")))?,
        http_connections: positive(body, "http_connections")?.map(|n| at_most(n, MAX_CONNECTIONS)),
        connection_timeout: positive(body, "connection_timeout")?.map(Duration::from_millis),
        retries_per_request: positive(body, "retries_per_request")?.map(|n| at_most(n, MAX_TRIES) as u32),
        ..Connection::default()
    };
    let through = |key: &str| {
        let own = proxy(body, key)?;
        if both.is_some() && own.is_some() {
            return Err(BadField(format!("`proxy` is mutually exclusive with `{key}`")));
        }
        Ok(Connection { proxy: own.or_else(|| both.clone()), ..shared.clone() })
    };
    Ok((through("source_proxy")?, through("target_proxy")?))
}

/// Reads an endpoint's `tls`.
pub(super) fn tls(field: &str, value: Option<&Value>) -> Result<Tls, BadField> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Tls::default()) };
    let tls: Tls =
        serde_json::from_value(value.clone()).map_err(|error| BadField(format!("`{field}.tls`: {error}")))?;
    match tls.problem() {
        Some(problem) => Err(BadField(format!("`{field}.tls` {problem}"))),
        None => Ok(tls),
    }
}

fn proxy(body: &Map<String, Value>, key: &str) -> Result<Option<Proxy>, BadField> {
    // As in CouchDB, an empty one is none. What was given stays out of the error: it may hold a password.
    let Some(url) = text(body, key)?.filter(|url| !url.is_empty()) else { return Ok(None) };
    let unusable = || BadField(format!("parameter `{key}` must be the URL of an http, https or socks5 proxy"));
    Proxy::parse(url).map(Some).ok_or_else(unusable)
}

/// The URL of a proxy; may hold a name and a password, which `Debug` leaves out.
#[derive(Clone)]
pub struct Proxy {
    url: SecretString,
    destination: Destination,
}

impl Proxy {
    /// Reads the URL of an http, https or socks5 proxy; `None` if it isn't one.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let known = matches!(url.scheme(), "http" | "https" | "socks5");
        let usable = known && url.host_str().is_some_and(|host| !host.is_empty()) && reqwest::Proxy::all(text).is_ok();
        usable.then(|| Self { url: text.into(), destination: Destination::of(&url) })
    }

    /// Its URL without credentials.
    pub fn shown(&self) -> String {
        let Ok(mut url) = Url::parse(self.url.expose_secret()) else { return String::new() };
        let cleared = url.set_username("").and(url.set_password(None));
        cleared.map(|()| url.to_string().trim_end_matches('/').to_owned()).unwrap_or_default()
    }

    /// The server that it is.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The proxy as the HTTP client takes it.
    pub fn for_client(&self) -> reqwest::Result<reqwest::Proxy> {
        reqwest::Proxy::all(self.url.expose_secret())
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        self.url.expose_secret() == other.url.expose_secret()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(self.url.expose_secret()).ok();
        let place = url.as_ref().map(|url| (url.scheme(), url.host_str().unwrap_or_default(), url.port()));
        f.debug_tuple("Proxy").field(&place).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::endpoint::{Endpoint, InvalidEndpoint};

    #[test]
    fn proxies_are_http_https_or_socks5_and_print_no_password() {
        for url in ["http://u:s3cret@h:3128", "https://h", "socks5://u:s3cret@h:1080"] {
            let proxy = Proxy::parse(url).unwrap();
            assert!(!format!("{proxy:?} {}", proxy.shown()).contains("s3cret"));
            assert_eq!(proxy.shown(), url.replace("u:s3cret@", ""));
        }
        for url in ["", "h:3128", "ftp://h", "socks4://h", "http://"] {
            assert!(Proxy::parse(url).is_none(), "{url}");
        }
    }

    fn parse(mut body: Value) -> Result<(Endpoint, Endpoint), InvalidEndpoint> {
        let fields = body.as_object_mut().unwrap();
        fields.entry("source").or_insert(json!("http://h/a"));
        fields.insert("target".into(), json!("http://h/b"));
        Endpoint::both(fields)
    }

    fn connection(endpoint: &Endpoint) -> &Connection {
        match endpoint {
            Endpoint::Remote(remote) => &remote.connection,
            Endpoint::Local(name) => panic!("{name} is local"),
        }
    }

    #[test]
    fn a_proxy_is_for_both_or_each_has_its_own() {
        let both =
            parse(json!({"proxy": "http://p:1", "http_connections": "7", "socket_options": "[{nodelay,false}]"}));
        let (source, target) = both.unwrap();
        for endpoint in [&source, &target] {
            assert_eq!(connection(endpoint).proxy, Proxy::parse("http://p:1"));
            assert_eq!(connection(endpoint).http_connections, Some(7));
            assert!(!connection(endpoint).socket_options.unwrap().nodelay);
        }
        let (source, target) = parse(json!({"source_proxy": "socks5://p:1", "proxy": ""})).unwrap();
        assert_eq!(connection(&source).proxy, Proxy::parse("socks5://p:1"));
        assert_eq!(connection(&target).proxy, None);
    }

    #[test]
    fn what_makes_no_sense_is_named_and_no_password_told() {
        let tls = |tls: Value| json!({"source": {"url": "https://h/a", "tls": tls}});
        let auth = |auth: Value| json!({"source": {"url": "https://h/a", "auth": auth}});
        for (body, reason) in [
            (
                json!({"proxy": "http://p", "source_proxy": "http://q"}),
                "`proxy` is mutually exclusive with `source_proxy`",
            ),
            (
                json!({"proxy": "http://p", "target_proxy": "http://q"}),
                "`proxy` is mutually exclusive with `target_proxy`",
            ),
            (
                json!({"proxy": "ftp://u:s3cret@p"}),
                "parameter `proxy` must be the URL of an http, https or socks5 proxy",
            ),
            (json!({"proxy": 1}), "parameter `proxy` must be a string"),
            (json!({"http_connections": 0}), "parameter `http_connections` must be a positive integer"),
            (json!({"connection_timeout": "-1"}), "parameter `connection_timeout` must be a positive integer"),
            (json!({"retries_per_request": 1.5}), "parameter `retries_per_request` must be a positive integer"),
            (
                json!({"socket_options": "[{reuseaddr, true}]"}),
                "parameter `socket_options` may have keepalive, nodelay, sndbuf and recbuf only",
            ),
            (tls(json!({"key_file": "k"})), "`source.tls` has a `key_file` without a `cert_file`"),
            (
                auth(json!({"oauth": {"consumer_key": "k"}})),
                "`source.auth.oauth` has a missing field `consumer_secret`",
            ),
            (auth(json!({"bearer": "a\ns3cret"})), "`source.auth.bearer` must be a token"),
            (auth(json!({"iam": {"api_key": ["s3cret"]}})), "`source.auth.iam` must be an object of strings"),
            (
                auth(json!({"iam": {"api_key": "s3cret", "token_url": "file:///x"}})),
                "`source.auth.iam.token_url` must be an http or https URL without credentials",
            ),
            (auth(json!({"secret": "s3cret!"})), "`source.auth.secret` must be the name of a secret"),
            (auth(json!({"secret": "x", "bearer": "s3cret"})), "`source.auth` must have one member only"),
            (auth(json!({"bearer": "x", "iam": {}})), "`source.auth` must have one member only"),
            (
                auth(json!({"digest": {}})),
                "`source.auth.digest` is not known: there are basic, secret, oauth, bearer, iam and oauth2",
            ),
        ] {
            match parse(body) {
                Err(InvalidEndpoint::Field(found)) => assert_eq!(found.0, reason),
                other => panic!("{reason}: {other:?}"),
            }
        }
    }
}
