//! The field's words as types: document ids, revisions, sequence numbers, and the few parts of a document that
//! replication looks at.
//!
//! A document's body is never parsed into values here: it stays the bytes that came. [`DocParts`] finds the
//! underscore members of a document and leaves the rest alone; [`DocBatch`] holds documents laid out as the
//! `_bulk_docs` request that will carry them.
//!
//! Rules from CouchDB: `couch_doc:parse_rev/1` (32 hexadecimal digits are sixteen bytes, any other revision id is
//! its own text, and both compare as bytes), `couch_doc:transfer_fields/2` (which underscore members exist).

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json;

/// A document's id, decoded: `_design/d`, `a/b`, `Zoë`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DocId(Box<str>);

impl DocId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a design document's id.
    pub fn is_design(&self) -> bool {
        self.0.starts_with("_design/")
    }
}

impl<T: Into<Box<str>>> From<T> for DocId {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for DocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part of a revision behind its dash, ordered as CouchDB orders it: by bytes.
#[derive(Debug, Clone, Hash)]
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

impl PartialEq for RevHash {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for RevHash {}

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
    /// Reads `N-hash`; `None` where the text is no revision.
    pub fn parse(text: &str) -> Option<Self> {
        let (pos, hash) = text.split_once('-')?;
        let valid = !hash.is_empty() && pos.bytes().all(|b| b.is_ascii_digit());
        let pos = pos.parse().ok().filter(|&pos| valid && pos > 0)?;
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
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format_args!("`{text}` is no revision")))
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

    /// Reads `{"start": 2, "ids": ["b…", "a…"]}`.
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            start: u64,
            #[serde(borrow)]
            ids: Vec<Cow<'a, str>>,
        }
        let wire: Wire<'_> = serde_json::from_slice(json).map_err(|_| DocumentError::BadRevisions)?;
        if wire.ids.is_empty() || wire.ids.len() as u64 > wire.start || wire.ids.iter().any(|id| id.is_empty()) {
            return Err(DocumentError::BadRevisions);
        }
        Ok(Self { start: wire.start, ids: wire.ids.iter().map(|id| RevHash::from(id.as_ref())).collect() })
    }
}

/// A place in a source's feed: opaque JSON, a number here, a string there. Never parsed, never compared by order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seq(Arc<str>);

impl Seq {
    /// Before the first change.
    pub fn zero() -> Self {
        Self("0".into())
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// The value of a `since` query parameter: a string bare, anything else as JSON.
    pub fn as_query(&self) -> Cow<'_, str> {
        match serde_json::from_str::<Cow<'_, str>>(&self.0) {
            Ok(text) => Cow::Owned(text.into_owned()),
            Err(_) => Cow::Borrowed(&self.0),
        }
    }
}

impl From<u64> for Seq {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Seq {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Seq {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(raw.get().into()))
    }
}

/// What is wrong with a document that someone sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "each message says it")]
pub enum DocumentError {
    #[error("invalid UTF-8 JSON")]
    InvalidJson,
    #[error("Document must be a JSON object")]
    NotAnObject,
    #[error("Document id must be a string")]
    IdNotAString,
    #[error("Document id must not be empty")]
    IdEmpty,
    #[error("Only reserved document ids may start with underscore.")]
    IdReserved,
    #[error("Invalid rev format")]
    BadRev,
    #[error("Invalid _revisions member")]
    BadRevisions,
    #[error("Bad special document member: {0}")]
    BadMember(String),
    #[error("Invalid attachment data for {0}")]
    BadAttachment(String),
    #[error("Attachment name '{0}' starts with prohibited character '_'")]
    BadAttachmentName(String),
}

/// A document taken apart: its underscore members, and the spans of everything else.
///
/// Borrowed from the document's text; nothing but the underscore members is copied or parsed.
#[derive(Debug, Default)]
pub struct DocParts<'a> {
    /// `_id`, unescaped.
    pub id: Option<Cow<'a, str>>,
    /// `_rev`.
    pub rev: Option<Rev>,
    /// `_revisions`.
    pub revisions: Option<Revisions>,
    /// `_deleted` is `true`.
    pub deleted: bool,
    /// The JSON text of `_attachments`, where it is there and isn't `{}`.
    pub attachments: Option<&'a [u8]>,
    /// Runs of `"key":value` text between underscore members, in order, without the commas around them.
    fields: Vec<&'a [u8]>,
}

impl<'a> DocParts<'a> {
    /// Takes a document apart, after checking that the whole of it is JSON.
    ///
    /// # Errors
    /// [`DocumentError`] where the text is no JSON object, or an underscore member is unknown or of the wrong kind.
    pub fn parse(text: &'a [u8]) -> Result<Self, DocumentError> {
        let mut parts = Self::default();
        let mut run: Option<Range<usize>> = None;
        for member in json::members(text)? {
            if !member.key.starts_with('_') || member.key.starts_with("_replication_") {
                run = Some(run.map_or(member.span.clone(), |run| run.start..member.span.end));
                continue;
            }
            parts.fields.extend(run.take().map(|run| &text[run]));
            parts.take_special(&member.key, member.value)?;
        }
        parts.fields.extend(run.map(|run| &text[run]));
        Ok(parts)
    }

