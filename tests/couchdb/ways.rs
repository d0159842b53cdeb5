//! Every kind of content on every way: through couchrep between CouchDBs, out of and into its store, and through
//! CouchDB's own replicator, which pulls from couchrep and pushes into it.

use serde_json::{Value, json};

use super::content;
use super::rig::{Db, Replicator, Rig, WAYS, assert_replicas};

/// Writes, replicates, edits and replicates again, which must go on from where the first ended. `write` and `edit` are
/// told who replicates.
async fn carries_every_way(write: impl AsyncFn(&Db, Replicator), edit: impl AsyncFn(&Db)) {
    let Some(rig) = Rig::start().await else { return };
    for way in WAYS {
        let what = format!("{way:?}");
        let (source, target) = rig.databases(way).await;
        write(&source, way.by).await;
        let first = rig.replicate(way.by, &source, &target, &json!({})).await;
        assert_eq!(session(&first)["doc_write_failures"], 0, "{what}: {first}");
        assert_replicas(&source, &target, &what).await;
        edit(&source).await;
        let second = rig.replicate(way.by, &source, &target, &json!({})).await;
        assert_eq!(session(&second)["doc_write_failures"], 0, "{what}: {second}");
        assert_eq!(session(&second)["start_last_seq"], first["source_last_seq"], "{what}: {second}");
        assert_replicas(&source, &target, &what).await;
        let third = rig.replicate(way.by, &source, &target, &json!({})).await;
        assert_eq!(third["no_changes"], true, "{what}: {third}");
    }
}

fn session(answer: &Value) -> &Value {
    &answer["history"][0]
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_travel_with_odd_ids_and_all_digits() {
    carries_every_way(async |db, _| content::write_documents(db).await, content::edit_documents).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_travel_with_all_their_leaves() {
    carries_every_way(async |db, _| content::write_conflicts(db).await, content::edit_conflicts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_travel() {
    carries_every_way(async |db, _| content::write_deletions(db).await, content::edit_deletions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_travel_as_they_are_stored() {
    carries_every_way(async |db, _| content::write_attachments(db).await, content::edit_attachments).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_travel_under_any_name() {
    let write = async |db: &Db, by| content::write_odd_names(db, &content::odd_names(by == Replicator::Couchrep)).await;
    carries_every_way(write, content::edit_odd_names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn design_documents_travel() {
    carries_every_way(async |db, _| content::write_design_documents(db).await, content::edit_design_documents).await;
}
