//! Finds out what happens to the replicator databases of a CouchDB.
//!
//! Its `_db_updates` tells of all databases; where there is none (it needs a database `_global_changes`), they are looked at every few
//! seconds. The feed may lose events, and says nothing of what happened while nobody listened: so after each break, and now and
//! then, all of them are looked at. Looking is a list of names, and a question to each database: how far it has come, whether it was made
//! anew, and whether something was purged, which stands nowhere in its feed. The last two count as a deletion and a creation, so
//! all that was known of it is forgotten and read anew.
//!
//! A CouchDB that is away tells nothing, and nothing is made of that: jobs go on, and meet it themselves. Nor does one 404 end all jobs of a
//! database: a node may not know it yet, or again. It is gone if the feed says so too, or if it isn't there some seconds later either.
//!
//! When a database was made CouchDB says in whole seconds. So what the feed says of a creation or a deletion counts as one, though the database
//! looks as it did. It may be told twice, and long after: then jobs begin anew, and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hyper::Request;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::couchdb::{KnownDatabase, OfCouchDb};
use crate::beside::AdminError;
use crate::document::Seq;
use crate::percent;
use crate::store::{DbEvent, DbName};

/// Between two looks at all databases, if a feed tells of them meanwhile.
const SWEEP: Duration = Duration::from_secs(300);
/// The same if there is no feed, or a database can't be asked how it is.
const POLL: Duration = Duration::from_secs(5);
/// As much longer for each of them, so that many don't keep CouchDB busy.
const A_DATABASE: Duration = Duration::from_millis(50);
/// For how long CouchDB waits for something to tell.
const WAIT: Duration = Duration::from_secs(60);
/// Beyond that, for its answer.
const LATE: Duration = Duration::from_secs(30);
/// Before a CouchDB that is away is asked again.
const AWAY_PAUSE: Duration = Duration::from_secs(2);
/// Before a database that isn't there is believed to be gone: a look later, and longer than a node lags.
const GONE_AFTER: Duration = Duration::from_secs(4);
/// A feed that breaks off at once each time is asked no more often.
const EMPTY_PAUSE: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
struct Updates {
    results: Vec<Update>,
    last_seq: Seq,
}

#[derive(Deserialize)]
struct Update {
    db_name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// What the feed says of one database, as far as it isn't found out by a look.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// It was made or deleted.
    is_another: bool,
    /// It was deleted, and not made anew after that.
    is_gone: bool,
}

/// CouchDB says that a database isn't there, which isn't believed yet; or it can't be asked.
#[derive(Debug, thiserror::Error)]
enum Unseen {
    #[error("it isn't there, says CouchDB; it is asked once more")]
    Missed,
    #[error(transparent)]
    Unasked(#[from] AdminError),
}

impl OfCouchDb {
    pub(super) async fn listen(&self) {
        let mut is_away = false;
        loop {
            match self.follow().await {
                Ok(()) => is_away = false,
                Err(error) => {
                    if !std::mem::replace(&mut is_away, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "CouchDB doesn't say which documents describe replications");
                    }
                    sleep(AWAY_PAUSE).await;
                }
            }
        }
    }

