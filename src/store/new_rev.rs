//! The ids of revisions that are made here: CouchDB's own, so that equal edits on two machines make the same revision.
//!
//! `couch_db:new_revid/1`: the MD5 of `term_to_binary([Deleted, OldStart, OldRev, Body, Atts], [{minor_version, 1}])`,
//! where `OldRev` is the parent's hash, or 0, and `Atts` are name, type and digest of each attachment, the last first. A
//! digest is that of the stored bytes: two gzip encoders may differ there, and the revisions with them.

use md5::{Digest as _, Md5};
use serde_json::Value;

use super::attachments::Attachment;
use crate::document::{Rev, RevHash};
use crate::term::Term;

/// A body as CouchDB's decoder would have it. One that the decoder wouldn't take (a lone surrogate) counts as its bytes.
pub fn body_term(body: &[u8]) -> Term {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => Term::from(&value),
        Err(_) => Term::Binary(body.to_vec()),
    }
}

/// The hash of a new revision over `parent`.
pub fn hash(deleted: bool, parent: Option<&Rev>, body: Option<Term>, attachments: &[Attachment]) -> RevHash {
    let old_rev = parent.map_or(Term::from(0), |parent| Term::Binary(parent.hash.as_bytes().to_vec()));
    let attachments = attachments.iter().rev().map(|attachment| {
        let digest = Term::Binary(attachment.digest.0.to_vec());
        Term::Tuple(vec![Term::binary(&attachment.name), Term::binary(&attachment.content_type), digest])
    });
    let edit = Term::List(vec![
        Term::Atom(if deleted { "true" } else { "false" }),
        Term::from(parent.map_or(0, |parent| parent.pos)),
        old_rev,
        body.unwrap_or(Term::List(Vec::new())),
        Term::List(attachments.collect()),
    ]);
    RevHash::Md5(Md5::digest(edit.encode()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Digest, Encoding};

    fn rev(deleted: bool, parent: Option<&str>, body: &str, attachments: &[Attachment]) -> String {
        let parent = parent.map(|parent| Rev::parse(parent).unwrap());
        let hash = hash(deleted, parent.as_ref(), Some(body_term(body.as_bytes())), attachments);
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

    #[test]
    fn a_body_that_erlang_couldnt_hold_has_a_revision_too() {
        assert_ne!(rev(false, None, r#"{"a":"\ud800"}"#, &[]), rev(false, None, r#"{"a":"\ud801"}"#, &[]));
    }
}
