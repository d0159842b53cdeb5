//! Attachments, in the words that everybody uses of them.
//!
//! A document describes each of its attachments in `_attachments` ([`Described`]): its data stands there, or follows the
//! document, or is left out (a stub). What follows is announced ([`Announced`]), and streams as [`AttachmentPiece`]s: a
//! head, then its bytes. Text may be stored gzipped and travels so; lengths and digests are then those of the gzipped
//! bytes, except for `length`, which is the attachment's own.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use serde::Deserialize;

use super::DocumentError;
use crate::json;

/// The MD5 of an attachment's bytes as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Reads `md5-<base64>`; `None` for any other kind.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text.strip_prefix("md5-")?).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Md5::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "md5-{}", BASE64.encode(self.0))
    }
}

/// How an attachment's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// Gzipped, as CouchDB does with text.
    Gzip,
}

/// An attachment as a document's `_attachments` describes it.
#[derive(Debug, Deserialize)]
pub struct Described<'a> {
    #[serde(borrow)]
    content_type: Option<Cow<'a, str>>,
    /// Its bytes as base64, where they stand in the document.
    pub data: Option<Cow<'a, str>>,
    /// Its bytes follow the document.
    #[serde(default)]
    pub follows: bool,
    /// Its bytes are left out.
    #[serde(default)]
    pub stub: bool,
    /// Bytes of the attachment itself.
    pub length: Option<u64>,
    /// Bytes that are stored, where that is another number.
    pub encoded_length: Option<u64>,
    /// The digest, whatever its kind.
    pub digest: Option<Cow<'a, str>>,
    /// The generation in which it came.
    pub revpos: Option<u64>,
    encoding: Option<Cow<'a, str>>,
}

impl Described<'_> {
    /// Media type.
    pub fn content_type(&self) -> String {
        self.content_type.as_deref().unwrap_or("application/octet-stream").to_owned()
    }

    /// Whether its bytes are, or come, gzipped.
    pub fn is_gzipped(&self) -> bool {
        self.encoding.as_deref() == Some("gzip")
    }

    /// Whether its bytes are stored otherwise than as they are.
    pub fn is_encoded(&self) -> bool {
        self.encoding.is_some()
    }

    /// Whether its bytes stand in the document, plain, and are those that it was stored with.
    pub fn is_whole(&self) -> bool {
        let Some(data) = self.data.as_deref().filter(|_| !self.stub && !self.follows && !self.is_encoded()) else {
            return false;
        };
        let Some(digest) = self.digest() else { return true };
        BASE64.decode(data).is_ok_and(|data| Digest::of(&data) == digest)
    }

    /// The digest, where it is one that CouchDB makes.
    pub fn digest(&self) -> Option<Digest> {
        self.digest.as_deref().and_then(Digest::parse)
    }

    /// The head of its bytes, stored ones; `None` if the document doesn't say how many there are.
    pub fn head(&self, name: &str) -> Option<AttachmentHead> {
        let length = if self.is_gzipped() { self.encoded_length? } else { self.length? };
        Some(AttachmentHead { gzip: self.is_gzipped(), ..self.plain_head(name, length) })
    }

    /// The head of its own bytes, decoded; `None` if the document doesn't say how many there are.
    pub fn decoded_head(&self, name: &str) -> Option<AttachmentHead> {
        Some(self.plain_head(name, self.length?))
    }

    fn plain_head(&self, name: &str, length: u64) -> AttachmentHead {
        AttachmentHead { name: name.to_owned(), content_type: self.content_type(), length, gzip: false }
    }
}

/// Calls `visit` with every attachment of a document's `_attachments`: its name, its description, and where that stands
/// in this text.
pub fn each_described(
    attachments: &[u8],
    mut visit: impl FnMut(&str, Described<'_>, Range<usize>) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    for attachment in json::members(attachments)? {
        let described = serde_json::from_slice(attachment.value);
        let described = described.map_err(|_| DocumentError::BadAttachment(attachment.key.to_string()))?;
        // A member's text ends with its value.
        let end = attachment.span.end;
        visit(&attachment.key, described, end - attachment.value.len()..end)?;
    }
    Ok(())
}

/// An attachment that a document announces with `"follows":true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// Whether its bytes come gzipped (`"encoding":"gzip"`).
    pub gzip: bool,
    /// Bytes that come, where the document says so (`encoded_length`, else `length`).
    pub length: Option<u64>,
    /// The digest of the bytes that come, where the document says so.
    pub digest: Option<Digest>,
}

impl Announced {
    /// The attachments that follow a document, in its order. `attachments` is the text of its `_attachments`.
    pub fn all(attachments: Option<&[u8]>) -> Result<Vec<Self>, DocumentError> {
        let mut following = Vec::new();
        each_described(attachments.unwrap_or(b"{}"), |name, described, _| {
            if described.follows {
                following.push(Self {
                    name: name.to_owned(),
                    content_type: described.content_type(),
                    gzip: described.is_gzipped(),
                    length: described.encoded_length.filter(|_| described.is_gzipped()).or(described.length),
                    digest: described.digest(),
                });
            }
            Ok(())
        })?;
        Ok(following)
    }
}

/// What stands over an attachment's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct AttachmentHead {
    /// Its file name.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// Bytes that follow, as they travel.
    pub length: u64,
    /// Whether they travel gzipped, because the source stores them so.
    pub gzip: bool,
}

/// A piece of the attachments after a document.
#[derive(Debug)]
pub enum AttachmentPiece {
    /// An attachment starts.
    Head(AttachmentHead),
    /// Bytes of it.
    Data(Bytes),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_as_couchdb_writes_it() {
        let digest = Digest::parse("md5-7mkg+nM0HN26sZkLN8KVSA==").unwrap();
        assert_eq!(digest.to_string(), "md5-7mkg+nM0HN26sZkLN8KVSA==");
        assert_eq!(Digest::parse("sha1-7mkg+nM0HN26sZkLN8KVSA=="), None);
    }
}