    /// Looks at all databases, and then follows the feed until they are to be looked at again.
    async fn follow(&self) -> Result<(), AdminError> {
        // From before the look on. Whatever is wrong with the feed, databases can be looked at.
        let since = self.admin.get::<Updates>("/_db_updates?since=now&limit=1").await;
        let (databases, sick) = self.look().await?;
        let Updates { last_seq: mut since, .. } = match since {
            Ok(updates) if !sick => updates,
            Ok(_) | Err(AdminError::Refused { .. }) => {
                sleep(POLL.max(A_DATABASE * databases)).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let next_look = Instant::now() + SWEEP;
        while Instant::now() < next_look {
            let (at, wait_ms) = (percent::encode(&since.as_query()).to_string(), WAIT.as_millis());
            let path = format!("/_db_updates?feed=longpoll&since={at}&timeout={wait_ms}");
            let request = Request::get(&path).body(Default::default());
            let request = request.map_err(|_| crate::beside::Unanswered::Malformed(path))?;
            let updates: Updates = self.admin.answer(request, WAIT + LATE).await?;
            let stands = updates.results.is_empty();
            since = updates.last_seq;
            let mut told: BTreeMap<DbName, Told> = BTreeMap::new();
            for update in updates.results {
                let Ok(name) = DbName::parse(&update.db_name) else { continue };
                if name.is_replicator() {
                    told.entry(name).or_default().read(&update.kind);
                }
            }
            let mut is_told = true;
            for (name, told) in told {
                is_told &= self.told(name, told).await;
            }
            if !is_told {
                // All of them are looked at again.
                return Ok(());
            }
            if stands {
                sleep(EMPTY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Answers whether it is known what has happened.
    async fn told(&self, name: DbName, told: Told) -> bool {
        if !told.is_another && self.known().contains_key(&name) {
            self.updates.note(&name, DbEvent::Updated);
            return true;
        }
        self.is_seen(name, told).await
    }

    /// Finds out what has happened to all of them: how many there are, and whether one can't be asked. That one holds up no other.
    async fn look(&self) -> Result<(u32, bool), AdminError> {
        let names: Vec<String> = self.admin.list("/_all_dbs").await?;
        let mut names: BTreeSet<_> = names.iter().filter_map(|name| DbName::parse(name).ok()).collect();
        names.retain(DbName::is_replicator);
        names.extend(self.known().keys().cloned());
        let (databases, mut is_sick) = (u32::try_from(names.len()).unwrap_or(u32::MAX), false);
        for name in names {
            is_sick |= !self.is_seen(name, Told::default()).await;
        }
        Ok((databases, is_sick))
    }

    async fn is_seen(&self, name: DbName, told: Told) -> bool {
        let seen = self.look_at(name.clone(), told).await;
        if let Err(error) = &seen {
            let error = error as &dyn std::error::Error;
            tracing::warn!(db = name.as_str(), error, "a database of replications can't be asked how it is");
        }
        seen.is_ok()
    }

    async fn look_at(&self, name: DbName, told: Told) -> Result<(), Unseen> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            instance_start_time: String,
            update_seq: Value,
            #[serde(default)]
            purge_seq: Value,
        }
        if told.is_another
            && let Some(known) = self.known().get_mut(&name)
        {
            known.instance = None;
        }
        let now = self.admin.find::<Info>(&format!("/{}", percent::encode(name.as_str()))).await?;
        let (before, now) = {
            let mut known = self.known();
            let before = known.remove(&name);
            if let Some(before) =
                before.as_ref().filter(|before| now.is_none() && !told.is_gone && !before.is_long_missed())
            {
                let missed = before.missed.or_else(|| Some(Instant::now()));
                known.insert(name, KnownDatabase { missed, ..before.clone() });
                return Err(Unseen::Missed);
            }
            let now = now.map(|Info { instance_start_time, update_seq, purge_seq }| {
                let instance = Some(instance_start_time);
                // A cluster with a node down has purged less.
                let same = before.as_ref().filter(|before| before.instance == instance);
                let purged = purged(&purge_seq).max(same.map_or(0, |before| before.purged));
                KnownDatabase { instance, update_seq, purged, missed: None }
            });
            known.extend(now.clone().map(|now| (name.clone(), now)));
            (before, now)
        };
        let note = |event| self.updates.note(&name, event);
        match (before, now) {
            (None, None) => {}
            (None, Some(_)) => note(DbEvent::Created),
            (Some(_), None) => note(DbEvent::Deleted),
            (Some(before), Some(now)) if before.is_same(&now) => {
                if before.update_seq != now.update_seq {
                    note(DbEvent::Updated);
                }
            }
            (Some(_), Some(_)) => {
                note(DbEvent::Deleted);
                note(DbEvent::Created);
            }
        }
        Ok(())
    }
}

impl Told {
    fn read(&mut self, kind: &str) {
        if matches!(kind, "created" | "deleted") {
            (self.is_another, self.is_gone) = (true, kind == "deleted");
        }
    }
}

impl KnownDatabase {
    /// It isn't a single node that doesn't know it.
    fn is_long_missed(&self) -> bool {
        self.missed.is_some_and(|missed| missed.elapsed() >= GONE_AFTER)
    }

    /// Neither made anew nor purged from.
    fn is_same(&self, other: &Self) -> bool {
        self.instance == other.instance && self.purged == other.purged
    }
}

/// The number in a purge seq: `3`, or the one that a cluster's begins with. The rest of it may change at any time.
fn purged(seq: &Value) -> u64 {
    let number = |text: &str| text.split('-').next().and_then(|number| number.parse().ok());
    seq.as_u64().or_else(|| seq.as_str().and_then(number)).unwrap_or(0)
}
