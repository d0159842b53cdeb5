//! What a caller asks for: the object sent to `POST /_replicate`.
//!
//! Fields and answers to bad ones are CouchDB's, with one kind of exception: what is wrong in the request
//! itself is a 400 that names the field. Unknown keys are ignored, as CouchDB does,
//! and told to whoever asked. Nothing is looked up.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::ReplicateError;
use crate::access::Caller;
use crate::config::secrets::DeclaredSecrets;
use crate::document::{DocId, Seq};
use crate::endpoint::{Endpoint, InvalidEndpoint, SecretRefused};
use crate::json::fields::{at_most, boolean, positive};
use crate::peer::Filter;
use crate::selector::Selector;

/// What a caller wants.
#[derive(Debug, Clone)]
pub enum Command {
    /// Replicate.
    Run(Request),
    /// Cancel what this request started.
    Cancel(Request),
    /// Cancel the replication of this id.
    CancelId(String),
}

/// A replication that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// From where.
    pub source: Endpoint,
    /// To where.
    pub target: Endpoint,
    /// Go on for ever.
    pub continuous: bool,
    /// Copy what failed before under the same base id, and nothing else; never continuous.
    pub retry_failures: bool,
    /// Make the target if it isn't there.
    pub create_target: bool,
    /// A continuous one is to become a document, and so to survive a restart.
    pub keep: bool,
    /// Only these documents: decoded, sorted, each once.
    pub doc_ids: Option<Vec<DocId>>,
    /// Only what the source's filter lets through.
    pub filter: Option<NamedFilter>,
    /// Only the leaves that it lets through.
    pub selector: Option<Selector>,
    /// Winners alone, no other leaves.
    pub winning_revs_only: bool,
    /// Where to begin when there is no checkpoint.
    pub since_seq: Option<Seq>,
    /// Query parameters of the `PUT` that makes the target.
    pub create_target_params: Vec<(String, String)>,
    /// Whether documents are fetched in bulk.
    pub use_bulk_get: bool,
    /// Whether logs are read and written.
    pub use_checkpoints: bool,
    /// From progress to its checkpoint; `None`: the server's default.
    pub checkpoint_interval: Option<Duration>,
    /// Rows of the feed that make a batch; `None`: the server's default.
    pub worker_batch_size: Option<usize>,
    /// Batches in flight; `None`: the server's default.
    pub worker_processes: Option<usize>,
}

/// A filter on the source.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedFilter {
    /// `ddoc/name`, `_design` or `_view`.
    pub name: String,
    /// Its query parameters, in the order in which they came: strings, numbers, booleans or null, as which they enter the id.
    pub query: Vec<(String, Value)>,
}

impl NamedFilter {
    /// Its query parameters as they are sent.
    pub fn query_text(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.query.iter().map(|(key, value)| (key.clone(), text(value))).collect()
    }

    /// Whether it is a function of a design document at the source.
    pub fn has_code(&self) -> bool {
        self.name.contains('/')
    }
}

/// Every field that is read, here or in [`crate::endpoint`].
pub const FIELDS: [&str; 29] = [
    "keep",
    "source",
    "target",
    "continuous",
    "retry_failures",
    "create_target",
    "create_target_params",
    "cancel",
    "id",
    "_local_id",
    "replication_id",
    "doc_ids",
    "filter",
    "query_params",
    "selector",
    "winning_revs_only",
    "since_seq",
    "use_bulk_get",
    "use_checkpoints",
    "checkpoint_interval",
    "worker_batch_size",
    "worker_processes",
    "http_connections",
    "connection_timeout",
    "retries_per_request",
    "socket_options",
    "proxy",
    "source_proxy",
    "target_proxy",
];

/// The fields that mean nothing, misspelt ones perhaps. They are ignored, as CouchDB does, but not in silence.
pub fn unknown_fields(body: &Map<String, Value>) -> Vec<&str> {
    body.keys().map(String::as_str).filter(|key| !FIELDS.contains(key)).collect()
}

