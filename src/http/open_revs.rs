//! `GET /{db}/{doc}?open_revs=`: several revisions of one document at once.
//!
//! As JSON an array of `{"ok":…}` and `{"missing":…}`; as `multipart/mixed`, where `Accept` names it, one part a
//! revision, `multipart/related` within it where attachments follow. A replicator asks this way for documents with
//! attachments. Either way a few revisions are rendered at a time, so that a slow reader holds little however many there are.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::document::{DocId, Rev};
use crate::multipart::Framing;
use crate::store::{AttachmentsAs, Database, DocOptions, DocRecord, Leaf, Snapshot, StoreError};

use super::answer::{APPLICATION_JSON, CHUNK};
use super::error::ApiError;
use super::outgoing::Outgoing;
use super::query::Query;
use super::rendered::{Rendered, render};
use super::{AppState, answer, related};

/// Which revisions are asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// All leaves.
    All,
    /// These, or the leaves that descend from them.
    Revs {
        /// Revisions by name.
        revs: Vec<Rev>,
        /// Rather their newest descendants.
        latest: bool,
    },
}

impl Wanted {
    /// Reads `open_revs` and `latest`.
    pub fn parse(query: &Query) -> Result<Option<Self>, ApiError> {
        Ok(match query.get("open_revs") {
            None => None,
            Some("all" | "\"all\"") => Some(Self::All),
            Some(_) => {
                let revs = query.revs("open_revs")?.unwrap_or_default();
                Some(Self::Revs { revs, latest: query.flag("latest")? })
            }
        })
    }

    /// The leaves of a document that stand for what is asked for, and the revisions that none stands for.
    pub fn find(&self, record: Option<&DocRecord>) -> (Vec<Leaf>, Vec<Rev>) {
        let (revs, latest) = match (self, record) {
            (Self::All, None) => return (Vec::new(), Vec::new()),
            (Self::All, Some(record)) => return (record.tree.leaves(), Vec::new()),
            (Self::Revs { revs, .. }, None) => return (Vec::new(), revs.clone()),
            (Self::Revs { revs, latest }, Some(_)) => (revs, *latest),
        };
        let (mut found, mut missing) = (Vec::<Leaf>::new(), Vec::new());
        for rev in revs {
            let leaves = match record {
                Some(record) if latest => record.tree.latest(rev),
                Some(record) => record.tree.leaf(rev).into_iter().collect(),
                None => Vec::new(),
            };
            if leaves.is_empty() {
                missing.push(rev.clone());
            }
            for leaf in leaves {
                if !found.contains(&leaf) {
                    found.push(leaf);
                }
            }
        }
        (found, missing)
    }
}

/// The leaves of a document that are still to be answered. They are found once and rendered one after the other, each as it
/// is then: one that was edited meanwhile is answered by its successor, where the newest are asked for.
#[derive(Debug)]
pub struct Leaves {
    todo: VecDeque<Rev>,
    newest: bool,
}

impl Leaves {
    /// All of these.
    pub fn new(leaves: Vec<Leaf>, wanted: &Wanted) -> Self {
        let newest = matches!(wanted, Wanted::All | Wanted::Revs { latest: true, .. });
        Self { todo: leaves.into_iter().map(|leaf| leaf.rev).collect(), newest }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.todo.is_empty()
    }

    /// The next, or its revision, where no leaf stands for that any more.
    pub fn next(&mut self, record: Option<&DocRecord>) -> Option<Result<Leaf, Rev>> {
        let rev = self.todo.pop_front()?;
        let Some(tree) = record.map(|record| &record.tree) else { return Some(Err(rev)) };
        if let Some(leaf) = tree.leaf(&rev) {
            return Some(Ok(leaf));
        }
        let mut newer = if self.newest { tree.latest(&rev) } else { Vec::new() }.into_iter();
        let Some(first) = newer.next() else { return Some(Err(rev)) };
        for leaf in newer.rev() {
            self.todo.push_front(leaf.rev);
        }
        Some(Ok(first))
    }
}

/// An answer that is being written.
struct Rows {
    id: DocId,
    options: DocOptions,
    leaves: Leaves,
    missing: VecDeque<Rev>,
}

/// A part of it.
enum Row {
    Found(Rendered),
    Missing(Rev),
}

impl Rows {
    /// The next, and whatever comes after it.
    fn next(mut self, snapshot: &Snapshot, outgoing: Outgoing) -> Result<(Option<Row>, Self), StoreError> {
        let record = snapshot.document(self.id.as_str())?;
        let row = match (self.leaves.next(record.as_ref()), &record) {
            (Some(Ok(leaf)), Some(record)) => {
                Some(Row::Found(render(snapshot, self.id.as_str(), record, &leaf, &self.options, outgoing)?))
            }
            (Some(Err(rev)), _) => Some(Row::Missing(rev)),
            _ => self.missing.pop_front().map(Row::Missing),
        };
        Ok((row, self))
    }

