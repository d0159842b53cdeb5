//! Writes states into the documents that describe replications.
//!
//! As CouchDB does, `completed` and `failed` are always written, and `triggered` and `error` with `update_docs`. Otherwise than
//! there, `crashing` is written too, with its reason and the time of the next try, and taken off when the job has got better, so that whoever
//! looks at the document alone learns of it; but not in a CouchDB, whose document processor crashes if it reads that. What is paused is in no such state. `_replication_state_time` changes only with the state.
//!
//! A state is written over the revision that was read, and only while the document still describes what the state is of. If somebody
//! edits it meanwhile, his edit stands, and what it describes now will get its own state.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::description::{Description, Fingerprint, Stated};
use super::home::{DocumentHome, HomeError, NotPut, ROWS, Stored};
use crate::access::Caller;
use crate::document::DocId;
use crate::jobs::history::rfc3339_text;
use crate::jobs::info::FinalStats;
use crate::jobs::replication::{JobDocument, Replication};
use crate::store::DbName;

/// Members that the replicator writes.
const MEMBERS: [&str; 5] = [
    "_replication_state",
    "_replication_state_time",
    "_replication_state_reason",
    "_replication_id",
    "_replication_stats",
];

/// A next try that is nearer isn't worth another revision.
const FAR: Duration = Duration::from_secs(60);

/// Tries of a write that others' edits come between; the next change of state writes again.
pub const TRIES: usize = 5;

/// What is to stand in a document.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    /// Of what it is the state; `None`: of a document that describes nothing that can be done.
    pub of: Option<Fingerprint>,
    /// The members; none of them: it is well.
    pub members: Map<String, Value>,
    /// A document that says the same but for the time of the next try needn't say it again.
    pub minor: bool,
    /// The one revision over which it may be written; `None`: over the newest.
    pub over: Option<String>,
}

impl Stored {
    /// The document; in place of one that can't be read, what `_scheduler/docs` tells of it.
    pub fn shown(self) -> Map<String, Value> {
        self.document.unwrap_or_else(|| StateChange::failed(None, UNREADABLE).members)
    }
}

/// Why it is no replication.
const UNREADABLE: &str = "The document is too large, or nested too deeply, to be a replication.";

impl StateChange {
    /// No job can be made of it.
    pub fn failed(of: Option<Fingerprint>, reason: &str) -> Self {
        Self::new(of, json!({ "_replication_state": "failed", "_replication_state_reason": reason }))
    }

    /// No job can be made of it for now.
    pub fn error(of: Fingerprint, reason: &str) -> Self {
        Self::new(Some(of), json!({ "_replication_state": "error", "_replication_state_reason": reason }))
    }

    /// It has a job.
    fn triggered(of: Fingerprint, id: &str) -> Self {
        Self::new(Some(of), json!({ "_replication_state": "triggered", "_replication_id": id }))
    }

    /// The state of its job; `None` if nothing is to be told of it. `as_couchdb`: whoever reads it knows CouchDB's states alone.
    pub fn of_job(of: Fingerprint, job: &Replication, update_docs: bool, as_couchdb: bool) -> Option<Self> {
        let status = job.status();
        if status.completed {
            let stats = json!(FinalStats::of(&job.progress));
            let members = json!({ "_replication_state": "completed", "_replication_stats": stats });
            return Some(Self::new(Some(of), members));
        }
        // What the document says of an earlier one may still be so.
        if !update_docs && !status.paused && status.reason.is_none() && status.last_success.is_none() {
            return None;
        }
        let Some(reason) = status.reason.as_ref().filter(|_| !status.paused) else {
            let triggered = || Self::triggered(of, &job.id.to_string());
            return Some(if update_docs { triggered() } else { Self::new(Some(of), json!({})) });
        };
        if as_couchdb {
            return None;
        }
        let left = status.next_try.and_then(|next| next.duration_since(SystemTime::now()).ok());
        let next = status.next_try.map(|next| format!("; tried again at {}", rfc3339_text(next)));
        let reason = format!("{reason}{}", next.unwrap_or_default());
        let members = json!({ "_replication_state": "crashing", "_replication_state_reason": reason });
        Some(Self { minor: left.is_none_or(|left| left < FAR), ..Self::new(Some(of), members) })
    }

    fn new(of: Option<Fingerprint>, members: Value) -> Self {
        let members = if let Value::Object(members) = members { members } else { Map::new() };
        Self { of, members, minor: false, over: None }
    }

    /// Whether nothing more is to be done for the document.
    pub fn is_end(&self) -> bool {
        let state = self.members.get(MEMBERS[0]).and_then(Value::as_str);
        matches!(state, Some("completed" | "failed"))
    }

    /// Whether it may be written over a document's revision.
    pub fn is_over(&self, document: &Map<String, Value>) -> bool {
        self.over.as_deref().is_none_or(|over| document.get("_rev").and_then(Value::as_str) == Some(over))
    }

