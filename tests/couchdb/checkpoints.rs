//! Either replicator goes on from the checkpoint that the other wrote, since both compute the same ids.

use serde_json::{Value, json};

use super::rig::{Db, Replicator, Rig, Side};

/// Requests whose ids are computed in different ways, with the owner of the documents that they take.
fn requests() -> Vec<Value> {
    vec![
        json!({}),
        json!({ "filter": "app/mine", "query_params": { "owner": "anna", "b": "2" } }),
        json!({ "filter": "_view", "query_params": { "view": "app/mine" } }),
        json!({ "selector": { "owner": "anna", "n": { "$not": { "$lt": -1 } } } }),
        json!({ "winning_revs_only": true }),
    ]
}

async fn write(db: &Db, first: usize, count: usize) {
    let docs = (first..first + count).map(|n| json!({ "_id": format!("doc-{n:05}"), "n": n, "owner": "anna" }));
    db.write(docs.collect()).await;
}

/// Replicates in turns and asserts that each goes on where the other stopped: it reads what is new, and nothing else.
async fn take_turns(turns: [Replicator; 4]) {
    let Some(rig) = Rig::start().await else { return };
    for request in requests() {
        let (source, target) = (rig.database(Side::First).await, rig.database(Side::Second).await);
        let app = json!({ "_id": "_design/app", "language": "javascript", "owner": "anna",
            "views": { "mine": { "map": "function (doc) { if (doc.owner === 'anna') emit(doc.n); }" } },
            "filters": { "mine": "function (doc, req) { return doc.owner === req.query.owner; }" } });
        source.write(vec![app]).await;
        write(&source, 0, 700).await;
        let mut before = rig.replicate(turns[0], &source, &target, &request).await;
        for (turn, by) in turns.into_iter().enumerate().skip(1) {
            let what = format!("turn {turn}, {by:?}, {request}");
            let nothing = rig.replicate(by, &source, &target, &request).await;
            assert_eq!(nothing["no_changes"], true, "{what}: {nothing}");
            write(&source, turn * 10_000, 7).await;
            let after = rig.replicate(by, &source, &target, &request).await;
            assert_eq!(after["history"][0]["start_last_seq"], before["source_last_seq"], "{what}: {after}");
            for counter in ["missing_checked", "docs_read", "docs_written"] {
                assert_eq!(counted(by, &after, counter), 7, "{what}, {counter}: {after}");
            }
            assert_eq!(after["history"][1]["session_id"], before["session_id"], "{what}: {after}");
            before = after;
        }
        let copied = target.get("").await;
        assert!(copied["doc_count"].as_u64().unwrap() >= 721, "{request}: {copied}");
    }
}

/// What the newest session counted: CouchDB's own counters run on from the session before.
fn counted(by: Replicator, answer: &Value, counter: &str) -> u64 {
    let [newest, before] = [0, 1].map(|session| answer["history"][session][counter].as_u64().unwrap());
    if by == Replicator::CouchDb { newest - before } else { newest }
}

#[tokio::test(flavor = "multi_thread")]
async fn couchrep_takes_over_checkpoints_that_couchdb_wrote() {
    use Replicator::{CouchDb, Couchrep};
    take_turns([CouchDb, Couchrep, CouchDb, Couchrep]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn couchdb_takes_over_checkpoints_that_couchrep_wrote() {
    use Replicator::{CouchDb, Couchrep};
    take_turns([Couchrep, CouchDb, Couchrep, CouchDb]).await;
}
