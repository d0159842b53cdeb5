//! Documents with attachments, there and back.

use std::io::Write as _;

use super::*;
use crate::document::{AttachmentHead, AttachmentPiece};

const BLOB: &[u8] = b"\r\n--x\r\n\0blob";

fn gzipped() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"hello").unwrap();
    encoder.finish().unwrap()
}

fn document(gzipped_length: usize) -> String {
    json!({"_id": "a", "_rev": "1-a", "n": 1, "_attachments": {
        "blob.bin": {"content_type": "x/y", "length": BLOB.len(), "follows": true},
        "old": {"content_type": "x/y", "length": 3, "stub": true},
        "hello.txt": {"content_type": "text/plain", "length": 5, "digest": "md5-x", "follows": true,
            "encoding": "gzip", "encoded_length": gzipped_length},
    }})
    .to_string()
}

fn heads() -> [AttachmentHead; 2] {
    let (blob, hello) = (BLOB.len() as u64, gzipped().len() as u64);
    [
        AttachmentHead { name: "blob.bin".into(), content_type: "x/y".into(), length: blob, gzip: false },
        AttachmentHead { name: "hello.txt".into(), content_type: "text/plain".into(), length: hello, gzip: true },
    ]
}

/// What CouchDB answers to `open_revs`, in pieces.
fn mixed(document: &str, step: usize) -> Response {
    let (mut outer, mut inner) = (Framing::new(), Framing::new());
    let mut body = outer.part(&inner.content_type("related")).to_vec();
    body.extend_from_slice(&inner.part("application/json"));
    body.extend_from_slice(document.as_bytes());
    for (head, data) in heads().iter().zip([BLOB, &gzipped()]) {
        body.extend_from_slice(&inner.attachment(head));
        body.extend_from_slice(data);
    }
    body.extend_from_slice(&inner.close());
    body.extend_from_slice(&outer.close());
    let pieces: Vec<_> = body.chunks(step).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let mut response = answer(200, Body::from_stream(stream::iter(pieces)));
    response.headers_mut().insert(CONTENT_TYPE, outer.content_type("mixed").parse().unwrap());
    response
}

async fn fetch(peer: &RemotePeer) -> AttachedDoc {
    match peer.open_rev(&DocId::from("a"), &rev("1-a"), &[rev("1-b")], share()).await.unwrap() {
        Opened::Doc(doc) => doc,
        Opened::Missing | Opened::Forbidden(_) => panic!("no document"),
    }
}

async fn attachments(doc: AttachedDoc) -> Result<Vec<(AttachmentHead, Vec<u8>)>, PeerError> {
    let mut attachments: Vec<(AttachmentHead, Vec<u8>)> = Vec::new();
    let mut parts = doc.parts;
    while let Some(piece) = parts.try_next().await? {
        match piece {
            AttachmentPiece::Head(head) => attachments.push((head, Vec::new())),
            AttachmentPiece::Data(data) => attachments.last_mut().unwrap().1.extend_from_slice(&data),
        }
    }
    Ok(attachments)
}

/// A source whose answers come in such pieces.
async fn source(step: usize) -> RemotePeer {
    let url = serve(move |seen| {
        let path = "GET /src/a?revs=true&open_revs=%5B%221-a%22%5D&latest=true&atts_since=%5B%221-b%22%5D";
        assert!(seen.is(path) && seen.headers["accept"] == "multipart/mixed", "{seen:?}");
        mixed(&document(gzipped().len()), step)
    });
    peer(&format!("{}/src", url.await))
}

