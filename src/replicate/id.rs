//! Replication ids: the name under which a replication runs, and under which its checkpoints stand.
//!
//! Two requests that copy the same things from the same source to the same target have the same id, here and on a
//! CouchDB with the same uuid; so either goes on where the other stopped. The base id is an MD5 over an Erlang term
//! ([`crate::term`]); what enters it is checked against ids that a CouchDB 3.5 computed
//! (`tests/data/`). Passwords don't enter; version 4 leaves schemes out, too.
//!
//! Replications run under version 4. The versions before it only serve to find checkpoints that an older CouchDB, or an
//! older id of this one, left: 3 had whole URLs, 1 and 2 the machine's name instead of the server's uuid.

use std::fmt;

use md5::{Digest, Md5};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::request::Request;
use crate::access::Caller;
use crate::endpoint::{Endpoint, Written, local_url, take_basic};
use crate::store::DbName;
use crate::term::Term;

/// Who this server is, as far as ids depend on it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The server's uuid.
    pub uuid: String,
    /// `host:port` that bare names stand for.
    pub address: String,
    /// The machine's name, without a domain: versions 1 and 2.
    pub hostname: String,
    /// The port of CouchDB's old HTTP server: version 2.
    pub httpd_port: u16,
}

impl Identity {
    /// The name of the one node that a server is, wherever CouchDB has nodes.
    pub fn node(&self) -> String {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        format!("couchrep@{host}")
    }
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
    /// document; a built-in one enters by its name.
    pub fn of(request: &Request, identity: &Identity, caller: &Caller, filter_code: Option<&str>) -> Self {
        let flags = [
            (request.continuous, "+continuous"),
            (request.create_target, "+create_target"),
            (request.retry_failures, "+retry_failures"),
        ];
        Self {
            base: base_id(NEWEST, request, identity, caller, filter_code),
            extension: flags.iter().filter(|(set, _)| *set).map(|(_, text)| *text).collect(),
        }
    }

    /// The base ids of all versions, the newest first.
    pub fn log_ids(request: &Request, identity: &Identity, caller: &Caller, filter_code: Option<&str>) -> Vec<String> {
        (1..=NEWEST).rev().map(|version| base_id(version, request, identity, caller, filter_code)).collect()
    }
}

/// The version under which replications run.
pub const NEWEST: u8 = 4;

fn base_id(version: u8, request: &Request, identity: &Identity, caller: &Caller, filter_code: Option<&str>) -> String {
    let mut base = match version {
        1 => vec![Term::charlist(&identity.hostname)],
        2 => vec![Term::charlist(&identity.hostname), Term::from(u64::from(identity.httpd_port))],
        _ => vec![Term::binary(&identity.uuid)],
    };
    base.extend([&request.source, &request.target].map(|side| endpoint(version, side, identity, caller)));
    if let Some(filter) = &request.filter {
        base.push(Term::binary(&filter_code.map_or(filter.name.clone(), trim_one_line)));
        base.push(Term::object(filter.query.iter().map(|(key, value)| (key.as_str(), Term::from(value)))));
    }
    if let Some(ids) = &request.doc_ids {
        base.push(Term::List(ids.iter().map(|id| Term::binary(id.as_str())).collect()));
    }
    if let Some(selector) = &request.selector {
        base.push(Term::from(&selector.normalised()));
    }
    if request.winning_revs_only {
        base.push(Term::binary("winning_revs_only"));
    }
    if let Some(since) = &request.since_seq {
        base.push(
            serde_json::from_str::<Value>(since.as_json())
                .map_or(Term::binary(since.as_json()), |json| Term::from(&json)),
        );
    }
    hex::encode(Md5::digest(Term::List(base).encode()))
}

/// A filter's text of one line counts without the white space around it, any other as it is.
fn trim_one_line(code: &str) -> String {
    if code.trim_end().contains('\n') { code.to_owned() } else { code.trim().to_owned() }
}

