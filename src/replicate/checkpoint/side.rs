//! One side of a session: what it must still be, and the log that must still stand there.

use futures::future::{join, try_join_all};
use serde_json::value::RawValue;

use super::log::{NewLog, parse, without_names};
use super::unproven::UnprovenLogs;
use crate::document::Seq;
use crate::peer::{LocalDoc, Peer, PeerError};
use crate::replicate::loss::{RecordError, same_life};
use crate::uuids;

/// One side of a session.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) peer: Peer,
    pub(super) is_source: bool,
    pub(super) instance_start_time: String,
    /// The log as it must stand there; `None`: there is none.
    pub(super) log: Option<KnownLog>,
    pub(super) unproven: UnprovenLogs,
}

/// A log that was read or written last.
#[derive(Debug, PartialEq)]
pub(super) struct KnownLog {
    pub(super) rev: String,
    /// `None` if it is damaged.
    pub(super) session_id: Option<String>,
}

impl KnownLog {
    pub(super) fn of(doc: &LocalDoc, database: &str) -> Self {
        Self { rev: doc.rev.clone(), session_id: parse(doc, database).map(|log| log.session_id) }
    }

    /// Sessions tell logs from each other; damaged ones have but their revisions.
    fn is(&self, other: &Self) -> bool {
        self.session_id == other.session_id && (self.session_id.is_some() || self.rev == other.rev)
    }
}

impl Side {
    /// Makes what was written durable, and makes sure that this is still the same database, with the same log.
    pub(super) async fn committed(&self, log_id: Option<&str>) -> Result<(), RecordError> {
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

    /// Writes the log of a checkpoint, and makes sure that it got into the database that it vouches for.
    pub(super) async fn record(&mut self, id: &str, log: &RawValue, session_id: &str) -> Result<(), RecordError> {
        self.unproven.add(id, self.is_source, &self.instance_start_time);
        self.put_log(id, log, session_id).await?;
        let deserved = self.deserves_log(id).await;
        // Taken back, it is settled too.
        if deserved.as_ref().err().is_none_or(RecordError::is_loss) {
            self.unproven.settle(id, self.is_source);
        }
        deserved
    }

    /// Makes sure that the log was written to the database that it vouches for, or takes it back.
    async fn deserves_log(&mut self, id: &str) -> Result<(), RecordError> {
        if self.instance_start_time == "0" {
            return Ok(());
        }
        let told = self.peer.ensure_full_commit().await?;
        let Err(loss) = self.still_runs(&told) else { return Ok(()) };
        let session_id = uuids::random();
        let nothing = NewLog::new(&session_id, &Seq::zero(), Vec::new()).text()?;
        self.put_log(id, &nothing, &session_id).await?;
        Err(loss)
    }

    /// Makes sure that this is still the same database, as far as it tells, and has the same log: some tell no time, or their server's.
    pub(super) async fn still_stands(&self, log_id: Option<&str>) -> Result<(), RecordError> {
        let told = self.peer.info().await?.instance_start_time;
        self.still_runs(&told)?;
        match log_id {
            Some(id) => self.still_has_log(id).await,
            None => Ok(()),
        }
    }

    /// Compares an `instance_start_time` that was told now with that of the session's start.
    fn still_runs(&self, told: &str) -> Result<(), RecordError> {
        match same_life(&self.instance_start_time, told) {
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

    pub(super) async fn put_log(&mut self, id: &str, log: &RawValue, session_id: &str) -> Result<(), RecordError> {
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
pub(super) async fn find_log(peer: &Peer, newest: &str, older: &[String]) -> Result<Option<LocalDoc>, PeerError> {
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
