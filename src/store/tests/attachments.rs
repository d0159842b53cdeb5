//! Attachments: stored once, held while they are read, gone with their last reference.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

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
    bench.database.write(vec![edit], &Caller::server_admin(), Durability::Synced).await.unwrap().remove(0).unwrap();
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
async fn hold(bench: &Bench) -> OpenAttachment {
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
    bench.database.write(vec![edit], &Caller::server_admin(), Durability::Unsynced).await.unwrap().remove(0).unwrap()
}

/// Waits until the file has so many chunks.
async fn chunks(bench: &Bench, expected: u64) {
    let counted = async { while bench.database.read(|snapshot| snapshot.chunks()).await.unwrap() != expected {} };
    tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap();
}

const CHUNKS_OF_ONE: u64 = (1_u64 << 20).div_ceil(crate::store::attachments::CHUNK_BYTES as u64);

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