/// Tells why a document of a replicator database describes no replication, in CouchDB's words where it has readable ones.
///
/// Local names are allowed, which CouchDB 3 has none of. `cancel` means nothing: a replication is cancelled by deleting its document.
pub fn check_document(body: &Map<String, Value>) -> Result<(), String> {
    Request::of_document(body).map(drop).map_err(|error| match error {
        ReplicateError::MissingDatabase(_) => "Missing replicator database".to_owned(),
        ReplicateError::DatabaseNotFound(name) => InvalidEndpoint::Name(name).to_string(),
        error => error.to_string(),
    })
}

/// More rows than this in one batch are no use to anyone, and cost memory.
const MAX_BATCH_SIZE: usize = 10_000;
/// More batches in flight than this are no use to anyone.
const MAX_BATCHES: usize = 100;

impl Command {
    /// Reads a request.
    pub fn parse(body: &Map<String, Value>) -> Result<Self, ReplicateError> {
        let cancel = boolean(body, "cancel", false)?;
        let id = ["replication_id", "_local_id", "id"].iter().find_map(|key| body.get(*key));
        match id {
            Some(Value::String(id)) if cancel => Ok(Self::CancelId(id.clone())),
            Some(_) if cancel => Err(bad("parameter `replication_id` must be a string")),
            _ if cancel => Ok(Self::Cancel(Request::parse(body)?)),
            _ => Ok(Self::Run(Request::parse(body)?)),
        }
    }
}

impl Request {
    /// The documents to fetch by id, without reading the feed; `None` if the feed's own words are needed: which leaf
    /// wins, what comes after a seq, what is yet to come.
    pub fn fetched_directly(&self) -> Option<&[DocId]> {
        let by_feed = self.continuous || self.winning_revs_only || self.since_seq.is_some();
        self.doc_ids.as_deref().filter(|_| !by_feed)
    }

    /// What the source's feed is to let through.
    pub fn feed_filter(&self) -> Filter {
        match (&self.filter, &self.doc_ids, &self.selector) {
            (Some(filter), ..) => Filter::Named { name: filter.name.clone(), query: filter.query_text() },
            (None, Some(ids), _) => Filter::DocIds(ids.clone()),
            (None, None, Some(selector)) => Filter::Selector(selector.clone()),
            (None, None, None) => Filter::None,
        }
    }

    /// The request as it is run for a caller: with the secrets that it names.
    pub fn with_secrets(
        self: Arc<Self>,
        declared: &DeclaredSecrets,
        caller: &Caller,
    ) -> Result<Arc<Self>, SecretRefused> {
        if !self.source.names_secret() && !self.target.names_secret() {
            return Ok(self);
        }
        let with_secret = |endpoint: &Endpoint| endpoint.with_secret(declared, caller);
        let (source, target) = (with_secret(&self.source)?, with_secret(&self.target)?);
        Ok(Arc::new(Self { source, target, ..Self::clone(&self) }))
    }

    /// Reads a document of a replicator database.
    pub fn of_document(body: &Map<String, Value>) -> Result<Self, ReplicateError> {
        boolean(body, "cancel", false)?;
        Self::parse(body)
    }

    fn parse(body: &Map<String, Value>) -> Result<Self, ReplicateError> {
        let kinds = ["doc_ids", "filter", "selector"];
        if kinds.iter().filter(|kind| body.get(**kind).is_some_and(|value| !value.is_null())).count() > 1 {
            return Err(bad("`doc_ids`,`filter`,`selector` are mutually exclusive"));
        }
        let (source, target) = Endpoint::both(body)?;
        let retry_failures = boolean(body, "retry_failures", false)?;
        Ok(Self {
            source,
            target,
            continuous: boolean(body, "continuous", false)? && !retry_failures,
            retry_failures,
            create_target: boolean(body, "create_target", false)?,
            keep: boolean(body, "keep", false)?,
            doc_ids: doc_ids(body.get("doc_ids"))?,
            filter: filter(body)?,
            selector: selector(body.get("selector"))?,
            winning_revs_only: boolean(body, "winning_revs_only", false)?,
            since_seq: since_seq(body.get("since_seq"))?,
            create_target_params: create_target_params(body.get("create_target_params"))?,
            use_bulk_get: boolean(body, "use_bulk_get", true)?,
            use_checkpoints: boolean(body, "use_checkpoints", true)?,
            checkpoint_interval: positive(body, "checkpoint_interval")?.map(Duration::from_millis),
            worker_batch_size: positive(body, "worker_batch_size")?.map(|n| at_most(n, MAX_BATCH_SIZE)),
            worker_processes: positive(body, "worker_processes")?.map(|n| at_most(n, MAX_BATCHES)),
        })
    }
}

