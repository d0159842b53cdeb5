//! Attachments: bytes in chunks, kept once however many revisions show them.
//!
//! An attachment's bytes are stored under a random blob number as they come, before any document refers to them, so an
//! attachment of any size needs one buffer. Its document's transaction then books the blob under the MD5 digest of the
//! stored bytes (`att_refs`); a second blob of the same digest is dropped there, and the last reference to go takes
//! the bytes with it. A blob that never got a document is dropped with its [`Uploaded`], or at the next opening.
//!
//! Rules from CouchDB (`couch_att`): text is stored gzipped and travels so; a digest is that of the stored bytes.

use std::io::{self, Write as _};

use super::StoreError;
use super::work::{Work, WriterHandle};
use crate::document::{AttachmentHead, Digest, Encoding};
use crate::tasks;
use bytes::{Bytes, BytesMut};
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use md5::{Digest as _, Md5};

/// Bytes of an attachment's chunk. 64 KiB and the key would need a page of 128 KiB.
pub const CHUNK_BYTES: usize = 65_000;
/// Bytes that an upload gathers before it works on them.
const PIECE_BYTES: usize = 8 * CHUNK_BYTES;
/// CouchDB's default for `[attachments] compression_level`.
const COMPRESSION: Compression = Compression::new(8);
/// The operating system in a gzip header: zlib's on any Unix, so that digests may be CouchDB's.
const UNIX: u8 = 3;

/// An attachment of a stored revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// The generation in which it came.
    pub revpos: u64,
    /// Of the stored bytes.
    pub digest: Digest,
    /// Bytes, decoded.
    pub length: u64,
    /// Bytes, as stored.
    pub stored_length: u64,
    /// How they are stored.
    pub encoding: Encoding,
    /// It was uploaded gzipped by itself: CouchDB doesn't look into it and tells the stored bytes as its length.
    pub tells_stored: bool,
}

impl Attachment {
    /// The `length` that documents tell.
    pub fn told_length(&self) -> u64 {
        if self.tells_stored { self.stored_length } else { self.length }
    }

    /// What stands over its bytes when they travel as they are stored.
    pub fn head(&self) -> AttachmentHead {
        AttachmentHead {
            name: self.name.clone(),
            content_type: self.content_type.clone(),
            length: self.stored_length,
            gzip: self.encoding == Encoding::Gzip,
        }
    }
}

/// Whether CouchDB would store this media type gzipped (`[attachments] compressible_types`).
pub fn compressible(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/")
        || matches!(essence.as_str(), "application/javascript" | "application/json" | "application/xml")
}

/// What is known of bytes that are stored, or about to be.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Of the stored bytes.
    pub digest: Digest,
    /// Bytes, decoded.
    pub length: u64,
    /// Bytes, as stored.
    pub stored_length: u64,
    /// How they are stored.
    pub encoding: Encoding,
    /// See [`Attachment::tells_stored`].
    pub tells_stored: bool,
}

/// Turns an attachment's bytes into what is stored, while they stream through.
struct Packer {
    encoder: Option<GzEncoder<Vec<u8>>>,
    decoder: Option<flate2::write::MultiGzDecoder<Counter>>,
    pushed: Md5,
    pushed_length: u64,
    stored: Md5,
    stored_length: u64,
}

/// Counts the bytes written to it.
#[derive(Default)]
struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Packer {
    fn new(content_type: &str, gzipped: bool) -> Self {
        let encode = !gzipped && compressible(content_type);
        Self {
            encoder: encode.then(|| GzBuilder::new().operating_system(UNIX).write(Vec::new(), COMPRESSION)),
            decoder: gzipped.then(|| flate2::write::MultiGzDecoder::new(Counter::default())),
            pushed: Md5::new(),
            pushed_length: 0,
            stored: Md5::new(),
            stored_length: 0,
        }
    }

    /// Takes bytes as they come, gives bytes to store.
    fn pack(&mut self, data: Bytes) -> io::Result<Bytes> {
        self.pushed_length += data.len() as u64;
        if let Some(decoder) = &mut self.decoder {
            decoder.write_all(&data)?;
        }
        let Some(encoder) = &mut self.encoder else {
            self.pushed.update(&data);
            self.stored_length += data.len() as u64;
            return Ok(data);
        };
        self.pushed.update(&data);
        encoder.write_all(&data)?;
        let packed = Bytes::from(std::mem::take(encoder.get_mut()));
        self.stored.update(&packed);
        self.stored_length += packed.len() as u64;
        Ok(packed)
    }

    /// The last bytes to store, what is stored in all, and the digest of what came.
    fn finish(mut self) -> io::Result<(Bytes, Stored, Digest)> {
        let pushed = Digest(self.pushed.finalize().into());
        let Some(encoder) = self.encoder.take() else {
            let (length, encoding) = match self.decoder {
                Some(decoder) => (decoder.finish()?.0, Encoding::Gzip),
                None => (self.pushed_length, Encoding::Identity),
            };
            let stored_length = self.stored_length;
            let stored = Stored { digest: pushed, length, stored_length, encoding, tells_stored: false };
            return Ok((Bytes::new(), stored, pushed));
        };
        let tail = Bytes::from(encoder.finish()?);
        self.stored.update(&tail);
        let stored = Stored {
            digest: Digest(self.stored.finalize().into()),
            length: self.pushed_length,
            stored_length: self.stored_length + tail.len() as u64,
            encoding: Encoding::Gzip,
            tells_stored: false,
        };
        Ok((tail, stored, pushed))
    }
}

