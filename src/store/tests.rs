//! The store as a whole: what is written is what is read, through restarts.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::access::{Caller, Security};
use crate::document::{Digest, DocParts, Rev};

mod attachments;
mod compaction;
mod db_updates;
mod lifetimes;
mod validations;

struct Bench {
    store: Store,
    database: Arc<Database>,
    directory: TempDir,
}

async fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), StoreSettings::default()).await.unwrap();
    let database = store.create(&name("db")).await.unwrap();
    Bench { store, database, directory }
}

fn name(name: &str) -> DbName {
    DbName::parse(name).unwrap()
}

impl Bench {
    async fn reopen(self) -> Self {
        self.store.close().await;
        drop((self.store, self.database));
        let store = Store::open(self.directory.path(), StoreSettings::default()).await.unwrap();
        let database = store.database(&name("db")).await.unwrap();
        Self { store, database, directory: self.directory }
    }

    async fn put(&self, id: &str, json: &str) -> Result<Rev, Refusal> {
        self.write(id, json, false).await
    }

    async fn write(&self, id: &str, json: &str, replicated: bool) -> Result<Rev, Refusal> {
        let parts = DocParts::parse(json.as_bytes()).unwrap();
        let edit = Edit::new(&parts, id.into(), replicated, Vec::new()).unwrap();
        self.database.write(vec![edit], &Caller::server_admin(), Durability::Unsynced).await.unwrap().remove(0)
    }

    async fn json(&self, id: &str, options: DocOptions) -> String {
        let id = id.to_owned();
        let read = self.database.read(move |snapshot| {
            let record = snapshot.document(&id)?.unwrap();
            let mut json = Vec::new();
            snapshot.render(&id, &record, &record.tree.winner().unwrap(), &options, &mut json)?;
            Ok(String::from_utf8(json).unwrap())
        });
        read.await.unwrap()
    }

    async fn feed(&self, since: u64) -> Vec<(u64, String, bool, Vec<String>)> {
        let read = self.database.read(move |snapshot| {
            let mut rows = Vec::new();
            snapshot.changes(since, |row| {
                rows.push((row.seq, row.id, row.deleted, row.leaves.iter().map(Rev::to_string).collect()));
                Ok(true)
            })?;
            assert_eq!(snapshot.pending(since)?, rows.len() as u64);
            Ok(rows)
        });
        read.await.unwrap()
    }
}

