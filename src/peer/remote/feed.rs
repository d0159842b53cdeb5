//! Asks for the feed.
//!
//! `GET {db}/_changes?feed=normal&style=all_docs&since=…&limit=…`, read whole here, or as it arrives (`changes_answer.rs`).
//! `feed=longpoll&heartbeat=…` waits: the peer then sends a line end now and again until there is a change. One that is
//! silent for two heartbeats is dead, and the wait ends as [`PeerError::Broken`]: the caller asks again from where it was.
//! What it answers in the end is looked at for whether it is an answer, no more: the change is read with the next page, so
//! that waiting and reading are two things. `filter=_doc_ids` is a POST with the ids, `filter=_selector` one with the
//! selector as it was written.

use reqwest::Method;
use serde::Deserializer;
use serde::de::Error as _;

use super::call::Call;
use super::path::encode;
use super::*;
use crate::effort::budget::PAGE_BYTES;

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

    /// Whether nothing has come after `seq`, of a database of the CouchDB beside which this server stands; any other one counts as up to
    /// date, as in the seed's `up_to_date/2`. Seqs can't be compared, so the feed is asked.
    pub async fn up_to_date(&self, seq: &Seq) -> Result<bool, PeerError> {
        if !self.inner.is_beside {
            return Ok(true);
        }
        let filter = Filter::None;
        let query = ChangesQuery { since: seq.clone(), limit: 1, max_bytes: PAGE_BYTES, filter, winners_only: false };
        match self.changes(&query).await {
            Ok(page) => Ok(page.changes.is_empty()),
            Err(PeerError::TooLong { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn page(&self, query: &ChangesQuery, limit: usize) -> Result<ChangesPage, PeerError> {
        let call = self.changes_call(query, Operation::Changes, Some(limit));
        let page: Page = self.ask(&call, |reply| self.expected(reply)?.json(EXPECTED)).await?;
        let (pending, extent) = (page.pending, Extent::Limited);
        let mut seq = query.since.clone();
        let changes = page.results.into_iter().map(|row| row.into_change(&mut seq)).collect();
        Ok(ChangesPage { changes, limit, last_seq: page.last_seq, pending, extent })
    }

    /// Waits for a change.
    pub async fn changed(&self, query: &ChangesQuery) -> Result<(), PeerError> {
        let call = self.changes_call(query, Operation::Wait, Some(1));
        match self.ask(&call, |reply| self.expected(reply)?.json::<Page>(EXPECTED).map(drop)).await {
            // A row as long as that is a change, too.
            Err(PeerError::TooLong { .. }) => Ok(()),
            answered => answered,
        }
    }

    /// The request for so many rows, for all there are, or to wait for one.
    pub(super) fn changes_call(&self, query: &ChangesQuery, operation: Operation, limit: Option<usize>) -> Call {
        let heartbeat = self.inner.settings.heartbeat;
        let style = if query.winners_only { "main_only" } else { "all_docs" };
        let wait = operation == Operation::Wait;
        let mut path = match wait {
            true => format!("_changes?feed=longpoll&style={style}&heartbeat={}", heartbeat.as_millis()),
            false => format!("_changes?feed=normal&style={style}"),
        };
        if let Some(limit) = limit {
            path += &format!("&limit={limit}");
        }
        path += &format!("&since={}", encode(&query.since.as_query()));
        let mut call = Call::get(operation, path);
        call.max_answer = query.max_bytes;
        call.silence = wait.then(|| heartbeat * MISSED_HEARTBEATS);
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
    /// `null` if the source tells only some.
    seq: Option<Seq>,
    #[serde(deserialize_with = "id")]
    id: DocId,
    changes: Vec<Leaf>,
}

/// Bytes of a document's id at most. CouchDB (`max_document_id_length`) and couchrep set none of their own; but an id is a part
/// of a URL, and no server takes a line of a tenth of this.
const MAX_ID_BYTES: usize = 1 << 20;

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DocId, D::Error> {
    let id = DocId::deserialize(deserializer)?;
    match id.as_str().len() {
        0..=MAX_ID_BYTES => Ok(id),
        length => Err(D::Error::custom(format!("an id of {length} bytes"))),
    }
}

#[derive(Deserialize)]
struct Leaf {
    rev: Rev,
}

impl Row {
    /// The change, after which the feed has come to `seq`, if the row tells it.
    pub(super) fn into_change(self, seq: &mut Seq) -> Change {
        if let Some(told) = self.seq {
            *seq = told;
        }
        let revs = self.changes.into_iter().map(|leaf| leaf.rev).collect();
        Change { seq: seq.clone(), id: self.id, revs }
    }
}

/// That there is no number is another thing than that none is told.
fn pending<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pending, D::Error> {
    Ok(Option::deserialize(deserializer)?.map_or(Pending::Unknown, Pending::Rows))
}
