//! Writes states into the documents that describe replications.
//!
//! As CouchDB does, `completed` and `failed` are always written, and `triggered` and `error` with `update_docs`. Otherwise than
//! there, `crashing` is written too, with its reason and the time of the next try, and taken off when the job has got better, so that whoever
//! looks at the document alone learns of it. What is paused is in no such state. `_replication_state_time` changes only with the state.
//!
//! A state is written over the revision that was read, and only while the document still describes what the state is of. If somebody
//! edits it meanwhile, his edit stands, and what it describes now will get its own state.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::description::{Description, Fingerprint};
use crate::access::Caller;
use crate::document::{DocId, DocParts};
use crate::jobs::history::rfc3339_text;
use crate::jobs::info::FinalStats;
use crate::jobs::replication::Replication;
use crate::replicator_docs::MAX_READ_BYTES;
use crate::store::{Database, DocOptions, Durability, Edit, Refusal, Snapshot, StoreError};

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
const TRIES: usize = 5;

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

/// A document as it is stored.
#[derive(Debug)]
pub struct Stored {
    /// Bytes of its text.
    pub bytes: usize,
    /// Its members, `_id` and `_rev` among them; `None`: no values are made of it, since it is too large or nested too deeply. It was
    /// stored before that was refused.
    pub document: Option<Map<String, Value>>,
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

    /// The state of its job; `None` if nothing is to be told of it yet.
    pub fn of_job(of: Fingerprint, job: &Replication, update_docs: bool) -> Option<Self> {
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
/// no revision.
pub async fn write(
    database: &Arc<Database>,
    mut changes: Vec<(DocId, StateChange)>,
) -> Result<Vec<(DocId, StateChange)>, StoreError> {
    let replicator = Caller::replicator();
    let mut unwritten = Vec::new();
    for tries_left in (0..TRIES).rev() {
        let made = database.read(move |snapshot| {
            let (mut edits, mut made, mut unread) = (Vec::new(), Vec::new(), Vec::new());
            for (id, change) in changes {
                match edit(snapshot, &id, &change) {
                    Ok(Some((rev, edit))) => {
                        edits.push(edit);
                        made.push((id, change, rev));
                    }
                    Ok(None) => {}
                    // It holds up no other.
                    Err(error) => unread.push((id, change, error)),
                }
            }
            Ok((edits, made, unread))
        });
        let (edits, made, unread) = made.await?;
        for (id, change, error) in unread {
            let (db, doc) = (database.name().as_str(), id.as_str());
            tracing::warn!(db, doc.id = doc, error = &error as &dyn std::error::Error, "a document can't be read");
            unwritten.push((id, change));
        }
        if edits.is_empty() {
            break;
        }
        let results = database.write(edits, &replicator, Durability::Unsynced).await?;
        changes = Vec::new();
        for (result, (id, change, rev)) in results.into_iter().zip(made) {
            match result {
                Ok(_) => {}
                Err(Refusal::Conflict) if tries_left > 0 => changes.push((id, change)),
                Err(refusal) => {
                    let (db, doc, error) = (database.name().as_str(), id.as_str(), refusal.to_string());
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
    database: &Arc<Database>,
    id: &DocId,
    (name, value): (&'static str, Option<Value>),
) -> Result<bool, StoreError> {
    let replicator = Caller::replicator();
    for _ in 0..TRIES {
        let (id, value) = (id.clone(), value.clone());
        let made = database.read(move |snapshot| {
            let Some(mut document) = read(snapshot, id.as_str())? else { return Ok(None) };
            match value {
                Some(value) => drop(document.insert(name.into(), value)),
                None => drop(document.shift_remove(name)),
            }
            edit_of(&id, &document).map(Some)
        });
        let Some(edit) = made.await? else { return Ok(false) };
        let written = database.write(vec![edit], &replicator, Durability::Synced).await?.pop();
        match written {
            Some(Err(Refusal::Conflict)) => {}
            written => return Ok(matches!(written, Some(Ok(_)))),
        }
    }
    Ok(false)
}

/// A document's members, `_id` and `_rev` among them; `None` if it isn't there, or can't be read.
pub fn read(snapshot: &Snapshot, id: &str) -> Result<Option<Map<String, Value>>, StoreError> {
    Ok(stored(snapshot, id)?.and_then(|stored| stored.document))
}

/// The same, if it is there.
pub fn stored(snapshot: &Snapshot, id: &str) -> Result<Option<Stored>, StoreError> {
    let Some(record) = snapshot.document(id)? else { return Ok(None) };
    let Some(winner) = record.tree.winner().filter(|winner| !winner.deleted) else { return Ok(None) };
    let mut text = Vec::new();
    snapshot.render(id, &record, &winner, &DocOptions::default(), &mut text)?;
    let document = if text.len() > MAX_READ_BYTES { None } else { serde_json::from_slice(&text).ok() };
    Ok(Some(Stored { bytes: text.len(), document }))
}

/// What is to be written, and over which revision.
fn edit(snapshot: &Snapshot, id: &DocId, change: &StateChange) -> Result<Option<(Option<String>, Edit)>, StoreError> {
    let Some(document) = read(snapshot, id.as_str())? else { return Ok(None) };
    let rev = document.get("_rev").and_then(Value::as_str).map(str::to_owned);
    let document = change.applied(document);
    document.map(|document| Ok((rev, edit_of(id, &document)?))).transpose()
}

fn edit_of(id: &DocId, document: &Map<String, Value>) -> Result<Edit, StoreError> {
    let unreadable = |_| StoreError::Damaged("a document that describes a replication");
    let text = serde_json::to_vec(document).unwrap_or_default();
    let parts = DocParts::parse(&text).map_err(unreadable)?;
    Edit::new(&parts, id.clone(), false, Vec::new()).map_err(unreadable)
}
