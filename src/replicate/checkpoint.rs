//! Checkpoints: what both sides remember of earlier sessions, so that the next one needn't start from nothing.
//!
//! Each side keeps a log, `_local/{base id}`: the newest session's id and source seq, and a history of at most 50
//! sessions (the seed's `compare_replication_logs/2` and `do_checkpoint/1`, FACTS 3). A log is only believed where both
//! sides have it: a side that was restored from a backup, or made anew, doesn't know the newer sessions.
//!
//! A checkpoint is recorded after both sides have made everything durable. If a side's `instance_start_time` changed
//! meanwhile, it may have lost what it hadn't: then nothing is recorded, and the caller starts again from the last
//! checkpoint ([`RecordError::is_loss`]).
//!
//! # A database that was deleted and made anew
//! It has another `instance_start_time`, unless it doesn't tell one (`"0"`: CouchDB 2.0 to 3.2, PouchDB). So the log itself
//! is what such a database is known by: a new one doesn't have it. A side that says `"0"` and has no log gets one when the
//! session starts, as a checkpoint of nothing, so that each checkpoint has one before it that must be there. After
//! everything that the checkpoint vouches for was written, both logs are read again: if one isn't that
//! of the session that was read or written there last, the database is another, or somebody else replicates under the same
//! id, or a backup was restored. In each case nothing is written, and the caller starts again from what both logs have in
//! common. A side that says `"0"` is asked after its commit, and nothing but that answer says which database it is. One that
//! tells its time is asked at once with the commit, to save a round trip: if it was made anew meanwhile, the commit's time
//! is another. It takes reading: CouchDB since 2.0 checks no revision of a `_local` document (3.5.0 takes a `PUT` with `_rev`
//! `"0-3"` where there is none, and one without `_rev` over one that is there). A peer that does check, and answers 409, is
//! believed likewise; only a log with the very session that was just sent is ours, written by a try whose answer got lost.
//!
//! The window that is left: a database that says `"0"` and is deleted *and* made anew between the answer to that reading and
//! the write, one round trip later, has a checkpoint that it doesn't deserve, if it checks no revisions.
//!
//! # The history
//! Each checkpoint has a session id of its own. In the history it replaces the session's
//! checkpoints but the one before it, which is what both sides have in common where only one side's log got written: a
//! session, however long, then loses no more than its last checkpoint. A log that stands only under an
//! older version of the id is taken over: written under the newest as it is, then gone on from.

use std::collections::HashSet;
use std::time::SystemTime;

use futures::future::{join, try_join, try_join_all};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::id;
use super::loss::{RecordError, same_life};
use super::progress::{Counts, Progress};
use crate::document::{DocumentError, Seq};
use crate::json;
use crate::peer::{DatabaseInfo, LocalDoc, Peer, PeerError};
use crate::uuids;

/// Sessions kept in a history.
const HISTORY_LENGTH: usize = 50;

/// One side of a session.
#[derive(Debug)]
struct Side {
    peer: Peer,
    instance_start_time: String,
    /// The log as it must stand there; `None`: there is none.
    log: Option<KnownLog>,
}

/// A log that was read or written last.
#[derive(Debug, PartialEq)]
struct KnownLog {
    rev: String,
    /// `None` where it is damaged.
    session_id: Option<String>,
}

/// One session: from the last checkpoint that both sides know, through the checkpoints that it records.
#[derive(Debug)]
pub struct Session {
    source: Side,
    target: Side,
    /// `None` where no checkpoints are wanted.
    log_id: Option<String>,
    start_time: String,
    start_seq: Seq,
    /// What earlier sessions left, newest first.
    history: Vec<Box<RawValue>>,
    /// This session's last checkpoint, as it stands in the history.
    entry: Option<Box<RawValue>>,
    recorded_seq: Seq,
    /// The newest log, this session's or an earlier one's, without `_id` and `_rev`.
    log: Option<Box<RawValue>>,
    changed: bool,
    counted_before: Counts,
}

#[derive(Serialize)]
struct NewLog<'a> {
    session_id: &'a str,
    source_last_seq: &'a Seq,
    replication_id_version: u8,
    history: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct NewEntry<'a> {
    session_id: &'a str,
    start_time: &'a str,
    end_time: String,
    start_last_seq: &'a Seq,
    end_last_seq: &'a Seq,
    recorded_seq: &'a Seq,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug, Deserialize)]
