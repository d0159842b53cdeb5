//! Reads the feed, page by page.
//!
//! `GET {db}/_changes?feed=normal&style=all_docs&since=…&limit=…`, or `feed=longpoll&heartbeat=…` to wait: the peer then
//! sends a line end now and again until there is a change. One that is silent for two heartbeats is dead, and the wait
//! ends as [`PeerError::Broken`]: the caller asks again from where it was. `filter=_doc_ids` is a POST with the ids,
//! `filter=_selector` one with the selector as it was written.

use reqwest::Method;

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
        let reply = self.ask(&self.changes_call(query, limit)?).await?;
        let page: Page = self.present(reply)?.success()?.json("a page of the feed")?;
        let changes = page.results.into_iter().map(|row| Change {
            seq: row.seq,
            id: row.id,
            revs: row.changes.into_iter().map(|change| change.rev).collect(),
        });
        Ok(ChangesPage { changes: changes.collect(), limit, last_seq: page.last_seq, pending: page.pending })
    }

    fn changes_call(&self, query: &ChangesQuery, limit: usize) -> Result<Call, PeerError> {
        let heartbeat = self.inner.settings.heartbeat;
        let style = if query.winners_only { "main_only" } else { "all_docs" };
        let mut path = match query.wait {
            true => format!("_changes?feed=longpoll&style={style}&heartbeat={}", heartbeat.as_millis()),
            false => format!("_changes?feed=normal&style={style}"),
        };
        path += &format!("&limit={}&since={}", limit, encode(&query.since.as_query()));
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
        Ok(call)
    }
}

#[derive(Deserialize)]
struct Page {
    results: Vec<Row>,
    last_seq: Seq,
    /// Absent before CouchDB 2.
    pending: Option<u64>,
}

#[derive(Deserialize)]
struct Row {
    seq: Seq,
    id: DocId,
    changes: Vec<Leaf>,
}

#[derive(Deserialize)]
struct Leaf {
    rev: Rev,
}
