//! A database's security object: who its admins and its members are (`GET` and `PUT /{db}/_security`).
//!
//! Rules of `couch_db:is_admin/1`, `is_member/1` and `validate_security_object/1`: server admins are admins of every
//! database, admins are members, and a database whose members are nobody at all is for everybody. `readers` is what
//! CouchDB 1.0 called `members`. Other members of the object are kept and mean nothing. The object travels as the bytes that
//! came.

use std::sync::LazyLock;

use serde_json::value::RawValue;

use super::{Caller, Denied};
use crate::json::{self, JsonError};

/// What a new database has in CouchDB 3: only server admins may open it.
const DEFAULT: &str = r#"{"members":{"roles":["_admin"]},"admins":{"roles":["_admin"]}}"#;

/// Who is admin and who is member of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Security {
    json: Box<str>,
    admins: Group,
    members: Group,
}

/// Names and roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Group {
    names: Vec<String>,
    roles: Vec<String>,
}

/// Why something is no security object, in the words of CouchDB's source. CouchDB itself answers 500 `no_majority`; here it is a 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// Not an object.
    #[error("the security object must be a JSON object")]
    NotAnObject,
    /// `admins` or `members` is something else than an object.
    #[error("admins or members must be a JSON list of strings")]
    NoGroup,
    /// `names` is something else than a list of strings.
    #[error("names must be a JSON list of strings")]
    Names,
    /// `roles` is something else than a list of strings.
    #[error("roles must be a JSON list of strings")]
    Roles,
    /// It isn't even JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
}

impl Default for Security {
    fn default() -> Self {
        static PARSED: LazyLock<Security> = LazyLock::new(|| Security::parse(DEFAULT.as_bytes()).expect("is one"));
        PARSED.clone()
    }
}

impl Security {
    /// Reads an object.
    pub fn parse(text: &[u8]) -> Result<Self, SecurityError> {
        json::check(text)?;
        let text = std::str::from_utf8(text).map_err(|_| SecurityError::NotAnObject)?.trim();
        if !text.starts_with('{') {
            return Err(SecurityError::NotAnObject);
        }
        let group = |name| json::member(text.as_bytes(), name)?.map(Group::parse).transpose();
        let members = match group("members")? {
            Some(members) => members,
            None => group("readers")?.unwrap_or_default(),
        };
        Ok(Self { json: text.into(), admins: group("admins")?.unwrap_or_default(), members })
    }

    /// The object, as it came.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The object, to stand within another one.
    pub fn raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.json.to_string()).unwrap_or_default()
    }

    /// Whether he may read the database and write its documents.
    pub fn may_open(&self, caller: &Caller) -> Result<(), Denied> {
        let open_to_all = self.members.names.is_empty() && self.members.roles.is_empty();
        let may = open_to_all || self.members.has(caller) || self.is_admin(caller);
        may.then_some(()).ok_or(match caller.name {
            None => Denied::NotMember,
            Some(_) => Denied::ForeignDatabase,
        })
    }

    /// Whether he may change the database's design documents and settings.
    pub fn may_design(&self, caller: &Caller) -> Result<(), Denied> {
        self.is_admin(caller).then_some(()).ok_or(Denied::MayNotDesign { known: caller.name.is_some() })
    }

    /// Whether he may have the database cleaned up.
    pub fn may_maintain(&self, caller: &Caller) -> Result<(), Denied> {
        self.is_admin(caller).then_some(()).ok_or(Denied::NotDatabaseAdmin)
    }

    /// Whether he is an admin of the database.
    pub fn is_admin(&self, caller: &Caller) -> bool {
        caller.is_server_admin() || self.admins.has(caller)
    }
}

impl Group {
    fn parse(text: &[u8]) -> Result<Self, SecurityError> {
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(SecurityError::NoGroup);
        }
        let list = |name, error| match json::member(text, name)? {
            None => Ok(Vec::new()),
            Some(list) => serde_json::from_slice::<Vec<String>>(list).map_err(|_| error),
        };
        Ok(Self { names: list("names", SecurityError::Names)?, roles: list("roles", SecurityError::Roles)? })
    }

    fn has(&self, caller: &Caller) -> bool {
        caller.roles.iter().any(|role| self.roles.contains(role))
            || caller.name.as_ref().is_some_and(|name| self.names.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str, roles: &[&str]) -> Caller {
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Caller { name, roles: roles.iter().map(ToString::to_string).collect(), ..Caller::default() }
    }

    fn security(text: &str) -> Security {
        Security::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_new_database_is_for_server_admins() {
        let new = Security::default();
        assert_eq!(new.may_open(&caller("", &[])), Err(Denied::NotMember));
        assert_eq!(new.may_open(&caller("ann", &["staff"])), Err(Denied::ForeignDatabase));
        assert_eq!(new.may_open(&Caller::server_admin()), Ok(()));
        assert_eq!(new.json(), DEFAULT);
    }

    #[test]
    fn nobody_as_member_means_everybody_and_still_nobody_as_admin() {
        for text in ["{}", r#"{"members":{}}"#, r#"{"members":{"names":[],"roles":[]},"admins":{"names":["ann"]}}"#] {
            assert_eq!(security(text).may_open(&caller("", &[])), Ok(()), "{text}");
            assert_eq!(
                security(text).may_design(&caller("", &[])),
                Err(Denied::MayNotDesign { known: false }),
                "{text}"
            );
            assert_eq!(
                security(text).may_design(&caller("bob", &[])),
                Err(Denied::MayNotDesign { known: true }),
                "{text}"
            );
        }
    }

    #[test]
    fn members_and_admins_are_known_by_name_or_role() {
        let text = r#"{"members":{"names":["ann"],"roles":["staff"]},"admins":{"names":["dba"],"roles":["ops"]}}"#;
        let security = security(text);
        for (who, opens, designs) in [
            (caller("ann", &[]), true, false),
            (caller("bob", &["staff"]), true, false),
            (caller("dba", &[]), true, true),
            (caller("eve", &["ops"]), true, true),
            (caller("eve", &["none"]), false, false),
            (caller("", &[]), false, false),
            (Caller::server_admin(), true, true),
        ] {
            assert_eq!(security.may_open(&who).is_ok(), opens, "{who:?}");
            assert_eq!(security.may_design(&who).is_ok(), designs, "{who:?}");
            assert_eq!(security.may_maintain(&who).is_ok(), designs, "{who:?}");
        }
        let readers = self::security(r#"{"readers":{"names":["ann"]}}"#);
        assert!(readers.may_open(&caller("ann", &[])).is_ok() && readers.may_open(&caller("bob", &[])).is_err());
    }

    #[test]
    fn what_is_no_security_object_is_refused() {
        for (text, error) in [
            ("[]", SecurityError::NotAnObject),
            ("1", SecurityError::NotAnObject),
            (r#"{"admins":1}"#, SecurityError::NoGroup),
            (r#"{"admins":{"names":"x"}}"#, SecurityError::Names),
            (r#"{"readers":{"names":[1]}}"#, SecurityError::Names),
            (r#"{"members":{"roles":[null]}}"#, SecurityError::Roles),
        ] {
            assert_eq!(Security::parse(text.as_bytes()), Err(error), "{text}");
        }
        assert!(matches!(Security::parse(b"{"), Err(SecurityError::Json(_))));
        assert_eq!(security(r#" {"cloudant":{"z":1.50}} "#).json(), r#"{"cloudant":{"z":1.50}}"#);
    }
}
