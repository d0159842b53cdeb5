//! Revisions and the paths they descend by.
//!
//! Rules from CouchDB: `couch_doc:parse_rev/1` (32 hexadecimal digits are sixteen bytes, any other revision id is its own
//! text, and both compare as bytes; it may be empty, `1-`). Otherwise than there on purpose: uppercase digits stay the text
//! that they are, so that every revision is written as it was read.

use std::fmt;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::DocumentError;

/// The greatest generation: far from where counting on would overflow.
pub const MAX_POS: u64 = i64::MAX as u64;
/// Bytes of a `_revisions` at most: 100,000 ids, where a document keeps 1,000. Read, they take many times their text.
const MAX_HISTORY_BYTES: usize = 4 << 20;

/// The part of a revision after its dash, ordered as CouchDB orders it: by bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevHash {
    /// 32 lowercase hexadecimal digits, as every CouchDB since 1.0 makes them.
    Md5([u8; 16]),
    /// Any other text; replicated documents may bring it.
    Other(Box<str>),
}

impl RevHash {
    /// The bytes that CouchDB compares and stores.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Md5(bytes) => bytes,
            Self::Other(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for RevHash {
    fn from(text: &str) -> Self {
        let mut bytes = [0; 16];
        let lowercase = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match lowercase && hex::decode_to_slice(text, &mut bytes).is_ok() {
            true => Self::Md5(bytes),
            false => Self::Other(text.into()),
        }
    }
}

impl Ord for RevHash {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Two hashes of equal bytes but of different kinds stand for different texts.
        (self.as_bytes(), matches!(self, Self::Other(_))).cmp(&(other.as_bytes(), matches!(other, Self::Other(_))))
    }
}

impl PartialOrd for RevHash {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RevHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Md5(bytes) => {
                let mut text = [0; 32];
                hex::encode_to_slice(bytes, &mut text).map_err(|_| fmt::Error)?;
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// A revision: its generation and its hash, written `3-917fa2381192822767f010b95b45325b`.
///
/// The order is that of CouchDB's winner among leaves that are equally deleted: generation first, then hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rev {
    /// The generation: 1 for a first revision.
    pub pos: u64,
    /// What tells revisions of one generation apart.
    pub hash: RevHash,
}

impl Rev {
    /// Reads `N-hash`; `None` if the text is no revision.
    pub fn parse(text: &str) -> Option<Self> {
        let (pos, hash) = text.split_once('-')?;
        let valid = pos.bytes().all(|b| b.is_ascii_digit());
        let pos = pos.parse().ok().filter(|pos| valid && (1..=MAX_POS).contains(pos))?;
        Some(Self { pos, hash: hash.into() })
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pos, self.hash)
    }
}

impl Serialize for Rev {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rev {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(StringVisitor { expected: "a revision", parse: Self::parse })
    }
}

impl<'de> Deserialize<'de> for RevHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| Some(Self::from(text));
        deserializer.deserialize_str(StringVisitor { expected: "a revision's hash", parse })
    }
}

/// Reads a JSON string without copying it first: there is one for every ancestor of every document.
struct StringVisitor<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for StringVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// A revision and its ancestors, newest first, each one generation older: a document's `_revisions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revisions {
    /// The newest revision's generation.
    pub start: u64,
    /// The hashes, newest first; never empty, never longer than `start`.
    pub ids: Vec<RevHash>,
}

impl Revisions {
    /// A path of the one revision whose ancestors aren't known.
    pub fn single(rev: Rev) -> Self {
        Self { start: rev.pos, ids: vec![rev.hash] }
    }

    /// The newest revision.
    pub fn newest(&self) -> Rev {
        Rev { pos: self.start, hash: self.ids[0].clone() }
    }