fn endpoint(version: u8, endpoint: &Endpoint, identity: &Identity, caller: &Caller) -> Term {
    let local = |name: &DbName| {
        let (user, headers) = caller_headers(caller);
        match Written::parse(&local_url(&identity.address, name.as_str())) {
            Ok((written, _)) => remote(version, user.as_deref(), &written, &headers),
            // An address that isn't one can't be listened on, either.
            Err(_) => Term::binary(name.as_str()),
        }
    };
    match endpoint {
        Endpoint::Remote(at) if let Some(name) = &at.local_name => local(name),
        Endpoint::Remote(at) => {
            let user = at.credentials.as_ref().map(|credentials| credentials.written_name.as_str());
            let headers = at.headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
            remote(version, user, &at.written, &headers.collect::<Vec<_>>())
        }
        Endpoint::Local(name) => local(name),
    }
}

/// The user and the headers of a database named without a URL: both headers are there even where the caller sent none.
///
/// Whoever has a session counts by his name, as with a password: in CouchDB his cookie enters, and each login makes another
/// replication.
fn caller_headers(caller: &Caller) -> (Option<String>, Vec<(String, String)>) {
    let authorization = caller.authorization.as_ref().map_or("", |secret| secret.expose_secret()).to_owned();
    let by_name = authorization.is_empty() && caller.name.is_some();
    let mut headers = vec![("authorization".to_owned(), authorization), ("cookie".to_owned(), String::new())];
    if by_name {
        headers.remove(0);
        return (caller.name.clone(), headers);
    }
    (take_basic(&mut headers).map(|credentials| credentials.name), headers)
}

fn remote(version: u8, user: Option<&str>, written: &Written, headers: &[(String, String)]) -> Term {
    let mut headers: Vec<_> = headers.iter().filter(|(name, value)| !sent_anyway(name, value)).collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    let pair = |(name, value): &(String, String)| Term::Tuple(vec![Term::charlist(name), Term::charlist(value)]);
    let headers = Term::List(headers.into_iter().map(pair).collect());
    if version < 4 {
        return Term::Tuple(vec![Term::Atom("remote"), Term::charlist(&written.url), headers]);
    }
    Term::Tuple(vec![
        Term::Atom("remote"),
        user.map_or(Term::Atom("undefined"), Term::charlist),
        Term::charlist(&written.host),
        written.port.map_or(Term::Atom("default"), |port| Term::from(u64::from(port))),
        Term::charlist(&written.path),
        headers,
        Term::Atom("undefined"),
    ])
}

