//! Filtered replications take what CouchDB's own replicator takes, wherever the source lives.

use serde_json::{Value, json};

use super::content::{data, noise};
use super::rig::{Db, Replicator, Rig, Side};
use crate::support::Leaf;

/// Requests that choose documents, each in its own way.
fn choices() -> Vec<Value> {
    vec![
        json!({ "filter": "app/mine", "query_params": { "owner": "anna & «bob»" } }),
        json!({ "filter": "app/mine", "query_params": { "owner": "carl" } }),
        json!({ "filter": "app/live" }),
        json!({ "filter": "_view", "query_params": { "view": "app/even" } }),
        json!({ "filter": "_design" }),
        json!({ "selector": { "n": { "$gte": 10, "$lt": 20 }, "$not": { "owner": "carl" } } }),
        json!({ "selector": { "_id": { "$regex": "^odd" } } }),
        json!({ "doc_ids": ["doc-007", "odd/id é", "gone", "conflicted", "no such document"] }),
        json!({ "winning_revs_only": true }),
    ]
}

async fn fill(db: &Db) {
    let owners = ["anna & «bob»", "carl"];
    let docs = (0..120).map(|n| json!({ "_id": format!("doc-{n:03}"), "n": n, "owner": owners[n % 2] }));
    let app = json!({ "_id": "_design/app", "language": "javascript",
    "views": { "even": { "map": "function (doc) { if (doc.n % 2 === 0) emit(doc.n); }" } },
    "filters": {
        "mine": "function (doc, req) { return doc.owner === req.query.owner; }",
        "live": "function (doc, req) {\n  return !doc._deleted && doc._id[0] !== '_';\n}\n",
    }});
    let odd = json!({ "_id": "odd/id é", "owner": "carl", "_attachments": { "a": data(&noise(2000)) } });
    db.write(docs.chain([app, odd, json!({ "_id": "gone" })]).collect()).await;
    let mut gone = db.docs(&["gone", "doc-011"]).await;
    gone.iter_mut().for_each(|doc| doc["_deleted"] = json!(true));
    db.write(gone).await;
    let branch =
        |digit: &str| json!({ "_id": "conflicted", "_rev": format!("1-{}", digit.repeat(32)), "n": 12, "by": digit });
    db.write_revisions(vec![branch("a"), branch("b")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_chosen_is_what_couchdbs_own_replicator_chooses() {
    let Some(rig) = Rig::start().await else { return };
    for side in [Side::First, Side::Store] {
        let source = rig.database(side).await;
        fill(&source).await;
        for choice in choices() {
            let theirs = rig.database(Side::Second).await;
            rig.replicate(Replicator::CouchDb, &source, &theirs, &choice).await;
            let expected = theirs.leaves().await;
            assert!(!expected.is_empty(), "{side:?} {choice}");
            for to in [Side::Second, Side::Store] {
                let ours = rig.database(to).await;
                rig.replicate(Replicator::Couchrep, &source, &ours, &choice).await;
                let found = ours.leaves().await;
                let ids = |leaves: &[Leaf]| leaves.iter().map(|leaf| leaf.id.clone()).collect::<Vec<_>>();
                assert_eq!(ids(&found), ids(&expected), "{side:?} to {to:?}, {choice}");
                assert!(found == expected, "{side:?} to {to:?}, {choice}: leaves differ");
            }
        }
    }
}
