//! Who may write a replicator document, and what.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::OWNER;
use crate::access::Caller;
use crate::json;

/// A document's own members.
pub type Body = Map<String, Value>;

/// Tells why a body describes no replication. What a request may say is known above; whoever opens a store brings it along.
pub type Check = fn(&Body) -> Result<(), String>;

/// Why a document isn't written: in CouchDB's words, where it refuses it too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Forbidden(pub Cow<'static, str>);

impl Forbidden {
    /// It can be stored, and is no replication.
    pub const UNREADABLE: Self = Self(Cow::Borrowed("The document is nested too deeply to be a replication."));
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// He.
    pub caller: &'a Caller,
    /// Whether he is an admin of the database.
    pub is_admin: bool,
}

/// What is changed by a write.
#[derive(Debug)]
pub struct Change<'a> {
    /// The new body.
    pub new: &'a Body,
    /// The body that is replaced, of a document that lives.
    pub old: Option<&'a Body>,
    /// Whether it comes beside a document that lives, and replaces none of it.
    pub is_branch: bool,
    /// Whether it comes with its history (`new_edits=false`).
    pub is_replicated: bool,
    /// Whether it is a deletion.
    pub deletes: bool,
}

/// Whoever writes members of such names is the replicator.
const REPLICATORS_OWN: &str = "_replication_";
/// The member that has a replication wait.
const PAUSED: &str = "paused";
const OTHERS: &str = "Can't update replication documents from other users.";
const IN_HIS_NAME: &str = "Only server admins may have replications run in the name of others.";
const BRANCH: &str = "Only admins may bring conflicts into replication documents.";

impl Author<'_> {
    /// Makes him the owner of a document that has none, and of one that is nobody's if he is an admin.
    ///
    /// As in CouchDB, deletions and replicated documents get an owner too. Otherwise the body keeps its bytes.
    pub fn own(&self, mut body: Vec<u8>) -> Vec<u8> {
        if self.caller.is_replicator() {
            return body;
        }
        let Ok(members) = json::members(&body) else { return body };
        let owner = members.filter(|member| member.key == OWNER).last();
        let found = owner.map(|owner| (owner.span.end - owner.value.len()..owner.span.end, owner.value == b"null"));
        let name = Value::from(self.caller.name.clone()).to_string();
        match found {
            Some((place, true)) if self.is_admin => drop(body.splice(place, name.into_bytes())),
            Some(_) => {}
            None => {
                // Its brace, and the comma before a member that isn't the first.
                body.pop();
                let comma = if body.trim_ascii() == b"{" { "" } else { "," };
                body.extend_from_slice(format!("{comma}\"{OWNER}\":{name}}}").as_bytes());
            }
        }
        body
    }

    /// Whether he may write this body at all, whatever it replaces.
    ///
    /// CouchDB takes one that says of itself that it failed as it is, so that failed ones can be moved and changed.
    pub fn may_write(&self, body: &[u8], deleted: bool, check: Check) -> Result<(), Forbidden> {
        if self.caller.is_replicator() {
            return Ok(());
        }
        let body = serde_json::from_slice::<Body>(body).map_err(|_| Forbidden::UNREADABLE)?;
        if !self.is_admin && !self.owns(&body) {
            return Err(Forbidden(OTHERS.into()));
        }
        let is_failed = body.get("_replication_state").and_then(Value::as_str) == Some("failed");
        if deleted || is_failed { Ok(()) } else { check(&body).map_err(|reason| Forbidden(reason.into())) }
    }

    /// Whether he may make this change.
    pub fn may_change(&self, change: &Change<'_>) -> Result<(), Forbidden> {
        if self.caller.is_replicator() {
            return Ok(());
        }
        if !self.is_admin && change.old.is_some_and(|old| !self.owns(old)) {
            return Err(Forbidden(OTHERS.into()));
        }
        if !self.is_admin && change.is_branch {
            return Err(Forbidden(BRANCH.into()));
        }
        // A replication has its owner's rights, on all of this server.
        let in_his_name = !change.deletes && !self.owns(change.new);
        if in_his_name && !self.caller.is_server_admin() && !change.keeps_what_is_done() {
            return Err(Forbidden(IN_HIS_NAME.into()));
        }
        // Whoever moves a whole database brings along what a replicator elsewhere has written; and a replicator that stands beside
        // this server writes as its admin.
        if self.caller.is_server_admin() {
            return Ok(());
        }
        let mut own = change.new.iter().filter(|(name, _)| name.starts_with(REPLICATORS_OWN));
        match own.find(|(name, value)| change.old.and_then(|old| old.get(*name)) != Some(value)) {
            Some((name, _)) => {
                let rather = "leave it as it is, or leave it out to have the replication run again";
                Err(Forbidden(format!("Only the replicator writes `{name}`: {rather}.").into()))
            }
            None => Ok(()),
        }
    }

    fn owns(&self, body: &Body) -> bool {
        body.get(OWNER) == Some(&Value::from(self.caller.name.clone()))
    }
}

