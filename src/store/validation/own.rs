//! Rules of the server's own: the documents of `_users` and of replicator databases are judged by CouchDB's own rules before
//! the functions of design documents are asked.
//!
//! They make values of what they judge, which take many times its length: a document that is larger than [`MAX_VALUE_BYTES`] is refused
//! before, however it comes. CouchDB has such a limit for all documents (`[couchdb] max_document_size`).

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::access::Caller;
use crate::javascript::ScriptError;
use crate::json::MAX_VALUE_BYTES;
use crate::replicator_docs::MAX_READ_BYTES;
use crate::replicator_docs::writing::{Author, Change, Check, Forbidden};
use crate::store::DbName;
use crate::store::edit::EditKind;
use crate::store::prepared::Prepared;
use crate::users::document::{Refusal, Write, may_be_own, validate};

/// Which documents have rules of the server's own.
#[derive(Debug, Clone, Copy)]
pub(super) enum OwnRules {
    /// Those of users.
    Users,
    /// Those that describe replications, as far as this finds.
    Replications(Check),
}

/// Who writes.
pub(super) struct Writer {
    pub(super) caller: Caller,
    /// Whether he is an admin of the database.
    pub(super) is_admin: bool,
}

type Document = Map<String, Value>;

impl OwnRules {
    /// Those of a database.
    pub(super) fn of(database: &DbName, check: Check) -> Option<Self> {
        match database {
            name if name.is_users() => Some(Self::Users),
            name if name.is_replicator() => Some(Self::Replications(check)),
            _ => None,
        }
    }

    /// Whether somebody may write an edit, whatever it replaces. Asked before anything is looked up: whose documents there are is
    /// nobody else's.
    pub(super) fn may_write(self, edit: &Prepared, Writer { caller, is_admin }: &Writer) -> Result<(), ScriptError> {
        // The replicator adds to what others wrote.
        if edit.body.len() > MAX_VALUE_BYTES && !caller.is_replicator() {
            return Err(too_large(edit));
        }
        match self {
            Self::Users => may_be_own(edit.id.as_str(), caller, *is_admin).map_err(no_user),
            Self::Replications(check) => {
                let author = Author { caller, is_admin: *is_admin };
                author.may_write(&edit.body, edit.deleted, check).map_err(no_replication)
            }
        }
    }

    /// Judges an edit; `text` is `[newDoc,oldDoc]`.
    pub(super) fn judge(self, text: &[u8], edit: &Prepared, writer: &Writer) -> Result<(), ScriptError> {
        let Writer { caller, is_admin } = writer;
        // It has read what it replaces.
        if matches!(self, Self::Replications(_)) && caller.is_replicator() {
            return Ok(());
        }
        let is_branch = edit.judged.as_ref().is_some_and(|judged| judged.is_branch);
        let unreadable = |_| self.unreadable();
        let (new, old): (&RawValue, Option<&RawValue>) = serde_json::from_slice(text).map_err(unreadable)?;
        // Attachments may have long names.
        if new.get().len() > MAX_READ_BYTES {
            return Err(too_large(edit));
        }
        let new: Document = serde_json::from_str(new.get()).map_err(unreadable)?;
        let old = old.map(|old| match old.get().len() > MAX_READ_BYTES {
            // It was stored before there was a limit. Nobody's document is for admins to take away.
            true => Ok(Document::new()),
            false => serde_json::from_str(old.get()),
        });
        let old: Option<Document> = old.transpose().map_err(unreadable)?;
        // A deleted document is nobody's: what it was nobody keeps.
        let old = old.filter(|old| old.get("_deleted") != Some(&Value::Bool(true)));
        match self {
            Self::Users => {
                let id = new.get("_id").and_then(Value::as_str).unwrap_or_default();
                let write = Write { id, deleted: edit.deleted, body: &new, old: old.as_ref(), is_branch };
                validate(&write, caller, *is_admin).map_err(no_user)
            }
            Self::Replications(_) => {
                let is_replicated = matches!(edit.kind, EditKind::Replicated { .. });
                let deletes = edit.deleted;
                let change = Change { new: &new, old: old.as_ref(), is_branch, is_replicated, deletes };
                Author { caller, is_admin: *is_admin }.may_change(&change).map_err(no_replication)
            }
        }
    }

    /// Documents that serde can't read, though the store could, are none of these; what they replace neither.
    fn unreadable(self) -> ScriptError {
        match self {
            Self::Users => no_user(Refusal::Forbidden("doc.type must be user".into())),
            Self::Replications(_) => no_replication(Forbidden::UNREADABLE),
        }
    }
}

/// As CouchDB tells it.
fn too_large(edit: &Prepared) -> ScriptError {
    ScriptError { error: "document_too_large".to_owned(), reason: edit.id.to_string() }
}

/// As CouchDB names it.
fn no_user(refusal: Refusal) -> ScriptError {
    let error = match refusal {
        Refusal::Forbidden(_) => "forbidden",
        Refusal::NotFound => "not_found",
    };
    ScriptError { error: error.to_owned(), reason: refusal.to_string() }
}

/// As CouchDB names it.
fn no_replication(Forbidden(reason): Forbidden) -> ScriptError {
    ScriptError { error: "forbidden".to_owned(), reason: reason.into_owned() }
}
