//! Checkpoints: what both sides remember of earlier sessions, so that the next one needn't start from nothing.
//!
//! Each side keeps a log, `_local/{base id}`: the newest session's id and source seq, and a history of at most 50
//! sessions (the seed's `compare_replication_logs/2` and `do_checkpoint/1`). A log is only believed where both
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
//! is another. They must be read, since CouchDB from 2.0 on checks no revision of a `_local` document (3.5.0 takes a `PUT` with `_rev`
//! `"0-3"` if there is none, and one without `_rev` over one that is there). A peer that does check, and answers 409, is
//! believed likewise; only a log with the very session that was just sent is ours, written by a try whose answer got lost.
//!
//! A database may be made anew between these questions and the write, one round trip later: then it has a checkpoint that it
//! doesn't deserve. So one that tells its time is asked for it once more after the write; if it is another, a log of nothing
//! takes the checkpoint's place before the caller starts again, from nothing. So it does after a mere restart in that round
//! trip, which looks the same.
//!
//! If it can't be asked then, it is before the next session begins ([`unproven`]).
//!
//! The windows that are left, each a round trip wide: a database that says `"0"` and checks no revisions, made anew before the
//! write; any that is, if couchrep is killed before it has been asked after the write; and one that is made anew while a log
//! of an older id version is taken over.
//!
//! # The history
//! Each checkpoint has a session id of its own. In the history it replaces the session's
//! checkpoints but the one before it, which is what both sides have in common where only one side's log got written: a
//! session, however long, then loses no more than its last checkpoint. A log that stands only under an
//! older version of the id is taken over: written under the newest as it is, then gone on from.

mod log;
mod side;
mod unproven;

use std::time::SystemTime;

use futures::future::{join, try_join};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::time::Instant;

use self::log::{NewEntry, NewLog, common_ancestor, parse, text};
use self::side::{KnownLog, Side, find_log};
pub use self::unproven::UnprovenLogs;
use super::loss::RecordError;
use super::progress::{Counts, Progress};
use crate::document::Seq;
use crate::peer::{DatabaseInfo, LocalDoc, Peer, PeerError};
use crate::uuids;

/// Sessions kept in a history.
const HISTORY_LENGTH: usize = 50;

/// One session: from the last checkpoint that both sides know, through the checkpoints that it records.
#[derive(Debug)]
pub struct Session {
    source: Side,
    target: Side,
    /// `None` if no checkpoints are wanted.
    log_id: Option<String>,
    run: Run,
    start_seq: Seq,
    /// What earlier sessions left, newest first.
    history: Vec<Box<RawValue>>,
    /// This session's last checkpoint, as it stands in the history.
    entry: Option<Box<RawValue>>,
    recorded_seq: Seq,
    /// The newest checkpoint that both logs have; zero if there is none.
    logged_seq: Seq,
    /// The newest log, this session's or an earlier one's, without `_id` and `_rev`.
    log: Option<Box<RawValue>>,
    changed: bool,
}

/// What the history tells as one session: a session, and those that went on where it had caught up.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    start_time: String,
    start_seq: Seq,
    counted_before: Counts,
    /// Entries of it in the history: the newest, and the one before it.
    entries: usize,
}

/// Where a continuous job had caught up.
#[derive(Debug, Clone, PartialEq)]
pub struct CaughtUp {
    /// Everything up to here is on the target, or doesn't pass the filter.
    pub since: Seq,
    /// The checkpoint that both sides have. It is older where a filter let nothing through after it.
    pub recorded: Seq,
    /// The run of lives that goes on there.
    pub run: Run,
    /// When a session was there last.
    pub met: Instant,
}

/// Where a session is to begin.
#[derive(Debug, Default)]
pub struct Beginning {
    /// Without a common session.
    pub since: Option<Seq>,
    /// If the newest common session is still the one that was recorded there.
    pub caught_up: Option<CaughtUp>,
    /// Which logs aren't believed.
    pub unproven: UnprovenLogs,
}