struct Log {
    session_id: String,
    source_last_seq: Seq,
    #[serde(default)]
    history: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Entry {
    session_id: String,
    recorded_seq: Seq,
}

impl Session {
    /// Starts a session: asks both sides how they are, and reads both logs for the newest session that both know.
    ///
    /// `log_ids` are the names under which logs may stand, the one that is written first; a log found only under another
    /// is taken over. Without any, no log is read, nor written later. `since` is where to begin without a common session.
    ///
    /// # Errors
    /// [`RecordError::is_loss`] where somebody else writes a log at the same time.
    pub async fn start(
        source: (&Peer, DatabaseInfo),
        target: (&Peer, DatabaseInfo),
        log_ids: &[String],
        since: Option<Seq>,
        progress: &Progress,
    ) -> Result<Self, RecordError> {
        let (source_doc, target_doc) = match log_ids {
            [newest, older @ ..] => {
                try_join(find_log(source.0, newest, older), find_log(target.0, newest, older)).await?
            }
            [] => (None, None),
        };
        let source_log = source_doc.as_ref().and_then(|doc| parse(doc, source.0.name()));
        let target_log = target_doc.as_ref().and_then(|doc| parse(doc, target.0.name()));
        let common = match (source_log, target_log) {
            (Some(source), Some(target)) => common_ancestor(source, &target),
            _ => None,
        };
        let (start_seq, history) = common.unwrap_or_else(|| (since.unwrap_or_else(Seq::zero), Vec::new()));
        tracing::debug!(seq = start_seq.shown(), "a session starts");
        progress.started(&start_seq);
        let side = |(peer, info): (&Peer, DatabaseInfo), doc: Option<&LocalDoc>| Side {
            peer: peer.clone(),
            instance_start_time: info.instance_start_time,
            log: doc.map(|doc| KnownLog::of(doc, peer.name())),
        };
        let mut sides = (side(source, source_doc.as_ref()), side(target, target_doc.as_ref()));
        if let Some(id) = log_ids.first() {
            let session_id = uuids::random();
            let log = NewLog::new(&session_id, &start_seq, Vec::new()).text()?;
            let first = async |side: &mut Side| match side.instance_start_time == "0" && side.log.is_none() {
                true => side.put_log(id, &log, &session_id).await,
                false => Ok(()),
            };
            let (source, target) = join(first(&mut sides.0), first(&mut sides.1)).await;
            source.and(target)?;
        }
        Ok(Self {
            source: sides.0,
            target: sides.1,
            log_id: log_ids.first().cloned(),
            start_time: httpdate::fmt_http_date(SystemTime::now()),
            recorded_seq: start_seq.clone(),
            start_seq,
            history,
            entry: None,
            log: source_doc.map(|doc| doc.body),
            changed: false,
            counted_before: progress.counts(),
        })
    }

    /// The place in the feed where this session starts.
    pub fn start_seq(&self) -> &Seq {
        &self.start_seq
    }

    /// The place that a checkpoint stands for.
    pub fn recorded_seq(&self) -> &Seq {
        &self.recorded_seq
    }

    /// Records that everything up to `seq` is on the target, after both sides have made it durable.
    ///
    /// Does nothing where that was recorded already. After an error the logs of the two sides may differ, which the
    /// next session finds out.
    pub async fn record(&mut self, seq: &Seq, progress: &Progress) -> Result<(), RecordError> {
        if *seq == self.recorded_seq {
            return Ok(());
        }
        let log_id = self.log_id.as_deref();
        let (source, target) = join(self.source.committed(log_id), self.target.committed(log_id)).await;
        source.and(target)?;
        if let Some(id) = &self.log_id {
            let session_id = uuids::random();
            let counts = progress.counts().since(&self.counted_before);
            let (entry, log) = self.new_log(&session_id, seq, counts)?;
            let writing = join(self.source.put_log(id, &log, &session_id), self.target.put_log(id, &log, &session_id));
            let (source, target) = writing.await;
            source.and(target)?;
            (self.entry, self.log) = (Some(entry), Some(log));
        }
        self.changed = true;
        self.recorded_seq = seq.clone();
        progress.checkpointed(seq);
        tracing::info!(seq = seq.shown(), "checkpoint recorded");
        Ok(())
    }

