//! What every peer promises a replication: one suite, passed by a database of the embedded store and by one over HTTP.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use couchrep::access::Caller;
use couchrep::config;
use couchrep::document::{AttachmentHead, AttachmentPiece, DocBatch, DocId, Rev, Seq, Wanted};
use couchrep::effort::budget::{Budget, Share};
use couchrep::effort::pulse::Pulse;
use couchrep::endpoint::RemoteEndpoint;
use couchrep::peer::local::LocalPeer;
use couchrep::peer::remote::{Clients, RemotePeer};
use couchrep::peer::{
    AttachedDoc, Blame, Change, ChangesQuery, Extent, Failure, Filter, Opened, Peer, PeerError, Pending, Put,
};
use couchrep::policy::Policy;
use couchrep::store::{DbName, Store};
use futures::{StreamExt, stream};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::support::Server;

/// A peer, and what it lives on.
struct Bench {
    peer: Peer,
    _lives_on: Box<dyn Any>,
}

async fn local() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), config::StoreSettings::default()).await.unwrap();
    let peer = Peer::Local(LocalPeer::new(
        store,
        DbName::parse("db").unwrap(),
        Arc::new(Caller::server_admin()),
        Pulse::default(),
    ));
    Bench { peer, _lives_on: Box::new(directory) }
}

async fn remote() -> Bench {
    let server = Server::start().await;
    let settings = Arc::new(config::Replicator::default());
    let endpoint = RemoteEndpoint::parse(&server.url("/db"), Vec::new(), None).unwrap();
    let clients = Clients::new(&settings).unwrap();
    let policy = Policy::new(&settings.endpoints, true);
    let peer = Peer::Remote(RemotePeer::new(&clients, endpoint, &policy, settings, Pulse::default()).await.unwrap());
    Bench { peer, _lives_on: Box::new(server) }
}

macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod local_peer {
            $(#[tokio::test] async fn $promise() { super::$promise(&super::local().await.peer).await; })*
        }
        mod remote_peer {
            $(#[tokio::test] async fn $promise() { super::$promise(&super::remote().await.peer).await; })*
        }
    };
}

contract! {
    a_database_that_is_not_there_is_said_to_be_missing,
    making_a_database_twice_is_a_success,
    a_local_doc_is_written_over_the_revision_it_has,
    pages_lead_to_the_feeds_end_and_tell_what_is_pending,
    the_rest_of_the_feed_ends_where_it_was_asked_for,
    who_waits_for_a_change_is_told_of_it,
    a_feed_of_doc_ids_shows_those_and_counts_the_rest_as_progress,
    only_missing_revisions_are_wanted_with_possible_ancestors,
    documents_come_back_byte_for_byte_with_their_paths,
    writing_the_same_twice_changes_nothing,
    the_newest_descendant_comes_in_place_of_what_it_replaced,
    revisions_that_are_not_there_are_named,
    many_documents_come_in_pieces_and_none_twice,
    all_leaves_come_where_no_revision_is_named,
    documents_with_attachments_and_design_documents_are_left_for_open_rev,
    attachments_travel_with_their_document,
    attachments_with_odd_names_travel,
    an_attachment_that_is_replaced_while_it_is_read_comes_whole,
    attachments_that_an_ancestor_has_stay_stubs,
    a_stub_without_its_attachment_is_told_as_such,
    bad_documents_are_refused_and_the_others_written,
    a_commit_tells_the_instance_start_time_of_the_info,
}

fn rev(text: &str) -> Rev {
    Rev::parse(text).unwrap()
}

fn change(id: &str, revs: &[&str]) -> Change {
    Change { seq: Seq::zero(), id: id.into(), revs: revs.iter().map(|text| rev(text)).collect() }
}

fn wanted(id: &str, revs: &[&str]) -> Wanted {
    Wanted { id: id.into(), revs: revs.iter().map(|text| rev(text)).collect(), atts_since: Vec::new() }
}

