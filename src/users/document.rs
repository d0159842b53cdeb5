//! User documents on their way in and out.
//!
//! On the way in a password becomes its hash ([`take_password`]), then comes [`validate`]: whose document it may be (CouchDB's
//! `couch_users_db:before_doc_update/3`), and the validation of CouchDB's `_design/_auth`, in its words. It holds for
//! replicated documents too. On the way out ([`after_read`]) each sees his own document and nobody else's.
//!
//! On purpose it is stricter than CouchDB in five things: a name is a text (`_design/_auth` fails at a number, and lets a
//! list pass whose text makes the id); only a name that both have makes a deletion one's own; a password that is no text
//! isn't shown in the refusal, and isn't taken in a deletion; and nobody but himself and admins brings a conflict
//! (`new_edits=false`) into somebody's document, which would keep him out.

use std::borrow::Cow;
use std::num::NonZeroU32;

use serde_json::{Map, Value, json};

use super::account::{ID_PREFIX, is_system_role};
use crate::access::Caller;
use crate::config::Password as Hash;
use crate::uuids;

/// Why a user document isn't written or shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// In CouchDB's words.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// It is somebody else's.
    #[error("missing")]
    NotFound,
}

/// A document that somebody wants to write into `_users`.
#[derive(Debug)]
pub struct Write<'a> {
    /// Its id.
    pub id: &'a str,
    /// Whether it is a deletion.
    pub deleted: bool,
    /// The new body.
    pub body: &'a Map<String, Value>,
    /// The body that is replaced.
    pub old: Option<&'a Map<String, Value>>,
    /// Whether it comes beside a document that lives, and replaces none of it.
    pub is_branch: bool,
}

/// A user document with a new password.
#[derive(PartialEq)]
pub struct Unhashed {
    password: String,
    salt: String,
    /// Without password, salt and the like.
    rest: Map<String, Value>,
}

/// What a new password takes the place of.
const PASSWORD_MEMBERS: [&str; 8] =
    ["derived_key", "iterations", "password", "password_scheme", "password_sha", "preserve_salt", "pbkdf2_prf", "salt"];

/// Whether it may be the caller's document, whatever is in it: to others it isn't there.
pub fn may_be_own(id: &str, caller: &Caller, is_db_admin: bool) -> Result<(), Refusal> {
    let owner = id.strip_prefix(ID_PREFIX);
    let may = is_db_admin || caller.name.is_none() || caller.name.as_deref() == owner;
    if may { Ok(()) } else { Err(Refusal::NotFound) }
}

/// Whether the caller may write this. A password that isn't hashed by now can't be.
pub fn validate(write: &Write<'_>, caller: &Caller, is_db_admin: bool) -> Result<(), Refusal> {
    may_be_own(write.id, caller, is_db_admin)?;
    // Design documents are for database admins, which is asked where all of them are written.
    if write.id.starts_with("_design/") {
        return if is_db_admin { Ok(()) } else { Err(Refusal::NotFound) };
    }
    match write.body.get("password") {
        None | Some(Value::Null) => {}
        Some(Value::String(_)) => return forbidden("Salt value is invalid."),
        Some(_) => return forbidden("Password value is invalid."),
    }
    if write.deleted { validate_deletion(write, caller) } else { validate_user(write, caller, is_db_admin) }
}

/// Whether a caller who is no admin of the database may see a document of `_users`.
pub fn after_read(id: &str, caller: &Caller) -> Result<(), Refusal> {
    if id.starts_with("_design/") {
        return forbidden("Only administrators can view design docs in the users database.");
    }
    let owner = id.strip_prefix(ID_PREFIX);
    if owner.is_some() && owner == caller.name.as_deref() { Ok(()) } else { Err(Refusal::NotFound) }
}

fn forbidden<T>(words: impl Into<Cow<'static, str>>) -> Result<T, Refusal> {
    Err(Refusal::Forbidden(words.into()))
}

fn validate_deletion(write: &Write<'_>, caller: &Caller) -> Result<(), Refusal> {
    let owner = write.old.and_then(|old| old.get("name")).and_then(Value::as_str);
    if caller.is_server_admin() || (owner.is_some() && owner == caller.name.as_deref()) {
        return Ok(());
    }
    forbidden("Only admins may delete other user docs.")
}