/// Headers that every request of CouchDB's replicator carries.
fn sent_anyway(name: &str, value: &str) -> bool {
    name == "Accept" && value == "application/json"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicate::request::Command;

    const VECTORS: &str = include_str!("../../tests/data/replication-ids.json");
    const ALL_VERSIONS: &str = include_str!("../../tests/data/replication-ids-v1-v4.json");

    /// What a request and the code of its filter give.
    fn parsed(request: &Value) -> (Request, Caller, Option<String>) {
        let Command::Run(request) = Command::parse(request.as_object().unwrap()).unwrap() else { panic!("no cancel") };
        let caller = Caller { authorization: Some("Basic YWRtaW46c2VjcmV0".into()), ..Caller::default() };
        let filters = &serde_json::from_str::<Value>(VECTORS).unwrap()["fdb_design_f"]["filters"];
        let name = request.filter.as_ref().and_then(|filter| filter.name.split_once('/'));
        let code = name.map(|(_, name)| filters[name].as_str().unwrap().to_owned());
        (request, caller, code)
    }

    #[test]
    fn ids_are_those_that_a_couchdb_3_5_computed() {
        let data: Value = serde_json::from_str(VECTORS).unwrap();
        let identity = Identity {
            uuid: data["server_uuid"].as_str().unwrap().into(),
            address: data["address"].as_str().unwrap().into(),
            hostname: "any".into(),
            httpd_port: 1,
        };
        let vectors = data["vectors"].as_array().unwrap();
        for vector in vectors {
            let (request, caller, code) = parsed(&vector["request"]);
            let id = ReplicationId::of(&request, &identity, &caller, code.as_deref());
            assert_eq!(id.to_string(), vector["response"]["_local_id"].as_str().unwrap(), "{}", vector["request"]);
        }
        assert_eq!(vectors.len(), 34);
    }

    #[test]
    fn query_parameters_enter_the_id_as_what_they_are() {
        // Asked of a CouchDB 3.5.0 with this uuid.
        let identity = Identity {
            uuid: "fb47a7c5346674b9d30440e26a11af40".into(),
            address: "any".into(),
            hostname: "any".into(),
            httpd_port: 1,
        };
        for (value, id) in [
            (Value::from(7), "9185b04b07fc6edf592673cbe398c168"),
            (Value::from(true), "b34c14ccd194b6086f5278e23c4691ee"),
        ] {
            let (request, caller, _) = parsed(&serde_json::json!({
                "source": "http://h.invalid/qps",
                "target": "http://h.invalid/qpt",
                "filter": "_design",
                "query_params": {"n": value},
                "continuous": true,
            }));
            assert_eq!(ReplicationId::of(&request, &identity, &caller, None).to_string(), format!("{id}+continuous"));
        }
    }

    #[test]
    fn ids_of_all_versions_are_the_names_of_couchdbs_checkpoints() {
        let data: Value = serde_json::from_str(ALL_VERSIONS).unwrap();
        let identity = Identity {
            uuid: data["server_uuid"].as_str().unwrap().into(),
            address: "127.0.0.1:5994".into(),
            hostname: data["hostname"].as_str().unwrap().into(),
            httpd_port: 5996,
        };
        let vectors = data["vectors"].as_array().unwrap();
        for vector in vectors {
            let (request, caller, _) = parsed(&vector["request"]);
            // The code of that server's `f/q`: found by trying, since the vectors don't tell it.
            let code = request.filter.is_some().then_some("function(doc, req) { return true; }");
            let ids = ReplicationId::log_ids(&request, &identity, &caller, code);
            let looked_up = vector["ids_v4_v3_v2_v1"].as_array().unwrap();
            assert_eq!(ids[..looked_up.len()], looked_up[..], "{}", vector["request"]);
        }
        assert_eq!(vectors.len(), 5);
    }

    #[test]
    fn what_is_copied_enters_the_id() {
        let id = |fields: Value, code: Option<&str>| {
            let mut body = serde_json::json!({"source": "a", "target": "b"});
            body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let (request, caller, _) = parsed(&body);
            let identity = Identity { uuid: "u".into(), address: "h:1".into(), hostname: "h".into(), httpd_port: 1 };
            ReplicationId::of(&request, &identity, &caller, code).base
        };
        let all = [
            id(serde_json::json!({}), None),
            id(serde_json::json!({"winning_revs_only": true}), None),
            id(serde_json::json!({"since_seq": 3}), None),
            id(serde_json::json!({"since_seq": "3-x"}), None),
            id(serde_json::json!({"selector": {"a": 1}}), None),
            id(serde_json::json!({"filter": "f/q"}), Some("function() {}")),
            id(serde_json::json!({"filter": "f/q"}), Some("function() { return true; }")),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
        let with_params = serde_json::json!({"create_target_params": {"q": 1}, "use_bulk_get": false});
        assert_eq!(id(with_params, None), all[0]);
    }

    #[test]
    fn a_caller_with_a_session_counts_by_his_name_as_one_with_a_password() {
        let headers = |authorization: Option<&str>, name: Option<&str>| {
            let authorization = authorization.map(|text| text.to_owned().into());
            caller_headers(&Caller { authorization, name: name.map(Into::into), ..Caller::default() })
        };
        let by_password = headers(Some("Basic YWRtaW46c2VjcmV0"), Some("admin"));
        assert_eq!(by_password, (Some("admin".into()), vec![("cookie".into(), String::new())]));
        assert_eq!(headers(None, Some("admin")), by_password);
        let nobody = vec![("authorization".into(), String::new()), ("cookie".into(), String::new())];
        assert_eq!(headers(None, None), (None, nobody));
        let token = vec![("authorization".into(), "Bearer x".into()), ("cookie".into(), String::new())];
        assert_eq!(headers(Some("Bearer x"), Some("admin")), (None, token));
    }
}
