//! `GET /{db}/{doc}?open_revs=`: several revisions of one document at once.
//!
//! As JSON an array of `{"ok":…}` and `{"missing":…}`; as `multipart/mixed`, where `Accept` names it, one part a
//! revision, `multipart/related` within it where attachments follow. A replicator asks this way for documents with
//! attachments.

use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::document::{DocId, Rev};
use crate::multipart::Framing;
use crate::store::{AttachmentsAs, Database, DocOptions, DocRecord, Leaf};

use super::documents::{Rendered, render};
use super::draft::Draft;
use super::error::ApiError;
use super::query::Query;
use super::{AppState, answer, related, welcome};

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
    let all = wanted == Wanted::All;
    let (found, missing) = db
        .read(move |snapshot| {
            let record = snapshot.document(id.as_str())?;
            let (leaves, missing) = wanted.find(record.as_ref());
            let found = leaves
                .iter()
                .flat_map(|leaf| record.as_ref().map(|record| render(snapshot, id.as_str(), record, leaf, &options)));
            Ok((found.collect::<Result<Vec<_>, _>>()?, missing))
        })
        .await?;
    if all && found.is_empty() {
        return Err(ApiError::Missing);
    }
    match mixed {
        true => as_parts(state, db, found, missing).await,
        false => as_json(found, &missing).answer(&state.tasks, db).await,
    }
}

fn as_json(found: Vec<Rendered>, missing: &[Rev]) -> Draft {
    let mut out = Draft::from(b"[".to_vec());
    for doc in found {
        out.json.extend_from_slice(if out.json.len() > 1 { br#",{"ok":"# } else { br#"{"ok":"# });
        out.append(doc.draft);
        out.json.push(b'}');
    }
    for rev in missing {
        out.json.extend_from_slice(if out.json.len() > 1 { b"," } else { b"" });
        out.json.extend(json!({ "missing": rev }).to_string().into_bytes());
    }
    out.json.push(b']');
    out
}

async fn as_parts(
    state: &AppState,
    db: Arc<Database>,
    found: Vec<Rendered>,
    missing: Vec<Rev>,
) -> Result<Response, ApiError> {
    let outer = welcome::uuid();
    let content_type = format!("multipart/mixed; boundary=\"{outer}\"");
    let body = answer::streamed(&state.tasks, "open_revs", |sink| async move {
        sink.send(format!("--{outer}")).await?;
        for doc in found {
            if doc.following.is_empty() {
                sink.send(plain_part("", &doc.draft.json)).await?;
            } else {
                let inner = Framing::new();
                sink.send(format!("\r\nContent-Type: {}\r\n\r\n", inner.content_type("related"))).await?;
                related::write(&sink, &db, inner, doc).await?;
            }
            sink.send(format!("\r\n--{outer}")).await?;
        }
        for rev in missing {
            sink.send(plain_part("; error=\"true\"", json!({ "missing": rev }).to_string().as_bytes())).await?;
            sink.send(format!("\r\n--{outer}")).await?;
        }
        sink.send("--").await
    })
    .await?;
    Ok((StatusCode::OK, [(CONTENT_TYPE, content_type)], body).into_response())
}

fn plain_part(parameter: &str, json: &[u8]) -> Vec<u8> {
    let head = format!("\r\nContent-Type: application/json{parameter}\r\n\r\n");
    [head.as_bytes(), json].concat()
}

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
    fn found_and_missing_make_one_array() {
        let found = || Rendered { draft: br#"{"_id":"a"}"#.to_vec().into(), following: Vec::new() };
        let missing = [Rev::parse("2-b").unwrap()];
        let text = |found, missing: &[Rev]| String::from_utf8(as_json(found, missing).json).unwrap();
        assert_eq!(text(vec![found()], &missing), r#"[{"ok":{"_id":"a"}},{"missing":"2-b"}]"#);
        assert_eq!(text(vec![found(), found()], &[]), r#"[{"ok":{"_id":"a"}},{"ok":{"_id":"a"}}]"#);
        assert_eq!(text(Vec::new(), &[]), "[]");
    }

    #[test]
    fn of_a_document_that_isnt_there_everything_is_missing() {
        let revs = vec![Rev::parse("1-a").unwrap()];
        let wanted = Wanted::Revs { revs: revs.clone(), latest: true };
        assert_eq!(wanted.find(None), (Vec::new(), revs));
        assert_eq!(Wanted::All.find(None), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_missing_revision_is_an_error_part() {
        let part = plain_part("; error=\"true\"", br#"{"missing":"1-a"}"#);
        let expected = "\r\nContent-Type: application/json; error=\"true\"\r\n\r\n{\"missing\":\"1-a\"}";
        assert_eq!(String::from_utf8(part).unwrap(), expected);
    }
}