    /// What the caller of a one-shot gets (FACTS 2).
    pub fn answer(&self) -> Value {
        let mut answer = Map::from_iter([("ok".to_owned(), Value::Bool(true))]);
        if self.log_id.is_none() {
            answer.insert("use_checkpoints".into(), Value::Bool(false));
            return Value::Object(answer);
        }
        if !self.changed {
            answer.insert("no_changes".into(), Value::Bool(true));
        }
        let log = self.log.as_ref().and_then(|log| serde_json::from_str::<Map<String, Value>>(log.get()).ok());
        answer.extend(log.into_iter().flatten().filter(|(key, _)| key != "_id" && key != "_rev"));
        Value::Object(answer)
    }

    /// The history's new entry, and the log that starts with it.
    fn new_log(
        &self,
        session_id: &str,
        seq: &Seq,
        counts: Counts,
    ) -> Result<(Box<RawValue>, Box<RawValue>), PeerError> {
        let entry = text(&NewEntry {
            session_id,
            start_time: &self.start_time,
            end_time: httpdate::fmt_http_date(SystemTime::now()),
            start_last_seq: &self.start_seq,
            end_last_seq: seq,
            recorded_seq: seq,
            counts,
        })?;
        let entries = std::iter::once(&entry).chain(&self.entry).chain(&self.history);
        let history = entries.map(AsRef::as_ref).take(HISTORY_LENGTH).collect();
        let log = NewLog::new(session_id, seq, history).text()?;
        Ok((entry, log))
    }
}

impl<'a> NewLog<'a> {
    fn new(session_id: &'a str, source_last_seq: &'a Seq, history: Vec<&'a RawValue>) -> Self {
        Self { session_id, source_last_seq, replication_id_version: id::NEWEST, history }
    }

    fn text(&self) -> Result<Box<RawValue>, PeerError> {
        text(self)
    }
}

impl KnownLog {
    fn of(doc: &LocalDoc, database: &str) -> Self {
        Self { rev: doc.rev.clone(), session_id: parse(doc, database).map(|log| log.session_id) }
    }

    /// Sessions tell logs from each other; damaged ones have but their revisions.
    fn is(&self, other: &Self) -> bool {
        self.session_id == other.session_id && (self.session_id.is_some() || self.rev == other.rev)
    }
}

fn text(value: &impl Serialize) -> Result<Box<RawValue>, PeerError> {
    serde_json::value::to_raw_value(value).map_err(|_| DocumentError::InvalidJson.into())
}

impl Side {
    /// Makes what was written durable, and makes sure that this is still the same database, with the same log.
    async fn committed(&self, log_id: Option<&str>) -> Result<(), RecordError> {
        let Some(id) = log_id else { return self.still_runs(&self.peer.ensure_full_commit().await?) };
        if self.instance_start_time == "0" {
            self.still_runs(&self.peer.ensure_full_commit().await?)?;
            return self.still_has_log(id).await;
        }
        let (committed, log) = join(self.peer.ensure_full_commit(), self.still_has_log(id)).await;
        let committed = committed?;
        self.still_runs(&committed)?;
        // A side that has told its time, and doesn't now, is asked as one that never does.
        if committed == "0" { self.still_has_log(id).await } else { log }
    }

    /// Compares the `instance_start_time` of a commit with that of the session's start.
    fn still_runs(&self, committed: &str) -> Result<(), RecordError> {
        match same_life(&self.instance_start_time, committed) {
            true => Ok(()),
            false => Err(RecordError::Restarted { database: self.peer.name().to_owned() }),
        }
    }