/// A target that tells back the parts it got: the document, then each attachment's headers and data.
async fn target(server: &'static str) -> (RemotePeer, tokio::sync::mpsc::Receiver<Vec<(HeaderMap, Bytes)>>) {
    let (told, telling) = tokio::sync::mpsc::channel(1);
    let url = serve(move |seen| {
        if seen.method == "GET" {
            let mut response = info();
            response.headers_mut().insert("server", server.parse().unwrap());
            return response;
        }
        assert!(seen.is("PUT /tgt/a?new_edits=false"));
        assert_eq!(seen.headers[CONTENT_LENGTH], seen.body.len().to_string());
        let boundary = multipart::boundary(seen.headers[CONTENT_TYPE].to_str().unwrap()).unwrap();
        let mut reader = Reader::new(stream::iter([Ok::<_, std::convert::Infallible>(seen.body)]), &boundary);
        let parts = futures::FutureExt::now_or_never(async move {
            let mut parts = Vec::new();
            while let Some(headers) = reader.next_part().await.unwrap() {
                let mut data = Vec::new();
                while let Some(chunk) = reader.next_chunk().await.unwrap() {
                    data.extend_from_slice(&chunk);
                }
                parts.push((headers, Bytes::from(data)));
            }
            parts
        });
        told.try_send(parts.unwrap()).unwrap();
        answer(201, r#"{"ok":true,"id":"a","rev":"1-a"}"#)
    });
    let peer = peer(&format!("{}/tgt", url.await));
    peer.info().await.unwrap();
    (peer, telling)
}

#[tokio::test]
async fn a_document_and_its_attachments_are_read_however_they_are_split() {
    for step in [1, 7, 64, 100_000] {
        let doc = fetch(&source(step).await).await;
        assert_eq!((doc.id.as_str(), doc.rev.to_string()), ("a", "1-a".to_owned()));
        assert_eq!(doc.json, document(gzipped().len()));
        let [blob, hello] = heads();
        assert_eq!(attachments(doc).await.unwrap(), [(blob, BLOB.to_vec()), (hello, gzipped())]);
    }
}

#[tokio::test]
async fn a_document_travels_to_couchdb_as_it_came() {
    let (target, mut parts) = target("CouchDB/3.5.0 (Erlang OTP/25)").await;
    assert_eq!(target.put_doc(fetch(&source(50).await).await).await.unwrap(), Put::Written);
    let parts = parts.recv().await.unwrap();
    assert_eq!(parts[0].1, document(gzipped().len()));
    assert_eq!(parts[1].1, BLOB);
    assert_eq!(parts[1].0["content-disposition"], "attachment; filename=\"blob.bin\"");
    assert_eq!((&parts[2].1[..], &parts[2].0["content-encoding"]), (&gzipped()[..], &"gzip".parse().unwrap()));
}

#[tokio::test]
async fn other_targets_get_gzipped_attachments_decoded() {
    let (target, mut parts) = target("nginx").await;
    assert_eq!(target.put_doc(fetch(&source(3).await).await).await.unwrap(), Put::Written);
    let parts = parts.recv().await.unwrap();
    let document: serde_json::Value = serde_json::from_slice(&parts[0].1).unwrap();
    let hello = json!({"content_type": "text/plain", "length": 5, "follows": true});
    assert_eq!(document["_attachments"]["hello.txt"], hello);
    assert_eq!((&parts[1].1[..], &parts[2].1[..]), (BLOB, &b"hello"[..]));
    assert!(!parts[2].0.contains_key("content-encoding"));
}

#[tokio::test]
async fn attachments_that_end_early_are_told() {
    let url = serve(|_| mixed(&document(gzipped().len() + 1), 50));
    assert!(matches!(attachments(fetch(&peer(&url.await)).await).await, Err(PeerError::Broken { .. })));
}

#[tokio::test]
async fn the_sources_error_wins_over_the_targets() {
    let source = serve(|_| mixed(&document(gzipped().len() + 1), 50)).await;
    let (target, _parts) = target("CouchDB").await;
    let error = target.put_doc(fetch(&peer(&source)).await).await.unwrap_err();
    assert!(matches!(&error, PeerError::Broken { request, .. } if request.contains(&source)), "{error}");
}

#[tokio::test]
async fn a_source_that_answers_json_is_asked_for_each_attachment() {
    let url = serve(|seen| match seen.path.split('?').next().unwrap() {
        "/db/a" => ok(json!([{"ok": {"_id": "a", "_rev": "2-b", "_attachments": {
            "x/y z": {"content_type": "text/plain", "length": 5, "stub": true}}}}])),
        "/db/a/x/y%20z" if seen.path.ends_with("?rev=2-b") => answer(200, "hello"),
        _ => answer(404, r#"{"error":"not_found","reason":"missing"}"#),
    });
    let peer = peer(&format!("{}/db", url.await));
    let doc = fetch(&peer).await;
    assert!(std::str::from_utf8(&doc.json).unwrap().contains(r#""follows":true"#));
    let head = AttachmentHead { name: "x/y z".into(), content_type: "text/plain".into(), length: 5, gzip: false };
    assert_eq!(attachments(doc).await.unwrap(), [(head, b"hello".to_vec())]);
    let gone = peer.open_rev(&DocId::from("gone"), &rev("1-a"), &[], share()).await.unwrap();
    assert!(matches!(gone, Opened::Missing));
}

#[tokio::test]
async fn a_document_that_the_target_refuses_is_told_as_such() {
    let url = serve(|seen| match seen.path.as_str() {
        "/db/_design/d%2Fe?new_edits=false" => answer(403, r#"{"error":"forbidden","reason":"no"}"#),
        "/db/stub?new_edits=false" => answer(412, r#"{"error":"missing_stub","reason":"x"}"#),
        "/db/busy?new_edits=false" => answer(503, ""),
        // The database lets us in, so the document was refused.
        "/db/" => info(),
        "/db/_local/couchrep-may-write" => answer(409, r#"{"error":"conflict","reason":"there"}"#),
        _ => answer(404, r#"{"error":"not_found","reason":"Database does not exist."}"#),
    });
    let peer = peer(&format!("{}/db", url.await));
    let doc = |id: &str, attachment: &str| {
        let json = format!(r#"{{"_id":"{id}","_rev":"1-a","_attachments":{{{attachment}}}}}"#);
        let head = AttachmentHead { name: "x".into(), content_type: "a/b".into(), length: 0, gzip: false };
        let parts = stream::iter([Ok(AttachmentPiece::Head(head))]).boxed();
        AttachedDoc { id: DocId::from(id), rev: rev("1-a"), json: json.into(), parts }
    };
    let follows = r#""x":{"content_type":"a/b","follows":true,"length":0}"#;
    for attachment in ["", follows] {
        let refused = peer.put_doc(doc("_design/d/e", attachment)).await.unwrap();
        assert_eq!(refused, Put::Forbidden(Why::new("forbidden", "no")));
        assert!(matches!(peer.put_doc(doc("stub", attachment)).await, Err(PeerError::MissingStub { .. })));
        assert!(matches!(peer.put_doc(doc("b", attachment)).await, Err(PeerError::DatabaseMissing { .. })));
    }
    assert_eq!(peer.put_doc(doc("busy", follows)).await.unwrap_err().blame(), Blame::Passing);
    let Put::Refused(why) = peer.put_doc(doc("..", "")).await.unwrap() else { panic!("it was taken") };
    assert_eq!(why.error, "illegal_docid");
}
