//! One server's feed of all its databases, for all jobs with the same credentials there.
//!
//! Once the feed's place is known, the hub says that it tells of changes, and keeps to it while the server is away: the feed goes on
//! where it was, and after each break, and now and then besides, `_dbs_info` shows which changes the feed has missed. A hundred names are
//! asked for at once, and a database whose update seq isn't the one of last time has its jobs woken: in vain, if the feed has told of it,
//! which costs one request each. What `_dbs_info` doesn't know it may know again: a cluster in trouble says `not_found` of what is there.
//!
//! A server without such a feed, or one that refuses it, is asked again after a while; until then its jobs wait by themselves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::watched::{HubKey, Wake, Watched, WatchedDatabase};
use crate::document::Seq;
use crate::effort::pauses::{Pauses, jittered};
use crate::endpoint::RemoteEndpoint;
use crate::peer::PeerError;
use crate::peer::remote::server::{DatabaseUpdates, NAMES_AT_ONCE, RemoteServer};
use crate::policy::Policy;
use crate::replicate::Context;

/// Before a server that had no feed is asked again for one.
const ABSENT_PAUSE: Duration = Duration::from_secs(600);
/// A server may answer without waiting, or break off each time.
const EMPTY_PAUSE: Duration = Duration::from_millis(250);

/// Listens to one server.
#[derive(Clone)]
pub(super) struct Hub {
    pub key: HubKey,
    pub endpoint: RemoteEndpoint,
    pub policy: Policy,
    pub context: Context,
    pub watched: Watched,
    /// What is said to jobs: that they will be told of changes.
    pub told: Arc<AtomicBool>,
}

/// What is known of a server's feed.
#[derive(Default)]
struct Known {
    /// Everything up to here was told.
    since: Option<Seq>,
    /// Hashes of update seqs, as `_dbs_info` said last.
    seqs: HashMap<String, u64>,
}

impl Hub {
    /// Listens until it is dropped.
    pub(super) async fn listen(self) {
        let settings = &self.context.settings;
        let growing = || Pauses::growing(settings.restart_pause, settings.max_probe_pause);
        let mut pauses = growing();
        let mut known = Known::default();
        // Whoever listened before may have crashed.
        self.tell_no_more(&mut known);
        loop {
            let before = known.since.clone();
            let ended = self.follow(&mut known).await;
            if known.since != before {
                pauses = growing();
            }
            let pause = match ended {
                Ok(()) => {
                    tracing::info!(server = self.endpoint.name(), "the server has no feed of all databases for us");
                    self.tell_no_more(&mut known);
                    jittered(ABSENT_PAUSE)
                }
                // Its jobs will meet the same; where the feed alone is forbidden, they wait by themselves.
                Err(error @ (PeerError::WrongCredentials { .. } | PeerError::Forbidden(_))) => {
                    tracing::warn!(%error, "the feed of all databases is refused");
                    self.tell_no_more(&mut known);
                    jittered(settings.max_refused_pause)
                }
                Err(PeerError::Broken { .. }) if known.since != before => EMPTY_PAUSE,
                Err(error) => {
                    let pause = pauses.next().unwrap_or(settings.max_probe_pause);
                    let pause_ms = pause.as_millis() as u64;
                    tracing::debug!(%error, pause_ms, "the feed of all databases is asked for again");
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Follows the feed as long as it goes; `Ok` if there is none.
    async fn follow(&self, known: &mut Known) -> Result<(), PeerError> {
        let server = self.context.databases.server(self.endpoint.clone(), &self.policy).await?;
        match known.since {
            Some(_) => self.sweep(&server, known).await?,
            None => {
                let Some(now) = server.now().await? else { return Ok(()) };
                tracing::info!(server = server.name(), "listening to the feed of all databases");
                known.since = Some(now);
                self.told.store(true, Ordering::SeqCst);
            }
        }
        let mut next_sweep = Instant::now() + jittered(self.context.settings.sweep_interval);
        loop {
            let since = known.since.clone().unwrap_or_else(Seq::zero);
            let updates = tokio::time::timeout_at(next_sweep, server.updates_after(&since)).await;
            let Ok(updates) = updates else {
                self.sweep(&server, known).await?;
                next_sweep = Instant::now() + jittered(self.context.settings.sweep_interval);
                continue;
            };
            let Some(DatabaseUpdates { results, last_seq }) = updates? else { return Ok(()) };
            let stands = results.is_empty() || last_seq == since;
            self.wake(results.into_iter().map(|update| {
                let wake = if update.kind == "updated" { Wake::Changed } else { Wake::MadeAnew };
                (update.db_name, wake)
            }));
            known.since = Some(last_seq);
            if stands {
                tokio::time::sleep(EMPTY_PAUSE).await;
            }
        }
    }

    /// Wakes the jobs of databases that may have changed without the feed's telling.
    async fn sweep(&self, server: &RemoteServer, known: &mut Known) -> Result<(), PeerError> {
        let names = self.watched.names(self.key);
        let watched: HashSet<_> = names.iter().collect();
        known.seqs.retain(|name, _| watched.contains(name));
        for names in names.chunks(NAMES_AT_ONCE) {
            let seqs = match server.update_seqs(names).await {
                Ok(seqs) => seqs.unwrap_or_default(),
                // The feed will meet the same.
                Err(error @ (PeerError::Unreachable { .. } | PeerError::WrongCredentials { .. })) => return Err(error),
                // One database among them may be why; the feed goes on all the same.
                Err(error) => {
                    tracing::debug!(%error, "databases can't be asked how they are");
                    BTreeMap::new()
                }
            };
            let changed = names.iter().filter(|name| {
                // One that it doesn't tell of may be there.
                let Some(seq) = seqs.get(*name) else { return true };
                let seq = BuildHasherDefault::<DefaultHasher>::default().hash_one(seq.as_json());
                known.seqs.insert((*name).clone(), seq) != Some(seq)
            });
            self.wake(changed.map(|name| (name.clone(), Wake::Changed)));
        }
        Ok(())
    }

    /// From now on jobs wait by themselves.
    fn tell_no_more(&self, known: &mut Known) {
        known.since = None;
        if self.told.swap(false, Ordering::SeqCst) {
            self.wake(self.watched.names(self.key).into_iter().map(|name| (name, Wake::Changed)));
        }
    }

    fn wake(&self, names: impl IntoIterator<Item = (String, Wake)>) {
        let database = |(name, wake): (String, Wake)| (WatchedDatabase::Remote(self.key, name.into()), wake);
        self.watched.wake(names.into_iter().map(database));
    }
}
