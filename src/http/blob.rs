//! An attachment's bytes, a piece at a time: as they are stored, decoded, or as base64.
//!
//! Each piece is read when the one before it was sent, so an attachment of any size takes less than 200 KiB. Its document
//! may go on without it meanwhile: what is held is read to its end.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;

use crate::document::Encoding;
use crate::store::{Database, OpenAttachment, StoreError};

use super::answer::{CHUNK, Sink, Stopped};

/// Compressed bytes that are decoded at a time: a hostile kilobyte unpacks to a megabyte at most.
const DECODED_AT_ONCE: usize = 1024;

/// An attachment that is being read.
pub struct Blob<'a> {
    db: &'a Database,
    attachment: &'a OpenAttachment,
    /// Of the stored bytes: where to read on.
    offset: u64,
    /// Of the stored bytes: where to stop.
    end: u64,
    /// Stored bytes that aren't decoded yet.
    stored: Bytes,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
}

impl<'a> Blob<'a> {
    /// At its start. `decoded`: not gzipped, even where it is stored so.
    pub fn new(db: &'a Database, attachment: &'a OpenAttachment, decoded: bool) -> Self {
        let decode = decoded && attachment.attachment().encoding == Encoding::Gzip;
        let decoder = decode.then(|| MultiGzDecoder::new(Vec::with_capacity(CHUNK)));
        let end = attachment.attachment().stored_length;
        Self { db, attachment, offset: 0, end, stored: Bytes::new(), decoder }
    }

    /// These of its stored bytes.
    pub fn part(db: &'a Database, attachment: &'a OpenAttachment, bytes: Range<u64>) -> Self {
        let end = bytes.end.min(attachment.attachment().stored_length);
        Self { db, attachment, offset: bytes.start, end, stored: Bytes::new(), decoder: None }
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let broken = |_| StoreError::Damaged("a gzipped attachment");
        loop {
            if self.stored.is_empty() {
                if self.offset >= self.end {
                    let rest = self.decoder.take().map(MultiGzDecoder::finish).transpose().map_err(broken)?;
                    return Ok(rest.map(Bytes::from));
                }
                self.stored = self.db.attachment_piece(self.attachment, self.offset).await?;
                // What is left may be more than a piece's length can say.
                let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
                self.stored.truncate(left);
                self.offset += self.stored.len() as u64;
            }
            let Some(decoder) = &mut self.decoder else { return Ok(Some(std::mem::take(&mut self.stored))) };
            let some = self.stored.split_to(self.stored.len().min(DECODED_AT_ONCE));
            std::io::Write::write_all(decoder, &some).map_err(broken)?;
            if decoder.get_ref().len() >= CHUNK {
                return Ok(Some(std::mem::take(decoder.get_mut()).into()));
            }
        }
    }

    /// Sends all of it.
    pub async fn send(mut self, sink: &Sink) -> Result<(), Stopped> {
        while let Some(piece) = self.next().await? {
            sink.send(piece).await?;
        }
        Ok(())
    }

    /// Sends all of it as base64.
    pub async fn send_base64(mut self, sink: &Sink) -> Result<(), Stopped> {
        // Three bytes make four characters; what is left over waits for the next piece.
        let mut rest = BytesMut::new();
        while let Some(piece) = self.next().await? {
            rest.extend_from_slice(&piece);
            let whole = rest.split_to(rest.len() / 3 * 3);
            sink.send(STANDARD.encode(whole)).await?;
        }
        sink.send(STANDARD.encode(rest)).await
    }
}
