//! A checkpoint's log as it stands in its document: written, read, and compared with the other side's.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::document::{DocumentError, Seq};
use crate::json;
use crate::peer::{LocalDoc, PeerError};
use crate::replicate::id;
use crate::replicate::progress::Counts;

#[derive(Serialize)]
pub(super) struct NewLog<'a> {
    pub(super) session_id: &'a str,
    pub(super) source_last_seq: &'a Seq,
    pub(super) replication_id_version: u8,
    pub(super) history: Vec<&'a RawValue>,
}

#[derive(Serialize)]
pub(super) struct NewEntry<'a> {
    pub(super) session_id: &'a str,
    pub(super) start_time: &'a str,
    pub(super) end_time: String,
    pub(super) start_last_seq: &'a Seq,
    pub(super) end_last_seq: &'a Seq,
    pub(super) recorded_seq: &'a Seq,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

#[derive(Debug, Deserialize)]
pub(super) struct Log {
    pub(super) session_id: String,
    pub(super) source_last_seq: Seq,
    #[serde(default)]
    pub(super) history: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
pub(super) struct Entry {
    pub(super) session_id: String,
    pub(super) recorded_seq: Seq,
}

impl<'a> NewLog<'a> {
    pub(super) fn new(session_id: &'a str, source_last_seq: &'a Seq, history: Vec<&'a RawValue>) -> Self {
        Self { session_id, source_last_seq, replication_id_version: id::NEWEST, history }
    }

    pub(super) fn text(&self) -> Result<Box<RawValue>, PeerError> {
        text(self)
    }
}

pub(super) fn text(value: &impl Serialize) -> Result<Box<RawValue>, PeerError> {
    serde_json::value::to_raw_value(value).map_err(|_| DocumentError::InvalidJson.into())
}

/// A document's text without `_id` and `_rev`.
pub(super) fn without_names(doc: &RawValue) -> Result<Box<RawValue>, DocumentError> {
    let text = doc.get();
    let mut kept = String::with_capacity(text.len());
    for member in json::members(text.as_bytes())?.filter(|member| member.key != "_id" && member.key != "_rev") {
        kept.push(if kept.is_empty() { '{' } else { ',' });
        kept.push_str(&text[member.span]);
    }
    kept.push_str(if kept.is_empty() { "{}" } else { "}" });
    RawValue::from_string(kept).map_err(|_| DocumentError::InvalidJson)
}

/// Reads a log. A damaged one counts as none, since replicating again loses nothing.
pub(super) fn parse(doc: &LocalDoc, database: &str) -> Option<Log> {
    serde_json::from_str(doc.body.get())
        .inspect_err(|error| tracing::warn!(database, %error, "the checkpoint is damaged and counts as none"))
        .ok()
}

/// The seq of the newest session that both logs have, and the history from it on.
///
/// Unlike the seed's, the history keeps the common session: should a side be restored once more, it is still known.
pub(super) fn common_ancestor(source: Log, target: &Log) -> Option<(Seq, Vec<Box<RawValue>>)> {
    if source.session_id == target.session_id {
        return Some((source.source_last_seq, source.history));
    }
    tracing::info!("the two checkpoints differ: looking for a session that both sides know");
    let entry = |raw: &RawValue| serde_json::from_str::<Entry>(raw.get()).ok();
    let known: HashSet<String> =
        target.history.iter().filter_map(|raw| entry(raw)).map(|entry| entry.session_id).collect();
    let mut history = source.history;
    let common = history.iter().enumerate().find_map(|(index, raw)| {
        let entry = entry(raw).filter(|entry| known.contains(&entry.session_id))?;
        Some((index, entry.recorded_seq))
    });
    common.map(|(index, seq)| (seq, history.split_off(index)))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn log(session: &str, seq: u64, history: &[(&str, u64)]) -> Log {
        let history: Vec<_> =
            history.iter().map(|(id, seq)| serde_json::json!({"session_id": id, "recorded_seq": seq})).collect();
        let log = serde_json::json!({"session_id": session, "source_last_seq": seq, "history": history});
        serde_json::from_value::<Value>(log).and_then(|log| serde_json::from_str(&log.to_string())).unwrap()
    }

    fn found(source: Log, target: &Log) -> (String, Vec<String>) {
        let (seq, history) = common_ancestor(source, target).unwrap();
        let id = |raw: &RawValue| serde_json::from_str::<Entry>(raw.get()).unwrap().session_id;
        (seq.to_string(), history.iter().map(|raw| id(raw)).collect())
    }

    #[test]
    fn equal_sessions_go_on_from_the_last_seq() {
        let (source, target) = (log("c", 9, &[("c", 9), ("b", 5)]), log("c", 9, &[("c", 9)]));
        assert_eq!(found(source, &target), ("9".into(), vec!["c".into(), "b".into()]));
    }

    #[test]
    fn a_restored_target_goes_on_from_the_newest_session_that_both_know() {
        let source = log("d", 9, &[("d", 9), ("c", 7), ("b", 5), ("a", 3)]);
        let target = log("b", 5, &[("b", 5), ("a", 3)]);
        assert_eq!(found(source, &target), ("5".into(), vec!["b".into(), "a".into()]));
    }

    #[test]
    fn nothing_in_common_starts_from_nothing() {
        assert!(common_ancestor(log("d", 9, &[("d", 9)]), &log("x", 9, &[("x", 9)])).is_none());
    }

    #[test]
    fn damaged_entries_of_a_history_are_passed_over() {
        let source: Log = serde_json::from_str(
            r#"{"session_id":"d","source_last_seq":9,"history":[1,{"session_id":2},{"session_id":"a","recorded_seq":"3-x"}]}"#,
        )
        .unwrap();
        let (seq, history) = common_ancestor(source, &log("a", 3, &[("a", 3)])).unwrap();
        assert_eq!((seq.as_json(), history.len()), (r#""3-x""#, 1));
    }

    #[test]
    fn a_log_is_taken_over_without_its_names_and_otherwise_byte_for_byte() {
        let stripped =
            |text: &str| without_names(&RawValue::from_string(text.into()).unwrap()).unwrap().get().to_owned();
        assert_eq!(stripped(r#"{"_id":"_local/x","_rev":"0-3","a":1.0,"h":[ 1 ]}"#), r#"{"a":1.0,"h":[ 1 ]}"#);
        assert_eq!(stripped(r#"{"_rev":"0-3"}"#), "{}");
    }

    #[test]
    fn a_damaged_log_counts_as_none() {
        for body in [r#"{"session_id":1}"#, r#"{"session_id":"a"}"#, "[]"] {
            let body = RawValue::from_string(body.into()).unwrap();
            assert!(parse(&LocalDoc { rev: "0-1".into(), body }, "db").is_none());
        }
    }
}
