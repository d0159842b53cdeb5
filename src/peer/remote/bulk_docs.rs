//! Writes a batch of documents.
//!
//! `POST {db}/_bulk_docs` with `new_edits:false` answers the failures alone, as CouchDB does, or a row for every document,
//! as others do: a row without `error` is a success. A batch that the target won't take as a whole, because it is too
//! large (413) or because one of its documents isn't to the target's taste (400), is halved until the rest passes; what
//! is refused alone is that document's failure.

use super::call::Call;
use super::*;

impl RemotePeer {
    /// Writes the batch and answers what the target refused.
    pub async fn bulk_docs(&self, batch: DocBatch) -> Result<Vec<Refused>, PeerError> {
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
                    refused.push(Refused { id: doc.id.clone(), rev: Some(doc.rev.clone()), error, reason });
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
                    refused.extend(rows.into_iter().filter_map(Row::refused));
                }
            }
        }
        Ok(refused)
    }
}

#[derive(Deserialize)]
struct Row {
    id: Option<DocId>,
    rev: Option<String>,
    /// A word, or PouchDB's `true` beside the word in `name`.
    error: Option<serde_json::Value>,
    name: Option<String>,
    reason: Option<serde_json::Value>,
}

impl Row {
    fn refused(self) -> Option<Refused> {
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
        Some(Refused { id, rev: self.rev.as_deref().and_then(Rev::parse), error, reason })
    }
}
