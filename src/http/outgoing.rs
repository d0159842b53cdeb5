//! JSON on its way out, with gaps where what is large is left out and read while the answer is sent.
//!
//! What such a text holds of its own is little: a chunk of small documents, or one that isn't [`LARGE`]. A larger document
//! counts among the answers' memory ([`Answers`]) as long as some of it waits for its reader. Where that memory is used
//! up, by readers that are slow, the document's members stay in the store, as large attachments always do, and are read a
//! piece at a time. Then one that is edited meanwhile can't be read to its end: its answer breaks off.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use crate::effort::guarded::guarded;
use crate::store::{Database, DocOptions, DocRecord, Gap, Leaf, Missing, Snapshot, StoreError, StoredText};
use crate::tasks::Tasks;

use super::answer::{self, APPLICATION_JSON, Answers, CHUNK, READER_BYTES, Sink, Stopped};
use super::blob::Blob;
use super::error::ApiError;

/// Bytes of a document beyond which it counts.
const LARGE: usize = 64 << 10;

/// Bytes of such a text that needn't count.
const UNCOUNTED: usize = 256 << 10;

/// A text that is left out is read in so many pieces at most: each of them loads all of it for a moment.
const PIECES: usize = 64;

/// Some JSON text, whole but for its gaps.
#[derive(Debug)]
pub struct Outgoing {
    /// The text without what the gaps leave out.
    pub json: Vec<u8>,
    /// In the order of the text.
    gaps: Vec<Gap>,
    answers: Answers,
    counted: usize,
    permit: Option<OwnedSemaphorePermit>,
    on_one_line: bool,
}

impl Outgoing {
    /// Nothing yet.
    pub fn new(answers: &Answers) -> Self {
        Self {
            json: Vec::new(),
            gaps: Vec::new(),
            answers: answers.clone(),
            counted: 0,
            permit: None,
            on_one_line: false,
        }
    }

    /// Documents stand on one line each, whatever lines they came in: where a line is a row.
    pub fn on_one_line(self) -> Self {
        Self { on_one_line: true, ..self }
    }

    /// Nothing yet, with room for a chunk.
    pub fn chunk(answers: &Answers) -> Self {
        Self { json: Vec::with_capacity(CHUNK + CHUNK / 4), ..Self::new(answers) }
    }

    /// Appends a document.
    pub fn render(
        &mut self,
        snapshot: &Snapshot,
        id: &str,
        record: &DocRecord,
        leaf: &Leaf,
        options: &DocOptions,
    ) -> Result<(), StoreError> {
        let stored = snapshot.stored(leaf)?;
        let apart;
        // What is shown otherwise than it is stored can't be left out; it counts when it is sent.
        let countable = stored.size() > LARGE && options.reader.is_none();
        let options = match countable && !self.count(stored.size()) {
            false => options,
            true => {
                apart = DocOptions { members_apart: true, ..options.clone() };
                &apart
            }
        };
        let start = self.json.len();
        self.gaps.extend(snapshot.render_stored(id, record, leaf, &stored, options, &mut self.json)?);
        if self.on_one_line {
            join_lines(&mut self.json[start..]);
        }
        Ok(())
    }

    /// Appends text that can be read again.
    pub fn push(&mut self, text: &[u8], stored: impl FnOnce() -> StoredText) {
        if text.len() > LARGE && !self.count(text.len()) {
            self.gaps.push(Gap { at: self.json.len(), missing: Missing::Text(stored()) });
        } else {
            self.json.extend_from_slice(text);
        }
    }

    /// Bytes of the whole text, where only texts are left out.
    pub fn length(&self) -> usize {
        let text = |gap: &Gap| match &gap.missing {
            Missing::Text(text) => text.length,
            Missing::Attachment { .. } => 0,
        };
        self.json.len() + self.gaps.iter().map(text).sum::<usize>()
    }

    /// Counts bytes that are to be held; `false` if there is no memory for them.
    fn count(&mut self, bytes: usize) -> bool {
        let Some(more) = self.answers.hold(bytes) else { return false };
        self.counted += bytes;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        true
    }

    /// The text, which counts until the last slice of it is dropped, and the gaps.
    ///
    /// # Errors
    /// There is no memory for what is held beside documents: thousands of conflicts, attachments or revisions.
    fn held(mut self) -> Result<(Bytes, Vec<Gap>), ApiError> {
        let more = self.json.len().saturating_sub(self.counted);
        if more > UNCOUNTED && !self.count(more) {
            return Err(ApiError::Busy);
        }
        Ok((guarded(self.json, self.permit), self.gaps))
    }

    /// Sends it, and what its gaps leave out.
    pub async fn send(self, sink: &Sink, db: &Database) -> Result<(), Stopped> {
        let (answers, on_one_line) = (self.answers.clone(), self.on_one_line);
        let (mut rest, gaps) = self.held()?;
        let mut sent = 0;
        for gap in gaps {
            sink.send(rest.split_to(gap.at - sent)).await?;
            sent = gap.at;
            match gap.missing {
                Missing::Attachment { attachment, decoded } => {
                    Blob::new(db, &attachment, decoded).send_base64(sink).await?;
                }
                Missing::Text(text) => send_text(text, on_one_line, sink, db, &answers).await?,
            }
        }
        sink.send(rest).await
    }

    /// Answers it with a line end after it: with its length if there are no gaps, else as a stream.
    pub async fn answer(mut self, tasks: &Tasks, db: Arc<Database>) -> Result<Response, ApiError> {
        self.json.push(b'\n');
        let body = match self.gaps.is_empty() {
            true => Body::from(self.held()?.0),
            false => {
                let write = move |sink: Sink| async move { self.send(&sink, &db).await };
                answer::streamed(tasks, "document", write).await?
            }
        };
        Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
    }
}

/// Makes spaces of line ends, which stand only between JSON's tokens.
fn join_lines(json: &mut [u8]) {
    json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

async fn send_text(
    text: StoredText,
    on_one_line: bool,
    sink: &Sink,
    db: &Database,
    answers: &Answers,
) -> Result<(), Stopped> {
    let text = Arc::new(text);
    let bytes = READER_BYTES.max(text.length.div_ceil(PIECES));
    let mut offset = 0;
    while offset < text.length {
        let wanted = text.clone();
        let piece = answers.read(db, move |snapshot| snapshot.text_piece(&wanted, offset, bytes)).await?;
        offset += piece.len();
        let mut piece = BytesMut::from(piece);
        if on_one_line {
            join_lines(&mut piece);
        }
        sink.send(piece).await?;
    }
    Ok(())
}
