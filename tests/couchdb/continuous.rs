//! Continuous replications carry what comes later, until they are cancelled.

use serde_json::json;

use super::content;
use super::rig::{Rig, WAYS, assert_replicas};

#[tokio::test(flavor = "multi_thread")]
async fn continuous_replications_carry_on_until_they_are_cancelled() {
    let Some(rig) = Rig::start().await else { return };
    for way in WAYS {
        let what = format!("{way:?}");
        let (source, target) = rig.databases(way).await;
        content::write_documents(&source).await;
        let started = rig.replicate(way.by, &source, &target, &json!({ "continuous": true })).await;
        target.has_got("doc-0699").await;
        content::edit_documents(&source).await;
        target.has_got("new-2").await;
        content::write_conflicts(&source).await;
        content::write_attachments(&source).await;
        source.write(vec![json!({ "_id": "the last" })]).await;
        target.has_got("the last").await;
        let cancel = json!({ "continuous": true, "cancel": true });
        let cancelled = rig.replicate(way.by, &source, &target, &cancel).await;
        assert_eq!(cancelled["_local_id"], started["_local_id"], "{what}");
        // Rows may overtake each other in a CouchDB's feed: a one-shot of the same id brings what was on its way.
        rig.replicate(way.by, &source, &target, &json!({})).await;
        assert_replicas(&source, &target, &what).await;
        source.write(vec![json!({ "_id": "after the end" })]).await;
        assert!(target.docs(&["after the end"]).await[0].is_null(), "{what}");
    }
}
