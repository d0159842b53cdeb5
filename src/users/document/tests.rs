//! In the words that a CouchDB 3.5.0 answered to the same documents.

use serde_json::{Value, json};

use super::*;

fn user(name: &str) -> Caller {
    Caller { name: Some(name.into()), ..Caller::default() }
}

/// Writes `body` over `old` as `org.couchdb.user:{name}`.
fn written(name: &str, body: &Value, old: Option<&Value>, caller: &Caller, is_db_admin: bool) -> Result<Value, String> {
    let id = format!("{ID_PREFIX}{name}");
    let old = old.and_then(Value::as_object);
    let unhashed = take_password(body.to_string().as_bytes());
    let body = unhashed
        .map_or(body.clone(), |unhashed| serde_json::from_slice(&unhashed.hash(NonZeroU32::new(10).unwrap())).unwrap());
    let write = Write { id: &id, deleted: false, body: body.as_object().unwrap(), old, is_branch: false };
    validate(&write, caller, is_db_admin).map_err(|refusal| refusal.to_string())?;
    Ok(body)
}

fn by_admin(name: &str, body: Value) -> Result<Value, String> {
    written(name, &body, None, &Caller::server_admin(), true)
}

#[test]
fn a_document_that_is_no_users_is_refused_in_couchdbs_words() {
    let scheme = |members: Value| {
        let mut body = json!({ "type": "user", "name": "c", "roles": [] });
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body
    };
    let cases = [
        ("c", json!({ "type": "x" }), "doc.type must be user"),
        ("c", json!({ "type": "user" }), "doc.name is required"),
        ("", json!({ "type": "user", "name": "", "roles": [] }), "doc.name is required"),
        ("c", json!({ "type": "user", "name": "c" }), "doc.roles must exist"),
        ("c", json!({ "type": "user", "name": "c", "roles": null }), "doc.roles must exist"),
        ("c", json!({ "type": "user", "name": "c", "roles": {} }), "doc.roles must be an array"),
        ("c", json!({ "type": "user", "name": "c", "roles": [1] }), "doc.roles can only contain strings"),
        ("d", scheme(json!({})), "Doc ID must be of the form org.couchdb.user:name"),
        ("1", json!({ "type": "user", "name": 1, "roles": [] }), "Doc ID must be of the form org.couchdb.user:name"),
        ("c", scheme(json!({ "roles": ["_x"] })), "No system roles (starting with underscore) in users db."),
        (
            "c",
            scheme(json!({ "password_sha": "a" })),
            "Users with password_sha must have a salt.See /_utils/script/couch.js for example code.",
        ),
        ("c", scheme(json!({ "password_scheme": "b" })), "Password scheme `b` not supported."),
        ("c", scheme(json!({ "password_scheme": "pbkdf2" })), "iterations must be a number."),
        ("c", scheme(json!({ "password_scheme": "pbkdf2", "iterations": 1 })), "derived_key must be a string."),
        ("c", scheme(json!({ "password": 1 })), "Password value is invalid."),
        ("c", scheme(json!({ "password": "a", "salt": 1, "preserve_salt": true })), "Salt value is invalid."),
        ("_x", scheme(json!({ "name": "_x" })), "Username may not start with underscore."),
        ("a:b", scheme(json!({ "name": "a:b" })), "Character `:` is not allowed in usernames."),
    ];
    for (name, body, words) in cases {
        assert_eq!(by_admin(name, body.clone()), Err(words.into()), "{body}");
    }
    assert!(by_admin("c", scheme(json!({ "roles": ["_metrics", ""] }))).is_ok());
}

#[test]
fn a_password_is_hashed_and_takes_the_place_of_what_was_hashed_before() {
    let body = json!({
        "name": "ann", "type": "user", "roles": ["a"], "n": serde_json::from_str::<Value>("1.50").unwrap(), "password": "wörd",
        "password_sha": "x", "salt": "kept?", "password_scheme": "none", "iterations": 5, "derived_key": 4,
    });
    let written = by_admin("ann", body).unwrap();
    let members: Vec<_> = written.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        members,
        ["password_scheme", "pbkdf2_prf", "salt", "iterations", "derived_key", "name", "type", "roles", "n"],
        "CouchDB's order"
    );
    assert_eq!(written["n"].to_string(), "1.50");
    assert_eq!((&written["iterations"], &written["pbkdf2_prf"]), (&json!(10), &json!("sha256")));
    assert_ne!(written["salt"], "kept?");
    let account = crate::users::Account::of_document("ann", written.as_object().unwrap(), false);
    let password = account.password.unwrap();
    assert!(password.is("wörd") && !password.is("word") && account.salt == written["salt"].as_str().unwrap());
}

