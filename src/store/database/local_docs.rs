//! The `_local` documents of a database: never replicated, in no feed, and of one revision each.
//!
//! They are read from a transaction of their own, without what is made of a snapshot for other documents.

use std::ops::Bound;

use redb::ReadableDatabase;

use super::Database;
use crate::store::StoreError;
use crate::store::keys::{LOCAL, LocalRecord, local_rev};
use crate::store::work::{LocalParent, Refusal};

/// `_local` documents that are read at once.
const LOCAL_ROWS: usize = 1000;
/// Bytes of them after which no more are.
const LOCAL_BYTES: usize = 1 << 20;

/// Which `_local` documents to read; ids are without the prefix.
#[derive(Debug, Clone, Default)]
pub struct LocalRange {
    /// From this one on.
    pub start: Option<String>,
    /// From the one after this on, without a start.
    pub after: Option<String>,
    /// Up to this one.
    pub end: Option<String>,
    /// With their bodies.
    pub bodies: bool,
}

/// A `_local` document.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalRow {
    /// Without the prefix.
    pub id: String,
    /// `0-N`.
    pub rev: String,
    /// A JSON object; empty if none was asked for.
    pub json: Vec<u8>,
}

impl Database {
    /// Reads `_local/{id}` (`id` without the prefix): its revision `0-N` and its body, a JSON object.
    pub async fn local_doc(&self, id: &str) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        let (engine, id) = (self.engine.now(), id.to_owned());
        self.blocking("read a _local document", move || {
            let local = engine.begin_read()?.open_table(LOCAL)?;
            let Some(stored) = local.get(id.as_str())? else { return Ok(None) };
            let record = LocalRecord::decode(stored.value())?;
            Ok(Some((local_rev(record.number), record.json.to_vec())))
        })
        .await
    }

    /// Writes (or, with no body, deletes) `_local/{id}`, synced with what was written before; answers the new revision.
    ///
    /// `rev` must be the stored one. A `_local` document is never replicated and stands in no feed.
    pub async fn put_local_doc(
        &self,
        id: &str,
        rev: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Result<Result<String, Refusal>, StoreError> {
        self.writer.put_local(id.to_owned(), LocalParent::Rev(rev.map(str::to_owned)), body).await
    }

    /// The same, over whatever there is.
    pub async fn overwrite_local_doc(
        &self,
        id: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Result<String, Refusal>, StoreError> {
        self.writer.put_local(id.to_owned(), LocalParent::Any, body).await
    }

    /// `_local` documents in the order of their ids. A part of them, if they are long: the last row says where to go on.
    pub async fn local_docs(&self, range: LocalRange) -> Result<Vec<LocalRow>, StoreError> {
        let engine = self.engine.now();
        self.blocking("read _local documents", move || {
            let local = engine.begin_read()?.open_table(LOCAL)?;
            let after = range.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let start = range.start.as_deref().map_or(after, Bound::Included);
            let (mut rows, mut bytes) = (Vec::new(), 0);
            for row in local.range::<&str>((start, Bound::Unbounded))?.take(LOCAL_ROWS) {
                let (id, stored) = row?;
                if range.end.as_deref().is_some_and(|end| id.value() > end) || bytes >= LOCAL_BYTES {
                    break;
                }
                let record = LocalRecord::decode(stored.value())?;
                let json = if range.bodies { record.json.to_vec() } else { Vec::new() };
                bytes += json.len();
                rows.push(LocalRow { id: id.value().to_owned(), rev: local_rev(record.number), json });
            }
            Ok(rows)
        })
        .await
    }
}
