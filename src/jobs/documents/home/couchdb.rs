//! Documents of replications in a CouchDB, asked as its admin.
//!
//! A page is rows of `_changes` without documents, and then these documents as they are now: what was written between the two is in the next
//! page too. Documents are read many at once, and fewer where they are large, down to one; one that is too large even so is no
//! replication, and holds up no other.
//!
//! `_replicator` has a rule of CouchDB's own in the way: a document without an owner becomes its writer's. So of one that nobody
//! in particular wrote, our admin becomes the owner, with the first state that is written into it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::reading::{NotPut, ROWS, ReadPage, ReadPlace, Stored};
use crate::access::Caller;
use crate::beside::{AdminError, CouchDbAsAdmin, Unanswered};
use crate::document::{DocId, Seq};
use crate::percent;
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
    /// Changes when it is made anew.
    pub(super) instance: String,
    pub(super) update_seq: Value,
    /// How much has been purged from it, as far as was ever told.
    pub(super) purged: u64,
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

    pub(super) async fn page(&self, name: &DbName, place: &mut ReadPlace) -> Result<ReadPage, AdminError> {
        #[derive(Deserialize)]
        struct Page {
            results: Vec<Row>,
            last_seq: Seq,
        }
        #[derive(Deserialize)]
        struct Row {
            id: DocId,
            #[serde(default)]
            deleted: bool,
        }
        let since = place.since.clone().unwrap_or_else(Seq::zero);
        let since = percent::encode(&since.as_query()).to_string();
        let path = format!("/{}/_changes?limit={ROWS}&since={since}", percent::encode(name.as_str()));
        let page = match self.admin.get::<Page>(&path).await {
            Err(error) if error.is_not_found() => return Ok(ReadPage { rows: Vec::new(), more: false, purged: false }),
            page => page?,
        };
        let more = page.results.len() == ROWS;
        // A cluster's feed may say the same twice.
        let mut seen = BTreeSet::new();
        let rows: Vec<_> = page.results.into_iter().rev().filter(|row| seen.insert(row.id.clone())).collect();
        let is_there = |row: &&Row| !row.deleted && !row.id.as_str().starts_with("_design/");
        let ids: Vec<_> = rows.iter().filter(is_there).map(|row| row.id.clone()).collect();
        let documents = self.documents(name, &ids).await?;
        let mut found: HashMap<_, _> = ids.into_iter().zip(documents).collect();
        let rows = rows.into_iter().rev().map(|row| {
            let stored = found.remove(&row.id).flatten();
            (row.id, stored)
        });
        place.since = Some(page.last_seq);
        Ok(ReadPage { rows: rows.collect(), more, purged: false })
    }

    /// Documents as they are now.
    pub(super) async fn documents(&self, name: &DbName, ids: &[DocId]) -> Result<Vec<Option<Stored>>, AdminError> {
        let mut found = Vec::with_capacity(ids.len());
        // The rest, in pieces; the next one is the last of them.
        let mut pieces: Vec<&[DocId]> = ids.chunks(AT_ONCE).rev().collect();
        while let Some(piece) = pieces.pop() {
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
            doc: Option<Map<String, Value>>,
            error: Option<String>,
        }
        let path = format!("/{}/_all_docs?include_docs=true", percent::encode(name.as_str()));
        let found: Found = self.admin.ask(Method::POST, &path, Some(&json!({ "keys": ids }))).await?;
        // `null`: it is deleted. A row may say that it couldn't be read, too.
        let told = |row: &Row| row.doc.is_some() || row.error.as_deref().is_none_or(|error| error == "not_found");
        if found.rows.len() != ids.len() || !found.rows.iter().zip(ids).all(|(row, id)| row.key == *id && told(row)) {
            return Err(Unanswered::Malformed(path).into());
        }
        let stored = |row: Row| row.doc.map(|document| Stored { bytes: 0, document: Some(document) });
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
        #[derive(Deserialize)]
        struct Row {
            error: Option<String>,
            #[serde(default)]
            reason: Value,
        }
        let wanted = documents.len();
        let with_ids = documents.into_iter().map(|(id, mut document)| {
            document.insert("_id".into(), json!(id));
            Value::Object(document)
        });
        let body = json!({ "docs": with_ids.collect::<Vec<_>>() });
        let path = format!("/{}/_bulk_docs", percent::encode(name.as_str()));
        let rows: Vec<Row> = match author.is_replicator() {
            true => self.admin.ask(Method::POST, &path, Some(&body)).await?,
            false => match self.admin.ask_as(author, Method::POST, &path, Some(&body)).await {
                // He may not open the database.
                Err(AdminError::Refused {
                    status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, reason, ..
                }) => {
                    return Ok(vec![Err(NotPut::Refused(reason)); wanted]);
                }
                rows => rows?,
            },
        };
        if rows.len() != wanted {
            return Err(Unanswered::Malformed(path).into());
        }
        let put = |row: Row| match row.error.as_deref() {
            None => Ok(Ok(())),
            Some("conflict") => Ok(Err(NotPut::Conflict)),
            Some("forbidden" | "unauthorized" | "too_large") => {
                let reason = row.reason.as_str().map_or_else(|| row.reason.to_string(), str::to_owned);
                Ok(Err(NotPut::Refused(reason)))
            }
            // Trouble that passes, as of a cluster.
            Some(_) => Err(Unanswered::Malformed(path.clone()).into()),
        };
        rows.into_iter().map(put).collect()
    }
}
