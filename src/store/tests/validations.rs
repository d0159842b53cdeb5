//! What design documents refuse is never written, whatever is written meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::config::Javascript;
use crate::store::prepared::Prepared;
use crate::store::work::{Done, Work};

/// Refuses documents whose `n` is below `least`.
fn at_least(least: u64) -> String {
    let function = format!("function (doc) {{ if (doc.n < {least}) throw {{forbidden: 'less than {least}'}} }}");
    serde_json::json!({ "validate_doc_update": function }).to_string()
}

fn forbidden(reason: &str) -> Refusal {
    refused("forbidden", reason)
}

fn refused(error: &str, reason: &str) -> Refusal {
    Refusal::Script(crate::javascript::ScriptError { error: error.into(), reason: reason.into() })
}

fn edit(id: &str, json: &str) -> Edit {
    Edit::new(&DocParts::parse(json.as_bytes()).unwrap(), id.into(), false, Vec::new()).unwrap()
}

impl Bench {
    async fn write_all(&self, edits: Vec<Edit>) -> Vec<Result<Rev, Refusal>> {
        self.database.write(edits, &Caller::server_admin(), Durability::Unsynced).await.unwrap()
    }
}

#[tokio::test]
async fn a_database_without_validations_reads_nothing_to_write() {
    let bench = bench().await;
    bench.put("first", "{}").await.unwrap();
    let before = bench.database.reads();
    for n in 0..10 {
        bench.put(&n.to_string(), "{}").await.unwrap();
    }
    assert_eq!(bench.database.reads(), before);
    // Nor does one that has other design documents, but for once after each of them.
    bench.put("_design/d", r#"{"filters":{}}"#).await.unwrap();
    for n in 10..20 {
        bench.put(&n.to_string(), "{}").await.unwrap();
    }
    assert_eq!(bench.database.reads(), before + 1);
}

#[tokio::test]
async fn a_refused_document_leaves_the_others_of_its_call() {
    let bench = bench().await;
    bench.put("_design/d", &at_least(2)).await.unwrap();
    let written = bench.write_all((0..5).map(|n| edit(&n.to_string(), &format!(r#"{{"n":{n}}}"#))).collect()).await;
    let told: Vec<_> = written.iter().map(Result::is_ok).collect();
    assert_eq!(told, [false, false, true, true, true]);
    assert_eq!(written[0], Err(forbidden("less than 2")));
    let ids: Vec<_> = bench.feed(0).await.into_iter().map(|(_, id, ..)| id).collect();
    assert_eq!(ids, ["_design/d", "2", "3", "4"]);
    // All of them refused.
    assert_eq!(bench.write_all(vec![edit("x", r#"{"n":0}"#)]).await, [Err(forbidden("less than 2"))]);
}

#[tokio::test]
async fn a_validation_lasts_from_its_design_documents_write_to_its_deletion() {
    let bench = bench().await;
    // Its neighbours aren't judged by it, as in CouchDB.
    let call = vec![edit("a", r#"{"n":0}"#), edit("_design/d", &at_least(1)), edit("b", r#"{"n":0}"#)];
    let design = bench.write_all(call).await.remove(1).unwrap();
    assert_eq!(bench.put("c", r#"{"n":0}"#).await, Err(forbidden("less than 1")));
    let bench = bench.reopen().await;
    assert_eq!(bench.put("c", r#"{"n":0}"#).await, Err(forbidden("less than 1")));
    // Of two, the one of the lesser id speaks first.
    bench.put("_design/a", &at_least(2)).await.unwrap();
    assert_eq!(bench.put("c", r#"{"n":0}"#).await, Err(forbidden("less than 2")));
    bench.put("_design/d", &format!(r#"{{"_rev":"{design}","_deleted":true}}"#)).await.unwrap();
    assert_eq!(bench.put("c", r#"{"n":1}"#).await, Err(forbidden("less than 2")));
    bench.put("c", r#"{"n":2}"#).await.unwrap();
}

/// A writer that was judged before a design document was written waits in the same group as it.
#[tokio::test]
async fn what_was_judged_before_a_design_document_of_the_same_group_is_judged_again() {
    let bench = bench().await;
    bench.put("first", "{}").await.unwrap();
    let writer = bench.database.writer();
    let generation = writer.generation();
    let ask = |id: &str, json: &str| {
        let edits = vec![Prepared::new((0, edit(id, json))).unwrap()];
        writer.ask(Work::Edits { edits, generation, durability: Durability::Unsynced })
    };
    let (before, design, after) =
        tokio::join!(ask("before", "{}"), ask("_design/d", &at_least(1)), ask("after", r#"{"n":0}"#));
    assert!(matches!(before.unwrap(), Done::Written(_)));
    assert!(matches!(design.unwrap(), Done::Written(_)));
    assert!(matches!(after.unwrap(), Done::Again(edits) if edits.len() == 1));
    assert_eq!(bench.feed(0).await.len(), 3);
}

/// Each of ten design documents refuses more; nothing that it refuses may come after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_under_validations_that_were_replaced_before() {
    let bench = Arc::new(bench().await);
    let tasks = Tasks::default();
    let level = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (bench, level) = (bench.clone(), level.clone());
            tasks.spawn("writer", async move {
                for number in 0.. {
                    let n = level.load(Ordering::SeqCst);
                    if n >= 10 {
                        return number;
                    }
                    let (id, json) = (format!("{writer}-{number}"), format!(r#"{{"n":{n}}}"#));
                    _ = bench.put(&id, &json).await;
                }
                0
            })
        })
        .collect();
    for least in 1..=10 {
        bench.put(&format!("_design/{least:02}"), &at_least(least)).await.unwrap();
        level.store(least, Ordering::SeqCst);
        // A few writes before the next one.
        let mut updates = bench.database.updates();
        for _ in 0..3 {
            if least < 10 {
                updates.changed().await.unwrap();
            }
        }
    }
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    let mut least = 0;
    for (_, id, ..) in bench.feed(0).await {
        if let Some(level) = id.strip_prefix("_design/") {
            least = level.parse().unwrap();
            continue;
        }
        let json = bench.json(&id, DocOptions::default()).await;
        let n = serde_json::from_str::<serde_json::Value>(&json).unwrap()["n"].as_u64().unwrap();
        assert!(n >= least, "{id} of {n} came after {least}");
    }
    assert_eq!(least, 10);
}

/// The document that it replaces has changed: the function would have been asked about another one.
#[tokio::test]
async fn an_edit_is_judged_by_what_it_replaces_when_it_is_written() {
    let bench = bench().await;
    let function = "function (newDoc, oldDoc) { if (oldDoc && oldDoc.locked) throw {forbidden: 'locked'} }";
    bench.put("_design/d", &serde_json::json!({ "validate_doc_update": function }).to_string()).await.unwrap();
    bench.write("a", r#"{"_rev":"1-a"}"#, true).await.unwrap();
    bench.write("a", r#"{"_revisions":{"start":2,"ids":["b","a"]},"locked":true}"#, true).await.unwrap();
    let third = r#"{"_revisions":{"start":3,"ids":["c","b","a"]}}"#;
    assert_eq!(bench.write("a", third, true).await, Err(forbidden("locked")));
    // On another branch, with a parent that isn't stored.
    bench.write("a", r#"{"_revisions":{"start":3,"ids":["d","x","a"]}}"#, true).await.unwrap();
    // What is there already isn't asked about.
    bench.write("a", r#"{"_revisions":{"start":2,"ids":["b","a"]}}"#, true).await.unwrap();

    // Many tell the writer different parents at once: those that find the lock are refused, whoever comes first.
    bench.write("b", r#"{"_rev":"1-a"}"#, true).await.unwrap();
    let lock = r#"{"_revisions":{"start":2,"ids":["b","a"]},"locked":true}"#;
    let before = bench.database.update_seq();
    let (locked, after) = tokio::join!(bench.write("b", lock, true), bench.write("b", third, true));
    locked.unwrap();
    let leaves = bench.feed(0).await.pop().unwrap().3;
    match after {
        Ok(rev) => assert_eq!(leaves, [rev.to_string()]),
        Err(refusal) => assert_eq!((refusal, leaves), (forbidden("locked"), vec!["2-b".to_owned()])),
    }
    // Had the other one come after the lock and been written, there would be two updates.
    assert_eq!(bench.database.update_seq(), before + 1);
}

/// Whoever sends a revision again, with ancestors that he has made up, replaced another's leaf without being judged.
#[tokio::test]
async fn made_up_ancestors_replace_no_leaf_that_nobody_was_judged_by() {
    let bench = bench().await;
    let function =
        "function (newDoc, oldDoc) { if (oldDoc && oldDoc.owner != newDoc.owner) throw {forbidden: 'not yours'} }";
    bench.put("_design/d", &serde_json::json!({ "validate_doc_update": function }).to_string()).await.unwrap();
    bench.write("a", r#"{"_rev":"1-a","owner":"ann"}"#, true).await.unwrap();
    bench.write("a", r#"{"_revisions":{"start":5,"ids":["z"]},"owner":"bob"}"#, true).await.unwrap();
    let claim = r#"{"_revisions":{"start":5,"ids":["z","y","x","w","a"]},"owner":"bob"}"#;
    bench.write("a", claim, true).await.unwrap();
    let leaves = |feed: Vec<(u64, String, bool, Vec<String>)>| feed.into_iter().find(|row| row.1 == "a").unwrap().3;
    assert_eq!(leaves(bench.feed(0).await), ["5-z", "1-a"]);
    // Over two leaves at once: judged by the nearer, which is his own.
    let both = r#"{"_revisions":{"start":6,"ids":["q","z","y","x","w","a"]},"owner":"bob"}"#;
    bench.write("a", both, true).await.unwrap();
    assert_eq!(leaves(bench.feed(0).await), ["6-q", "1-a"]);
}

#[tokio::test]
async fn a_function_that_is_broken_or_takes_too_long_refuses_and_holds_up_no_other_database() {
    let directory = tempfile::tempdir().unwrap();
    let javascript =
        Javascript { call_time: std::time::Duration::from_millis(300), interpreters: 2, ..Javascript::default() };
    let settings = StoreSettings { javascript, ..StoreSettings::default() };
    let store = Store::open(directory.path(), settings).await.unwrap();
    let (database, other) = (store.create(&name("db")).await.unwrap(), store.create(&name("other")).await.unwrap());
    let write = async |database: &Database, id: &str, json: &str| {
        let edits = vec![edit(id, json)];
        database.write(edits, &Caller::server_admin(), Durability::Unsynced).await.unwrap().remove(0)
    };
    let function = "function (doc) { if (doc.endless) for (;;) {} if (doc.broken) null.x }";
    let design = serde_json::json!({ "validate_doc_update": function }).to_string();
    write(&database, "_design/d", &design).await.unwrap();
    let endless = async {
        let edits = vec![edit("a", r#"{"endless":1}"#), edit("b", "{}"), edit("c", r#"{"broken":1}"#)];
        database.write(edits, &Caller::server_admin(), Durability::Unsynced).await.unwrap()
    };
    let (written, _) = tokio::join!(endless, async {
        for n in 0..10 {
            write(&other, &n.to_string(), "{}").await.unwrap();
        }
    });
    assert_eq!(written[0], Err(refused("os_process_error", "OS process timed out.")));
    assert!(written[1].is_ok());
    assert!(matches!(&written[2], Err(Refusal::Script(error)) if error.error == "TypeError"), "{:?}", written[2]);
    let bad = serde_json::json!({ "validate_doc_update": "function (" }).to_string();
    write(&other, "_design/bad", &bad).await.unwrap();
    let refusal = write(&other, "x", "{}").await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Script(error) if error.error == "compilation_error"), "{refusal:?}");
}

#[tokio::test]
async fn design_documents_are_the_admins_and_make_sense() {
    let bench = bench().await;
    let ann = Caller { name: Some("ann".into()), ..Caller::default() };
    let edits = || vec![edit("_design/d", "{}"), edit("a", "{}")];
    let written = bench.database.write(edits(), &ann, Durability::Unsynced).await.unwrap();
    assert_eq!(written[0], Err(Refusal::Denied(crate::access::Denied::MayNotDesign { known: true })));
    assert!(written[1].is_ok());
    let security = crate::access::Security::parse(br#"{"admins":{"names":["ann"]}}"#).unwrap();
    bench.database.set_security(security).await.unwrap();
    let written = bench.database.write(vec![edit("_design/ann", "{}")], &ann, Durability::Unsynced).await.unwrap();
    assert!(written[0].is_ok());
    let views = |map: &str| serde_json::json!({ "views": { "v": { "map": map } } }).to_string();
    bench.put("_design/d", &views("function (doc) { emit(doc.n) }")).await.unwrap();
    let refusal = bench.put("_design/e", &views("function (")).await.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Compilation(reason)
        if reason.starts_with("Compilation of the map function in the 'v' view failed: SyntaxError: ")),
        "{refusal:?}"
    );
    let refusal = bench.put("_design/e", r#"{"views":[]}"#).await;
    assert_eq!(refusal, Err(Refusal::InvalidDesign("`views` field must have object type".into())));
}

#[tokio::test]
async fn a_validation_is_told_who_writes_and_what_the_security_object_says_now() {
    let bench = bench().await;
    let function =
        "function (newDoc, oldDoc, userCtx, secObj) { throw {forbidden: JSON.stringify([userCtx, secObj])} }";
    bench.put("_design/d", &serde_json::json!({ "validate_doc_update": function }).to_string()).await.unwrap();
    let ann = Caller { name: Some("ann".into()), roles: vec!["cook".into()], ..Caller::default() };
    for security in [r#"{"x":1}"#, r#"{"x":2,"members":{}}"#] {
        let parsed = crate::access::Security::parse(security.as_bytes()).unwrap();
        bench.database.set_security(parsed).await.unwrap();
        let written = bench.database.write(vec![edit("a", "{}")], &ann, Durability::Unsynced).await.unwrap();
        let told = format!(r#"[{{"db":"db","name":"ann","roles":["cook"]}},{security}]"#);
        assert_eq!(written, [Err(forbidden(&told))]);
    }
}

/// The replicator writes what it has found out beside whatever a person writes: a person's edit is never taken for its own, nor
/// judged by a document that was replaced meanwhile.
#[tokio::test]
async fn states_are_the_replicators_to_write() {
    let bench = bench().await;
    let database = bench.store.create(&name("a/_replicator")).await.unwrap();
    let ann = Caller { name: Some("ann".into()), ..Caller::default() };
    let write = async |caller: &Caller, json: &str| {
        database.write(vec![edit("job", json)], caller, Durability::Unsynced).await.unwrap().remove(0)
    };
    let first = write(&ann, r#"{"source":"a"}"#).await.unwrap();
    let state = r#""owner":"ann","_replication_state":"completed""#;
    let completed = format!(r#"{{"_rev":"{first}","source":"a",{state}}}"#);
    let reason = "Only the replicator writes `_replication_state`: leave it as it is, or leave it out to have the replication run again.";
    assert_eq!(write(&ann, &completed).await, Err(forbidden(reason)));
    let second = write(&Caller::replicator(), &completed).await.unwrap();
    assert_eq!(write(&Caller::replicator(), &completed).await, Err(Refusal::Conflict));
    let third = write(&ann, &format!(r#"{{"_rev":"{second}","source":"b",{state}}}"#)).await.unwrap();
    write(&ann, &format!(r#"{{"_rev":"{third}","source":"b"}}"#)).await.unwrap();
    let read = database.read(|snapshot| {
        let record = snapshot.document("job")?.unwrap();
        let mut json = Vec::new();
        snapshot.render("job", &record, &record.tree.winner().unwrap(), &DocOptions::default(), &mut json)?;
        Ok(String::from_utf8(json).unwrap())
    });
    let stored = read.await.unwrap();
    assert!(stored.ends_with(r#""source":"b","owner":"ann"}"#), "{stored}");
}
