//! JSON on its way out, with gaps where large attachments are to stand as base64.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::store::{Database, DocOptions, DocRecord, Gap, Leaf, Snapshot, StoreError};
use crate::tasks::Tasks;

use super::answer::{self, APPLICATION_JSON, Sink, Stopped};
use super::blob::Blob;
use super::error::ApiError;

/// Some JSON text, whole but for its gaps.
#[derive(Debug, Default)]
pub struct Draft {
    /// The text without what the gaps leave out.
    pub json: Vec<u8>,
    /// In the order of the text.
    gaps: Vec<Gap>,
}

impl From<Vec<u8>> for Draft {
    fn from(json: Vec<u8>) -> Self {
        Self { json, gaps: Vec::new() }
    }
}

impl Draft {
    /// Appends a document.
    pub fn render(
        &mut self,
        snapshot: &Snapshot,
        id: &str,
        record: &DocRecord,
        leaf: &Leaf,
        options: &DocOptions,
    ) -> Result<(), StoreError> {
        self.gaps.extend(snapshot.render(id, record, leaf, options, &mut self.json)?);
        Ok(())
    }

    /// Appends another.
    pub fn append(&mut self, other: Self) {
        let before = self.json.len();
        self.gaps.extend(other.gaps.into_iter().map(|gap| Gap { at: before + gap.at, ..gap }));
        self.json.extend(other.json);
    }

    /// Sends it, and what its gaps leave out.
    pub async fn send(self, sink: &Sink, db: &Database) -> Result<(), Stopped> {
        let (mut rest, mut sent) = (Bytes::from(self.json), 0);
        for gap in &self.gaps {
            sink.send(rest.split_to(gap.at - sent)).await?;
            sent = gap.at;
            Blob::new(db, &gap.attachment, gap.decoded).send_base64(sink).await?;
        }
        sink.send(rest).await
    }

    /// Answers it with a line end behind it: with its length where there are no gaps, else as a stream.
    pub async fn answer(mut self, tasks: &Tasks, db: Arc<Database>) -> Result<Response, ApiError> {
        if self.gaps.is_empty() {
            return Ok(answer::text(StatusCode::OK, self.json));
        }
        self.json.push(b'\n');
        let write = move |sink: Sink| async move { self.send(&sink, &db).await };
        let body = answer::streamed(tasks, "document", write).await?;
        Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
    }
}