impl Change<'_> {
    /// Whether the same is done as before, maybe once more, or not for now.
    fn keeps_what_is_done(&self) -> bool {
        let counts = |(name, _): &(&String, &Value)| !name.starts_with('_') && name.as_str() != PAUSED;
        let counting = |body| Body::iter(body).filter(counts).collect::<BTreeMap<_, _>>();
        self.old.is_some_and(|old| counting(old) == counting(self.new))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn caller(name: &str) -> Caller {
        Caller { name: Some(name.into()).filter(|_| !name.is_empty()), ..Caller::default() }
    }

    #[test]
    fn a_document_without_an_owner_gets_its_writer_as_one() {
        let (ann, nobody, replicator) = (caller("a\"n"), caller(""), Caller::replicator());
        for (author, is_admin, body, owned) in [
            (&ann, false, "{}", r#"{"owner":"a\"n"}"#),
            (&ann, false, r#"{"n" : 1.0}"#, r#"{"n" : 1.0,"owner":"a\"n"}"#),
            (&nobody, false, r#"{"n":1}"#, r#"{"n":1,"owner":null}"#),
            (&ann, false, r#"{"owner" : null,"n":1}"#, r#"{"owner" : null,"n":1}"#),
            (&ann, true, r#"{"owner" : null,"n":1}"#, r#"{"owner" : "a\"n","n":1}"#),
            (&ann, true, r#"{"owner":"bob","\u006fwner":null}"#, r#"{"owner":"bob","\u006fwner":"a\"n"}"#),
            (&ann, true, r#"{"owner":"bob"}"#, r#"{"owner":"bob"}"#),
            (&replicator, true, "{}", "{}"),
        ] {
            let found = Author { caller: author, is_admin }.own(body.into());
            assert_eq!(String::from_utf8(found).unwrap(), owned, "{body}");
        }
    }

    #[test]
    fn whoever_isnt_the_owner_or_an_admin_writes_and_replaces_nothing() {
        let (ann, bob) = (caller("ann"), caller("bob"));
        let (hers, his) = (json!({ "owner": "ann" }), json!({ "owner": "bob" }));
        let (hers, his) = (hers.as_object().unwrap(), his.as_object().unwrap());
        let may = |author: &Caller, is_admin, new: &Body, old| {
            let author = Author { caller: author, is_admin };
            let text = Value::Object(new.clone()).to_string();
            author.may_write(text.as_bytes(), false, |_| Ok(()))?;
            author.may_change(&Change { new, old, is_branch: false, is_replicated: false, deletes: false })
        };
        assert_eq!(may(&ann, false, hers, Some(hers)), Ok(()));
        assert_eq!(may(&bob, true, his, Some(hers)), Ok(()));
        for (new, old) in [(hers, None), (hers, Some(hers)), (his, Some(hers)), (his, Some(&Body::new()))] {
            assert_eq!(may(&bob, false, new, old), Err(Forbidden(OTHERS.into())), "{new:?} {old:?}");
        }
    }

    /// Else an admin of one database would have anybody's rights on all of them.
    #[test]
    fn in_anothers_name_only_server_admins_have_something_else_done() {
        let (dba, root) = (caller("dba"), Caller { name: Some("root".into()), ..Caller::server_admin() });
        let old = json!({ "owner": "ann", "source": "a", "target": "b", "_replication_state": "failed" });
        let old = old.as_object().unwrap();
        let may = |caller: &Caller, new: Value, deletes| {
            let new = new.as_object().unwrap();
            let change = Change { new, old: Some(old), is_branch: false, is_replicated: false, deletes };
            Author { caller, is_admin: true }.may_change(&change)
        };
        let other = json!({ "owner": "ann", "source": "a", "target": "c" });
        let refused = Err(Forbidden(IN_HIS_NAME.into()));
        assert_eq!(may(&dba, other.clone(), false), refused);
        assert_eq!(may(&dba, json!({ "owner": "root", "source": "a", "target": "b" }), false), refused);
        assert_eq!(may(&root, other, false), Ok(()));
        for (new, deletes) in [
            (json!({ "target": "b", "source": "a", "owner": "ann" }), false),
            (json!({ "target": "b", "source": "a", "owner": "ann", "paused": true }), false),
            (json!({ "target": "c", "source": "a", "owner": "dba" }), false),
            (json!({ "owner": "ann" }), true),
        ] {
            assert_eq!(may(&dba, new.clone(), deletes), Ok(()), "{new}");
        }
    }

    #[test]
    fn a_conflict_is_for_admins_to_bring() {
        let (ann, new) = (caller("ann"), Body::new());
        let change = Change { new: &new, old: None, is_branch: true, is_replicated: true, deletes: true };
        assert_eq!(Author { caller: &ann, is_admin: false }.may_change(&change), Err(Forbidden(BRANCH.into())));
        assert_eq!(Author { caller: &ann, is_admin: true }.may_change(&change), Ok(()));
    }

    #[test]
    fn what_the_replicator_wrote_stays_or_goes() {
        let old = json!({ "owner": "ann", "_replication_state": "completed", "_replication_stats": { "n": 1 } });
        let old = old.as_object().unwrap();
        let may = |caller: &Caller, mut new: Value, is_replicated| {
            let author = Author { caller, is_admin: true };
            new["owner"] = "ann".into();
            author.may_change(&Change {
                new: new.as_object().unwrap(),
                old: Some(old),
                is_branch: false,
                is_replicated,
                deletes: false,
            })
        };
        let (ann, root, replicator) = (caller("ann"), Caller::server_admin(), Caller::replicator());
        for caller in [&ann, &root] {
            for kept in [json!(old), json!({ "_replication_state": "completed" }), json!({})] {
                assert_eq!(may(caller, kept, false), Ok(()));
            }
            for changed in [
                json!({ "_replication_state": "triggered" }),
                json!({ "_replication_stats": { "n": 2 } }),
                json!({ "_replication_id": "x" }),
            ] {
                let told = may(caller, changed.clone(), false).map_err(|forbidden| forbidden.0);
                let is_refused = told.is_err_and(|told| told.starts_with("Only the replicator writes `_replication_"));
                assert_eq!(is_refused, !caller.is_server_admin(), "{changed}");
                assert_eq!(may(&replicator, changed, false), Ok(()));
            }
        }
        // However it comes.
        let moved = json!({ "_replication_state": "failed" });
        assert!(may(&ann, moved.clone(), true).is_err() && may(&root, moved, true).is_ok());
    }

    #[test]
    fn only_what_lives_and_hasnt_failed_must_make_sense() {
        let ann = caller("ann");
        let author = Author { caller: &ann, is_admin: true };
        let check: Check = |_| Err("no".into());
        assert_eq!(author.may_write(b"{}", false, check), Err(Forbidden("no".into())));
        assert_eq!(author.may_write(b"{}", true, check), Ok(()));
        assert_eq!(author.may_write(br#"{"_replication_state":"failed"}"#, false, check), Ok(()));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(500), "]".repeat(500));
        assert_eq!(author.may_write(deep.as_bytes(), false, |_| Ok(())), Err(Forbidden::UNREADABLE));
    }
}