    /// Reads the log again, and compares it with what was read or written last.
    async fn still_has_log(&self, id: &str) -> Result<(), RecordError> {
        let stored = self.stored_log(id).await?;
        let same = match (&stored, &self.log) {
            (Some(stored), Some(known)) => stored.is(known),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if same { Ok(()) } else { Err(self.replaced()) }
    }

    async fn put_log(&mut self, id: &str, log: &RawValue, session_id: &str) -> Result<(), RecordError> {
        let ours = |rev| KnownLog { rev, session_id: Some(session_id.to_owned()) };
        let rev = self.log.as_ref().map(|log| log.rev.as_str());
        self.log = match self.peer.put_local_doc(id, rev, log).await {
            // The write before was done and only its answer got lost (or source and target are one database).
            Err(PeerError::Conflict) => match self.stored_log(id).await? {
                Some(stored) if stored.session_id.as_deref() == Some(session_id) => Some(stored),
                _ => return Err(self.replaced()),
            },
            written => Some(ours(written?)),
        };
        Ok(())
    }

    async fn stored_log(&self, id: &str) -> Result<Option<KnownLog>, PeerError> {
        let stored = self.peer.local_doc(id).await?;
        Ok(stored.map(|doc| KnownLog::of(&doc, self.peer.name())))
    }

    fn replaced(&self) -> RecordError {
        RecordError::Replaced { database: self.peer.name().to_owned() }
    }
}

/// Finds a database's log: the newest, else the first of the older ones, which is then written under the newest id.
async fn find_log(peer: &Peer, newest: &str, older: &[String]) -> Result<Option<LocalDoc>, PeerError> {
    if let Some(doc) = peer.local_doc(newest).await? {
        return Ok(Some(doc));
    }
    let found = try_join_all(older.iter().map(|id| peer.local_doc(id))).await?;
    let Some((old_id, doc)) = older.iter().zip(found).find_map(|(id, doc)| Some((id, doc?))) else { return Ok(None) };
    let body = without_names(&doc.body)?;
    match peer.put_local_doc(newest, None, &body).await {
        Ok(rev) => {
            tracing::info!(database = peer.name(), old_id, "took over a checkpoint of an older id version");
            Ok(Some(LocalDoc { rev, body }))
        }
        // Somebody else was faster, or source and target are one database.
        Err(PeerError::Conflict) => peer.local_doc(newest).await,
        Err(error) => Err(error),
    }
}

/// A document's text without `_id` and `_rev`.
fn without_names(doc: &RawValue) -> Result<Box<RawValue>, DocumentError> {
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
fn parse(doc: &LocalDoc, database: &str) -> Option<Log> {
    serde_json::from_str(doc.body.get())
        .inspect_err(|error| tracing::warn!(database, %error, "the checkpoint is damaged and counts as none"))
        .ok()
}

/// The seq of the newest session that both logs have, and the history from it on.
///
/// Unlike the seed's, the history keeps the common session: should a side be restored once more, it is still known.
fn common_ancestor(source: Log, target: &Log) -> Option<(Seq, Vec<Box<RawValue>>)> {
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
    use super::*;

    use crate::config::StoreSettings;
    use crate::effort::pulse::Pulse;
    use crate::peer::local::LocalPeer;
    use crate::store::{DbName, Store};

    /// A target that went away between the two writes of a checkpoint cost a long session everything: its earlier
    /// checkpoints had been replaced in the log that was written.
    #[tokio::test]
    async fn a_checkpoint_written_on_one_side_only_costs_no_more_than_itself() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), StoreSettings::default()).await.unwrap();
        let peer = |name| {
            Peer::Local(LocalPeer::new(
                store.clone(),
                DbName::parse(name).unwrap(),
                std::sync::Arc::default(),
                Pulse::default(),
            ))
        };
        let (source, target, progress) = (peer("a"), peer("b"), Progress::default());
        source.create().await.unwrap();
        target.create().await.unwrap();
        let start = async || {
            let sides = ((&source, source.info().await.unwrap()), (&target, target.info().await.unwrap()));
            Session::start(sides.0, sides.1, &["log".to_owned()], None, &progress).await.unwrap()
        };
        let mut session = start().await;
        for seq in [1, 2] {
            session.record(&Seq::from(seq), &progress).await.unwrap();
        }
        let before = target.local_doc("log").await.unwrap().unwrap();
        session.record(&Seq::from(3), &progress).await.unwrap();
        let rev = target.local_doc("log").await.unwrap().unwrap().rev;
        let body: Map<String, Value> = serde_json::from_str(before.body.get()).unwrap();
        let body = body.into_iter().filter(|(key, _)| !key.starts_with('_')).collect::<Map<_, _>>();
        let body = serde_json::value::to_raw_value(&body).unwrap();
        target.put_local_doc("log", Some(&rev), &body).await.unwrap();
        assert_eq!(start().await.start_seq(), &Seq::from(2));
    }

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