fn bad(reason: impl Into<String>) -> ReplicateError {
    ReplicateError::BadRequest(reason.into())
}

fn doc_ids(value: Option<&Value>) -> Result<Option<Vec<DocId>>, ReplicateError> {
    let items = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(bad("parameter `doc_ids` must be an array")),
    };
    let decoded = |item: &Value| Some(DocId::from(percent_decode_str(item.as_str()?).decode_utf8().ok()?.into_owned()));
    let ids: Option<Vec<DocId>> = items.iter().map(decoded).collect();
    let mut ids = ids.ok_or_else(|| bad("parameter `doc_ids` must be an array of strings"))?;
    ids.sort();
    ids.dedup();
    Ok(Some(ids))
}

fn selector(value: Option<&Value>) -> Result<Option<Selector>, ReplicateError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value @ Value::Object(_)) => {
            Selector::parse(value).map(Some).map_err(|error| bad(format!("parameter `selector`: {error}")))
        }
        Some(_) => Err(bad("parameter `selector` must be a JSON object")),
    }
}

/// A place in a feed as feeds tell it: a number or a string, on old clusters an array.
fn since_seq(value: Option<&Value>) -> Result<Option<Seq>, ReplicateError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value @ (Value::Number(_) | Value::String(_) | Value::Array(_))) => {
            serde_json::from_str(&value.to_string()).map(Some).map_err(|_| bad("parameter `since_seq` can't be read"))
        }
        Some(_) => Err(bad("parameter `since_seq` must be a number, a string or an array")),
    }
}

fn create_target_params(value: Option<&Value>) -> Result<Vec<(String, String)>, ReplicateError> {
    let members = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(bad("parameter `create_target_params` must be a JSON object")),
    };
    let param = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        Value::Number(_) | Value::Bool(_) => Ok((key.clone(), value.to_string())),
        _ => Err(bad(format!("parameter `create_target_params.{key}` must be a string, a number or a boolean"))),
    };
    members.iter().map(param).collect()
}

