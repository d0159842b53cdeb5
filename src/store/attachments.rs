//! Attachments: blobs in chunks, shared by digest.

use bytes::Bytes;

use super::StoreError;

/// The MD5 of an attachment's bytes as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Reads `md5-<base64>`; `None` for any other kind.
    pub fn parse(text: &str) -> Option<Self> {
        let _ = text;
        todo!()
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

/// An attachment of a stored revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// The generation in which it came.
    pub revpos: u64,
    /// Of the stored bytes. Shown as `md5-<base64>`.
    pub digest: Digest,
    /// Bytes, decoded.
    pub length: u64,
    /// Bytes, as stored.
    pub stored_length: u64,
    /// How they are stored.
    pub encoding: Encoding,
}

/// Bytes in the store that no document refers to yet; dropped at the next opening if none ever does.
#[derive(Debug)]
pub struct Uploaded {}

/// An attachment on its way into the store: bytes are stored as they come.
pub struct Upload {}

impl Upload {
    /// Takes the next bytes.
    pub async fn push(&mut self, data: Bytes) -> Result<(), StoreError> {
        let _ = data;
        todo!()
    }

    /// Ends it. The digest is that of the bytes that were pushed.
    pub async fn finish(self) -> Result<(Uploaded, Digest), StoreError> {
        todo!()
    }
}
