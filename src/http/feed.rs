//! What the feeds `_changes` and `_db_updates` have in common: how long they go on, and how they wait.
//!
//! Waiting costs nothing but the connection: the feed's place among the open requests is left to others. A feed that waits
//! ends cleanly at its timeout, when what it tells of is gone, and when the server stops; a client that hangs up ends it
//! too. With a heartbeat it waits for ever.

use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{APPLICATION_JSON, Sink, Stopped};
use super::error::ApiError;
use super::open_requests::RequestPermit;
use super::query::Query;

/// The longest a feed waits without a heartbeat, and the pause of `heartbeat=true`: CouchDB's `changes_timeout`.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// `Content-Type` of `feed=eventsource`.
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// How long a feed goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Until it has caught up.
    Normal,
    /// Until there is something.
    Longpoll,
    /// For ever.
    Continuous,
    /// For ever, as server-sent events.
    EventSource,
}

impl Feed {
    /// Reads `feed`.
    pub fn parse(query: &Query) -> Result<Self, ApiError> {
        match query.get("feed") {
            None | Some("normal") => Ok(Self::Normal),
            Some("longpoll") => Ok(Self::Longpoll),
            Some("continuous" | "live") => Ok(Self::Continuous),
            Some("eventsource") => Ok(Self::EventSource),
            Some(_) => {
                let types = "Supported `feed` types: normal, continuous, live, longpoll, eventsource";
                Err(ApiError::bad_request(types))
            }
        }
    }

    /// After what it goes on: where a browser's stream of events broke off, as its header says, whatever the query's `since`
    /// says; other feeds don't know that header.
    pub fn since<'a>(self, query: &'a Query, headers: &'a HeaderMap) -> Option<&'a str> {
        let broke_off = || headers.get("last-event-id")?.to_str().ok();
        let resumed = if self == Self::EventSource { broke_off() } else { None };
        resumed.or(query.get("since")).or(query.get("last-event-id"))
    }

    /// Whether it goes on after it has caught up, until it is told to end.
    pub fn goes_on(self) -> bool {
        matches!(self, Self::Continuous | Self::EventSource)
    }

    /// What says that it is still there while nothing changes.
    fn heartbeat(self) -> &'static str {
        match self {
            Self::EventSource => "event: heartbeat\ndata: \n\n",
            Self::Normal | Self::Longpoll | Self::Continuous => "\n",
        }
    }

    /// The headers of its answer.
    pub fn headers(self) -> [(HeaderName, HeaderValue); 2] {
        match self {
            Self::EventSource => [(CONTENT_TYPE, EVENT_STREAM), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))],
            _ => [(CONTENT_TYPE, APPLICATION_JSON), (CACHE_CONTROL, HeaderValue::from_static("must-revalidate"))],
        }
    }

    /// What stands before the first row.
    pub fn opening(self) -> &'static str {
        match self {
            Self::Continuous | Self::EventSource => "",
            Self::Normal | Self::Longpoll => "{\"results\":[\n",
        }
    }

    /// What stands before a row, `rows` rows after the first.
    pub fn before(self, rows: u64) -> &'static str {
        match self {
            Self::Continuous => "",
            Self::EventSource => "data: ",
            Self::Normal | Self::Longpoll if rows == 0 => "",
            Self::Normal | Self::Longpoll => ",\n",
        }
    }

    /// What stands after a row of this seq.
    pub fn after(self, seq: impl std::fmt::Display) -> String {
        match self {
            Self::Normal | Self::Longpoll => String::new(),
            Self::Continuous => "\n".into(),
            Self::EventSource => format!("\nid: {seq}\n\n"),
        }
    }

    /// What stands after the last row: these members.
    pub fn closing(self, members: &str) -> String {
        match self {
            Self::Continuous => format!("{{{members}}}\n"),
            Self::EventSource => String::new(),
            Self::Normal | Self::Longpoll => format!("\n],\n{members}}}\n"),
        }
    }
}

/// How a feed waits.
#[derive(Debug)]
pub struct Waiting {
    /// Between two signs of life of a waiting feed; with it, a feed waits for ever.
    pub heartbeat: Option<Duration>,
    /// How long a feed waits without a heartbeat.
    pub timeout: Duration,
}

