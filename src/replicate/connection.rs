//! The fields of a request that say how its peers are reached.
//!
//! `proxy`, or `source_proxy` and `target_proxy`; `http_connections`, `connection_timeout`, `retries_per_request` and
//! `socket_options` for both peers; `tls` in an endpoint's object. They mean nothing to databases of the embedded store.

use std::time::Duration;

use serde_json::{Map, Value};

use super::ReplicateError;
use super::endpoint::Endpoint;
use super::request::{at_most, bad, positive};
use crate::config::connection::Tls;
use crate::peer::remote::{Connection, Proxy};

/// More requests at once than this are no use to anyone.
const MAX_CONNECTIONS: usize = 10_000;
/// More tries than this end at the limit of time anyway.
const MAX_TRIES: usize = 1000;

/// Reads the fields of a request into its endpoints.
pub(super) fn read(
    body: &Map<String, Value>,
    source: &mut Endpoint,
    target: &mut Endpoint,
) -> Result<(), ReplicateError> {
    let both = proxy(body, "proxy")?;
    let options = text(body, "socket_options")?.map(str::parse).transpose();
    let shared = Connection {
        socket_options: options.map_err(|problem: &str| bad(format!("parameter `socket_options` {problem}")))?,
        http_connections: positive(body, "http_connections")?.map(|n| at_most(n, MAX_CONNECTIONS)),
        connection_timeout: positive(body, "connection_timeout")?.map(Duration::from_millis),
        retries_per_request: positive(body, "retries_per_request")?.map(|n| at_most(n, MAX_TRIES) as u32),
        ..Connection::default()
    };
    for (endpoint, key) in [(source, "source_proxy"), (target, "target_proxy")] {
        let own = proxy(body, key)?;
        if both.is_some() && own.is_some() {
            return Err(bad(format!("`proxy` is mutually exclusive with `{key}`")));
        }
        if let Endpoint::Remote(site) = endpoint {
            let tls = std::mem::take(&mut site.connection.tls);
            site.connection = Connection { proxy: own.or_else(|| both.clone()), tls, ..shared.clone() };
        }
    }
    Ok(())
}

/// Reads an endpoint's `tls`.
pub(super) fn tls(field: &str, value: Option<&Value>) -> Result<Tls, ReplicateError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Tls::default()) };
    let tls: Tls = serde_json::from_value(value.clone()).map_err(|error| bad(format!("`{field}.tls`: {error}")))?;
    match tls.problem() {
        Some(problem) => Err(bad(format!("`{field}.tls` {problem}"))),
        None => Ok(tls),
    }
}

fn proxy(body: &Map<String, Value>, key: &str) -> Result<Option<Proxy>, ReplicateError> {
    // As in CouchDB, an empty one is none. What was given stays out of the error: it may hold a password.
    let Some(url) = text(body, key)?.filter(|url| !url.is_empty()) else { return Ok(None) };
    let unusable = || bad(format!("parameter `{key}` must be the URL of an http, https or socks5 proxy"));
    Proxy::parse(url).map(Some).ok_or_else(unusable)
}

fn text<'a>(body: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, ReplicateError> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(bad(format!("parameter `{key}` must be a string"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::replicate::request::{Command, Request};

    fn parse(mut body: Value) -> Result<Request, ReplicateError> {
        let fields = body.as_object_mut().unwrap();
        fields.entry("source").or_insert(json!("http://h/a"));
        fields.insert("target".into(), json!("http://h/b"));
        match Command::parse(fields)? {
            Command::Run(request) => Ok(request),
            other => panic!("{other:?}"),
        }
    }

    fn connection(endpoint: &Endpoint) -> &Connection {
        match endpoint {
            Endpoint::Remote(site) => &site.connection,
            Endpoint::Local(name) => panic!("{name} is local"),
        }
    }

    #[test]
    fn a_proxy_is_for_both_or_each_has_its_own() {
        let both =
            parse(json!({"proxy": "http://p:1", "http_connections": "7", "socket_options": "[{nodelay,false}]"}));
        let both = both.unwrap();
        for endpoint in [&both.source, &both.target] {
            assert_eq!(connection(endpoint).proxy, Proxy::parse("http://p:1"));
            assert_eq!(connection(endpoint).http_connections, Some(7));
            assert!(!connection(endpoint).socket_options.unwrap().nodelay);
        }
        let one = parse(json!({"source_proxy": "socks5://p:1", "proxy": ""})).unwrap();
        assert_eq!(connection(&one.source).proxy, Proxy::parse("socks5://p:1"));
        assert_eq!(connection(&one.target).proxy, None);
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
            (json!({"worker_processes": "0"}), "parameter `worker_processes` must be a positive integer"),
            (json!({"worker_batch_size": 0}), "parameter `worker_batch_size` must be a positive integer"),
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
            (auth(json!({"bearer": "x", "iam": {}})), "`source.auth` must have one member only"),
            (
                auth(json!({"digest": {}})),
                "`source.auth.digest` is not known: there are basic, oauth, bearer, iam and oauth2",
            ),
        ] {
            match parse(body) {
                Err(ReplicateError::BadRequest(found)) => assert_eq!(found, reason),
                other => panic!("{reason}: {other:?}"),
            }
        }
    }
}