    /// The document with this state; `None` if there is nothing to be written.
    fn applied(&self, mut document: Map<String, Value>) -> Option<Map<String, Value>> {
        if !self.is_over(&document) || Description::parse(&document).ok().map(|now| now.fingerprint) != self.of {
            return None;
        }
        let (before, now) = (document.get(MEMBERS[0]), self.members.get(MEMBERS[0]));
        let same_state = before == now;
        let reason = |members: &Map<String, Value>| {
            let reason = members.get(MEMBERS[2]).and_then(Value::as_str).unwrap_or_default();
            match self.minor {
                true => reason.split("; tried again at ").next().unwrap_or_default().to_owned(),
                false => reason.to_owned(),
            }
        };
        let same_id = self.members.get(MEMBERS[3]).is_none_or(|id| document.get(MEMBERS[3]) == Some(id));
        if same_state && same_id && reason(&document) == reason(&self.members) {
            return None;
        }
        let time = match document.get(MEMBERS[1]).filter(|_| same_state) {
            Some(time) => time.clone(),
            None => rfc3339_text(SystemTime::now()).into(),
        };
        document.retain(|name, _| !MEMBERS.contains(&name.as_str()));
        if !self.members.is_empty() {
            document.insert(MEMBERS[1].into(), time);
        }
        document.extend(self.members.clone());
        Some(document)
    }
}

/// Writes states into documents of one database, all of them together. Answers those that couldn't be written, each over the revision that
/// it was to be written over: a validation refuses them, or others' edits came between again and again. Of one that can't be read there is
/// no revision. What a CouchDB's own processor has brought to its end stays as it is.
pub async fn write(
    home: &DocumentHome,
    name: &DbName,
    changes: Vec<(DocId, StateChange)>,
) -> Result<Vec<(DocId, StateChange)>, HomeError> {
    let (replicator, db) = (Caller::replicator(), name.as_str());
    let mut unwritten = Vec::new();
    let mut left: VecDeque<_> = changes.into_iter().map(|(id, change)| (id, change, TRIES)).collect();
    while !left.is_empty() {
        let ids: Vec<_> = left.iter().take(ROWS).map(|(id, ..)| id.clone()).collect();
        let (mut edits, mut made) = (Vec::new(), Vec::new());
        // Of some of them, as many as may be held at once.
        let found = home.documents(name, ids).await?;
        let piece: Vec<_> = left.drain(..found.len()).collect();
        for ((id, change, tries), found) in piece.into_iter().zip(found) {
            let document = match found {
                Ok(Some(Stored { document: Some(document), .. })) => document,
                Ok(_) => continue,
                // It holds up no other.
                Err(error) => {
                    let (doc, error) = (id.as_str(), &error as &dyn std::error::Error);
                    tracing::warn!(db, doc.id = doc, error, "a document can't be read");
                    unwritten.push((id, change));
                    continue;
                }
            };
            if home.has_processor() && matches!(Stated::of(&document), Stated::Completed | Stated::Failed) {
                continue;
            }
            let rev = document.get("_rev").and_then(Value::as_str).map(str::to_owned);
            if let Some(document) = change.applied(document) {
                edits.push((id.clone(), document));
                made.push((id, change, rev, tries - 1));
            }
        }
        let results = if edits.is_empty() { Vec::new() } else { home.put(name, edits, &replicator, false).await? };
        for (result, (id, change, rev, tries)) in results.into_iter().zip(made) {
            match result {
                Ok(()) => {}
                Err(NotPut::Conflict) if tries > 0 => left.push_back((id, change, tries)),
                Err(refusal) => {
                    let (doc, error) = (id.as_str(), refusal.to_string());
                    tracing::warn!(db, doc.id = doc, error, "a replication's state can't be written");
                    unwritten.push((id, StateChange { over: rev, ..change }));
                }
            }
        }
    }
    Ok(unwritten)
}

/// Sets a document's own member, or takes it off; answers whether the document is there.
pub async fn set_member(
    home: &DocumentHome,
    place: &JobDocument,
    (name, value): (&'static str, Option<Value>),
) -> Result<bool, HomeError> {
    for _ in 0..TRIES {
        let found = home.document(place).await?;
        let Some(mut document) = found.and_then(|stored| stored.document) else { return Ok(false) };
        match &value {
            Some(value) => drop(document.insert(name.into(), value.clone())),
            None => drop(document.shift_remove(name)),
        }
        let edit = vec![(place.id.clone(), document)];
        match home.put(&place.database, edit, &Caller::replicator(), true).await?.pop() {
            Some(Err(NotPut::Conflict)) => {}
            written => return Ok(matches!(written, Some(Ok(())))),
        }
    }
    Ok(false)
}