/// Packs an attachment whose bytes are all there.
pub(super) fn pack(content_type: &str, data: Vec<u8>, gzipped: bool) -> Result<(Bytes, Stored), StoreError> {
    let mut packer = Packer::new(content_type, gzipped);
    let head = packer.pack(data.into()).map_err(StoreError::BadGzip)?;
    let (tail, stored, _) = packer.finish().map_err(StoreError::BadGzip)?;
    let data = if tail.is_empty() { head } else { [head, tail].concat().into() };
    Ok((data, stored))
}

/// Bytes in the store that no document refers to yet. Dropped, they are dropped from the store.
#[derive(Debug)]
pub struct Uploaded {
    pub(super) blob: u64,
    pub(super) stored: Stored,
    pub(super) orphan: Orphan,
}

impl Uploaded {
    /// The same, to tell its stored bytes as its length ([`Attachment::tells_stored`]).
    pub fn telling_stored(mut self) -> Self {
        self.stored.tells_stored = true;
        self
    }
}

/// A blob that goes when this is dropped.
#[derive(Debug)]
pub(super) struct Orphan {
    blob: u64,
    writer: Option<WriterHandle>,
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            writer.discard(self.blob);
        }
    }
}

impl Orphan {
    /// Leaves the blob to the transaction that books it.
    pub(super) fn adopt(mut self) {
        self.writer = None;
    }
}

/// An attachment on its way into the store: bytes are stored as they come, unsynced until their document is written.
pub struct Upload {
    orphan: Orphan,
    writer: WriterHandle,
    packer: Option<Packer>,
    gathered: BytesMut,
    /// Packed bytes that don't fill a chunk yet.
    rest: BytesMut,
    next_chunk: u32,
}

impl Upload {
    pub(super) fn new(writer: WriterHandle, content_type: &str, gzipped: bool) -> Self {
        Self {
            orphan: Orphan { blob: rand::random(), writer: Some(writer.clone()) },
            writer,
            packer: Some(Packer::new(content_type, gzipped)),
            gathered: BytesMut::new(),
            rest: BytesMut::new(),
            next_chunk: 0,
        }
    }

    /// Takes the next bytes.
    pub async fn push(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.gathered.extend_from_slice(&data);
        if self.gathered.len() < PIECE_BYTES {
            return Ok(());
        }
        let mut packer = self.packer.take().ok_or(StoreError::Closing)?;
        let gathered = self.gathered.split().freeze();
        let (packed, packer) = tasks::blocking("pack an attachment", move || (packer.pack(gathered), packer)).await?;
        self.packer = Some(packer);
        self.rest.extend_from_slice(&packed.map_err(StoreError::BadGzip)?);
        self.store_chunks(false).await
    }

    /// Ends it. The digest is that of the bytes that were pushed.
    pub async fn finish(mut self) -> Result<(Uploaded, Digest), StoreError> {
        let mut packer = self.packer.take().ok_or(StoreError::Closing)?;
        let gathered = self.gathered.split().freeze();
        let ended = tasks::blocking("pack an attachment", move || {
            let head = packer.pack(gathered)?;
            packer.finish().map(|(tail, stored, pushed)| (head, tail, stored, pushed))
        });
        let (head, tail, stored, pushed) = ended.await?.map_err(StoreError::BadGzip)?;
        self.rest.extend_from_slice(&head);
        self.rest.extend_from_slice(&tail);
        self.store_chunks(true).await?;
        Ok((Uploaded { blob: self.orphan.blob, stored, orphan: self.orphan }, pushed))
    }

    async fn store_chunks(&mut self, last: bool) -> Result<(), StoreError> {
        let whole = if last { self.rest.len() } else { self.rest.len() / CHUNK_BYTES * CHUNK_BYTES };
        if whole == 0 {
            return Ok(());
        }
        let data = self.rest.split_to(whole).freeze();
        let first = self.next_chunk;
        self.next_chunk += data.len().div_ceil(CHUNK_BYTES) as u32;
        self.writer.ask(Work::Chunks { blob: self.orphan.blob, first, data }).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_stored_gzipped_and_anything_else_as_it_is() {
        let (data, stored) = pack("text/plain; charset=utf-8", b"hello world".to_vec(), false).unwrap();
        assert_eq!((stored.length, stored.encoding), (11, Encoding::Gzip));
        assert_eq!((stored.stored_length, stored.digest), (data.len() as u64, Digest::of(&data)));
        let (data, stored) = pack("image/png", b"hello world".to_vec(), false).unwrap();
        assert_eq!((&data[..], stored.encoding), (&b"hello world"[..], Encoding::Identity));
    }

    #[test]
    fn bytes_that_come_gzipped_stay_so_and_their_length_is_counted() {
        let (packed, _) = pack("text/plain", vec![b'x'; 10_000], false).unwrap();
        let (data, stored) = pack("text/plain", packed.to_vec(), true).unwrap();
        assert_eq!((data, stored.length, stored.encoding), (packed, 10_000, Encoding::Gzip));
    }

    #[test]
    fn gzip_of_several_members_is_taken_as_it_is() {
        let member = |text: &[u8]| pack("text/plain", text.to_vec(), false).unwrap().0;
        let both = [member(b"hello "), member(b"world")].concat();
        let (data, stored) = pack("text/plain", both.clone(), true).unwrap();
        assert_eq!((data.to_vec(), stored.length), (both, 11));
    }

    #[test]
    fn a_short_texts_digest_is_couchdbs() {
        let (_, stored) = pack("text/plain", b"hello world".to_vec(), false).unwrap();
        assert_eq!(stored.digest.to_string(), "md5-7mkg+nM0HN26sZkLN8KVSA==");
    }

    #[test]
    fn bytes_that_claim_to_be_gzipped_and_are_not_are_refused() {
        assert!(matches!(pack("text/plain", b"hello".to_vec(), true), Err(StoreError::BadGzip(_))));
    }
}