/// The validation of `_design/_auth`, in its order.
fn validate_user(write: &Write<'_>, caller: &Caller, is_db_admin: bool) -> Result<(), Refusal> {
    let body = write.body;
    if body.get("type").and_then(Value::as_str) != Some("user") {
        return forbidden("doc.type must be user");
    }
    if !is_truthy(body.get("name")) {
        return forbidden("doc.name is required");
    }
    if !is_truthy(body.get("roles")) {
        return forbidden("doc.roles must exist");
    }
    let Some(Value::Array(roles)) = body.get("roles") else { return forbidden("doc.roles must be an array") };
    let texts: Option<Vec<_>> = roles.iter().map(Value::as_str).collect();
    let Some(roles) = texts else { return forbidden("doc.roles can only contain strings") };
    let name = body.get("name").and_then(Value::as_str);
    let Some(name) = name.filter(|name| write.id.strip_prefix(ID_PREFIX) == Some(name)) else {
        return forbidden("Doc ID must be of the form org.couchdb.user:name");
    };
    // Whoever's document has conflicts can't log in.
    if write.is_branch && !is_db_admin && caller.name.as_deref() != Some(name) {
        return forbidden("You may only update your own user document.");
    }
    if write.old.is_some_and(|old| old.get("name").and_then(Value::as_str) != Some(name)) {
        return forbidden("Usernames can not be changed.");
    }
    validate_password_members(body)?;
    if !is_db_admin && !caller.is_server_admin() {
        validate_roles(write, name, &roles, caller)?;
    }
    if roles.iter().any(|role| is_system_role(role)) {
        return forbidden("No system roles (starting with underscore) in users db.");
    }
    if name.starts_with('_') {
        return forbidden("Username may not start with underscore.");
    }
    if name.contains(':') {
        return forbidden("Character `:` is not allowed in usernames.");
    }
    Ok(())
}

fn validate_password_members(body: &Map<String, Value>) -> Result<(), Refusal> {
    if is_truthy(body.get("password_sha")) && !is_truthy(body.get("salt")) {
        return forbidden("Users with password_sha must have a salt.See /_utils/script/couch.js for example code.");
    }
    let scheme = body.get("password_scheme").filter(|scheme| is_truthy(Some(scheme)));
    let is = |scheme: &Value, known: &[&str]| scheme.as_str().is_some_and(|scheme| known.contains(&scheme));
    let Some(scheme) = scheme else { return Ok(()) };
    if !is(scheme, &["simple", "pbkdf2", "simple+pbkdf2"]) {
        let shown = scheme.as_str().map_or_else(|| scheme.to_string(), str::to_owned);
        return forbidden(format!("Password scheme `{shown}` not supported."));
    }
    if is(scheme, &["pbkdf2"]) {
        if !body.get("iterations").is_some_and(Value::is_number) {
            return forbidden("iterations must be a number.");
        }
        if !body.get("derived_key").is_some_and(Value::is_string) {
            return forbidden("derived_key must be a string.");
        }
    }
    Ok(())
}

/// Whoever is no admin gives nobody roles, himself neither.
fn validate_roles(write: &Write<'_>, name: &str, roles: &[&str], caller: &Caller) -> Result<(), Refusal> {
    let Some(old) = write.old else {
        return if roles.is_empty() { Ok(()) } else { forbidden("Only _admin may set roles") };
    };
    if caller.name.as_deref() != Some(name) {
        return forbidden("You may only update your own user document.");
    }
    let old = old.get("roles").and_then(Value::as_array).into_iter().flatten();
    let mut old: Vec<_> = old.map(Value::as_str).collect();
    let mut new: Vec<_> = roles.iter().copied().map(Some).collect();
    old.sort_unstable();
    new.sort_unstable();
    if old == new { Ok(()) } else { forbidden("Only _admin may edit roles") }
}

/// As JavaScript takes it.
fn is_truthy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(_) => true,
    }
}

/// Takes the new password out of a user document's body, a JSON object; `None` if there is none that can be hashed.
pub fn take_password(body: &[u8]) -> Option<Unhashed> {
    let Ok(Value::Object(mut rest)) = serde_json::from_slice(body) else { return None };
    let keeps_salt = rest.get("preserve_salt") == Some(&Value::Bool(true));
    let salt = match rest.get("salt").filter(|_| keeps_salt) {
        None => uuids::random(),
        Some(salt) => salt.as_str()?.to_owned(),
    };
    let password = rest.get("password")?.as_str()?.to_owned();
    rest.retain(|key, _| !PASSWORD_MEMBERS.contains(&key.as_str()));
    Some(Unhashed { password, salt, rest })
}

impl Unhashed {
    /// The body that is written. Takes long, on purpose.
    pub fn hash(self, iterations: NonZeroU32) -> Vec<u8> {
        let hash = Hash::hash(&self.password, &self.salt, iterations);
        let members = json!({
            "password_scheme": "pbkdf2",
            "pbkdf2_prf": "sha256",
            "salt": self.salt,
            "iterations": iterations,
            "derived_key": hex::encode(hash.key()),
        });
        let Value::Object(mut body) = members else { return Vec::new() };
        body.extend(self.rest);
        Value::Object(body).to_string().into_bytes()
    }
}

impl std::fmt::Debug for Unhashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unhashed").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
