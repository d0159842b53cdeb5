//! `GET /_db_updates`: what happened to which database, for server admins; the feeds are those of `_changes`.
//!
//! CouchDB has it once there is a database `_global_changes`, half a second late; here it is always there, at once, and
//! out of memory (`store/db_updates.rs`: at most one row of each event of a database, at its newest place). Each seq
//! carries the server's life, since the log begins anew with it: whoever comes with a seq of an earlier life, or of a
//! CouchDB, is told everything that is there. Then he misses nothing but databases that were deleted meanwhile, as those
//! beyond the newest thousands.
//!
//! `feed=eventsource` tells the same rows, not the documents of `_global_changes` as CouchDB does.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::store::{DbEvent, DbUpdate, DbUpdates};

use super::answer::{Sink, Stopped};
use super::error::ApiError;
use super::feed::{Feed, Waiting};
use super::open_requests::RequestPermit;
use super::query::Query;
use super::{AppState, answer};

/// Rows that are taken out of the log at once: about a chunk.
const PAGE: usize = 500;

/// What a feed is asked for.
struct Request {
    feed: Feed,
    /// `None`: after the newest.
    since: Option<u64>,
    limit: u64,
    descending: bool,
    waiting: Waiting,
}

/// `GET /_db_updates`.
pub async fn get(
    State(state): State<AppState>,
    Extension(place): Extension<RequestPermit>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let log = state.store()?.db_updates();
    let feed = Feed::parse(&query)?;
    let request = Request {
        feed,
        since: since(feed.since(&query, &headers), &log)?,
        limit: query.number("limit")?.unwrap_or(u64::MAX),
        descending: query.flag("descending")?,
        waiting: Waiting::parse(&query)?,
    };
    let stopping = state.tasks.stopping().clone();
    let write = |sink| FeedWriter { sink, place, stopping, log, request, rows: 0 }.write();
    let body = answer::streamed(&state.tasks, "_db_updates", write).await?;
    Ok((StatusCode::OK, feed.headers(), body).into_response())
}

/// `0`, `now`, or a seq that was told before; `None` for `now`.
fn since(text: Option<&str>, log: &DbUpdates) -> Result<Option<u64>, ApiError> {
    match text.map(|text| text.trim_matches('"')) {
        None | Some("" | "0") => Ok(Some(0)),
        Some("now") => Ok(None),
        Some(seq) => {
            let parts = seq.split_once('-').and_then(|(seq, life)| Some((seq.parse::<u64>().ok()?, life)));
            let (number, _) =
                parts.ok_or_else(|| ApiError::bad_request("Malformed sequence supplied in 'since' parameter."))?;
            Ok(Some(if told(log, number) == seq { number } else { 0 }))
        }
    }
}

/// A seq as it is told.
fn told(log: &DbUpdates, seq: u64) -> String {
    format!("{seq}-{:016x}", log.life())
}

struct FeedWriter {
    sink: Sink,
    place: RequestPermit,
    stopping: CancellationToken,
    log: DbUpdates,
    request: Request,
    /// That were sent.
    rows: u64,
}

impl FeedWriter {
    async fn write(mut self) -> Result<(), Stopped> {
        let feed = self.request.feed;
        let mut newest = self.log.watch();
        let mut seq = self.request.since.unwrap_or_else(|| self.log.seq());
        self.sink.send(feed.opening()).await?;
        if self.request.descending {
            self.newest_first().await?;
            return self.close(self.log.seq()).await;
        }
        loop {
            // What comes after this is told in the next round: a feed that is read once ends, however fast others write.
            let until = *newest.borrow_and_update();
            seq = self.rows(seq, until).await?;
            let enough = match feed {
                _ if self.rows >= self.request.limit => true,
                Feed::Normal => true,
                Feed::Longpoll => self.rows > 0,
                Feed::Continuous | Feed::EventSource => false,
            };
            if enough {
                return self.close(seq).await;
            }
            if feed.goes_on() && self.rows == 0 {
                // So that the answer starts at all.
                self.sink.send("\n").await?;
            }
            let waiting = &self.request.waiting;
            if !waiting.update(feed, &self.sink, &self.place, &self.stopping, &mut newest).await? {
                return self.close(seq).await;
            }
        }
    }

    /// Sends the rows after `seq` up to `until`; answers after which one to go on.
    async fn rows(&mut self, mut seq: u64, until: u64) -> Result<u64, Stopped> {
        while seq < until && self.rows < self.request.limit {
            let page = self.log.since(seq, self.page());
            let page: Vec<_> = page.into_iter().take_while(|row| row.seq <= until).collect();
            let Some(last) = page.last() else { return Ok(until) };
            seq = last.seq;
            self.send(page).await?;
        }
        Ok(seq)
    }

    async fn newest_first(&mut self) -> Result<(), Stopped> {
        let mut below = u64::MAX;
        while self.rows < self.request.limit {
            let page = self.log.before(below, self.page());
            let Some(last) = page.last() else { break };
            below = last.seq;
            self.send(page).await?;
        }
        Ok(())
    }

    fn page(&self) -> usize {
        usize::try_from(self.request.limit - self.rows).map_or(PAGE, |rows| rows.min(PAGE))
    }

    async fn send(&mut self, page: Vec<DbUpdate>) -> Result<(), Stopped> {
        let feed = self.request.feed;
        let mut text = String::new();
        for row in page {
            let seq = told(&self.log, row.seq);
            let json = json!({ "db_name": row.name.as_str(), "type": type_of(row.event), "seq": seq });
            text += feed.before(self.rows);
            text += &json.to_string();
            text += &feed.after(seq);
            self.rows += 1;
        }
        self.sink.send(text).await
    }

    async fn close(&self, seq: u64) -> Result<(), Stopped> {
        let last_seq = Value::from(told(&self.log, seq));
        self.sink.send(self.request.feed.closing(&format!("\"last_seq\":{last_seq}"))).await
    }
}

fn type_of(event: DbEvent) -> &'static str {
    match event {
        DbEvent::Created => "created",
        DbEvent::Updated => "updated",
        DbEvent::Deleted => "deleted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_seq_counts_only_in_the_life_that_told_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = crate::store::Store::open(directory.path(), Default::default()).await.unwrap();
        let log = store.db_updates();
        let since = |text: &str| since(Some(text), &log).map_err(|error| error.pair().1.into_owned());
        assert_eq!(since(&told(&log, 7)), Ok(Some(7)));
        assert_eq!(since(&format!("\"{}\"", told(&log, 7))), Ok(Some(7)));
        assert_eq!((since("0"), since(""), since("now")), (Ok(Some(0)), Ok(Some(0)), Ok(None)));
        // Of another life, and of a CouchDB.
        assert_eq!(since("7-0123456789abcdef"), Ok(Some(0)));
        assert_eq!(since("12-g1AAAAE7eJzLYWBgYMlgTmEQSs4vTc5ISTJ1MDQy1zMAQsMcoBxTIkOS"), Ok(Some(0)));
        for wrong in ["x", "5", "-5", "-0123456789abcdef"] {
            assert_eq!(since(wrong), Err("Malformed sequence supplied in 'since' parameter.".into()), "{wrong}");
        }
    }
}