fn filter(body: &Map<String, Value>) -> Result<Option<NamedFilter>, ReplicateError> {
    let query = match body.get("query_params") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(members)) => members
            .iter()
            .map(|(key, value)| match value {
                // Of these CouchDB sends Erlang's own notation.
                Value::Array(_) | Value::Object(_) => Err(bad(format!("{key} value must be a string."))),
                value => Ok((key.clone(), value.clone())),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(bad("parameter `query_params` must be an object")),
    };
    let name = match body.get("filter") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) => name.clone(),
        Some(_) => return Err(bad("parameter `filter` must be a string")),
    };
    let two_parts =
        |text: &str| text.split_once('/').is_some_and(|(left, right)| !left.is_empty() && !right.is_empty());
    match name.as_str() {
        "_design" => {}
        "_view" if query.iter().any(|(key, view)| key == "view" && view.as_str().is_some_and(two_parts)) => {}
        "_view" => return Err(bad("Invalid `view` parameter.")),
        name if two_parts(name) => {}
        _ => return Err(bad("Invalid filter. Must match `ddocname/filtername`.")),
    }
    Ok(Some(NamedFilter { name, query }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The request with `source` and `target` added, parsed.
    fn parse(mut fields: Value) -> Result<Request, ReplicateError> {
        let body = fields.as_object_mut().unwrap();
        body.insert("source".into(), json!("a"));
        body.insert("target".into(), json!("http://h/b"));
        match Command::parse(body)? {
            Command::Run(request) => Ok(request),
            other => panic!("{other:?}"),
        }
    }

    fn reason(fields: Value) -> String {
        match parse(fields) {
            Err(ReplicateError::BadRequest(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bad_fields_are_named_in_couchdbs_words() {
        assert_eq!(reason(json!({"continuous": "yes"})), "parameter `continuous` must be a boolean");
        assert_eq!(reason(json!({"cancel": 1})), "parameter `cancel` must be a boolean");
        assert_eq!(reason(json!({"doc_ids": "a"})), "parameter `doc_ids` must be an array");
        assert_eq!(reason(json!({"doc_ids": [1]})), "parameter `doc_ids` must be an array of strings");
        assert_eq!(reason(json!({"query_params": []})), "parameter `query_params` must be an object");
        assert_eq!(reason(json!({"query_params": {"a": [1]}})), "a value must be a string.");
        assert_eq!(reason(json!({"filter": "x"})), "Invalid filter. Must match `ddocname/filtername`.");
        assert_eq!(reason(json!({"filter": "_view"})), "Invalid `view` parameter.");
        assert_eq!(parse(json!({"worker_processes": 3.0})).unwrap().worker_processes, Some(3));
        assert_eq!(reason(json!({"worker_processes": 0})), "parameter `worker_processes` must be a positive integer");
        let exclusive = "`doc_ids`,`filter`,`selector` are mutually exclusive";
        assert_eq!(reason(json!({"doc_ids": [], "filter": "a/b"})), exclusive);
        assert_eq!(reason(json!({"selector": {}, "filter": "a/b"})), exclusive);
        assert_eq!(reason(json!({"selector": [1]})), "parameter `selector` must be a JSON object");
        assert_eq!(reason(json!({"selector": {"a": {"$no": 1}}})), "parameter `selector`: invalid operator: $no");
        assert_eq!(
            reason(json!({"create_target_params": 1})),
            "parameter `create_target_params` must be a JSON object"
        );
        assert_eq!(
            reason(json!({"create_target_params": {"q": []}})),
            "parameter `create_target_params.q` must be a string, a number or a boolean"
        );
        assert_eq!(reason(json!({"winning_revs_only": 1})), "parameter `winning_revs_only` must be a boolean");
        assert_eq!(reason(json!({"use_bulk_get": "no"})), "parameter `use_bulk_get` must be a boolean");
        assert_eq!(reason(json!({"since_seq": {}})), "parameter `since_seq` must be a number, a string or an array");
    }

    #[test]
    fn numbers_may_be_strings_and_unknown_keys_are_ignored() {
        let request = parse(json!({"worker_batch_size": "7", "checkpoint_interval": 250, "bogus": 1})).unwrap();
        assert_eq!(request.worker_batch_size, Some(7));
        assert_eq!(request.checkpoint_interval, Some(Duration::from_millis(250)));
    }

    #[test]
    fn doc_ids_are_decoded_sorted_and_unique_and_null_means_absent() {
        let request = parse(json!({"doc_ids": ["b", "a%2Fb", "b"]})).unwrap();
        assert_eq!(request.doc_ids, Some(vec![DocId::from("a/b"), DocId::from("b")]));
        assert_eq!(parse(json!({"doc_ids": null})).unwrap().doc_ids, None);
    }

    #[test]
    fn a_missing_database_is_said_by_field() {
        let body = json!({"source": "a"});
        let error = Command::parse(body.as_object().unwrap()).unwrap_err();
        assert!(matches!(error, ReplicateError::MissingDatabase("target")));
    }

    #[test]
    fn cancel_takes_an_id_under_any_of_its_names_or_the_request() {
        for key in ["id", "_local_id", "replication_id"] {
            let body = json!({"cancel": true, key: "x"});
            let command = Command::parse(body.as_object().unwrap()).unwrap();
            assert!(matches!(command, Command::CancelId(id) if id == "x"));
        }
        let body = json!({"cancel": true, "source": "a", "target": "b"});
        assert!(matches!(Command::parse(body.as_object().unwrap()).unwrap(), Command::Cancel(_)));
    }
}
