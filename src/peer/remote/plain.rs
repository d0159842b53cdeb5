//! Decodes gzipped attachments on their way to a peer that would store the gzipped bytes as the attachment's own.
//!
//! express-pouchdb, for one, ignores a part's `Content-Encoding`.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use super::PeerError;
use crate::document::{AttachmentHead, AttachmentPiece, DocumentError};

/// Bytes decoded at once; a thousand times as many come out at worst.
const STEP_BYTES: usize = 4 << 10;

type Pieces = BoxStream<'static, Result<AttachmentPiece, PeerError>>;

/// Attachments with the gzipped ones decoded.
pub(super) struct Plain {
    pieces: Pieces,
    /// As they are announced without gzip.
    heads: Vec<AttachmentHead>,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    /// Of the attachment in hand, still to be decoded.
    input: Bytes,
    /// Came after the attachment in hand, which must end first.
    next: Option<AttachmentHead>,
    name: String,
}

impl Plain {
    pub(super) fn new(pieces: Pieces, heads: Vec<AttachmentHead>) -> Self {
        Self { pieces, heads, decoder: None, input: Bytes::new(), next: None, name: String::new() }
    }

    pub(super) fn into_stream(self) -> Pieces {
        stream::try_unfold(self, |mut plain| async move { Ok(plain.next().await?.map(|piece| (piece, plain))) }).boxed()
    }

    async fn next(&mut self) -> Result<Option<AttachmentPiece>, PeerError> {
        loop {
            if let Some(head) = self.next.take() {
                return Ok(Some(self.begin(head)));
            }
            if !self.input.is_empty() {
                let step = self.input.split_to(self.input.len().min(STEP_BYTES));
                match self.decode(&step)? {
                    Some(decoded) => return Ok(Some(AttachmentPiece::Data(decoded))),
                    None => continue,
                }
            }
            match self.pieces.try_next().await? {
                Some(AttachmentPiece::Data(data)) if self.decoder.is_some() => self.input = data,
                Some(AttachmentPiece::Data(data)) => return Ok(Some(AttachmentPiece::Data(data))),
                Some(AttachmentPiece::Head(head)) => {
                    self.next = Some(head);
                    if let Some(rest) = self.end()? {
                        return Ok(Some(AttachmentPiece::Data(rest)));
                    }
                }
                None => return Ok(self.end()?.map(AttachmentPiece::Data)),
            }
        }
    }

    fn begin(&mut self, head: AttachmentHead) -> AttachmentPiece {
        self.name.clone_from(&head.name);
        if !head.gzip {
            return AttachmentPiece::Head(head);
        }
        self.decoder = Some(MultiGzDecoder::new(Vec::new()));
        let announced = self.heads.iter().find(|announced| announced.name == head.name).cloned();
        AttachmentPiece::Head(announced.unwrap_or(head))
    }

    fn decode(&mut self, step: &[u8]) -> Result<Option<Bytes>, PeerError> {
        let Some(decoder) = &mut self.decoder else { return Ok(None) };
        let written = decoder.write_all(step);
        let decoded = std::mem::take(decoder.get_mut());
        self.checked(written.map(|()| decoded))
    }

    /// Ends the attachment in hand; the last bytes may come only now.
    fn end(&mut self) -> Result<Option<Bytes>, PeerError> {
        let Some(decoder) = self.decoder.take() else { return Ok(None) };
        self.checked(decoder.finish())
    }

    fn checked(&self, decoded: io::Result<Vec<u8>>) -> Result<Option<Bytes>, PeerError> {
        let decoded = decoded.map_err(|_| DocumentError::BadAttachment(self.name.clone()))?;
        Ok((!decoded.is_empty()).then(|| decoded.into()))
    }
}
