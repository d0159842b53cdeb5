//! What a document's JSON says about its attachments, and how it is rewritten for the way they travel.

use std::collections::HashMap;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::SMALL_BYTES;
use crate::document::{AttachmentHead, Described, DocumentError, each_described};
use crate::json;

/// What a document's `_attachments` tell of how it can travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttachmentKind {
    /// There are none.
    Nothing,
    /// All stand in the document, with the data that their digests are of.
    Within,
    /// Stubs of few bytes, stored plain. Data that stands in a document is plain, and what is stored gzipped would get
    /// another digest on its way there and back.
    Small,
    /// Anything else.
    More,
}

impl AttachmentKind {
    pub(super) fn of(attachments: &[u8]) -> Result<Self, DocumentError> {
        let (mut any, mut within, mut small, mut bytes) = (false, true, true, 0_u64);
        for attachment in json::members(attachments)? {
            any = true;
            let Ok(described) = serde_json::from_slice::<Described<'_>>(attachment.value) else {
                return Ok(Self::More);
            };
            within &= described.is_whole();
            small &= described.stub && !described.is_encoded();
            bytes = bytes.saturating_add(described.length.unwrap_or(u64::MAX));
        }
        Ok(match (any, within, small && bytes <= SMALL_BYTES) {
            (false, ..) => Self::Nothing,
            (true, true, _) => Self::Within,
            (true, false, true) => Self::Small,
            (true, false, false) => Self::More,
        })
    }
}

/// The attachments that follow a document, in its order.
pub(super) fn following(document: &[u8]) -> Result<Vec<AttachmentHead>, DocumentError> {
    let mut heads = Vec::new();
    each(document, |name, described, _| {
        if described.follows {
            heads.push(described.head(name).ok_or_else(|| DocumentError::BadAttachment(name.to_owned()))?);
        }
        Ok(())
    })?;
    Ok(heads)
}