    /// Whether the revision is the newest one or one of its ancestors.
    pub fn contains(&self, rev: &Rev) -> bool {
        let place = self.start.checked_sub(rev.pos).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.ids.get(place)) == Some(&rev.hash)
    }

    /// All of them, the newest first.
    pub fn revs(&self) -> impl Iterator<Item = Rev> {
        (0..).zip(&self.ids).map(|(place, hash)| Rev { pos: self.start - place, hash: hash.clone() })
    }

    /// Reads `{"start": 2, "ids": ["b…", "a…"]}`.
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct RevisionsJson {
            start: u64,
            ids: Vec<RevHash>,
        }
        if json.len() > MAX_HISTORY_BYTES {
            return Err(DocumentError::BadRevisions);
        }
        let RevisionsJson { start, ids } = serde_json::from_slice(json).map_err(|_| DocumentError::BadRevisions)?;
        let valid = !ids.is_empty() && ids.len() as u64 <= start && start <= MAX_POS;
        valid.then_some(Self { start, ids }).ok_or(DocumentError::BadRevisions)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    fn rev() -> impl Strategy<Value = Rev> {
        let text = prop_oneof!["[0-9a-f]{32}", "[0-9a-zA-Z-]{1,40}", ".{0,20}"];
        (1..=MAX_POS, text).prop_map(|(pos, text)| Rev { pos, hash: RevHash::from(text.as_str()) })
    }

    proptest! {
        #[test]
        fn a_revision_is_read_as_it_is_written(rev in rev()) {
            prop_assert_eq!(Rev::parse(&rev.to_string()), Some(rev.clone()));
            let json = serde_json::to_string(&rev).unwrap();
            prop_assert_eq!(serde_json::from_str::<Rev>(&json).unwrap(), rev);
        }

        #[test]
        fn the_order_is_total_and_that_of_bytes(a in rev(), b in rev()) {
            prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            let by_bytes = (a.pos, a.hash.as_bytes()).cmp(&(b.pos, b.hash.as_bytes()));
            prop_assert!(by_bytes == Ordering::Equal || by_bytes == a.cmp(&b));
        }

        #[test]
        fn anything_else_is_no_revision(text in ".{0,20}") {
            let parsed = Rev::parse(&text);
            let canonical = parsed.as_ref().map(Rev::to_string);
            prop_assert!(canonical.is_none_or(|rev| text.trim_start_matches('0') == rev));
        }
    }

    #[test]
    fn revisions_of_the_wrong_form_are_none() {
        for text in [
            "",
            "1",
            "-",
            "-a",
            "0-a",
            "+1-a",
            " 1-a",
            "1.0-a",
            "99999999999999999999-a",
            "9223372036854775808-a",
            "a-1",
        ] {
            assert_eq!(Rev::parse(text), None, "{text}");
        }
        assert_eq!(Rev::parse("3-a-b").map(|rev| rev.hash), Some(RevHash::from("a-b")));
    }

    #[test]
    fn sixteen_bytes_are_32_lowercase_digits() {
        assert_eq!(RevHash::from("917fa2381192822767f010b95b45325b").as_bytes().len(), 16);
        assert_eq!(RevHash::from("917FA2381192822767F010B95B45325B").as_bytes().len(), 32);
        assert_eq!(RevHash::from("917fa2381192822767f010b95b45325").as_bytes().len(), 31);
    }

    #[test]
    fn revisions_are_a_start_and_as_many_ids_at_most() {
        let read = |json: &str| Revisions::parse(json.as_bytes());
        let two = Revisions { start: 3, ids: vec!["b\"".into(), "a".into()] };
        assert_eq!(read(r#"{"start": 3, "ids": ["b\"", "\u0061"], "more": {}}"#), Ok(two));
        let many = format!(r#"{{"start":3000000,"ids":["a"{}]}}"#, r#","a""#.repeat(MAX_HISTORY_BYTES / 4));
        for wrong in [
            many.as_str(),
            r#"{"start":1,"ids":["b","a"]}"#,
            r#"{"start":0,"ids":[]}"#,
            r#"{"start":1,"ids":[]}"#,
            r#"{"start":1,"ids":[1]}"#,
            r#"{"start":-1,"ids":["a"]}"#,
            r#"{"start":1.0,"ids":["a"]}"#,
            r#"{"start":18446744073709551615,"ids":["a"]}"#,
            r#"{"ids":["a"]}"#,
            r#"{"start":1}"#,
            "null",
            "[]",
        ] {
            assert_eq!(read(wrong), Err(DocumentError::BadRevisions), "{wrong}");
        }
    }
}
