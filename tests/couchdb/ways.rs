//! Every kind of content on every way: through couchrep between CouchDBs, out of and into its store, and through
//! CouchDB's own replicator, which pulls from couchrep and pushes into it.

use serde_json::{Value, json};

use super::content;
use super::rig::{Db, Replicator, Rig, Side, WAYS, assert_replicas, assert_verified};

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
async fn attachments_that_came_gzipped_keep_their_lengths() {
    carries_every_way(async |db, _| content::write_gzipped(db).await, content::edit_gzipped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_travel_under_any_name() {
    let write = async |db: &Db, by| content::write_odd_names(db, &content::odd_names(by == Replicator::Couchrep)).await;
    carries_every_way(write, content::edit_odd_names).await;
}

/// CouchDB writes attachments' names into the headers of multipart as they are, so this one ends them. Its own replicator
/// dies at it.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_ends_the_headers_of_multipart_stops_no_other_document() {
    let Some(rig) = Rig::start().await else { return };
    for target in [Side::Second, Side::Store] {
        let (source, target) = (rig.database(Side::First).await, rig.database(target).await);
        content::write_odd_names(&source, &["plain".into(), "x\r\n\r\n--boundary".into(), "other".into()]).await;
        content::write_design_documents(&source).await;
        let answer = rig.replicate(Replicator::Couchrep, &source, &target, &json!({})).await;
        let (source, target) = (source.leaves().await, target.leaves().await);
        // "name-1" and "all" have it: each is copied, or counted as a failure.
        let lacking: Vec<_> = source.iter().filter(|leaf| !target.contains(leaf)).map(|leaf| &*leaf.id).collect();
        assert!(lacking.iter().all(|id| ["all", "name-1"].contains(id)), "{lacking:?}");
        assert_eq!(session(&answer)["doc_write_failures"], lacking.len(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn design_documents_travel() {
    carries_every_way(async |db, _| content::write_design_documents(db).await, content::edit_design_documents).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_json_travels() {
    let Some(rig) = Rig::start().await else { return };
    for way in WAYS {
        let (source, target) = rig.databases(way).await;
        for depth in [100, 600, 2000] {
            content::write_deep(&source, depth).await;
        }
        let answer = rig.replicate(way.by, &source, &target, &json!({})).await;
        assert_eq!(session(&answer)["docs_written"], 3, "{way:?}: {answer}");
        assert_verified(&source, &target, &format!("{way:?}")).await;
    }
}