#[tokio::test]
async fn a_body_comes_back_byte_for_byte() {
    let bench = bench().await;
    let rev = bench
        .put("a", r#"{"n":1.0, "_id":"a","big":12345678901234567890123,"z":{ "k" : [1e300] },"a":"\u00e9"}"#)
        .await
        .unwrap();
    let expected = format!(
        r#"{{"_id":"a","_rev":"{rev}","n":1.0,"big":12345678901234567890123,"z":{{ "k" : [1e300] }},"a":"\u00e9"}}"#
    );
    assert_eq!(bench.json("a", DocOptions::default()).await, expected);
    assert_eq!(bench.reopen().await.json("a", DocOptions::default()).await, expected);
}

#[tokio::test]
async fn a_new_edit_needs_the_leaf_it_replaces() {
    let bench = bench().await;
    let first = bench.put("a", "{}").await.unwrap();
    assert_eq!(bench.put("a", "{}").await, Err(Refusal::Conflict));
    let second = bench.put("a", &format!(r#"{{"_rev":"{first}","n":2}}"#)).await.unwrap();
    assert_eq!(second.pos, 2);
    assert_eq!(bench.put("a", &format!(r#"{{"_rev":"{first}","n":3}}"#)).await, Err(Refusal::Conflict));
    let deleted = bench.put("a", &format!(r#"{{"_rev":"{second}","_deleted":true}}"#)).await.unwrap();
    // As CouchDB: what is deleted is neither deleted again nor edited by the name of its deletion, only made anew.
    assert_eq!(bench.put("a", r#"{"_deleted":true}"#).await, Err(Refusal::Conflict));
    assert_eq!(bench.put("a", &format!(r#"{{"_rev":"{deleted}","n":4}}"#)).await, Err(Refusal::Conflict));
    let again = bench.put("a", r#"{"n":4}"#).await.unwrap();
    assert_eq!((deleted.pos, again.pos), (3, 4));
    assert_eq!(bench.put("a", r#"{"_rev":"1-a"}"#).await, Err(Refusal::Conflict));
    let stats = bench.database.stats().await.unwrap();
    assert_eq!((stats.doc_count, stats.doc_del_count, stats.update_seq), (1, 0, 4));
}

/// An edit over the greatest generation made a revision that no CouchDB, nor this server, could read.
#[tokio::test]
async fn nothing_is_edited_over_the_greatest_generation() {
    let bench = bench().await;
    let greatest = format!("{}-a", crate::document::MAX_POS);
    let named = format!(r#"{{"_rev":"{greatest}"}}"#);
    let over_named = [named.clone(), format!(r#"{{"_rev":"{greatest}","_deleted":true}}"#)];
    for json in &over_named {
        assert_eq!(bench.put("never", json).await, Err(Refusal::Conflict));
    }
    bench.write("leaf", &named, true).await.unwrap();
    for json in &over_named {
        assert_eq!(bench.put("leaf", json).await, Err(Refusal::Conflict));
    }
    bench.write("deleted", &over_named[1], true).await.unwrap();
    assert_eq!(bench.put("deleted", "{}").await, Err(Refusal::Conflict));
}

/// A write was answered before its seq was told: whoever asked for a replication then was served by one that had ended
/// without his document, since its source seemed to be where it had left it.
#[tokio::test]
async fn whoever_has_written_finds_the_new_seq() {
    let bench = bench().await;
    for number in 1..=100 {
        bench.put(&format!("doc{number}"), "{}").await.unwrap();
        assert_eq!(bench.database.update_seq(), number);
    }
}

#[tokio::test]
async fn a_known_revision_changes_nothing_and_needs_no_seq() {
    let bench = bench().await;
    let json = r#"{"_rev":"2-b","_revisions":{"start":2,"ids":["b","a"]},"n":1}"#;
    bench.write("a", json, true).await.unwrap();
    bench.write("a", json, true).await.unwrap();
    bench.write("a", r#"{"_rev":"1-a","n":0}"#, true).await.unwrap();
    assert_eq!(bench.feed(0).await, [(1, "a".into(), false, vec!["2-b".into()])]);
}

#[tokio::test]
async fn the_feed_shows_each_document_once_with_all_leaves_the_winner_first() {
    let bench = bench().await;
    for (id, rev) in [("a", "1-a"), ("b", "1-a"), ("a", "1-c"), ("a", "2-x")] {
        let deleted = if rev == "2-x" { r#","_deleted":true"# } else { "" };
        bench.write(id, &format!(r#"{{"_rev":"{rev}"{deleted}}}"#), true).await.unwrap();
    }
    let all = bench.feed(0).await;
    assert_eq!(all[0], (2, "b".into(), false, vec!["1-a".into()]));
    assert_eq!(all[1], (4, "a".into(), false, vec!["1-c".into(), "1-a".into(), "2-x".into()]));
    assert_eq!(all.len(), 2);
    assert_eq!(bench.feed(2).await.len(), 1);
}

#[tokio::test]
async fn a_local_document_is_written_over_the_revision_it_has() {
    let database = bench().await.database;
    let put = async |rev: Option<&str>, body: Option<&str>| {
        database.put_local_doc("x", rev, body.map(|body| body.as_bytes().to_vec())).await.unwrap()
    };
    assert_eq!(put(None, Some("{}")).await.unwrap(), "0-1");
    assert_eq!(put(None, Some("{}")).await, Err(Refusal::Conflict));
    assert_eq!(put(Some("0-1"), Some("{}")).await.unwrap(), "0-2");
    assert_eq!(put(Some("0-1"), None).await, Err(Refusal::Conflict));
    assert_eq!(put(Some("0-2"), None).await.unwrap(), "0-0");
    assert_eq!(database.local_docs(LocalRange::default()).await.unwrap(), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is written in whatever order, the feed, the counts and the documents agree with each other.
    #[test]
    fn tables_stay_in_step(edits in prop::collection::vec((0..6u8, 1..4u64, 0..3u8, any::<bool>(), any::<bool>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bench = bench().await;
            for (document, pos, hash, deleted, attached) in edits {
                let ids: Vec<String> = (0..pos).map(|age| format!("\"{}{hash}\"", pos - age)).collect();
                let attachments = match attached {
                    true => format!(r#","_attachments":{{"x":{{"content_type":"a/b","data":"eHh{hash}"}}}}"#),
                    false => String::new(),
                };
                let json = format!(
                    r#"{{"_revisions":{{"start":{pos},"ids":[{}]}},"_deleted":{deleted},"n":{hash}{attachments}}}"#,
                    ids.join(",")
                );
                bench.write(&document.to_string(), &json, true).await.unwrap();
            }
            let feed = bench.feed(0).await;
            let stats = bench.database.stats().await.unwrap();
            let deleted = feed.iter().filter(|row| row.2).count() as u64;
            assert_eq!((stats.doc_count, stats.doc_del_count), (feed.len() as u64 - deleted, deleted));
            for (seq, id, _, leaves) in feed {
                bench.database.read(move |snapshot| {
                    let record = snapshot.document(&id)?.unwrap();
                    assert_eq!(record.seq, seq);
                    let found: Vec<String> = record.tree.leaves().iter().map(|leaf| leaf.rev.to_string()).collect();
                    assert_eq!(found, leaves);
                    for leaf in record.tree.leaves() {
                        let options = DocOptions { attachments: AttachmentsAs::Inline, ..DocOptions::default() };
                        snapshot.render(&id, &record, &leaf, &options, &mut Vec::new())?;
                    }
                    assert_eq!(snapshot.pending(seq)?, stats.doc_count + stats.doc_del_count - {
                        let mut until = 0;
                        snapshot.changes(0, |row| { until += 1; Ok(row.seq < seq) })?;
                        until
                    });
                    Ok(())
                }).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_longer_path_that_joins_two_leaves_is_told_by_feed_and_counts() {
    let bench = bench().await;
    bench.write("a", r#"{"_rev":"1-a"}"#, true).await.unwrap();
    bench.write("a", r#"{"_rev":"2-b","_deleted":true}"#, true).await.unwrap();
    let path = r#"{"_rev":"2-b","_revisions":{"start":2,"ids":["b","a"]},"_deleted":true}"#;
    bench.write("a", path, true).await.unwrap();
    assert_eq!(bench.feed(0).await, [(3, "a".into(), true, vec!["2-b".into()])]);
    let stats = bench.database.stats().await.unwrap();
    assert_eq!((stats.doc_count, stats.doc_del_count), (0, 1));
}