/// Makes stubs into attachments that follow; answers the document, and what is to follow it.
pub(super) fn let_stubs_follow(document: &[u8]) -> Result<(Vec<u8>, Vec<AttachmentHead>), DocumentError> {
    let mut heads = Vec::new();
    let rewritten = rewrite(document, |name, described, members| {
        if !described.stub {
            return Ok(None);
        }
        heads.push(described.decoded_head(name).ok_or_else(|| DocumentError::BadAttachment(name.to_owned()))?);
        Ok(Some(keep(members, &["stub", "encoding", "encoded_length"], Some(r#""follows":true"#))))
    })?;
    Ok((rewritten, heads))
}

/// Makes the attachments that follow gzipped into such as follow plain. Their digests go: they are of the gzipped bytes.
pub(super) fn let_plain_follow(document: &[u8]) -> Result<Vec<u8>, DocumentError> {
    rewrite(document, |_, described, members| {
        let gzipped = described.follows && described.is_encoded();
        Ok(gzipped.then(|| keep(members, &["encoding", "encoded_length", "digest"], None)))
    })
}

/// Puts the data of the attachments that follow into the document. Their digests go: the target may store them otherwise.
pub(super) fn put_inline(document: &[u8], data: &HashMap<String, Vec<u8>>) -> Result<Vec<u8>, DocumentError> {
    rewrite(document, |name, described, members| {
        if !described.follows {
            return Ok(None);
        }
        let encoded = STANDARD.encode(data.get(name).map_or(&[][..], Vec::as_slice));
        let dropped = ["follows", "encoding", "encoded_length", "digest", "length"];
        Ok(Some(keep(members, &dropped, Some(&format!("\"data\":\"{encoded}\"")))))
    })
}

/// Calls `visit` with every attachment: its name, its description, and where that stands in the document.
fn each(
    document: &[u8],
    mut visit: impl FnMut(&str, Described<'_>, Range<usize>) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    let Some(attachments) = json::members(document)?.find(|member| member.key == "_attachments") else {
        return Ok(());
    };
    // A member's text ends with its value.
    let start = attachments.span.end - attachments.value.len();
    each_described(attachments.value, |name, described, place| {
        visit(name, described, start + place.start..start + place.end)
    })
}

/// The document with the descriptions that `change` gives in place of its own; everything else byte for byte.
fn rewrite(
    document: &[u8],
    mut change: impl FnMut(&str, Described<'_>, &[u8]) -> Result<Option<Vec<u8>>, DocumentError>,
) -> Result<Vec<u8>, DocumentError> {
    let mut rewritten = Vec::with_capacity(document.len() + 64);
    let mut copied = 0;
    each(document, |name, described, place| {
        if let Some(changed) = change(name, described, &document[place.clone()])? {
            rewritten.extend_from_slice(&document[copied..place.start]);
            rewritten.extend_from_slice(&changed);
            copied = place.end;
        }
        Ok(())
    })?;
    rewritten.extend_from_slice(&document[copied..]);
    Ok(rewritten)
}

/// An object without some of its members, and with one more.
fn keep(object: &[u8], dropped: &[&str], added: Option<&str>) -> Vec<u8> {
    let members = json::members(object).into_iter().flatten();
    let kept = members.filter(|member| !dropped.contains(&&*member.key)).map(|member| &object[member.span]);
    let members: Vec<&[u8]> = kept.chain(added.map(str::as_bytes)).collect();
    [b"{", members.join(&b","[..]).as_slice(), b"}"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"_id":"a","n":1.0,"_attachments":{"a\"b":{"content_type":"text/plain","stub":true,"length":3},
        "c":{"data":"YQ==","content_type":"x/y"},"d":{"follows":true,"length":9,"encoding":"gzip","encoded_length":7,"digest":"md5-x"}},"z":[]}"#;

    #[test]
    fn small_attachments_are_known_by_their_stubs() {
        let stub = |length: u64| format!(r#"{{"content_type":"a/b","stub":true,"length":{length}}}"#);
        let of = |described: &[String]| {
            let members: Vec<_> = described.iter().enumerate().map(|(n, one)| format!("\"{n}\":{one}")).collect();
            AttachmentKind::of(format!("{{{}}}", members.join(",")).as_bytes()).unwrap()
        };
        assert_eq!(of(&[]), AttachmentKind::Nothing);
        assert_eq!(of(&[stub(1), stub(SMALL_BYTES - 1)]), AttachmentKind::Small);
        for more in [
            &[stub(2), stub(SMALL_BYTES - 1)][..],
            &[stub(u64::MAX), stub(9)],
            &[stub(1).replace("length", "size")],
            &[stub(1).replace("stub", "follows")],
            &[stub(1).replace('}', r#","encoding":"gzip","encoded_length":9}"#)],
            &[stub(1), r#"{"data":"YQ=="}"#.into()],
            &["1".into()],
        ] {
            assert_eq!(of(more), AttachmentKind::More, "{more:?}");
        }
        assert_eq!(of(&[r#"{"data":"YQ=="}"#.into(), r#"{"data":""}"#.into()]), AttachmentKind::Within);
        // "a", and what isn't what its digest is of, or isn't plain.
        let whole = r#""data":"YQ==","digest":"md5-DMF1ucDxtqgxw5niaXcmYQ==""#;
        assert_eq!(of(&[format!("{{{whole}}}")]), AttachmentKind::Within);
        for otherwise in [
            &whole.replacen("YQ", "Yg", 1),
            &whole.replacen("YQ==", "", 1),
            &format!("{whole},\"encoding\":\"gzip\""),
            &format!("{whole},\"stub\":true"),
            &format!("{whole},\"follows\":true"),
        ] {
            assert_eq!(of(&[format!("{{{otherwise}}}")]), AttachmentKind::More, "{otherwise}");
        }
    }

    #[test]
    fn what_follows_is_told_with_the_length_that_travels() {
        let heads = following(DOCUMENT.as_bytes()).unwrap();
        let content_type = "application/octet-stream".to_owned();
        assert_eq!(heads, [AttachmentHead { name: "d".into(), content_type, length: 7, gzip: true }]);
        assert!(following(br#"{"_attachments":{"x":{"follows":true}}}"#).is_err());
        assert_eq!(following(br#"{"_attachments":{}}"#), Ok(vec![]));
        assert_eq!(following(br#"{}"#), Ok(vec![]));
    }

    #[test]
    fn stubs_become_followers_and_the_rest_stays_as_it_is() {
        let (document, heads) = let_stubs_follow(DOCUMENT.as_bytes()).unwrap();
        let stub = r#"{"content_type":"text/plain","stub":true,"length":3}"#;
        let follower = r#"{"content_type":"text/plain","length":3,"follows":true}"#;
        assert_eq!(String::from_utf8(document).unwrap(), DOCUMENT.replace(stub, follower));
        assert_eq!(
            heads,
            [AttachmentHead { name: "a\"b".into(), content_type: "text/plain".into(), length: 3, gzip: false }]
        );
    }

    #[test]
    fn followers_are_put_into_their_document() {
        let data = HashMap::from([("d".to_owned(), b"hello".to_vec())]);
        let document = String::from_utf8(put_inline(DOCUMENT.as_bytes(), &data).unwrap()).unwrap();
        let follower = r#"{"follows":true,"length":9,"encoding":"gzip","encoded_length":7,"digest":"md5-x"}"#;
        assert_eq!(document, DOCUMENT.replace(follower, r#"{"data":"aGVsbG8="}"#));
    }

    #[test]
    fn gzipped_followers_become_plain_ones() {
        let document = String::from_utf8(let_plain_follow(DOCUMENT.as_bytes()).unwrap()).unwrap();
        let encoding = r#","encoding":"gzip","encoded_length":7,"digest":"md5-x""#;
        assert_eq!(document, DOCUMENT.replace(encoding, ""));
    }
}