    /// As many as make a piece of a JSON array, and what is left; `started` tells whether some were written before.
    fn piece(
        mut self,
        snapshot: &Snapshot,
        mut out: Outgoing,
        started: bool,
    ) -> Result<(Outgoing, Option<Self>), StoreError> {
        let record = snapshot.document(self.id.as_str())?;
        let mut separator: &[u8] = if started { b"," } else { b"[" };
        while out.json.len() < CHUNK {
            let missing = match (self.leaves.next(record.as_ref()), &record) {
                (Some(Ok(leaf)), Some(record)) => {
                    out.json.extend_from_slice(separator);
                    out.json.extend_from_slice(br#"{"ok":"#);
                    out.render(snapshot, self.id.as_str(), record, &leaf, &self.options)?;
                    out.json.push(b'}');
                    None
                }
                (Some(Err(rev)), _) => Some(rev),
                _ => match self.missing.pop_front() {
                    Some(rev) => Some(rev),
                    None => {
                        out.json.extend_from_slice(if separator == b"[" { b"[]" } else { b"]" });
                        return Ok((out, None));
                    }
                },
            };
            if let Some(rev) = missing {
                out.json.extend_from_slice(separator);
                out.json.extend_from_slice(json!({ "missing": rev }).to_string().as_bytes());
            }
            separator = b",";
        }
        Ok((out, Some(self)))
    }
}

/// Answers in the form that `Accept` asks for.
pub async fn get(
    state: &AppState,
    db: Arc<Database>,
    id: DocId,
    wanted: Wanted,
    mut options: DocOptions,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let mixed = related::accepted(headers, "multipart/mixed");
    if mixed {
        options.attachments = AttachmentsAs::Follows;
        options.att_encoding_info = true;
    }
    let answers = state.answers.clone();
    let found = answers.read(&db, move |snapshot| {
        let (leaves, missing) = wanted.find(snapshot.document(id.as_str())?.as_ref());
        let nothing = leaves.is_empty() && wanted == Wanted::All;
        let rows = Rows { id, options, leaves: Leaves::new(leaves, &wanted), missing: missing.into() };
        Ok((!nothing).then_some(rows))
    });
    let rows = found.await?.ok_or(ApiError::Missing)?;
    match mixed {
        true => as_parts(state, db, rows).await,
        false => as_json(state, db, rows).await,
    }
}

async fn as_json(state: &AppState, db: Arc<Database>, rows: Rows) -> Result<Response, ApiError> {
    let answers = state.answers.clone();
    let body = answer::streamed(&state.tasks, "open_revs", |sink| async move {
        let (mut left, mut started) = (Some(rows), false);
        while let Some(rows) = left {
            let out = Outgoing::chunk(&answers);
            let (piece, more) = answers.read(&db, move |snapshot| rows.piece(snapshot, out, started)).await?;
            (left, started) = (more, true);
            piece.send(&sink, &db).await?;
        }
        sink.send("\n").await
    })
    .await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], body).into_response())
}

async fn as_parts(state: &AppState, db: Arc<Database>, mut rows: Rows) -> Result<Response, ApiError> {
    let mut outer = Framing::new();
    let content_type = outer.content_type("mixed");
    let answers = state.answers.clone();
    let body = answer::streamed(&state.tasks, "open_revs", |sink| async move {
        loop {
            let outgoing = Outgoing::new(&answers);
            let (row, left) = answers.read(&db, move |snapshot| rows.next(snapshot, outgoing)).await?;
            rows = left;
            match row {
                None => return sink.send(outer.close()).await,
                Some(Row::Found(doc)) if doc.following.is_empty() => {
                    sink.send(outer.part("application/json")).await?;
                    doc.outgoing.send(&sink, &db).await?;
                }
                Some(Row::Found(doc)) => {
                    let inner = Framing::new();
                    sink.send(outer.part(&inner.content_type("related"))).await?;
                    related::write(&sink, &db, inner, doc).await?;
                }
                Some(Row::Missing(rev)) => {
                    sink.send(outer.part(MISSING)).await?;
                    sink.send(json!({ "missing": rev }).to_string()).await?;
                }
            }
        }
    })
    .await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, content_type)], body).into_response())
}

/// What a part is called that stands for a revision that isn't there.
const MISSING: &str = "application/json; error=\"true\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_asked_for_by_name_or_all_together() {
        let wanted = |text: &str| Wanted::parse(&Query::parse(text)).unwrap();
        assert_eq!(wanted("rev=1-a"), None);
        assert_eq!(wanted("open_revs=all"), Some(Wanted::All));
        let revs = vec![Rev::parse("1-a").unwrap()];
        assert_eq!(wanted("open_revs=[%221-a%22]&latest=true"), Some(Wanted::Revs { revs, latest: true }));
        assert!(Wanted::parse(&Query::parse("open_revs=1-a")).is_err());
    }

    #[test]
    fn of_a_document_that_isnt_there_everything_is_missing() {
        let revs = vec![Rev::parse("1-a").unwrap()];
        let wanted = Wanted::Revs { revs: revs.clone(), latest: true };
        assert_eq!(wanted.find(None), (Vec::new(), revs));
        assert_eq!(Wanted::All.find(None), (Vec::new(), Vec::new()));
    }

    #[test]
    fn leaves_of_a_document_that_went_are_missing() {
        let rev = Rev::parse("1-a").unwrap();
        let mut leaves = Leaves { todo: [rev.clone()].into(), newest: true };
        assert_eq!(leaves.next(None), Some(Err(rev)));
        assert_eq!(leaves.next(None), None);
    }
}
