//! `_local` documents: checkpoints, and lists of failures.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::call::Call;
use super::judgement::Meaning;
use super::retry::Operation;
use super::{Done, Head, RemotePeer, path};
use crate::peer::documents::LocalDoc;
use crate::peer::error::PeerError;

/// Rows of `_local_docs` that are asked for at once.
pub(super) const LISTED_AT_ONCE: usize = 1000;
/// `_local` documents that a list may have, and bytes of their ids: a source could name new ones for ever.
pub(super) const MAX_LISTED: usize = 100_000;
pub(super) const MAX_LISTED_BYTES: usize = 16 << 20;

impl RemotePeer {
    /// `GET {db}/_local/{id}`.
    pub async fn local_doc(&self, id: &str) -> Result<Option<LocalDoc>, PeerError> {
        self.ask(&Call::get(Operation::ReadLocal, local_path(id)), |reply| match reply.meaning() {
            Meaning::NotThere => Ok(None),
            _ => {
                let reply = self.expected(reply)?;
                let head: Head = reply.json("a document with a `_rev`")?;
                Ok(Some(LocalDoc { rev: head._rev, body: reply.json("a document")? }))
            }
        })
        .await
    }

    /// `PUT {db}/_local/{id}`.
    pub async fn put_local_doc(&self, id: &str, rev: Option<&str>, body: &RawValue) -> Result<String, PeerError> {
        #[derive(Deserialize)]
        struct Written {
            rev: String,
        }
        let mut json = b"{\"_id\":".to_vec();
        crate::json::push_string(&mut json, &format!("_local/{id}"));
        if let Some(rev) = rev {
            json.extend_from_slice(b",\"_rev\":");
            crate::json::push_string(&mut json, rev);
        }
        for member in crate::json::members(body.get().as_bytes())? {
            json.push(b',');
            json.extend_from_slice(&body.get().as_bytes()[member.span]);
        }
        json.push(b'}');
        self.ask(&Call::put(Operation::PutLocal, local_path(id), json), |reply| match reply.meaning() {
            Meaning::Conflict => Err(PeerError::Conflict),
            _ => Ok(self.expected(reply)?.json::<Written>("a written document's `rev`")?.rev),
        })
        .await
    }

    /// `PUT {db}/_local/{id}` with `_deleted`, which every CouchDB takes for a DELETE.
    pub async fn remove_local_doc(&self, id: &str, rev: &str) -> Result<(), PeerError> {
        let json = serde_json::json!({ "_id": format!("_local/{id}"), "_rev": rev, "_deleted": true }).to_string();
        self.ask(&Call::put(Operation::PutLocal, local_path(id), json), |reply| match reply.meaning() {
            Meaning::Conflict => Err(PeerError::Conflict),
            Meaning::NotThere => Ok(()),
            _ => self.expected(reply)?.json::<Done>("`\"ok\":true`").map(drop),
        })
        .await
    }

    /// `GET {db}/_local_docs?startkey=…&endkey=…`, page by page. A peer that refuses, or is too old to have it, has no list.
    pub async fn local_ids(&self, prefix: &str) -> Result<Vec<String>, PeerError> {
        #[derive(Deserialize)]
        struct Listed {
            rows: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            id: String,
        }
        let key = |id: &str| path::encode(&serde_json::json!(format!("_local/{id}")).to_string()).to_string();
        let end = key(&format!("{prefix}~"));
        let (mut ids, mut bytes) = (Vec::<String>::new(), 0);
        loop {
            let start = key(ids.last().map_or(prefix, String::as_str));
            let query = format!("_local_docs?startkey={start}&endkey={end}&limit={LISTED_AT_ONCE}");
            let call = Call::get(Operation::ReadLocal, query);
            let listed = self.ask(&call, |reply| match reply.meaning() {
                Meaning::NotThere | Meaning::NotTaken | Meaning::NotSupported | Meaning::NotAllowed => Ok(None),
                _ => self.expected(reply)?.json::<Listed>("`rows` with an `id` each").map(Some),
            });
            let Some(Listed { rows }) = listed.await? else { return Ok(Vec::new()) };
            let full = rows.len() >= LISTED_AT_ONCE;
            let listed = rows.iter().filter_map(|row| row.id.strip_prefix("_local/"));
            // A page begins with the end of the one before. Who knows no keys lists all there are.
            let (before, last) = (ids.len(), ids.last().cloned());
            let is_new = |id: &&str| id.starts_with(prefix) && last.as_deref().is_none_or(|last| *id > last);
            ids.extend(listed.filter(is_new).map(str::to_owned));
            bytes += ids[before..].iter().map(String::len).sum::<usize>();
            if ids.len() > MAX_LISTED || bytes > MAX_LISTED_BYTES {
                return Err(PeerError::Malformed {
                    request: self.request_name(&call),
                    expected: "100,000 documents at most, and 16 MiB of ids",
                    found: format!("{} documents, and no end", ids.len()),
                });
            }
            if !full || ids.len() == before {
                return Ok(ids);
            }
        }
    }
}

fn local_path(id: &str) -> String {
    format!("_local/{}", path::encode(id))
}
