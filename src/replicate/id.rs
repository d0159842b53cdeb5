//! Replication ids of version 4: the name under which a replication runs, and under which its checkpoints stand.
//!
//! Two requests that copy the same things from the same source to the same target have the same id, here and on a
//! CouchDB with the same uuid; so either goes on where the other stopped. The base id is an MD5 over an Erlang term
//! ([`super::term`]); what enters it stands in FACTS 4 and is checked against ids that a CouchDB 3.5 computed
//! (`tests/data/replication-ids.json`). Passwords and schemes don't enter.

use std::fmt;

use md5::{Digest, Md5};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::endpoint::{Credentials, Endpoint, Site, local_url, take_basic};
use super::request::Request;
use crate::term::Term;

/// Who this server is, as far as ids depend on it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The server's uuid.
    pub uuid: String,
    /// `host:port` that the server listens on.
    pub address: String,
}

/// A caller's own headers: they count as headers of the databases that a request names without a URL.
#[derive(Debug, Clone, Default)]
pub struct CallerHeaders {
    /// `Authorization`.
    pub authorization: Option<SecretString>,
    /// `Cookie`.
    pub cookie: Option<SecretString>,
}

/// A replication's id: `e823dc9cda5124763d5a52722ff9efbe+continuous`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplicationId {
    /// 32 hexadecimal digits: the id of the checkpoint documents.
    pub base: String,
    /// `+continuous`, `+create_target`, `+retry_failures`, several or nothing.
    pub extension: String,
}

impl fmt::Display for ReplicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.base, self.extension)
    }
}

impl ReplicationId {
    /// Computes a request's id. `filter_code` is the filter function's text on the source, for a filter of a design
    /// document; without it the filter's name enters instead, so that the id is stable, though not CouchDB's.
    pub fn of(request: &Request, identity: &Identity, caller: &CallerHeaders, filter_code: Option<&str>) -> Self {
        let mut base = vec![
            Term::binary(&identity.uuid),
            endpoint(&request.source, identity, caller),
            endpoint(&request.target, identity, caller),
        ];
        if let Some(filter) = &request.filter {
            base.push(Term::binary(&filter_code.map_or(filter.name.clone(), trim_one_line)));
            base.push(Term::object(filter.query.iter().map(|(key, value)| (key.as_str(), Term::binary(value)))));
        }
        if let Some(ids) = &request.doc_ids {
            base.push(Term::List(ids.iter().map(|id| Term::binary(id.as_str())).collect()));
        }
        let flags = [
            (request.continuous, "+continuous"),
            (request.create_target, "+create_target"),
            (request.retry_failures, "+retry_failures"),
        ];
        Self {
            base: hex::encode(Md5::digest(Term::List(base).encode())),
            extension: flags.iter().filter(|(set, _)| *set).map(|(_, text)| *text).collect(),
        }
    }
}

/// A filter's text of one line counts without the white space around it, any other as it is.
fn trim_one_line(code: &str) -> String {
    if code.trim_end().contains('\n') { code.to_owned() } else { code.trim().to_owned() }
}

fn endpoint(endpoint: &Endpoint, identity: &Identity, caller: &CallerHeaders) -> Term {
    match endpoint {
        Endpoint::Remote(site) => {
            let user = site.credentials.as_ref().map(|credentials| credentials.written_name.as_str());
            remote(user, site, &site.headers)
        }
        Endpoint::Local(name) => {
            let (credentials, headers) = caller_headers(caller);
            match Site::parse(&local_url(&identity.address, name.as_str()), Vec::new(), None) {
                Ok(site) => remote(credentials.as_ref().map(|c| c.name.as_str()), &site, &headers),
                // An address that isn't one can't be listened on, either.
                Err(_) => Term::binary(name.as_str()),
            }
        }
    }
}

/// The headers of a database named without a URL: both are there even where the caller sent none.
fn caller_headers(caller: &CallerHeaders) -> (Option<Credentials>, Vec<(String, String)>) {
    let text = |secret: &Option<SecretString>| secret.as_ref().map_or("", |s| s.expose_secret()).to_owned();
    let cookie = text(&caller.cookie);
    let session = cookie.split(';').map(str::trim).find(|pair| pair.starts_with("AuthSession=")).unwrap_or_default();
    let mut headers =
        vec![("authorization".to_owned(), text(&caller.authorization)), ("cookie".to_owned(), session.to_owned())];
    (take_basic(&mut headers), headers)
}