/// `path` is newest first: `["2-b", "1-a"]`.
fn document(id: &str, path: &[&str], members: &str) -> String {
    let ids: Vec<_> = path.iter().map(|text| rev(text).hash.to_string()).collect();
    let revisions = json!({ "start": rev(path[0]).pos, "ids": ids });
    format!(r#"{{"_id":{},"_rev":"{}"{members},"_revisions":{revisions}}}"#, json!(id), path[0])
}

/// Writes documents; answers those that are refused.
async fn write(peer: &Peer, documents: &[(&str, &[&str], &str)]) -> Vec<Failure> {
    let mut batch = DocBatch::default();
    for (id, path, members) in documents {
        batch.push((*id).into(), rev(path[0]), document(id, path, members).as_bytes());
    }
    let written = peer.bulk_docs(batch).await.unwrap();
    assert_eq!(written.doubtful, []);
    written.refused
}

/// Fetches a revision with its attachments; `None` if it isn't there.
async fn open(peer: &Peer, id: &DocId, rev: &Rev, atts_since: &[Rev]) -> Option<AttachedDoc> {
    match peer.open_rev(id, rev, atts_since, share()).await.unwrap() {
        Opened::Doc(doc) => Some(doc),
        Opened::Missing => None,
        Opened::Forbidden(why) => panic!("{why}"),
    }
}

fn share() -> Share {
    Budget::new(64 << 20).nothing(&Pulse::default())
}

async fn page(peer: &Peer, since: &Seq, limit: usize) -> couchrep::peer::ChangesPage {
    peer.changes(&ChangesQuery { limit, ..query(since) }).await.unwrap()
}

fn query(since: &Seq) -> ChangesQuery {
    let (since, filter) = (since.clone(), Filter::None);
    ChangesQuery { since, limit: 10, max_bytes: 1 << 20, filter, winners_only: false }
}

/// Everything that `bulk_get` gives: documents as text, attached revisions, unavailable revisions.
async fn fetch(peer: &Peer, wanted: Vec<Wanted>, max_bytes: usize) -> (Vec<String>, Vec<String>, Vec<String>) {
    let mut share = share();
    let mut answer = peer.bulk_get(wanted).await.unwrap();
    let (mut docs, mut attached, mut unavailable) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(fetched) = answer.next(max_bytes, &mut share).await.unwrap() {
        let text = |doc| String::from_utf8(fetched.docs.text(doc).to_vec()).unwrap();
        docs.extend(fetched.docs.docs().iter().map(text));
        attached.extend(fetched.attached.iter().chain(&fetched.small).map(|(id, rev)| format!("{id} {rev}")));
        let missing = fetched.doubtful.iter().filter(|doubt| doubt.blame == Blame::Missing);
        unavailable
            .extend(missing.map(|doubt| format!("{} {}", doubt.failure.id, doubt.failure.rev.as_ref().unwrap())));
    }
    (docs, attached, unavailable)
}

async fn a_database_that_is_not_there_is_said_to_be_missing(peer: &Peer) {
    let missing = |error| matches!(error, PeerError::DatabaseMissing { .. });
    assert!(missing(peer.info().await.unwrap_err()));
    assert!(missing(peer.local_doc("x").await.unwrap_err()));
    let query =
        ChangesQuery { since: Seq::zero(), limit: 1, max_bytes: 1 << 20, filter: Filter::None, winners_only: false };
    assert!(missing(peer.changes(&query).await.unwrap_err()));
}

async fn making_a_database_twice_is_a_success(peer: &Peer) {
    peer.create().await.unwrap();
    peer.create().await.unwrap();
    assert_eq!(peer.info().await.unwrap().update_seq, Seq::zero());
}

async fn a_local_doc_is_written_over_the_revision_it_has(peer: &Peer) {
    peer.create().await.unwrap();
    let body = |n: u32| -> Box<RawValue> { to_raw_value(&json!({ "n": n, "seq": "5-a\"b" })).unwrap() };
    assert!(peer.local_doc("a/b c").await.unwrap().is_none());
    let first = peer.put_local_doc("a/b c", None, &body(1)).await.unwrap();
    assert!(matches!(peer.put_local_doc("a/b c", None, &body(2)).await, Err(PeerError::Conflict)));
    let second = peer.put_local_doc("a/b c", Some(&first), &body(3)).await.unwrap();
    let stored = peer.local_doc("a/b c").await.unwrap().unwrap();
    assert_eq!(stored.rev, second);
    let stored: serde_json::Value = serde_json::from_str(stored.body.get()).unwrap();
    assert_eq!((&stored["n"], &stored["seq"]), (&json!(3), &json!("5-a\"b")));
}

async fn the_rest_of_the_feed_ends_where_it_was_asked_for(peer: &Peer) {
    peer.create().await.unwrap();
    for number in 0..7 {
        write(peer, &[(&format!("doc{number}"), &["1-a"], "")]).await;
    }
    let since = page(peer, &Seq::zero(), 2).await.last_seq;
    for (limit, extents) in [(2, &[Extent::Part, Extent::Part, Extent::Last][..]), (9, &[Extent::Last])] {
        let mut rest = peer.changes_answer(&ChangesQuery { limit, ..query(&since) }, None).await.unwrap();
        let mut pages = vec![rest.next().await.unwrap()];
        // It moves to the feed's end, and is seen where it was.
        write(peer, &[("doc6", &[&format!("1-{limit}")], "")]).await;
        while pages.last().unwrap().extent == Extent::Part {
            pages.push(rest.next().await.unwrap());
        }
        assert_eq!(pages.iter().map(|page| page.extent).collect::<Vec<_>>(), extents);
        assert_eq!(pages.last().unwrap().pending, Pending::Rows(0));
        let ids: Vec<_> = pages.iter().flat_map(|page| &page.changes).map(|change| change.id.to_string()).collect();
        assert_eq!(ids, ["doc2", "doc3", "doc4", "doc5", "doc6"]);
    }
}

async fn pages_lead_to_the_feeds_end_and_tell_what_is_pending(peer: &Peer) {
    peer.create().await.unwrap();
    for number in 0..7 {
        write(peer, &[(&format!("doc{number}"), &["1-a"], "")]).await;
    }
    write(peer, &[("doc0", &["1-b"], r#","_deleted":true"#)]).await;
    let (mut since, mut seen, mut pending) = (Seq::zero(), Vec::new(), Vec::new());
    loop {
        let page = page(peer, &since, 3).await;
        pending.push(page.pending.rows().unwrap());
        since = page.last_seq;
        if page.changes.is_empty() {
            break;
        }
        seen.extend(page.changes.into_iter().map(|change| (change.id.to_string(), change.revs.len())));
    }
    assert_eq!(pending, [4, 1, 0, 0]);
    assert_eq!(seen.len(), 7);
    assert_eq!(seen.last(), Some(&("doc0".into(), 2)));
    assert_eq!(since, peer.info().await.unwrap().update_seq);
}

async fn who_waits_for_a_change_is_told_of_it(peer: &Peer) {
    peer.create().await.unwrap();
    write(peer, &[("a", &["1-a"], "")]).await;
    let since = page(peer, &Seq::zero(), 10).await.last_seq;
    let query = query(&since);
    let waiting = peer.changed(&query);
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "it didn't wait");
    write(peer, &[("b", &["1-a"], "")]).await;
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap().unwrap();
    assert_eq!(page(peer, &since, 10).await.changes[0].id, "b".into());
}

async fn a_feed_of_doc_ids_shows_those_and_counts_the_rest_as_progress(peer: &Peer) {
    peer.create().await.unwrap();
    for id in ["a", "b", "_design/d", "c"] {
        write(peer, &[(id, &["1-a"], "")]).await;
    }
    let filter = Filter::DocIds(vec!["b".into(), "_design/d".into(), "nosuch".into()]);
    let query = ChangesQuery { since: Seq::zero(), limit: 10, max_bytes: 1 << 20, filter, winners_only: false };
    let page = peer.changes(&query).await.unwrap();
    let ids: Vec<_> = page.changes.iter().map(|change| change.id.as_str()).collect();
    assert_eq!(ids, ["b", "_design/d"]);
    assert_eq!(page.last_seq, peer.info().await.unwrap().update_seq);
}

async fn only_missing_revisions_are_wanted_with_possible_ancestors(peer: &Peer) {
    peer.create().await.unwrap();
    write(peer, &[("a", &["2-b", "1-a"], ""), ("b", &["1-a"], "")]).await;
    let changes = [change("a", &["2-b", "1-a", "3-c"]), change("b", &["1-a"]), change("c", &["1-x", "1-y"])];
    let mut wanted = peer.revs_diff(&changes).await.unwrap();
    wanted.sort_by(|one, other| one.id.cmp(&other.id));
    let a = Wanted { id: "a".into(), revs: vec![rev("3-c")], atts_since: vec![rev("2-b")] };
    let c = Wanted { id: "c".into(), revs: vec![rev("1-x"), rev("1-y")], atts_since: Vec::new() };
    assert_eq!(wanted, [a, c]);
}

async fn documents_come_back_byte_for_byte_with_their_paths(peer: &Peer) {
    peer.create().await.unwrap();
    let members = r#","n":1.0,"big":12345678901234567890123,"z":[1e300,{ "k" : null }],"u":"\u00e9é","a":"""#;
    for id in ["a", "with/slash", "with space+plus%percent", "Zoë", "quote\"back\\slash", "a?b&c=d#e"] {
        let text = document(id, &["2-b", "1-967a00dff5e02add41819138abb3284d"], members);
        write(peer, &[(id, &["2-b", "1-967a00dff5e02add41819138abb3284d"], members)]).await;
        let (docs, _, _) = fetch(peer, vec![wanted(id, &["2-b"])], 1 << 20).await;
        assert_eq!(docs, [text]);
    }
}

async fn writing_the_same_twice_changes_nothing(peer: &Peer) {
    peer.create().await.unwrap();
    let documents: &[(&str, &[&str], &str)] = &[("a", &["2-b", "1-a"], r#","n":1"#), ("a", &["2-c", "1-a"], "")];
    assert_eq!(write(peer, documents).await, []);
    let before = peer.info().await.unwrap().update_seq;
    assert_eq!(write(peer, documents).await, []);
    assert_eq!(peer.info().await.unwrap().update_seq, before);
}

async fn the_newest_descendant_comes_in_place_of_what_it_replaced(peer: &Peer) {
    peer.create().await.unwrap();
    write(peer, &[("a", &["1-a"], "")]).await;
    write(peer, &[("a", &["2-b", "1-a"], "")]).await;
    let (docs, _, unavailable) = fetch(peer, vec![wanted("a", &["1-a", "2-b"])], 1 << 20).await;
    assert_eq!((docs.len(), unavailable.len()), (1, 0));
    assert!(docs[0].contains(r#""_rev":"2-b""#));
}

async fn revisions_that_are_not_there_are_named(peer: &Peer) {
    peer.create().await.unwrap();
    write(peer, &[("a", &["1-a"], "")]).await;
    let (docs, _, unavailable) = fetch(peer, vec![wanted("a", &["1-a", "1-x"]), wanted("no", &["1-a"])], 1 << 20).await;
    assert_eq!((docs.len(), unavailable), (1, vec!["a 1-x".to_owned(), "no 1-a".to_owned()]));
}

async fn many_documents_come_in_pieces_and_none_twice(peer: &Peer) {
    peer.create().await.unwrap();
    let text = format!(r#","text":"{}""#, "x".repeat(2000));
    let ids: Vec<String> = (0..200).map(|number| format!("doc{number:03}")).collect();
    for ids in ids.chunks(50) {
        let documents: Vec<(&str, &[&str], &str)> =
            ids.iter().map(|id| (id.as_str(), ["1-a"].as_slice(), text.as_str())).collect();
        write(peer, &documents).await;
    }
    let mut share = share();
    let mut answer = peer.bulk_get(ids.iter().map(|id| wanted(id, &["1-a"])).collect()).await.unwrap();
    let (mut seen, mut pieces) = (Vec::new(), 0);
    while let Some(fetched) = answer.next(20_000, &mut share).await.unwrap() {
        assert!(fetched.docs.size() < 60_000, "a piece of {} bytes", fetched.docs.size());
        seen.extend(fetched.docs.docs().iter().map(|doc| doc.id.to_string()));
        pieces += 1;
    }
    assert_eq!(seen, ids);
    assert!(pieces >= 10, "{pieces} pieces");
}

async fn all_leaves_come_where_no_revision_is_named(peer: &Peer) {
    peer.create().await.unwrap();
    write(peer, &[("a", &["1-a"], ""), ("a", &["1-b"], r#","_deleted":true"#)]).await;
    let (docs, _, _) = fetch(peer, vec![wanted("a", &[]), wanted("nosuch", &[])], 1 << 20).await;
    assert_eq!(docs.len(), 2);
}

async fn documents_with_attachments_and_design_documents_are_left_for_open_rev(peer: &Peer) {
    peer.create().await.unwrap();
    let attachment = r#","_attachments":{"x":{"content_type":"a/b","data":"aGVsbG8="}}"#;
    write(peer, &[("a", &["1-a"], attachment), ("_design/d", &["1-a"], ""), ("b", &["1-a"], "")]).await;
    let all = vec![wanted("a", &["1-a"]), wanted("_design/d", &["1-a"]), wanted("b", &["1-a"])];
    let (docs, mut attached, _) = fetch(peer, all, 1 << 20).await;
    attached.sort();
    assert_eq!((docs.len(), attached), (1, vec!["_design/d 1-a".to_owned(), "a 1-a".to_owned()]));
    let design = open(peer, &"_design/d".into(), &rev("1-a"), &[]).await.unwrap();
    assert_eq!(design.parts.count().await, 0);
}

fn attached(id: &str, path: &[&str], attachments: &[(&str, &str, &[u8])]) -> AttachedDoc {
    let stubs: serde_json::Map<_, _> = attachments
        .iter()
        .map(|(name, content_type, data)| {
            let stub = json!({ "content_type": content_type, "revpos": 1, "length": data.len(), "follows": true });
            ((*name).to_owned(), stub)
        })
        .collect();
    let json = document(id, path, &format!(r#","n":1.0,"_attachments":{}"#, serde_json::Value::from(stubs)));
    let pieces: Vec<_> = attachments
        .iter()
        .flat_map(|(name, content_type, data)| {
            let head = AttachmentHead {
                name: (*name).into(),
                content_type: (*content_type).into(),
                length: data.len() as u64,
                gzip: false,
            };
            let pieces = data.chunks(100_000).map(|piece| AttachmentPiece::Data(Bytes::copy_from_slice(piece)));
            std::iter::once(AttachmentPiece::Head(head)).chain(pieces).map(Ok)
        })
        .collect();
    AttachedDoc { id: id.into(), rev: rev(path[0]), json: json.into(), parts: stream::iter(pieces).boxed() }
}

/// Names, whether gzipped, and bytes of what follows a document.
async fn following(doc: AttachedDoc) -> Vec<(AttachmentHead, Bytes)> {
    let mut following: Vec<(AttachmentHead, BytesMut)> = Vec::new();
    let mut parts = doc.parts;
    while let Some(piece) = parts.next().await {
        match piece.unwrap() {
            AttachmentPiece::Head(head) => following.push((head, BytesMut::new())),
            AttachmentPiece::Data(data) => following.last_mut().unwrap().1.extend_from_slice(&data),
        }
    }
    following.into_iter().map(|(head, data)| (head, data.freeze())).collect()
}

async fn attachments_travel_with_their_document(peer: &Peer) {
    peer.create().await.unwrap();
    let blob: Vec<u8> = (0..700_001u32).map(|n| (n * 7 % 256) as u8).collect();
    let attachments: &[(&str, &str, &[u8])] = &[
        ("blob.bin", "application/octet-stream", &blob),
        ("Zoë & co/1.txt", "text/plain", b"hello"),
        ("empty", "a/b", b""),
    ];
    let id: DocId = "with/slash".into();
    assert_eq!(peer.put_doc(attached("with/slash", &["1-a"], attachments)).await.unwrap(), Put::Written);
    let doc = open(peer, &id, &rev("1-a"), &[]).await.unwrap();
    assert_eq!((doc.id.clone(), doc.rev.clone()), (id.clone(), rev("1-a")));
    let json = doc.json.clone();
    assert!(json.windows(7).any(|window| window == br#""n":1.0"#), "{json:?}");
    let found = following(doc).await;
    let names: Vec<_> = found.iter().map(|(head, _)| head.name.as_str()).collect();
    assert_eq!(names, ["blob.bin", "Zoë & co/1.txt", "empty"]);
    assert!(found.iter().all(|(head, data)| head.length == data.len() as u64));
    assert_eq!(found[0].1, blob);
    assert!(found[1].0.gzip, "text is stored gzipped, and travels so");
    assert_eq!(found[2].1.len(), 0);
    // And back in, as it came out.
    let again = open(peer, &id, &rev("1-a"), &[]).await.unwrap();
    let copy = AttachedDoc { id: "copy".into(), json: again.json, rev: again.rev, parts: again.parts };
    let text = String::from_utf8(copy.json.to_vec()).unwrap().replacen("with/slash", "copy", 1);
    assert_eq!(peer.put_doc(AttachedDoc { json: text.into(), ..copy }).await.unwrap(), Put::Written);
    let copied = following(open(peer, &"copy".into(), &rev("1-a"), &[]).await.unwrap()).await;
    assert_eq!(copied, found);
    assert!(open(peer, &id, &rev("7-x"), &[]).await.is_none());
    assert!(open(peer, &"nosuch".into(), &rev("1-a"), &[]).await.is_none());
}

/// CouchDB 3.5.0 takes all of these, by URL up to the length of a request's line. A name with a DEL or of 20,000 bytes
/// stopped a replication.
async fn attachments_with_odd_names_travel(peer: &Peer) {
    peer.create().await.unwrap();
    let long = "x".repeat(20_000);
    let names = ["a\"b", "a\\b", "a\\\"b", "a\r\nb", "a\nb", "a\x7fb", "a\0b", "a\tb", " a ", "a\"", "a", "", &long];
    let contents: Vec<_> = (0..names.len()).map(|number| format!("of {number}").into_bytes()).collect();
    let attachments: Vec<_> = names.iter().zip(&contents).map(|(name, data)| (*name, "a/b", data.as_slice())).collect();
    assert_eq!(peer.put_doc(attached("a", &["1-a"], &attachments)).await.unwrap(), Put::Written);
    let found = following(open(peer, &"a".into(), &rev("1-a"), &[]).await.unwrap()).await;
    let found: Vec<_> = found.iter().map(|(head, data)| (head.name.as_str(), "a/b", &data[..])).collect();
    assert_eq!(found, attachments);
}

/// It was an error of the server: the first to be read had gone when the next was to be.
async fn an_attachment_that_is_replaced_while_it_is_read_comes_whole(peer: &Peer) {
    peer.create().await.unwrap();
    // More than what waits on the way.
    let (first, second) = (vec![1; 16 << 20], vec![2; 1 << 20]);
    let attachments: &[(&str, &str, &[u8])] = &[("first", "a/b", &first), ("second", "a/b", &second)];
    assert_eq!(peer.put_doc(attached("a", &["1-a"], attachments)).await.unwrap(), Put::Written);
    let mut doc = open(peer, &"a".into(), &rev("1-a"), &[]).await.unwrap();
    let begun = doc.parts.next().await.unwrap();
    assert_eq!(write(peer, &[("a", &["2-b", "1-a"], "")]).await, []);
    peer.ensure_full_commit().await.unwrap();
    assert_eq!(write(peer, &[("b", &["1-b"], "")]).await, []);
    doc.parts = stream::once(async { begun }).chain(doc.parts).boxed();
    let found = following(doc).await;
    assert!(found[0].1 == first && found[1].1 == second);
}

async fn attachments_that_an_ancestor_has_stay_stubs(peer: &Peer) {
    peer.create().await.unwrap();
    peer.put_doc(attached("a", &["1-a"], &[("old", "a/b", b"old bytes")])).await.unwrap();
    let both =
        r#","_attachments":{"old":{"stub":true,"revpos":1},"new":{"content_type":"a/b","revpos":2,"data":"aGVsbG8="}}"#;
    assert_eq!(write(peer, &[("a", &["2-b", "1-a"], both)]).await, []);
    let all = following(open(peer, &"a".into(), &rev("2-b"), &[]).await.unwrap()).await;
    assert_eq!(all.len(), 2);
    let doc = open(peer, &"a".into(), &rev("2-b"), &[rev("1-a")]).await.unwrap();
    let new = following(doc).await;
    assert_eq!((new.len(), new[0].0.name.as_str(), &new[0].1[..]), (1, "new", b"hello".as_slice()));
}

async fn a_stub_without_its_attachment_is_told_as_such(peer: &Peer) {
    peer.create().await.unwrap();
    let json = document("a", &["1-a"], r#","_attachments":{"x":{"stub":true,"revpos":1}}"#);
    let doc = AttachedDoc { id: "a".into(), rev: rev("1-a"), json: json.into(), parts: stream::empty().boxed() };
    let error = peer.put_doc(doc).await.unwrap_err();
    assert!(matches!(error, PeerError::MissingStub { .. }), "{error}");
}

async fn bad_documents_are_refused_and_the_others_written(peer: &Peer) {
    peer.create().await.unwrap();
    let refused = write(peer, &[("a", &["1-a"], ""), ("b", &["1-a"], r#","_nosuch":1"#)]).await;
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].id.as_str(), refused[0].why.error.as_str()), ("b", "doc_validation"));
    assert_eq!(page(peer, &Seq::zero(), 10).await.changes.len(), 1);
}

async fn a_commit_tells_the_instance_start_time_of_the_info(peer: &Peer) {
    peer.create().await.unwrap();
    write(peer, &[("a", &["1-a"], "")]).await;
    let info = peer.info().await.unwrap();
    assert_eq!(peer.ensure_full_commit().await.unwrap(), info.instance_start_time);
    assert_ne!(info.instance_start_time, "0");
}
