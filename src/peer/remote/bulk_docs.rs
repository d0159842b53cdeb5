//! Writes a batch of documents.
//!
//! `POST {db}/_bulk_docs` with `new_edits:false` answers the failures alone, as CouchDB does, or a row for every document,
//! as others do: a row without `error` is a success. A batch that the target won't take as a whole, because it is too
//! large (413) or because one of its documents isn't to the target's taste (400), is halved until the rest passes; what
//! is refused alone is that document's failure. A row that tells of the target's own trouble (a timeout, a node that is
//! gone) is no refusal: it breaks the batch off, and the caller asks again for what is missing.

use super::call::Call;
use super::*;
use crate::document::DocSpan;

impl RemotePeer {
    /// Writes the batch and answers what the target refused.
    pub async fn bulk_docs(&self, batch: DocBatch) -> Result<Vec<Failure>, PeerError> {
        let mut refused = Vec::new();
        let mut left = vec![batch];
        while let Some(batch) = left.pop() {
            if batch.is_empty() {
                continue;
            }
            let (body, docs) = batch.into_request();
            let reply = self.ask(&Call::post(Operation::BulkDocs, "_bulk_docs", body.clone())).await?;
            match (reply.status, docs.as_slice()) {
                (400 | 413, [doc]) => {
                    let (error, reason) = reply.words();
                    refused.push(Failure {
                        id: doc.id.clone(),
                        rev: Some(doc.rev.clone()),
                        why: Why { error, reason },
                    });
                }
                (400 | 413, docs) => {
                    let mut batch = DocBatch::default();
                    docs.iter().for_each(|doc| batch.push(doc.id.clone(), doc.rev.clone(), &body[doc.span.clone()]));
                    let (first, second) = batch.halve();
                    left.extend([second, first]);
                }
                _ => {
                    let reply = self.present(reply)?.success()?;
                    let rows: Vec<Row> = reply.json("an array of documents that weren't written")?;
                    for row in rows.into_iter().filter_map(Row::refused) {
                        refused.push(self.judged(row, &docs)?);
                    }
                }
            }
        }
        Ok(refused)
    }

    /// A refusal with its revision where that is certain; an error where the document may well be taken next time.
    fn judged(&self, refused: Failure, docs: &[DocSpan]) -> Result<Failure, PeerError> {
        if passes(&refused.why.error) {
            let request = self.request_name(&Call::new(Operation::BulkDocs, Method::POST, "_bulk_docs"));
            let reason = format!("{} was answered {}", refused.id, refused.why);
            return Err(PeerError::Broken { request, reason });
        }
        let mut sent = docs.iter().filter(|doc| doc.id == refused.id);
        let only = sent.next().filter(|_| sent.next().is_none()).map(|doc| doc.rev.clone());
        Ok(Failure { rev: refused.rev.or(only), ..refused })
    }
}

/// What a cluster says of a document when a part of it fails.
const PASSING: [&str; 6] =
    ["timeout", "internal_error", "internal_server_error", "service_unavailable", "all_workers_died", "nodedown"];

/// Whether a word that a peer says of one document tells of its own trouble, and so nothing of the document.
pub(super) fn passes(error: &str) -> bool {
    PASSING.contains(&error)
}

#[derive(Deserialize)]
pub(super) struct Row {
    id: Option<DocId>,
    rev: Option<String>,
    /// A word, or PouchDB's `true` beside the word in `name`.
    error: Option<serde_json::Value>,
    name: Option<String>,
    reason: Option<serde_json::Value>,
}

impl Row {
    pub(super) fn refused(self) -> Option<Failure> {
        let error = match self.error? {
            serde_json::Value::String(word) => word,
            serde_json::Value::Bool(true) => self.name.unwrap_or_else(|| "unknown_error".into()),
            _ => return None,
        };
        let reason = match self.reason {
            Some(serde_json::Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let id = self.id.unwrap_or_else(|| DocId::from(""));
        Some(Failure { id, rev: self.rev.as_deref().and_then(Rev::parse), why: Why { error, reason } })
    }
}
