//! What stands around the parts of a multipart body, and how long it is.

use bytes::Bytes;

use crate::document::AttachmentHead;
use crate::uuids;

/// Frames one multipart body: hand out each part's opening, then the part's bytes, and the closing at the end.
///
/// The bytes are those that CouchDB writes, without preamble and final line end.
#[derive(Debug)]
pub struct Framing {
    boundary: String,
    opened: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing {
    /// A body with a boundary of its own: 122 random bits, which no data contains.
    pub fn new() -> Self {
        Self::with_boundary(uuids::random())
    }

    fn with_boundary(boundary: String) -> Self {
        Self { boundary, opened: false }
    }

    /// The content type: `multipart/related; boundary="…"` for the subtype `related`.
    pub fn content_type(&self, subtype: &str) -> String {
        format!("multipart/{subtype}; boundary=\"{}\"", self.boundary)
    }

    /// Opens a part of this content type: a document, or a nested body.
    pub fn part(&mut self, content_type: &str) -> Bytes {
        self.open(&format!("Content-Type: {content_type}\r\n"))
    }

    /// Opens an attachment's part.
    pub fn attachment(&mut self, head: &AttachmentHead) -> Bytes {
        let AttachmentHead { name, content_type, length, gzip } = head;
        let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\n'], " ");
        let content_type = content_type.replace(['\r', '\n'], " ");
        let encoding = if *gzip { "Content-Encoding: gzip\r\n" } else { "" };
        self.open(&format!(
            "Content-Disposition: attachment; filename=\"{name}\"\r\n\
             Content-Type: {content_type}\r\nContent-Length: {length}\r\n{encoding}"
        ))
    }

    /// Closes the body.
    pub fn close(&self) -> Bytes {
        let line_end = if self.opened { "\r\n" } else { "" };
        format!("{line_end}--{}--", self.boundary).into()
    }

    /// The exact length of a `multipart/related` body framed like this one: a document of so many bytes, then these
    /// attachments.
    pub fn related_length<'a>(
        &self,
        document_bytes: usize,
        attachments: impl IntoIterator<Item = &'a AttachmentHead>,
    ) -> u64 {
        let mut framing = Self::with_boundary(self.boundary.clone());
        let document = framing.part("application/json").len() + document_bytes;
        let attachments: u64 =
            attachments.into_iter().map(|head| framing.attachment(head).len() as u64 + head.length).sum();
        document as u64 + attachments + framing.close().len() as u64
    }

    fn open(&mut self, headers: &str) -> Bytes {
        let line_end = if self.opened { "\r\n" } else { "" };
        self.opened = true;
        format!("{line_end}--{}\r\n{headers}\r\n", self.boundary).into()
    }
}
