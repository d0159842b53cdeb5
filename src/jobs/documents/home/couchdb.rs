//! Documents of replications in a CouchDB, asked as its admin.
//!
//! A page is rows of `_changes` without documents, and then these documents as they are now: what was written between the two is in the next
//! page too. Documents are read many at once, and fewer where they are large, down to one; one that is too large even so is no
//! replication, and holds up no other.
//!
//! `_replicator` has a rule of CouchDB's own in the way: a document without an owner becomes its writer's. So of one that nobody
//! in particular wrote, our admin becomes the owner, with the first state that is written into it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::reading::{NotPut, PAGE_BYTES, ROWS, ReadPage, ReadPlace, Stored};
use crate::access::Caller;
use crate::beside::{AdminError, CouchDbAsAdmin, Unanswered};
use crate::document::{DocId, Seq};
use crate::percent;
use crate::replicator_docs::MAX_READ_BYTES;
use crate::store::{DbName, DbUpdates};

/// Documents that are asked for at once: of usual size they are some hundred kilobytes.
const AT_ONCE: usize = 100;

/// The CouchDB. Cheap to clone.
#[derive(Clone)]
pub struct OfCouchDb {
    pub(super) admin: CouchDbAsAdmin,
    /// What was found out to have happened to databases.
    pub(super) updates: DbUpdates,
    pub(super) known: Arc<Mutex<BTreeMap<DbName, KnownDatabase>>>,
}

/// How a database was when it was looked at last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KnownDatabase {
    /// Changes when it is made anew; `None`: the feed says that it was, whatever is found.
    pub(super) instance: Option<String>,
    pub(super) update_seq: Value,
    /// How much has been purged from it, as far as was ever told.
    pub(super) purged: u64,
    /// Since when CouchDB says that it isn't there.
    pub(super) missed: Option<Instant>,
}

impl OfCouchDb {
    pub(super) fn new(admin: CouchDbAsAdmin) -> Self {
        Self { admin, updates: DbUpdates::new([].iter()), known: Arc::default() }
    }

    pub(super) fn names(&self) -> Vec<DbName> {
        self.known().keys().cloned().collect()
    }

    pub(super) fn updates(&self) -> DbUpdates {
        self.updates.clone()
    }

    pub(super) fn known(&self) -> MutexGuard<'_, BTreeMap<DbName, KnownDatabase>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// CouchDB's word, but for one: that a database isn't there counts only if we don't know better. A node may not know it yet, or again.
    pub(super) fn believed<T>(&self, name: &DbName, said: Result<T, AdminError>) -> Result<T, AdminError> {
        match said {
            Err(error) if error.is_not_found() && self.known().contains_key(name) => {
                Err(Unanswered::Malformed(format!("/{}, which is there,", percent::encode(name.as_str()))).into())
            }
            said => said,
        }
    }

    pub(super) async fn page(&self, name: &DbName, place: &mut ReadPlace) -> Result<ReadPage, AdminError> {
        #[derive(Deserialize)]
        struct Page {
            results: Vec<Row>,
            last_seq: Seq,
        }
        #[derive(Deserialize)]
        struct Row {
            id: DocId,
            seq: Seq,
            #[serde(default)]
            deleted: bool,
        }
        let since = place.since.clone().unwrap_or_else(Seq::zero);
        let since = percent::encode(&since.as_query()).to_string();
        let path = format!("/{}/_changes?limit={ROWS}&since={since}", percent::encode(name.as_str()));
        let Page { results, last_seq } = self.admin.get(&path).await?;
        let is_full = results.len() == ROWS;
        let (mut read, mut bytes) = (ReadPage::default(), 0);
        let mut results = results.into_iter().peekable();
        let mut last = None;
        while results.peek().is_some() && bytes < PAGE_BYTES {
            let piece: Vec<_> = results.by_ref().take(AT_ONCE).collect();
            last = piece.last().map(|row| row.seq.clone());
            let is_there = |row: &&Row| !row.deleted && !row.id.as_str().starts_with("_design/");
            let ids: Vec<_> = piece.iter().filter(is_there).map(|row| row.id.clone()).collect();
            let mut found = self.all_documents(name, &ids).await?.into_iter();
            for row in piece {
                let stored = if is_there(&&row) { found.next().flatten() } else { None };
                bytes += stored.as_ref().map_or(0, |stored| stored.bytes);
                read.rows.push((row.id, stored));
            }
        }
        let is_cut = results.peek().is_some();
        read.more = is_full || is_cut;
        place.since = Some(last.filter(|_| is_cut).unwrap_or(last_seq));
        Ok(read)
    }

    /// As many of the first documents, as they are now, as may be held at once.
    pub(super) async fn documents(&self, name: &DbName, ids: &[DocId]) -> Result<Vec<Option<Stored>>, AdminError> {
        self.all_documents(name, &ids[..ids.len().min(AT_ONCE)]).await
    }