#[test]
fn a_salt_is_kept_where_that_is_asked_for_and_no_password_is_none() {
    let body = json!({
        "name": "ann", "type": "user", "roles": [], "password": "a", "salt": "s", "preserve_salt": true,
    });
    let written = by_admin("ann", body).unwrap();
    assert_eq!(written["salt"], "s");
    assert!(written.get("preserve_salt").is_none());
    for body in [
        json!({ "name": "ann", "type": "user", "roles": [], "password": null }),
        json!({ "name": "ann", "type": "user", "roles": [], "password_sha": "1", "salt": "s" }),
    ] {
        assert_eq!(by_admin("ann", body.clone()), Ok(body));
    }
}

#[test]
fn a_user_changes_himself_and_neither_his_roles_nor_anybody_else() {
    let old = json!({ "name": "ann", "type": "user", "roles": ["a", "b"] });
    let change = |body: &Value, caller: &Caller| written("ann", body, Some(&old), caller, false);
    let mut body = json!({ "name": "ann", "type": "user", "roles": ["b", "a"], "phone": 1 });
    assert_eq!(change(&body, &user("ann")), Ok(body.clone()));
    assert_eq!(change(&body, &user("bob")), Err("missing".into()));
    let anonymous = Caller::default();
    assert_eq!(change(&body, &anonymous), Err("You may only update your own user document.".into()));
    body["roles"] = json!(["a", "b", "c"]);
    assert_eq!(change(&body, &user("ann")), Err("Only _admin may edit roles".into()));
    assert!(written("ann", &body, Some(&old), &user("root"), true).is_ok(), "an admin of the database");
    body["name"] = "bob".into();
    assert!(change(&body, &user("ann")).is_err());
    assert_eq!(
        written("bob", &body, Some(&old), &Caller::server_admin(), true),
        Err("Usernames can not be changed.".into())
    );
}

#[test]
fn whoever_is_nobody_yet_may_sign_up_without_roles() {
    let mut body = json!({ "name": "ann", "type": "user", "roles": [] });
    assert!(written("ann", &body, None, &Caller::default(), false).is_ok());
    assert_eq!(written("ann", &body, None, &user("bob"), false), Err("missing".into()));
    body["roles"] = json!(["a"]);
    assert_eq!(written("ann", &body, None, &Caller::default(), false), Err("Only _admin may set roles".into()));
}

#[test]
fn a_document_is_deleted_by_its_user_or_a_server_admin() {
    let old = json!({ "name": "ann", "type": "user", "roles": [] });
    let (nameless, empty) = (json!({}), Map::new());
    let delete = |old: Option<&Value>, caller: &Caller, is_db_admin| {
        let write = Write {
            id: "org.couchdb.user:ann",
            deleted: true,
            body: &empty,
            old: old.and_then(Value::as_object),
            is_branch: false,
        };
        validate(&write, caller, is_db_admin).map_err(|refusal| refusal.to_string())
    };
    let only_admins = Err("Only admins may delete other user docs.".to_owned());
    assert_eq!(delete(Some(&old), &user("ann"), false), Ok(()));
    assert_eq!(delete(Some(&old), &Caller::server_admin(), true), Ok(()));
    assert_eq!(delete(Some(&old), &user("root"), true), only_admins);
    assert_eq!(delete(Some(&old), &user("bob"), false), Err("missing".into()));
    for old in [Some(&old), Some(&nameless), None] {
        assert_eq!(delete(old, &Caller::default(), false), only_admins);
    }
}

#[test]
fn each_sees_himself_and_nobody_else() {
    let sees = |id: &str, caller: &Caller| after_read(id, caller).map_err(|refusal| refusal.to_string());
    assert_eq!(sees("org.couchdb.user:ann", &user("ann")), Ok(()));
    for caller in [user("bob"), Caller::default()] {
        assert_eq!(sees("org.couchdb.user:ann", &caller), Err("missing".into()));
        assert_eq!(sees("other", &caller), Err("missing".into()));
        let words = "Only administrators can view design docs in the users database.";
        assert_eq!(sees("_design/_auth", &caller), Err(words.into()));
    }
}
