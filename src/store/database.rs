//! One open database.

use bytes::Bytes;
use tokio::sync::watch;

use crate::document::Rev;

use super::attachments::{Attachment, Upload};
use super::edit::Edit;
use super::read::Snapshot;
use super::write::{Durability, Refusal};
use super::{DbName, StoreError};

/// Numbers for `GET /{db}`.
#[derive(Debug, Clone)]
pub struct DatabaseStats {
    /// Documents that aren't deleted.
    pub doc_count: u64,
    /// Documents that are.
    pub doc_del_count: u64,
    /// The newest update.
    pub update_seq: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// Bytes of bodies of leaves and of attachments.
    pub active_size: u64,
    /// Microseconds since 1970, as text; changes when unsynced writes may have been lost.
    pub instance_start_time: String,
}

/// One open database.
#[derive(Debug)]
pub struct Database {}

impl Database {
    /// Its name.
    pub fn name(&self) -> &DbName {
        todo!()
    }

    /// Numbers for `GET /{db}`.
    pub async fn stats(&self) -> Result<DatabaseStats, StoreError> {
        todo!()
    }

    /// The newest update's seq, without waiting.
    pub fn update_seq(&self) -> u64 {
        todo!()
    }

    /// Tells of every new update seq; closes when the database is deleted or the store closes.
    pub fn updates(&self) -> watch::Receiver<u64> {
        todo!()
    }

    /// Reads a snapshot on a thread that may block.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _ = work;
        todo!()
    }

    /// Writes documents in one transaction with whatever else waits; answers in order, one revision or refusal an edit.
    pub async fn write(
        &self,
        edits: Vec<Edit>,
        durability: Durability,
    ) -> Result<Vec<Result<Rev, Refusal>>, StoreError> {
        let _ = (edits, durability);
        todo!()
    }

    /// Reads `_local/{id}` (`id` without the prefix): its revision `0-N` and its body, a JSON object.
    pub async fn local_doc(&self, id: &str) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        let _ = id;
        todo!()
    }

    /// Writes (or, with no body, deletes) `_local/{id}`; answers the new revision. `rev` must be the stored one.
    pub async fn put_local_doc(
        &self,
        id: &str,
        rev: Option<&str>,
        body: Option<Vec<u8>>,
        durability: Durability,
    ) -> Result<Result<String, Refusal>, StoreError> {
        let _ = (id, rev, body, durability);
        todo!()
    }

    /// All `_local` documents whose id starts with nothing in particular: id, revision, body.
    pub async fn local_docs(&self) -> Result<Vec<(String, String, Vec<u8>)>, StoreError> {
        todo!()
    }

    /// Syncs everything written so far; answers `instance_start_time`.
    pub async fn ensure_full_commit(&self) -> Result<String, StoreError> {
        todo!()
    }

    /// Starts to take an attachment's bytes. `gzipped`: they come gzipped and stay so; otherwise text is gzipped here.
    pub fn upload(&self, content_type: &str, gzipped: bool) -> Upload {
        let _ = (content_type, gzipped);
        todo!()
    }

    /// Reads a piece of an attachment's stored bytes, some hundred KiB from `offset` on; empty at the end.
    pub async fn attachment_piece(&self, attachment: &Attachment, offset: u64) -> Result<Bytes, StoreError> {
        let _ = (attachment, offset);
        todo!()
    }
}