impl Session {
    /// Starts a session: asks both sides how they are, and reads both logs for the newest session that both know.
    ///
    /// `log_ids` are the names under which logs may stand, the one that is written first; a log found only under another
    /// is taken over. Without any, no log is read, nor written later.
    ///
    /// # Errors
    /// [`RecordError::is_loss`] if somebody else writes a log at the same time.
    pub async fn start(
        source: (&Peer, DatabaseInfo),
        target: (&Peer, DatabaseInfo),
        log_ids: &[String],
        Beginning { since, caught_up, unproven }: Beginning,
        progress: &Progress,
    ) -> Result<Self, RecordError> {
        let (source_doc, target_doc) = match log_ids {
            [newest, older @ ..] => {
                try_join(find_log(source.0, newest, older), find_log(target.0, newest, older)).await?
            }
            [] => (None, None),
        };
        let read = |(peer, info): (&Peer, &DatabaseInfo), is_source, doc: &Option<LocalDoc>| {
            let is_unproven = |id: &String| unproven.is_unproven(id, is_source, &info.instance_start_time);
            let believed = doc.as_ref().filter(|_| !log_ids.first().is_some_and(is_unproven));
            believed.and_then(|doc| parse(doc, peer.name()))
        };
        let source_log = read((source.0, &source.1), true, &source_doc);
        let target_log = read((target.0, &target.1), false, &target_doc);
        let common = match (source_log, target_log) {
            (Some(source), Some(target)) => common_ancestor(source, &target),
            _ => None,
        };
        let logged_seq = common.as_ref().map_or_else(Seq::zero, |(seq, _)| seq.clone());
        let (mut entry, mut gone_on) = (None, None);
        let (start_seq, history) = match (common, caught_up) {
            (common, Some(CaughtUp { since, recorded, run, .. })) if recorded == logged_seq && !log_ids.is_empty() => {
                let mut history = common.map(|(_, history)| history).unwrap_or_default();
                entry = history.drain(..run.entries.min(history.len())).next();
                gone_on = Some(run);
                (since, history)
            }
            (Some(common), _) => common,
            (None, _) => (since.unwrap_or_else(Seq::zero), Vec::new()),
        };
        // What a filter let nothing through of isn't recorded yet.
        let recorded_seq = if gone_on.is_some() { logged_seq.clone() } else { start_seq.clone() };
        let run = gone_on.unwrap_or_else(|| Run {
            start_time: httpdate::fmt_http_date(SystemTime::now()),
            start_seq: start_seq.clone(),
            counted_before: progress.counts(),
            entries: 0,
        });
        tracing::debug!(seq = start_seq.shown(), "a session starts");
        progress.started(&start_seq);
        let side = |(peer, info): (&Peer, DatabaseInfo), is_source, doc: Option<&LocalDoc>| Side {
            peer: peer.clone(),
            is_source,
            instance_start_time: info.instance_start_time,
            log: doc.map(|doc| KnownLog::of(doc, peer.name())),
            unproven: unproven.clone(),
        };
        let mut sides = (side(source, true, source_doc.as_ref()), side(target, false, target_doc.as_ref()));
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
            run,
            recorded_seq,
            logged_seq,
            start_seq,
            history,
            entry,
            log: source_doc.map(|doc| doc.body),
            changed: false,
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

    /// Where whoever goes on from this session begins, if everything up to `since` is on the target.
    pub fn caught_up(&self, since: Seq) -> CaughtUp {
        CaughtUp { since, recorded: self.logged_seq.clone(), run: self.run.clone(), met: Instant::now() }
    }

    /// Makes sure that the source still is the database that it was when the session began.
    pub async fn source_still_stands(&self) -> Result<(), RecordError> {
        self.source.still_stands(self.log_id.as_deref()).await
    }

    /// Records that everything up to `seq` is on the target, after both sides have made it durable.
    ///
    /// Does nothing if that was recorded already. After an error the logs of the two sides may differ, which the
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
            let counts = progress.counts().since(&self.run.counted_before);
            let (entry, log) = self.new_log(&session_id, seq, counts)?;
            // Each to its end, whatever the other met.
            let writing = join(self.source.record(id, &log, &session_id), self.target.record(id, &log, &session_id));
            let (source, target) = writing.await;
            source.and(target)?;
            (self.entry, self.log) = (Some(entry), Some(log));
            self.logged_seq = seq.clone();
            self.run.entries = (self.run.entries + 1).min(2);
            progress.checkpointed(seq);
        }
        self.changed = true;
        self.recorded_seq = seq.clone();
        progress.succeeded();
        tracing::info!(seq = seq.shown(), "checkpoint recorded");
        Ok(())
    }

    /// What the caller of a one-shot gets.
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
            start_time: &self.run.start_time,
            end_time: httpdate::fmt_http_date(SystemTime::now()),
            start_last_seq: &self.run.start_seq,
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
                std::sync::Arc::new(crate::access::Caller::server_admin()),
                Pulse::default(),
            ))
        };
        let (source, target, progress) = (peer("a"), peer("b"), Progress::default());
        source.create().await.unwrap();
        target.create().await.unwrap();
        let start = async || {
            let sides = ((&source, source.info().await.unwrap()), (&target, target.info().await.unwrap()));
            Session::start(sides.0, sides.1, &["log".to_owned()], Beginning::default(), &progress).await.unwrap()
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
}
