//! The documents of `_users`, which are judged by CouchDB's own rules before the functions of design documents are asked.

use serde_json::{Map, Value};

use crate::access::Caller;
use crate::javascript::ScriptError;
use crate::users::document::{Refusal, Write, may_be_own, validate};

/// Whether a document may be its author's. Asked before anything is looked up: whose documents there are is nobody else's.
pub(super) fn owned(id: &str, author: &Caller, is_admin: bool) -> Result<(), ScriptError> {
    may_be_own(id, author, is_admin).map_err(refused)
}

/// Judges one document; `text` is `[newDoc,oldDoc]`, and `is_branch` says that it comes beside a living one.
pub(super) fn judge(text: &[u8], is_branch: bool, author: &Caller, is_admin: bool) -> Result<(), ScriptError> {
    type Document = Map<String, Value>;
    let documents = serde_json::from_slice::<(Document, Option<Document>)>(text);
    // What serde can't read, though the store could, is no user.
    let (new, old) = documents.map_err(|_| refused(Refusal::Forbidden("doc.type must be user".into())))?;
    // A deleted user is nobody, whose roles nobody keeps.
    let old = old.filter(|old| old.get("_deleted") != Some(&Value::Bool(true)));
    let id = new.get("_id").and_then(Value::as_str).unwrap_or_default();
    let deleted = new.get("_deleted") == Some(&Value::Bool(true));
    let write = Write { id, deleted, body: &new, old: old.as_ref(), is_branch };
    validate(&write, author, is_admin).map_err(refused)
}

/// As CouchDB names it.
fn refused(refusal: Refusal) -> ScriptError {
    let error = match refusal {
        Refusal::Forbidden(_) => "forbidden",
        Refusal::NotFound => "not_found",
    };
    ScriptError { error: error.to_owned(), reason: refusal.to_string() }
}
