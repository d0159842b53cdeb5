//! What happened to a job: CouchDB's events, the newest first, at most twenty.
//!
//! `added` when it was asked for, `started` with its first life and with each one after a crash or a pause, `crashed` when a life
//! failed, `stopped` when somebody pauses it. A job that had caught up and is woken hasn't started: its lives are one to whoever
//! looks at it. Reasons are readable, and never hold a credential ([`crate::replicate::ReplicateError`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// Events that are kept, as in CouchDB (`[replicator] max_history`).
const MAX_EVENTS: usize = 20;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// It was asked for.
    Added,
    /// A life began.
    Started,
    /// Somebody paused it.
    Stopped,
    /// A life failed.
    Crashed,
}

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub timestamp: SystemTime,
    /// What.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Why it crashed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub reason: Option<Arc<str>>,
}

/// The events of a job.
#[derive(Debug, Clone, Default)]
pub struct History {
    newest_first: VecDeque<Event>,
}

impl History {
    /// Something happened now.
    pub fn add(&mut self, kind: EventKind, reason: Option<Arc<str>>) {
        self.newest_first.push_front(Event { timestamp: SystemTime::now(), kind, reason });
        self.newest_first.truncate(MAX_EVENTS);
    }

    /// What happened last.
    pub fn newest(&self) -> Option<&Event> {
        self.newest_first.front()
    }

    /// Whether the newest is of this kind.
    pub fn is_newest(&self, kind: EventKind) -> bool {
        self.newest().is_some_and(|event| event.kind == kind)
    }

    /// All that is kept, the newest first.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.newest_first.iter()
    }
}

/// A time as CouchDB writes it: `2026-11-22T19:06:31Z`.
pub fn rfc3339_text(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The same of so many Unix seconds.
pub fn rfc3339_of(unix_seconds: u64) -> String {
    rfc3339_text(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds))
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339_text(*time))
}

fn text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_twenty_events_are_kept_and_shown_as_couchdb_shows_them() {
        let mut history = History::default();
        history.add(EventKind::Added, None);
        (0..30).for_each(|n| history.add(EventKind::Crashed, Some(format!("reason {n}").into())));
        assert_eq!(history.events().count(), MAX_EVENTS);
        let newest = serde_json::to_value(history.newest()).unwrap();
        assert_eq!((&newest["type"], &newest["reason"]), (&"crashed".into(), &"reason 29".into()));
        assert_eq!(rfc3339_of(1_795_374_391), "2026-11-22T19:06:31Z");
    }
}
