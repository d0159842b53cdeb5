//! Reads the feed, page by page.
//!
//! `GET {db}/_changes?feed=normal&style=all_docs&since=…&limit=…`, or `feed=longpoll&heartbeat=…` to wait: the peer then
//! sends a line end now and again until there is a change. One that is silent for two heartbeats is dead, and the wait
//! ends as [`PeerError::Broken`]: the caller asks again from where it was. `filter=_doc_ids` is a POST with the ids,
//! `filter=_selector` one with the selector as it was written.

use reqwest::Method;
use serde::Deserializer;

use super::call::Call;
use super::path::encode;
use super::*;

/// A waiting feed without a sign of life for so many heartbeats is dead.
const MISSED_HEARTBEATS: u32 = 2;

impl RemotePeer {
    /// Reads a page of the feed. One that is too long is asked for again with half as many rows.
    pub async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage, PeerError> {
        let mut limit = query.limit;
        loop {
            match self.page(query, limit).await {
                Err(PeerError::TooLong { .. }) if limit > 1 => limit /= 2,
                page => return page,
            }
        }
    }

    async fn page(&self, query: &ChangesQuery, limit: usize) -> Result<ChangesPage, PeerError> {
        let call = self.changes_call(query, Some(limit));
        let page: Page = self.ask(&call, |reply| self.expected(reply)?.json(EXPECTED)).await?;
        let (last_seq, pending, extent) = (page.last_seq, page.pending, Extent::Limited);
        let changes = page.results.into_iter().map(Change::from).collect();
        Ok(ChangesPage { changes, limit, last_seq, pending, extent })
    }

    /// The request for a page of so many rows, or for all there are.
    pub(super) fn changes_call(&self, query: &ChangesQuery, limit: Option<usize>) -> Call {
        let heartbeat = self.inner.settings.heartbeat;
        let style = if query.winners_only { "main_only" } else { "all_docs" };
        let mut path = match query.wait {
            true => format!("_changes?feed=longpoll&style={style}&heartbeat={}", heartbeat.as_millis()),
            false => format!("_changes?feed=normal&style={style}"),
        };
        if let Some(limit) = limit {
            path += &format!("&limit={limit}");
        }
        path += &format!("&since={}", encode(&query.since.as_query()));
        let operation = if query.wait { Operation::Wait } else { Operation::Changes };
        let mut call = Call::get(operation, path);
        call.max_answer = query.max_bytes;
        call.silence = query.wait.then(|| heartbeat * MISSED_HEARTBEATS);
        match &query.filter {
            Filter::None => {}
            Filter::Named { name, query } => {
                call.path += &format!("&filter={}", encode(name));
                for (key, value) in query {
                    call.path += &format!("&{}={}", encode(key), encode(value));
                }
            }
            Filter::DocIds(ids) => {
                call.path += "&filter=_doc_ids";
                call.method = Method::POST;
                call.body = Some(serde_json::json!({ "doc_ids": ids }).to_string().into());
            }
            Filter::Selector(selector) => {
                call.path += "&filter=_selector";
                call.method = Method::POST;
                call.body = Some(serde_json::json!({ "selector": selector.written() }).to_string().into());
            }
        }
        call
    }
}

/// What the feed's answers are to be.
pub(super) const EXPECTED: &str = "a page of the feed";

#[derive(Deserialize)]
pub(super) struct Page {
    pub results: Vec<Row>,
    pub last_seq: Seq,
    #[serde(default, deserialize_with = "pending")]
    pub pending: Pending,
}

#[derive(Deserialize)]
pub(super) struct Row {
    seq: Seq,
    id: DocId,
    changes: Vec<Leaf>,
}

#[derive(Deserialize)]
struct Leaf {
    rev: Rev,
}

impl From<Row> for Change {
    fn from(row: Row) -> Self {
        Self { seq: row.seq, id: row.id, revs: row.changes.into_iter().map(|leaf| leaf.rev).collect() }
    }
}

/// That there is no number is another thing than that none is told.
fn pending<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pending, D::Error> {
    Ok(Option::deserialize(deserializer)?.map_or(Pending::Unknown, Pending::Rows))
}
