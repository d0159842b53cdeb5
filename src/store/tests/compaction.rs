//! Compaction: the file becomes smaller, and nobody notices anything else of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use redb::{ReadableDatabase as _, ReadableTable as _};

use super::super::keys::{self, LOCAL};
use super::super::keys::{
    ATT_REFS, ATTS, BODIES, BlobRef, Body, DOCS, INFO, Info, SEQ_COUNTS, SEQS, SeqEntry, UPLOADS,
};
use super::super::read::DocRecord;
use super::*;
use crate::access::Caller;

impl Bench {
    /// Compacts the database and waits until that has ended.
    pub(super) async fn compact(&self) {
        self.store.compact(self.database.clone());
        while self.database.stats().await.unwrap().compact_running {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn attach(&self, id: &str, data: Vec<u8>, rev: &str) -> Rev {
        let mut upload = self.database.upload("application/octet-stream", false);
        for piece in data.chunks(300_000) {
            upload.push(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let (uploaded, _) = upload.finish().await.unwrap();
        let json = format!(r#"{{{rev}"_attachments":{{"x":{{"content_type":"a/b","follows":true}}}}}}"#);
        let parts = DocParts::parse(json.as_bytes()).unwrap();
        let edit = Edit::new(&parts, id.into(), false, vec![("x".into(), uploaded)]).unwrap();
        self.database.write(vec![edit], &Caller::server_admin(), Durability::Unsynced).await.unwrap().remove(0).unwrap()
    }

    /// Holds every table against what the documents say.
    async fn audit(&self) {
        let path = self.database.file().to_owned();
        self.database.ensure_full_commit().await.unwrap();
        let engine = self.database.engine();
        assert!(path.exists());
        let read = engine.begin_read().unwrap();
        let info = Info::decode(read.open_table(INFO).unwrap().get(()).unwrap().unwrap().value());
        let (mut seqs, mut bodies, mut references) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::<[u8; 16], u64>::new());
        let (mut live, mut deleted) = (0, 0);
        let stored = read.open_table(BODIES).unwrap();
        for row in read.open_table(DOCS).unwrap().iter().unwrap() {
            let (id, record) = row.unwrap();
            let record = DocRecord::decode(record.value()).unwrap();
            seqs.insert(record.seq, (id.value().to_owned(), record.tree.leaves()));
            match record.tree.winner().unwrap().deleted {
                true => deleted += 1,
                false => live += 1,
            }
            for leaf in record.tree.leaves() {
                let body = stored.get(leaf.body).unwrap().expect("a leaf has a body");
                let body = Body::decode(body.value()).unwrap();
                for attachment in body.attachments().unwrap() {
                    *references.entry(attachment.digest.0).or_default() += 1;
                }
                bodies.insert(leaf.body, ());
            }
        }
        assert_eq!((info.doc_count, info.doc_del_count), (live, deleted));
        let mut counts = BTreeMap::<u64, u64>::new();
        let mut rows = 0;
        for row in read.open_table(SEQS).unwrap().iter().unwrap() {
            let (seq, entry) = row.unwrap();
            let entry = SeqEntry::decode(entry.value()).unwrap();
            let (id, leaves) = seqs.get(&seq.value()).expect("a row of the feed has a document");
            assert_eq!((entry.id, entry.leaves), (id.as_str(), leaves.iter().map(|leaf| leaf.rev.clone()).collect()));
            *counts.entry(keys::seq_bucket(seq.value())).or_default() += 1;
            rows += 1;
        }
        assert_eq!(rows, seqs.len());
        let counted = read.open_table(SEQ_COUNTS).unwrap();
        let counted: BTreeMap<_, _> =
            counted.iter().unwrap().map(|row| row.unwrap()).map(|(b, n)| (b.value(), n.value())).collect();
        assert_eq!(counted, counts);
        assert_eq!(stored.iter().unwrap().count(), bodies.len());
        let mut blobs = BTreeMap::new();
        let mut booked = BTreeMap::new();
        for row in read.open_table(ATT_REFS).unwrap().iter().unwrap() {
            let (digest, reference) = row.unwrap();
            let reference = BlobRef::decode(reference.value());
            booked.insert(digest.value(), reference.references);
            blobs.insert(reference.blob, ());
        }
        assert_eq!(booked, references);
        for row in read.open_table(UPLOADS).unwrap().iter().unwrap() {
            blobs.insert(row.unwrap().0.value(), ());
        }
        for row in read.open_table(ATTS).unwrap().iter().unwrap() {
            assert!(blobs.contains_key(&row.unwrap().0.value().0), "a chunk belongs to a blob");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_gives_its_space_back_and_all_else_stays() {
    let bench = bench().await;
    let mut revs = Vec::new();
    for number in 0..20_u8 {
        revs.push(bench.attach(&format!("large{number}"), vec![number; 1_000_000], "").await);
    }
    for number in 0..2000 {
        bench.put(&format!("doc{number}"), &format!(r#"{{"n":{number}}}"#)).await.unwrap();
    }
    bench.database.put_local_doc("x", None, Some(b"{\"n\":1}".to_vec())).await.unwrap().unwrap();
    for (number, rev) in revs.iter().enumerate().skip(1) {
        bench.put(&format!("large{number}"), &format!(r#"{{"_rev":"{rev}","_deleted":true}}"#)).await.unwrap();
    }
    let before = bench.database.stats().await.unwrap();
    let feed = bench.feed(0).await;
    bench.compact().await;
    let after = bench.database.stats().await.unwrap();
    assert!(before.file_size > 20_000_000 && after.file_size < 4_000_000, "{before:?} {after:?}");
    assert_eq!(after.instance_start_time, before.instance_start_time);
    for compacted in [false, true] {
        assert_eq!(bench.feed(0).await, feed, "{compacted}");
        assert_eq!(bench.json("doc7", DocOptions::default()).await.matches(r#""n":7"#).count(), 1);
        assert_eq!(bench.database.local_doc("x").await.unwrap().unwrap().0, "0-1");
        bench.audit().await;
        if !compacted {
            bench.compact().await;
        }
    }
    bench.put("new", "{}").await.unwrap();
    let bench = bench.reopen().await;
    bench.audit().await;
    assert_eq!(bench.database.update_seq(), before.update_seq + 1);
}

/// Edits of every kind go on while the file is changed under them, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_readers_go_on_meanwhile() {
    let bench = bench().await;
    for number in 0..500 {
        bench.put(&format!("old{number}"), &format!(r#"{{"text":"{}"}}"#, "x".repeat(1000))).await.unwrap();
    }
    let held = bench.attach("held", vec![7; 500_000], "").await;
    let reading = bench.database.read(|snapshot| {
        let record = snapshot.document("held")?.unwrap();
        snapshot.hold(snapshot.attachments(&record.tree.winner().unwrap())?.remove(0))
    });
    let held_attachment = reading.await.unwrap();
    bench.put("held", &format!(r#"{{"_rev":"{held}"}}"#)).await.unwrap();
    let snapshot = bench.database.snapshot().await.unwrap();
    let mut slow = bench.database.upload("application/octet-stream", false);
    slow.push(Bytes::from(vec![9; 600_000])).await.unwrap();
    let (stop, rounds) = (std::sync::atomic::AtomicBool::new(false), 6);
    let writing = async {
        let mut number = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let id = format!("new{}", number % 40);
            let winner = bench.database.read({
                let id = id.clone();
                move |snapshot| Ok(snapshot.document(&id)?.and_then(|record| record.tree.winner()))
            });
            let winner = winner.await.unwrap().filter(|winner| !winner.deleted);
            let rev = winner.as_ref().map(|leaf| format!(r#""_rev":"{}","#, leaf.rev)).unwrap_or_default();
            match (number % 7, winner) {
                (0, Some(leaf)) => {
                    drop(bench.database.purge(vec![(id.as_str().into(), vec![leaf.rev])]).await.unwrap())
                }
                (1 | 2, _) => drop(bench.attach(&id, vec![(number % 5) as u8; 200_000], &rev).await),
                (3, Some(_)) => drop(bench.put(&id, &format!(r#"{{{rev}"_deleted":true}}"#)).await.unwrap()),
                _ => drop(bench.put(&id, &format!(r#"{{{rev}"n":{number}}}"#)).await.unwrap()),
            }
            let conflict = format!(r#"{{"_rev":"1-{number}"}}"#);
            bench.write(&id, &conflict, true).await.unwrap();
            let local = format!("{{\"n\":{number}}}").into_bytes();
            bench.database.overwrite_local_doc("seen", Some(local)).await.unwrap().unwrap();
            number += 1;
        }
        number
    };
    let compacting = async {
        for _ in 0..rounds {
            bench.compact().await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(writing, compacting);
    assert!(written > 0);
    let (_, seen) = bench.database.local_doc("seen").await.unwrap().unwrap();
    assert_eq!(seen, format!("{{\"n\":{}}}", written - 1).into_bytes());
    // An upload and a download that began before, and a snapshot of then.
    slow.push(Bytes::from(vec![9; 600_000])).await.unwrap();
    let (uploaded, digest) = slow.finish().await.unwrap();
    assert_eq!(digest, Digest::of(&[9; 1_200_000]));
    let json = br#"{"_rev":"1-a","_attachments":{"x":{"content_type":"a/b","follows":true}}}"#;
    let edit = Edit::new(&DocParts::parse(json).unwrap(), "slow".into(), true, vec![("x".into(), uploaded)]).unwrap();
    bench.database.write(vec![edit], &Caller::server_admin(), Durability::Synced).await.unwrap().remove(0).unwrap();
    let mut read = Vec::new();
    while read.len() < 500_000 {
        read.extend_from_slice(&bench.database.attachment_piece(&held_attachment, read.len() as u64).await.unwrap());
    }
    assert_eq!(read, vec![7; 500_000]);
    drop(held_attachment);
    assert!(snapshot.document("old7").unwrap().is_some() && snapshot.document("new7").unwrap().is_none());
    drop(snapshot);
    bench.audit().await;
    let bench = bench.reopen().await;
    bench.audit().await;
    assert_eq!(bench.feed(0).await.iter().filter(|row| row.1.starts_with("old")).count(), 500);
    let read = bench.database.engine().begin_read().unwrap();
    assert_eq!(read.open_table(LOCAL).unwrap().iter().unwrap().count(), 1);
}

/// What a crash leaves beside the file is neither taken for it nor kept.
#[tokio::test]
async fn the_copy_of_a_compaction_that_a_crash_ended_is_removed() {
    let bench = bench().await;
    bench.put("a", "{}").await.unwrap();
    let litter = bench.database.file().with_extension("compact");
    std::fs::write(&litter, b"half a copy").unwrap();
    let bench = bench.reopen().await;
    assert!(!litter.exists());
    assert_eq!(bench.feed(0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_deleted_or_closed_meanwhile_is_not_brought_back() {
    for closes in [false, true] {
        let bench = bench().await;
        for number in 0..3000 {
            bench.put(&format!("doc{number}"), "{}").await.unwrap();
        }
        let path = bench.database.file().to_owned();
        bench.store.compact(bench.database.clone());
        match closes {
            true => bench.store.close().await,
            false => bench.store.delete(&name("db")).await.unwrap(),
        }
        while bench.database.is_compacting() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(path.exists(), closes);
        assert!(!path.with_extension("compact").exists());
    }
}