impl Waiting {
    /// Reads `heartbeat` and `timeout`.
    pub fn parse(query: &Query) -> Result<Self, ApiError> {
        let timeout = query.number("timeout")?.map_or(DEFAULT_TIMEOUT, Duration::from_millis).min(DEFAULT_TIMEOUT);
        Ok(Self { heartbeat: heartbeat(query)?, timeout })
    }

    /// Waits for an update, giving signs of life, and then for a place among the open requests; `false` if the feed is over
    /// instead.
    pub async fn update(
        &self,
        feed: Feed,
        sink: &Sink,
        place: &RequestPermit,
        stopping: &CancellationToken,
        updates: &mut watch::Receiver<u64>,
    ) -> Result<bool, Stopped> {
        place.leave();
        let deadline = self.heartbeat.is_none().then(|| Instant::now() + self.timeout);
        loop {
            let next = deadline.unwrap_or_else(|| Instant::now() + self.heartbeat.unwrap_or(self.timeout));
            tokio::select! {
                biased;
                () = stopping.cancelled() => return Ok(false),
                () = sink.hung_up() => return Err(Stopped::HungUp),
                updated = updates.changed() => match updated {
                    Ok(()) => break,
                    Err(_) => return Ok(false),
                },
                () = tokio::time::sleep_until(next) => match deadline {
                    Some(_) => return Ok(false),
                    None => sink.send(feed.heartbeat()).await?,
                },
            }
        }
        tokio::select! {
            biased;
            () = stopping.cancelled() => Ok(false),
            () = sink.hung_up() => Err(Stopped::HungUp),
            () = place.take() => Ok(true),
        }
    }
}

fn heartbeat(query: &Query) -> Result<Option<Duration>, ApiError> {
    match query.get("heartbeat") {
        None | Some("false") => Ok(None),
        Some("true") => Ok(Some(DEFAULT_TIMEOUT)),
        Some(_) => match query.number("heartbeat")? {
            Some(0) => Err(ApiError::bad_request("`heartbeat` must be a positive number of milliseconds or true.")),
            pause => Ok(pause.map(Duration::from_millis)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(text: &str) -> Waiting {
        Waiting::parse(&Query::parse(text)).unwrap()
    }

    #[test]
    fn waiting_is_bounded_or_beats() {
        assert_eq!(waiting("heartbeat=true").heartbeat, Some(DEFAULT_TIMEOUT));
        assert_eq!(waiting("heartbeat=500").heartbeat, Some(Duration::from_millis(500)));
        assert_eq!(waiting("timeout=10").timeout, Duration::from_millis(10));
        assert_eq!(waiting("timeout=99999999").timeout, DEFAULT_TIMEOUT);
        let refused = Waiting::parse(&Query::parse("heartbeat=0")).unwrap_err();
        assert!(refused.pair().1.contains("positive"));
    }

    #[test]
    fn events_go_on_where_they_broke_off() {
        let since = |query: &str, id: Option<&str>| {
            let (query, mut headers) = (Query::parse(query), HeaderMap::new());
            headers.extend(id.map(|id| (HeaderName::from_static("last-event-id"), id.parse().unwrap())));
            Feed::parse(&query).unwrap().since(&query, &headers).unwrap().to_owned()
        };
        assert_eq!(since("feed=eventsource&since=3", Some("7")), "7");
        assert_eq!(since("feed=eventsource&since=3", None), "3");
        assert_eq!(since("feed=continuous&since=3", Some("7")), "3");
        assert_eq!(since("feed=eventsource&last-event-id=5", None), "5");
    }

    #[test]
    fn feeds_open_and_close_as_couchdbs_do() {
        let closing = |feed: Feed| feed.closing("\"last_seq\":7,\"pending\":2");
        assert_eq!(closing(Feed::Normal), "\n],\n\"last_seq\":7,\"pending\":2}\n");
        assert_eq!(closing(Feed::Continuous), "{\"last_seq\":7,\"pending\":2}\n");
        assert_eq!(closing(Feed::EventSource), "");
    }
}