fn remote(user: Option<&str>, site: &Site, headers: &[(String, String)]) -> Term {
    let mut headers: Vec<_> = headers.iter().filter(|(name, value)| !sent_anyway(name, value)).collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    let pair = |(name, value): &(String, String)| Term::Tuple(vec![Term::charlist(name), Term::charlist(value)]);
    Term::Tuple(vec![
        Term::Atom("remote"),
        user.map_or(Term::Atom("undefined"), Term::charlist),
        Term::charlist(&site.host),
        site.port.map_or(Term::Atom("default"), |port| Term::from(u64::from(port))),
        Term::charlist(&site.path),
        Term::List(headers.into_iter().map(pair).collect()),
        Term::Atom("undefined"),
    ])
}

/// Headers that every request of CouchDB's replicator carries.
fn sent_anyway(name: &str, value: &str) -> bool {
    name == "Accept" && value == "application/json"
}

/// A JSON text's filter function: `filters.{name}` of a design document.
pub fn filter_code<'a>(design: &'a Value, name: &str) -> Option<&'a str> {
    design.get("filters")?.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicate::request::Command;

    fn computed(request: &Value, identity: &Identity, design: Option<&Value>) -> ReplicationId {
        let Command::Run(request) = Command::parse(request.as_object().unwrap()).unwrap() else { panic!("no cancel") };
        let caller = CallerHeaders { authorization: Some("Basic YWRtaW46c2VjcmV0".into()), cookie: None };
        let code = request
            .filter
            .as_ref()
            .and_then(|f| f.name.split_once('/'))
            .and_then(|(_, name)| filter_code(design?, name));
        ReplicationId::of(&request, identity, &caller, code)
    }

    #[test]
    fn ids_are_those_that_a_couchdb_3_5_computed() {
        let text = include_str!("../../tests/data/replication-ids.json");
        let data: Value = serde_json::from_str(text).unwrap();
        let identity = Identity {
            uuid: data["server_uuid"].as_str().unwrap().into(),
            address: data["address"].as_str().unwrap().into(),
        };
        let later = ["selector", "winning_revs_only", "since_seq"];
        let mut checked = 0;
        for vector in data["vectors"].as_array().unwrap() {
            let Some(expected) = vector["response"]["_local_id"].as_str() else { continue };
            if later.iter().any(|field| vector["request"].get(*field).is_some()) {
                continue;
            }
            let id = computed(&vector["request"], &identity, Some(&data["fdb_design_f"]));
            assert_eq!(id.to_string(), expected, "{}", vector["request"]);
            checked += 1;
        }
        assert!(checked > 25, "only {checked} vectors apply");
    }

    #[test]
    fn base_ids_are_the_names_of_couchdbs_checkpoints() {
        let text = include_str!("../../tests/data/replication-ids-v1-v4.json");
        let data: Value = serde_json::from_str(text).unwrap();
        let identity =
            Identity { uuid: data["server_uuid"].as_str().unwrap().into(), address: "127.0.0.1:5994".into() };
        for vector in data["vectors"].as_array().unwrap() {
            // The code behind `f/q` isn't in this file.
            if vector["request"].get("filter").is_some() {
                continue;
            }
            let id = computed(&vector["request"], &identity, None);
            assert_eq!(id.base, vector["ids_v4_v3_v2_v1"][0].as_str().unwrap(), "{}", vector["request"]);
        }
    }

    #[test]
    fn a_callers_session_enters_and_other_cookies_do_not() {
        let with = |cookie: &str| CallerHeaders { authorization: None, cookie: Some(cookie.into()) };
        let (_, headers) = caller_headers(&with("a=b; AuthSession=xyz; c=d"));
        assert_eq!(headers[1].1, "AuthSession=xyz");
        let (_, headers) = caller_headers(&with("a=b"));
        assert_eq!(headers, [("authorization".into(), String::new()), ("cookie".into(), String::new())]);
    }
}
