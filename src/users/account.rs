//! Somebody who may log in.

use serde_json::{Map, Value};

use super::password::Password;
use crate::config::Admin;

/// Before a user's name in the id of his document.
pub const ID_PREFIX: &str = "org.couchdb.user:";

/// Somebody who may log in.
#[derive(Debug, Clone)]
pub struct Account {
    /// The name.
    pub name: String,
    /// His roles.
    pub roles: Vec<String>,
    /// His cookies are signed with it.
    pub salt: String,
    /// `None` for somebody whom no password lets in.
    pub password: Option<Password>,
    /// His document has conflicts: which of its revisions is right, nobody can say.
    pub conflicts: bool,
}

impl Account {
    /// The user of a document in `_users`.
    ///
    /// Roles that begin with an underscore are the server's to give, however they got into the document. Whoever needs a
    /// code besides his password (`totp`) isn't let in: codes aren't known here.
    pub fn of_document(name: &str, document: &Map<String, Value>, conflicts: bool) -> Self {
        let roles = document.get("roles").and_then(Value::as_array).into_iter().flatten();
        let roles = roles.filter_map(Value::as_str).filter(|role| !is_system_role(role));
        let salt = document.get("salt").and_then(Value::as_str).unwrap_or_default();
        let needs_code = document.contains_key("totp");
        Self {
            name: name.to_owned(),
            roles: roles.map(str::to_owned).collect(),
            salt: salt.to_owned(),
            password: Password::of_document(document).filter(|_| !needs_code),
            conflicts,
        }
    }

    /// An administrator of the settings, with the roles that his document has besides, if he has one.
    pub fn of_admin(admin: &Admin, document: Option<&Self>) -> Self {
        let roles = document.map_or(&[][..], |document| &document.roles);
        Self {
            name: admin.name.clone(),
            roles: ["_admin".to_owned()].into_iter().chain(roles.iter().cloned()).collect(),
            salt: admin.password.salt().unwrap_or_default().to_owned(),
            password: Some(admin.password.clone().into()),
            // Else whoever may write a conflict into `_users` keeps him out.
            conflicts: false,
        }
    }
}

/// Whether a role can't be had by a document.
pub(super) fn is_system_role(role: &str) -> bool {
    role.starts_with('_') && role != "_metrics"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(document: &Value) -> Account {
        Account::of_document("ann", document.as_object().unwrap(), false)
    }

    #[test]
    fn a_document_gives_its_user_roles_but_never_the_servers_own() {
        let document = json!({ "roles": ["a", "_admin", "_metrics", 1], "salt": "s" });
        assert_eq!(account(&document).roles, ["a", "_metrics"]);
        assert!(account(&json!({ "roles": "a" })).roles.is_empty());
    }

    #[test]
    fn an_admin_has_the_roles_of_his_document_besides_and_his_own_password() {
        let document = account(&json!({ "roles": ["a"], "salt": "s" }));
        let admin = Admin::new("ann", "-hashed-8c7a26495e76c8f3541be2ccb5267fae8d1f7923,7f4a").unwrap();
        let account = Account::of_admin(&admin, Some(&document));
        assert_eq!((account.roles, account.salt.as_str()), (vec!["_admin".to_owned(), "a".to_owned()], "7f4a"));
    }

    #[test]
    fn whoever_needs_a_code_besides_his_password_is_not_let_in_without() {
        let mut document = json!({ "password_sha": "1529357fa93ad14972810f90141874e28ed4beea", "salt": "s4lt" });
        assert!(account(&document).password.is_some());
        document["totp"] = json!({ "key": "AAAA" });
        assert!(account(&document).password.is_none());
    }
}
