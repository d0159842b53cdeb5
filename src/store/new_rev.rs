//! The ids of revisions that are made here: CouchDB's own, so that equal edits on two machines make the same revision.
//!
//! `couch_db:new_revid/1`: the MD5 of `term_to_binary([Deleted, OldStart, OldRev, Body, Atts], [{minor_version, 1}])`,
//! where `OldRev` is the parent's hash, or 0, and `Atts` are name, type and digest of each attachment, the last first. A
//! digest is that of the stored bytes: two gzip encoders may differ there, and the revisions with them.

use md5::{Digest as _, Md5};

use super::attachments::Attachment;
use crate::document::{Rev, RevHash};
use crate::term::{Shape, Term};

/// The hash of a new revision over `parent`. The body is given by its shape and its text.
pub fn hash(deleted: bool, parent: Option<&Rev>, body: (&Shape, &[u8]), attachments: &[Attachment]) -> RevHash {
    let old_rev = parent.map_or(Term::from(0), |parent| Term::Binary(parent.hash.as_bytes().to_vec()));
    let attachments = attachments.iter().rev().map(|attachment| {
        let digest = Term::Binary(attachment.digest.0.to_vec());
        Term::Tuple(vec![Term::binary(&attachment.name), Term::binary(&attachment.content_type), digest])
    });
    let before = [
        Term::Atom(if deleted { "true" } else { "false" }),
        Term::from(parent.map_or(0, |parent| parent.pos)),
        old_rev,
    ];
    let mut md5 = Md5::new();
    Term::encode_around(&before, body, &[Term::List(attachments.collect())], |piece| md5.update(piece));
    RevHash::Md5(md5.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Digest, Encoding};

    fn rev(deleted: bool, parent: Option<&str>, body: &str, attachments: &[Attachment]) -> String {
        let parent = parent.map(|parent| Rev::parse(parent).unwrap());
        let body = body.as_bytes();
        let hash = hash(deleted, parent.as_ref(), (&Shape::of(body), body), attachments);
        Rev { pos: parent.map_or(1, |parent| parent.pos + 1), hash }.to_string()
    }

    fn attachment(name: &str, content_type: &str, digest: &str) -> Attachment {
        Attachment {
            name: name.into(),
            content_type: content_type.into(),
            revpos: 1,
            digest: Digest::parse(digest).unwrap(),
            length: 1,
            stored_length: 1,
            encoding: Encoding::Identity,
            tells_stored: false,
        }
    }

    // Transcripts 01 and 02-verify hold these edits and the revisions that CouchDB 3.5 made of them.

    #[test]
    fn edits_make_couchdbs_revisions() {
        let first = "1-5e4fd8ffde85fb55213ff6fd8e597a0b";
        assert_eq!(rev(false, None, r#"{"v":1,"title":"first"}"#, &[]), first);
        let second = rev(false, Some(first), r#"{"v":2,"title":"first, second revision"}"#, &[]);
        assert_eq!(second, "2-0c1a205118f03d1ebedcdf983a466f8c");
        let filters = r#"{"filters":{"v2":"function(doc,req){return doc.v===2;}","boom":"function(doc,req){throw({forbidden:\"x\"});}"},"views":{"v":{"map":"function(doc){emit(doc._id,doc.v);}"}}}"#;
        assert_eq!(rev(false, None, filters, &[]), "1-7f914d63293df7481434c184a24cf688");
    }

    #[test]
    fn a_deletion_makes_couchdbs_revision() {
        let first = "1-4aebb34c1c33d0f1722852f64c0166aa";
        assert_eq!(rev(false, None, r#"{"gone":true}"#, &[]), first);
        assert_eq!(rev(true, Some(first), "{}", &[]), "2-ecf91efbff36dd5dbf5960e79254f201");
    }

    #[test]
    fn attachments_enter_as_couchdb_has_them() {
        let hello = attachment("hello.txt", "text/plain", "md5-7mkg+nM0HN26sZkLN8KVSA==");
        let blob = attachment("blob.bin", "application/octet-stream", "md5-VYW7zCEUY7Wno9geZJjndQ==");
        let first = "1-3b8dae6d8787a05827ba808b4111bc19";
        assert_eq!(rev(false, None, r#"{"v":1}"#, std::slice::from_ref(&hello)), first);
        assert_eq!(rev(false, Some(first), r#"{"v":1}"#, &[blob, hello]), "2-f491dd3aa42a5ca91f335853ffb4ddec");
    }

    /// CouchDB 3.5.0 made these revisions; beyond 127 levels ours were others.
    #[test]
    fn deep_and_odd_bodies_make_couchdbs_revisions_too() {
        let array = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let object = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for (body, expected) in [
            (array(500), "1-4594785e1d92f41c2449cb7387752b14"),
            (array(100_000), "1-0722ce3a2444da5b8018dca62dc30f65"),
            (object(500), "1-9025f87eafc633dc285e05844217eabd"),
            (object(100_000), "1-172f665c59a16e597d2430bf548a1863"),
            (r#"{"v":{"a":1,"b":2,"a":3}}"#.into(), "1-c98a46325eb382921c3d7dd72e678faf"),
            (r#"{"v":-0.0}"#.into(), "1-5a7811452a4161777cd378304565ccf1"),
            (r#"{"v":["a",[],{}]}"#.into(), "1-589b7efb4a3ee4cd050a1f2098790a76"),
            (r#"{"v":[1,2,300]}"#.into(), "1-d9f3f958132f330f4cfa58e8c83f31e1"),
            (r#"{"v":12345678901234567890123}"#.into(), "1-05258dea959a73673d1a002f90cd403e"),
            (format!("{{\"v\":{}}}", "1".repeat(309)), "1-d909847e5cdd5d9248579e64be12d61c"),
        ] {
            assert_eq!(rev(false, None, &body, &[]), expected, "{}", &body[..body.len().min(40)]);
        }
    }
}
