//! What a document of a replicator database describes.
//!
//! The fields are those of `POST /_replicate`, besides `owner`, `paused`, and those that begin with `_replication_`, which the
//! replicator writes. Everything else means nothing: a document whose comment was changed describes the same as before.

use std::collections::BTreeMap;
use std::sync::Arc;

use md5::{Digest as _, Md5};
use serde_json::{Map, Value};

use crate::replicate::ReplicateError;
use crate::replicate::request::{FIELDS, Request};

/// What a document describes.
#[derive(Debug, Clone)]
pub struct Description {
    /// What is to be done.
    pub request: Arc<Request>,
    /// Whose rights it has.
    pub owner: Option<String>,
    /// Not for now.
    pub paused: bool,
    /// It says in which state its replication is, or was.
    pub stated: bool,
    /// It says that another one describes the same.
    pub was_duplicate: bool,
    /// The same for documents that describe the same; `paused` doesn't count.
    pub fingerprint: Fingerprint,
}

/// A hash over all that counts.
pub type Fingerprint = [u8; 16];

/// What was written into a document before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stated {
    /// It is to run, or runs.
    Live,
    /// It came to its end: nothing is to be done.
    Completed,
    /// No job can be made of it.
    Failed,
    /// Another document had the same replication id.
    Duplicate,
}

/// The words by which a duplicate is known, CouchDB's.
const ALREADY_STARTED: &str = "already started, triggered by document";

/// Why a document has no job: CouchDB's words.
pub fn duplicate_reason(id: &str, document: &str, (other, database): (&str, &str)) -> String {
    format!("Replication `{id}` specified by document `{document}` {ALREADY_STARTED} `{other}` from db `{database}`")
}

impl Description {
    /// Reads a document's body.
    pub fn parse(body: &Map<String, Value>) -> Result<Self, ReplicateError> {
        let request = Request::of_document(body)?;
        let owner = body.get("owner").and_then(Value::as_str).map(str::to_owned);
        let paused = body.get("paused") == Some(&Value::Bool(true));
        let stated = body.contains_key("_replication_state");
        let was_duplicate = Stated::of(body) == Stated::Duplicate;
        let counts = |name: &&String| name.as_str() == "owner" || FIELDS.contains(&name.as_str());
        let counting: BTreeMap<_, _> = body.iter().filter(|(name, _)| counts(name)).collect();
        let text = serde_json::to_string(&counting).unwrap_or_default();
        Ok(Self {
            request: Arc::new(request),
            owner,
            paused,
            stated,
            was_duplicate,
            fingerprint: Md5::digest(text).into(),
        })
    }
}

impl Stated {
    /// What a document's body says.
    pub fn of(body: &Map<String, Value>) -> Self {
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("_replication_state") {
            "completed" => Self::Completed,
            "failed" if text("_replication_state_reason").contains(ALREADY_STARTED) => Self::Duplicate,
            "failed" => Self::Failed,
            _ => Self::Live,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: Value) -> Description {
        Description::parse(body.as_object().unwrap()).unwrap()
    }

    #[test]
    fn a_comment_changes_nothing_and_every_field_that_counts_changes_the_fingerprint() {
        let body = json!({"source": "a", "target": "http://h/b", "owner": "ann"});
        let with = |name: &str, value: Value| {
            let mut body = body.clone();
            body[name] = value;
            parse(body).fingerprint
        };
        let same = parse(body.clone()).fingerprint;
        for (name, value) in
            [("comment", json!(1)), ("paused", json!(true)), ("_replication_state", json!("triggered"))]
        {
            assert_eq!(with(name, value), same, "{name}");
        }
        for (name, value) in [
            ("owner", json!("bob")),
            ("continuous", json!(true)),
            ("target", json!("http://h/c")),
            ("selector", json!({"a": 1})),
            ("worker_processes", json!(2)),
        ] {
            assert_ne!(with(name, value), same, "{name}");
        }
        assert!(parse(json!({"source": "a", "target": "b", "paused": true})).paused);
    }

    #[test]
    fn a_duplicate_is_known_by_couchdbs_words() {
        let reason = duplicate_reason("1f+continuous", "b", ("a", "_replicator"));
        let expected = "Replication `1f+continuous` specified by document `b` already started, \
            triggered by document `a` from db `_replicator`";
        assert_eq!(reason, expected);
        let stated = |state: &str, reason: &str| {
            let body = json!({"_replication_state": state, "_replication_state_reason": reason});
            Stated::of(body.as_object().unwrap())
        };
        assert_eq!(stated("failed", &reason), Stated::Duplicate);
        assert_eq!(stated("failed", "no"), Stated::Failed);
        assert_eq!(stated("completed", ""), Stated::Completed);
        assert_eq!(stated("triggered", ""), Stated::Live);
    }
}