    fn take_special(&mut self, key: &str, value: &'a [u8]) -> Result<(), DocumentError> {
        let text = || serde_json::from_slice::<Cow<'a, str>>(value);
        match key {
            "_id" => self.id = Some(json::string(value).ok_or(DocumentError::IdNotAString)?),
            "_rev" => {
                let rev = text().ok().and_then(|rev| Rev::parse(&rev));
                self.rev = Some(rev.ok_or(DocumentError::BadRev)?);
            }
            "_revisions" => self.revisions = Some(Revisions::parse(value)?),
            "_deleted" => self.deleted = value == b"true",
            "_attachments" => {
                let filled = json::members(value).map_err(|_| DocumentError::BadMember(key.into()))?.next().is_some();
                self.attachments = filled.then_some(value);
            }
            "_conflicts" | "_deleted_conflicts" | "_revs_info" | "_local_seq" | "_access" => {}
            _ => return Err(DocumentError::BadMember(key.into())),
        }
        Ok(())
    }

    /// The document's own members, byte for byte, as a JSON object.
    pub fn body(&self) -> Vec<u8> {
        let length = self.fields.iter().map(|run| run.len() + 1).sum::<usize>() + 2;
        let mut body = Vec::with_capacity(length);
        body.push(b'{');
        for run in &self.fields {
            if body.len() > 1 {
                body.push(b',');
            }
            body.extend_from_slice(run);
        }
        body.push(b'}');
        body
    }

    /// The path that the document brings: `_revisions`, else its `_rev` alone.
    pub fn path(&self) -> Option<Revisions> {
        self.revisions.clone().or_else(|| self.rev.clone().map(Revisions::single))
    }
}

/// Checks an id that a client chose: CouchDB's `couch_doc:validate_docid/1`.
pub fn validate_id(id: &str) -> Result<(), DocumentError> {
    match id {
        "" => Err(DocumentError::IdEmpty),
        "_design/" | "_local/" => Err(DocumentError::IdEmpty),
        _ if id.starts_with('_') && !id.starts_with("_design/") && !id.starts_with("_local/") => {
            Err(DocumentError::IdReserved)
        }
        _ => Ok(()),
    }
}

/// Revisions of one document that the target lacks, and what it has that is near them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose revisions.
    pub id: DocId,
    /// The missing ones.
    pub revs: Vec<Rev>,
    /// `possible_ancestors` of the target's answer: attachments that these have needn't travel.
    pub atts_since: Vec<Rev>,
}

/// Where a document stands in a [`DocBatch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocSpan {
    /// Its id.
    pub id: DocId,
    /// Its revision.
    pub rev: Rev,
    /// Its JSON text within [`DocBatch::json`].
    pub span: Range<usize>,
}

/// Documents as their source wrote them, laid out as the `_bulk_docs` request that carries them on.
#[derive(Debug, Clone)]
pub struct DocBatch {
    json: Vec<u8>,
    docs: Vec<DocSpan>,
}

const REQUEST_HEAD: &[u8] = br#"{"new_edits":false,"docs":["#;
const REQUEST_TAIL: &[u8] = b"]}";

impl Default for DocBatch {
    fn default() -> Self {
        Self { json: REQUEST_HEAD.to_vec(), docs: Vec::new() }
    }
}

impl DocBatch {
    /// Adds a document by letting `write` append its JSON text.
    pub fn push_with(&mut self, id: DocId, rev: Rev, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.docs.is_empty() {
            self.json.push(b',');
        }
        let start = self.json.len();
        write(&mut self.json);
        self.docs.push(DocSpan { id, rev, span: start..self.json.len() });
    }

    /// Adds a document's JSON text.
    pub fn push(&mut self, id: DocId, rev: Rev, json: &[u8]) {
        self.push_with(id, rev, |out| out.extend_from_slice(json));
    }

    /// The documents, in the order in which they were added.
    pub fn docs(&self) -> &[DocSpan] {
        &self.docs
    }

    /// The text of one of its documents.
    pub fn text(&self, doc: &DocSpan) -> &[u8] {
        &self.json[doc.span.clone()]
    }

    /// Whether it holds no document.
    pub fn is_empty(&self) -> bool {
        self.docs.is_empty()
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.json.len()
    }

    /// The whole as a `_bulk_docs` request's body, and where its documents stand in it.
    pub fn into_request(mut self) -> (Bytes, Vec<DocSpan>) {
        self.json.extend_from_slice(REQUEST_TAIL);
        (self.json.into(), self.docs)
    }

    /// Cuts the batch in two halves, for a target that finds it too large.
    ///
    /// The first half keeps the odd document. A batch of one stays whole and leaves an empty second half.
    pub fn halve(self) -> (Self, Self) {
        let middle = self.docs.len().div_ceil(2);
        let mut halves = (Self::default(), Self::default());
        for (index, doc) in self.docs.iter().enumerate() {
            let half = if index < middle { &mut halves.0 } else { &mut halves.1 };
            half.push(doc.id.clone(), doc.rev.clone(), self.text(doc));
        }
        halves
    }
}
