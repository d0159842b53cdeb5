//! A database over HTTP.

use serde_json::value::RawValue;

use super::*;

/// A database over HTTP.
#[derive(Debug, Clone)]
pub struct RemotePeer {}

/// An answer to `_bulk_get` that is being read.
pub struct RemoteBulkGet {}

#[expect(missing_docs, clippy::unused_async, unused_variables, reason = "a sketch")]
impl RemotePeer {
    pub fn name(&self) -> &str {
        todo!()
    }
    pub async fn info(&self) -> Result<DatabaseInfo, PeerError> {
        todo!()
    }
    pub async fn create(&self) -> Result<(), PeerError> {
        todo!()
    }
    pub async fn local_doc(&self, id: &str) -> Result<Option<LocalDoc>, PeerError> {
        todo!()
    }
    pub async fn put_local_doc(&self, id: &str, rev: Option<&str>, body: &RawValue) -> Result<String, PeerError> {
        todo!()
    }
    pub async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage, PeerError> {
        todo!()
    }
    pub async fn revs_diff(&self, changes: &[Change]) -> Result<Vec<Wanted>, PeerError> {
        todo!()
    }
    pub async fn bulk_get(&self, wanted: Vec<Wanted>) -> Result<RemoteBulkGet, PeerError> {
        todo!()
    }
    pub async fn open_rev(&self, id: &DocId, rev: &Rev, atts_since: &[Rev]) -> Result<Option<AttachedDoc>, PeerError> {
        todo!()
    }
    pub async fn bulk_docs(&self, batch: DocBatch) -> Result<Vec<Refused>, PeerError> {
        todo!()
    }
    pub async fn put_doc(&self, doc: AttachedDoc) -> Result<Option<Refused>, PeerError> {
        todo!()
    }
    pub async fn ensure_full_commit(&self) -> Result<String, PeerError> {
        todo!()
    }
}

#[expect(missing_docs, clippy::unused_async, unused_variables, reason = "a sketch")]
impl RemoteBulkGet {
    pub async fn next(&mut self, max_bytes: usize) -> Result<Option<Fetched>, PeerError> {
        todo!()
    }
}