    async fn all_documents(&self, name: &DbName, ids: &[DocId]) -> Result<Vec<Option<Stored>>, AdminError> {
        let mut found = Vec::with_capacity(ids.len());
        // What is to be asked for; the next piece is the last of them.
        let mut pieces = vec![ids];
        while let Some(piece) = pieces.pop().filter(|piece| !piece.is_empty()) {
            match self.documents_at_once(name, piece).await {
                Ok(documents) => found.extend(documents),
                Err(AdminError::Unanswered(Unanswered::TooLarge(_))) if piece.len() > 1 => {
                    let (first, rest) = piece.split_at(piece.len() / 2);
                    pieces.extend([rest, first]);
                }
                Err(AdminError::Unanswered(Unanswered::TooLarge(bytes))) => {
                    found.push(Some(Stored { bytes, document: None }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn documents_at_once(&self, name: &DbName, ids: &[DocId]) -> Result<Vec<Option<Stored>>, AdminError> {
        #[derive(Deserialize)]
        struct Found {
            rows: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            key: DocId,
            doc: Option<Box<RawValue>>,
            error: Option<String>,
        }
        let path = format!("/{}/_all_docs?include_docs=true", percent::encode(name.as_str()));
        let found: Found = self.admin.ask(Method::POST, &path, Some(&json!({ "keys": ids }))).await?;
        // `null`: it is deleted. A row may say that it couldn't be read, too.
        let told = |row: &Row| row.doc.is_some() || row.error.as_deref().is_none_or(|error| error == "not_found");
        if found.rows.len() != ids.len() || !found.rows.iter().zip(ids).all(|(row, id)| row.key == *id && told(row)) {
            return Err(Unanswered::Malformed(path).into());
        }
        let stored = |row: Row| {
            let text = row.doc?;
            let bytes = text.get().len();
            let document = if bytes > MAX_READ_BYTES { None } else { serde_json::from_str(text.get()).ok() };
            Some(Stored { bytes, document })
        };
        Ok(found.rows.into_iter().map(stored).collect())
    }

    /// Takes a job off the scheduler, which would run it when it runs again, though its document says that it is completed. If that
    /// fails, it will find nothing to copy.
    pub(super) async fn end_job(&self, id: &str) {
        let cancel = json!({ "replication_id": id, "cancel": true });
        match self.admin.ask::<Value>(Method::POST, "/_replicate", Some(&cancel)).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(replication.id = id, error, "CouchDB keeps a job that is completed");
            }
        }
    }

    pub(super) async fn put(
        &self,
        name: &DbName,
        documents: Vec<(DocId, Map<String, Value>)>,
        author: &Caller,
    ) -> Result<Vec<Result<(), NotPut>>, AdminError> {
        let with_id = |(id, mut document): (DocId, Map<String, Value>)| {
            document.insert("_id".into(), json!(id));
            Value::Object(document)
        };
        let documents: Vec<_> = documents.into_iter().map(with_id).collect();
        let mut put = Vec::with_capacity(documents.len());
        let mut pieces = vec![&documents[..]];
        while let Some(piece) = pieces.pop().filter(|piece| !piece.is_empty()) {
            match self.put_at_once(name, piece, author).await {
                Ok(rows) => put.extend(rows),
                // For the sake of one of them all are refused: it is too large, or its writer may not open the database.
                Err(AdminError::Refused { status, error, .. }) if is_refusal(status, &error) && piece.len() > 1 => {
                    let (first, rest) = piece.split_at(piece.len() / 2);
                    pieces.extend([rest, first]);
                }
                Err(AdminError::Refused { status, error, reason, .. }) if is_refusal(status, &error) => {
                    put.push(Err(NotPut::Refused(if reason.is_empty() { error } else { reason })));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(put)
    }

    async fn put_at_once(
        &self,
        name: &DbName,
        documents: &[Value],
        author: &Caller,
    ) -> Result<Vec<Result<(), NotPut>>, AdminError> {
        #[derive(Deserialize)]
        struct Row {
            id: Option<String>,
            error: Option<String>,
            #[serde(default)]
            reason: Value,
        }
        let body = json!({ "docs": documents });
        let path = format!("/{}/_bulk_docs", percent::encode(name.as_str()));
        let rows: Vec<Row> = match author.is_replicator() {
            true => self.admin.ask(Method::POST, &path, Some(&body)).await?,
            false => self.admin.ask_as(author, Method::POST, &path, Some(&body)).await?,
        };
        if rows.len() != documents.len() {
            return Err(Unanswered::Malformed(path).into());
        }
        let put = |row: Row| match (row.error.as_deref(), row.id) {
            (None, _) => Ok(Ok(())),
            (Some("conflict"), _) => Ok(Err(NotPut::Conflict)),
            // Whatever a validation throws.
            (Some(_), Some(_)) => {
                let reason = row.reason.as_str().map_or_else(|| row.reason.to_string(), str::to_owned);
                Ok(Err(NotPut::Refused(reason)))
            }
            // Trouble that passes, as of a cluster.
            (Some(_), None) => Err(Unanswered::Malformed(path.clone()).into()),
        };
        rows.into_iter().map(put).collect()
    }
}

/// Whether this is CouchDB's verdict on what was sent, and sending it again would change nothing. A bare status says nothing.
fn is_refusal(status: StatusCode, error: &str) -> bool {
    let is_verdict = matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE
    );
    is_verdict && !error.is_empty()
}
