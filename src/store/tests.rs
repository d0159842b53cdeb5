//! The store as a whole: what is written is what is read, through restarts.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::document::{DocParts, Rev};

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
        self.database.write(vec![edit], Durability::Unsynced).await.unwrap().remove(0)
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
async fn equal_attachments_are_stored_once_and_go_with_their_last_reference() {
    let bench = bench().await;
    let with = |rev: &str| format!(r#"{{{rev}"_attachments":{{"x.bin":{{"content_type":"a/b","data":"aGVsbG8="}}}}}}"#);
    let first = bench.put("a", &with("")).await.unwrap();
    bench.put("b", &with("")).await.unwrap();
    let size = bench.database.stats().await.unwrap().active_size;
    assert_eq!(size, 2 + 2 + 5);
    bench.put("a", &format!(r#"{{"_rev":"{first}"}}"#)).await.unwrap();
    let options = DocOptions { attachments: AttachmentsAs::Inline, ..DocOptions::default() };
    assert!(bench.json("b", options).await.contains(r#""data":"aGVsbG8=""#));
    let rev = bench.json("b", DocOptions::default()).await;
    let rev: BTreeMap<String, serde_json::Value> = serde_json::from_str(&rev).unwrap();
    bench.put("b", &format!(r#"{{"_rev":{}}}"#, rev["_rev"])).await.unwrap();
    assert_eq!(bench.database.stats().await.unwrap().active_size, 2 + 2);
}

#[tokio::test]
async fn a_stub_keeps_its_ancestors_attachment_and_a_wrong_one_is_refused() {
    let bench = bench().await;
    let first =
        bench.put("a", r#"{"_attachments":{"x":{"content_type":"text/plain","data":"aGVsbG8="}}}"#).await.unwrap();
    let stub = |name: &str| format!(r#"{{"_rev":"{first}","_attachments":{{"{name}":{{"stub":true}}}}}}"#);
    let missing = Refusal::MissingStub { id: "a".into(), name: "y".into() };
    assert_eq!(bench.put("a", &stub("y")).await, Err(missing));
    bench.put("a", &stub("x")).await.unwrap();
    let json = bench.json("a", DocOptions { attachments: AttachmentsAs::Inline, ..DocOptions::default() }).await;
    assert!(json.contains(r#""revpos":1"#) && json.contains(r#""data":"aGVsbG8=""#), "{json}");
}

#[tokio::test]
async fn an_upload_of_many_chunks_is_read_back_from_any_offset() {
    let bench = bench().await;
    let data: Vec<u8> = (0..1_000_003u32).map(|n| (n % 251) as u8).collect();
    let mut upload = bench.database.upload("application/octet-stream", false);
    for piece in data.chunks(7777) {
        upload.push(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let (uploaded, digest) = upload.finish().await.unwrap();
    assert_eq!(digest, Digest::of(&data));
    let json = br#"{"_rev":"1-a","_attachments":{"x":{"content_type":"application/octet-stream","follows":true}}}"#;
    let parts = DocParts::parse(json).unwrap();
    let edit = Edit::new(&parts, "a".into(), true, vec![("x".into(), uploaded)]).unwrap();
    bench.database.write(vec![edit], Durability::Synced).await.unwrap().remove(0).unwrap();
    let bench = bench.reopen().await;
    let found = bench.database.read(|snapshot| {
        let record = snapshot.document("a")?.unwrap();
        snapshot.hold(snapshot.attachments(&record.tree.winner().unwrap())?.remove(0))
    });
    let attachment = found.await.unwrap();
    for start in [0, 1, 64_999, 65_000, 500_000, 1_000_002] {
        let mut read = Vec::new();
        loop {
            let piece = bench.database.attachment_piece(&attachment, (start + read.len()) as u64).await.unwrap();
            if piece.is_empty() {
                break;
            }
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, data[start..], "from {start}");
    }
}

/// A deadline that passed while others were served was put off by a whole interval, each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_never_rest_do_not_put_off_the_sync() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { sync_interval: Duration::from_millis(20), ..StoreSettings::default() };
    let store = Store::open(directory.path(), settings).await.unwrap();
    let bench = Bench { database: store.create(&name("db")).await.unwrap(), store, directory };
    let synced = async { while bench.database.read(|snapshot| Ok(snapshot.info().unsynced)).await.unwrap() {} };
    bench.put("first", "{}").await.unwrap();
    let writing = futures::future::join_all((0..64).map(async |writer| {
        for number in 0.. {
            bench.put(&format!("{writer}-{number}"), "{}").await.unwrap();
        }
    }));
    tokio::select! {
        () = synced => {}
        _ = writing => unreachable!("they never end"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("nothing was synced"),
    }
}

#[tokio::test]
async fn a_deleted_database_is_gone_and_its_name_starts_anew() {
    let bench = bench().await;
    bench.put("a", "{}").await.unwrap();
    bench.store.delete(&name("db")).await.unwrap();
    assert!(matches!(bench.store.database(&name("db")).await, Err(StoreError::NoDatabase)));
    assert!(matches!(bench.store.delete(&name("db")).await, Err(StoreError::NoDatabase)));
    assert!(matches!(bench.database.ensure_full_commit().await, Err(StoreError::Closing)));
    let again = bench.store.create(&name("db")).await.unwrap();
    assert!(matches!(bench.store.create(&name("db")).await, Err(StoreError::AlreadyExists)));
    assert_eq!(again.stats().await.unwrap().update_seq, 0);
}

#[tokio::test]
async fn databases_that_nobody_uses_are_closed_beyond_the_limit_and_open_again() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { open_databases: 3, ..StoreSettings::default() };
    let store = Store::open(directory.path(), settings).await.unwrap();
    for number in 0..12 {
        let database = store.create(&name(&format!("db{number}"))).await.unwrap();
        database.put_local_doc("x", None, Some(format!("{{\"n\":{number}}}").into())).await.unwrap().unwrap();
    }
    assert!(store.inner.open.len() <= 4, "{}", store.inner.open.len());
    for number in 0..12 {
        let database = store.database(&name(&format!("db{number}"))).await.unwrap();
        let (rev, body) = database.local_doc("x").await.unwrap().unwrap();
        assert_eq!((rev.as_str(), body), ("0-1", format!("{{\"n\":{number}}}").into_bytes()));
    }
}

#[tokio::test]
async fn whoever_waits_for_a_database_hears_of_writes_after_it_was_closed_and_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { open_databases: 1, ..StoreSettings::default() };
    let store = Store::open(directory.path(), settings).await.unwrap();
    let mut updates = store.create(&name("a")).await.unwrap().updates();
    store.create(&name("b")).await.unwrap();
    assert!(!store.inner.open.contains_key(&name("a")));
    let parts = DocParts::parse(br#"{"_id":"x"}"#).unwrap();
    let edit = Edit::new(&parts, "x".into(), false, Vec::new()).unwrap();
    let again = store.reopen(&name("a"), &updates).await.unwrap();
    assert!(!updates.has_changed().unwrap());
    again.write(vec![edit], Durability::Unsynced).await.unwrap().remove(0).unwrap();
    updates.changed().await.unwrap();
    assert_eq!(*updates.borrow(), 1);
}

#[tokio::test]
async fn whoever_waits_for_a_database_hears_of_its_end_and_is_given_no_other_of_its_name() {
    let bench = bench().await;
    let mut updates = bench.database.updates();
    bench.store.delete(&name("db")).await.unwrap();
    assert!(updates.changed().await.is_err());
    bench.store.create(&name("db")).await.unwrap();
    assert!(matches!(bench.store.reopen(&name("db"), &updates).await, Err(StoreError::NoDatabase)));
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

#[tokio::test]
async fn instance_start_time_stays_through_a_clean_end() {
    let bench = bench().await;
    let before = bench.database.ensure_full_commit().await.unwrap();
    bench.put("a", "{}").await.unwrap();
    let bench = bench.reopen().await;
    assert_eq!(bench.database.ensure_full_commit().await.unwrap(), before);
    assert_eq!(bench.feed(0).await.len(), 1);
}

#[tokio::test]
async fn instance_start_time_changes_where_unsynced_writes_were_lost_and_their_seqs_are_not_used_again() {
    let bench = bench().await;
    let before = bench.database.ensure_full_commit().await.unwrap();
    bench.put("a", "{}").await.unwrap();
    bench.put("b", "{}").await.unwrap();
    // As after a kill: a copy of the files as they are on disk now.
    let crashed = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-r").arg(bench.directory.path()).arg(crashed.path()).status();
    assert!(copied.unwrap().success());
    let copy = crashed.path().join(bench.directory.path().file_name().unwrap());
    let store = Store::open(&copy, StoreSettings::default()).await.unwrap();
    let database = store.database(&name("db")).await.unwrap();
    assert_ne!(database.ensure_full_commit().await.unwrap(), before);
    assert!(database.update_seq() > bench.database.update_seq());
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

#[tokio::test]
async fn an_upload_that_a_clean_end_cut_off_is_dropped_at_the_next_opening() {
    let bench = bench().await;
    let mut upload = bench.database.upload("application/octet-stream", false);
    upload.push(Bytes::from(vec![7; 1 << 20])).await.unwrap();
    let (uploaded, _) = upload.finish().await.unwrap();
    bench.store.close().await;
    // Too late to be dropped by the writer.
    drop(uploaded);
    let bench = bench.reopen().await;
    let blobs = bench.database.read(|snapshot| snapshot.chunks()).await.unwrap();
    assert_eq!(blobs, 0);
}

/// Holds the attachment `x` of `a`, all of it larger than a piece.
async fn hold(bench: &Bench) -> Held {
    let found = bench.database.read(|snapshot| {
        let record = snapshot.document("a")?.unwrap();
        snapshot.hold(snapshot.attachments(&record.tree.winner().unwrap())?.remove(0))
    });
    found.await.unwrap()
}

async fn write_attached(bench: &Bench, rev: &str, byte: u8) -> Rev {
    let mut upload = bench.database.upload("image/png", false);
    upload.push(Bytes::from(vec![byte; 1 << 20])).await.unwrap();
    let (uploaded, _) = upload.finish().await.unwrap();
    let json = format!(r#"{{{rev}"_attachments":{{"x":{{"content_type":"image/png","follows":true}}}}}}"#);
    let parts = DocParts::parse(json.as_bytes()).unwrap();
    let edit = Edit::new(&parts, "a".into(), false, vec![("x".into(), uploaded)]).unwrap();
    bench.database.write(vec![edit], Durability::Unsynced).await.unwrap().remove(0).unwrap()
}

/// Waits until the file has so many chunks.
async fn chunks(bench: &Bench, expected: u64) {
    let counted = async { while bench.database.read(|snapshot| snapshot.chunks()).await.unwrap() != expected {} };
    tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap();
}

const CHUNKS_OF_ONE: u64 = (1_u64 << 20).div_ceil(keys::CHUNK_BYTES as u64);

/// An attachment that was replaced while somebody read it broke off in the middle.
#[tokio::test]
async fn an_attachment_that_is_read_stays_until_its_last_reader_ends() {
    let bench = bench().await;
    let first = write_attached(&bench, "", 1).await;
    let (held, another) = (hold(&bench).await, hold(&bench).await.clone());
    let begun = bench.database.attachment_piece(&held, 0).await.unwrap();
    let second = write_attached(&bench, &format!(r#""_rev":"{first}","#), 2).await;
    bench.put("a", &format!(r#"{{"_rev":"{second}"}}"#)).await.unwrap();
    drop(another);
    chunks(&bench, CHUNKS_OF_ONE).await;
    let mut read = begun.len();
    while read < 1 << 20 {
        let piece = bench.database.attachment_piece(&held, read as u64).await.unwrap();
        assert!(piece.iter().all(|&byte| byte == 1));
        read += piece.len();
    }
    drop(held);
    chunks(&bench, 0).await;
}

/// Between a snapshot and the moment in which its attachment is held anything may happen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_shows_can_be_held_and_read_though_it_went_meanwhile() {
    let bench = bench().await;
    let first = write_attached(&bench, "", 1).await;
    let (taken, snapshot_taken) = tokio::sync::oneshot::channel();
    let (go_on, gone) = std::sync::mpsc::channel();
    let database = bench.database.clone();
    let reading = async {
        let found = database.read(move |snapshot| {
            taken.send(()).unwrap();
            gone.recv().unwrap();
            let record = snapshot.document("a")?.unwrap();
            snapshot.hold(snapshot.attachments(&record.tree.winner().unwrap())?.remove(0))
        });
        found.await.unwrap()
    };
    let replacing = async {
        snapshot_taken.await.unwrap();
        bench.put("a", &format!(r#"{{"_rev":"{first}"}}"#)).await.unwrap();
        bench.database.ensure_full_commit().await.unwrap();
        bench.put("b", "{}").await.unwrap();
        go_on.send(()).unwrap();
    };
    let (held, ()) = tokio::join!(reading, replacing);
    assert!(!bench.database.attachment_piece(&held, (1 << 20) - 1).await.unwrap().is_empty());
    drop(held);
    chunks(&bench, 0).await;
}

#[tokio::test]
async fn bytes_that_waited_for_a_reader_go_at_the_next_opening() {
    let bench = bench().await;
    let first = write_attached(&bench, "", 1).await;
    let held = hold(&bench).await;
    bench.put("a", &format!(r#"{{"_rev":"{first}"}}"#)).await.unwrap();
    bench.store.close().await;
    drop(held);
    let bench = bench.reopen().await;
    chunks(&bench, 0).await;
}

#[tokio::test]
async fn a_database_whose_writer_ended_is_opened_anew() {
    let Bench { store, database, directory: _directory } = bench().await;
    database.close().await;
    drop(database);
    let again = store.database(&name("db")).await.unwrap();
    again.put_local_doc("x", None, Some(b"{}".to_vec())).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_read_that_outlives_its_caller_keeps_its_database_open() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { open_databases: 1, ..StoreSettings::default() };
    let store = Store::open(directory.path(), settings).await.unwrap();
    let database = store.create(&name("a")).await.unwrap();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (finish, may_finish) = std::sync::mpsc::channel::<()>();
    let mut read = Box::pin(async move {
        let work = move |_: &Snapshot| {
            let _ = started.send(());
            let _ = may_finish.recv();
            Ok(())
        };
        database.read(work).await
    });
    tokio::select! {
        _ = &mut read => panic!("it waits for the test"),
        started = has_started => started.unwrap(),
    }
    drop(read);
    for other in ["b", "c"] {
        store.create(&name(other)).await.unwrap();
    }
    store.database(&name("a")).await.unwrap().ensure_full_commit().await.unwrap();
    finish.send(()).unwrap();
}

#[tokio::test]
async fn a_deletion_whose_caller_is_gone_leaves_nothing_half_done() {
    let bench = bench().await;
    let db = name("db");
    let mut delete = Box::pin(bench.store.delete(&db));
    assert!(futures::poll!(&mut delete).is_pending());
    drop(delete);
    // Made only once the other has ended.
    bench.store.create(&name("db")).await.unwrap().ensure_full_commit().await.unwrap();
    assert!(bench.database.ensure_full_commit().await.is_err());
}
