//! Tells parked jobs of changes at their sources.
//!
//! One feed tells of all databases of a server: the store's own ([`local`]), or `_db_updates` over HTTP, one for all jobs with the same
//! credentials there ([`hub`]). A job is watched for from before its first life until it is gone, whether it is parked or not: so
//! there is no moment at which a change could be told to nobody. What a wake means for a job, [`super::schedule`] decides.
//!
//! What is promised: as long as [`Wakes::told`] says so, the jobs of a watched database are woken some time after each change of it;
//! and if the database was made anew, they are told to forget where they were. When it says so no more, all of them are woken, and wait at
//! the source themselves.

mod watched;
mod local;
mod hub;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use self::hub::Hub;
use self::watched::{HubKey, Watched, WatchedDatabase};
use super::schedule::Number;
use crate::access::Caller;
use crate::endpoint::{Endpoint, RemoteEndpoint};
use crate::policy::Policy;
use crate::replicate::Context;

pub use self::watched::{Wake, Woken};

/// Watches databases for jobs. Cheap to clone.
#[derive(Clone)]
pub struct Wakes {
    context: Context,
    watched: Watched,
    /// Held for a look at it only.
    servers: Arc<Mutex<HashMap<HubKey, Server>>>,
}

/// A server that jobs have their sources at.
struct Server {
    endpoint: RemoteEndpoint,
    policy: Policy,
    jobs: usize,
    told: Arc<AtomicBool>,
    /// Ends its hub, once that has begun.
    hub: Option<CancellationToken>,
}

impl Wakes {
    /// Nothing is watched yet.
    pub fn new(context: Context, woken: Woken) -> Self {
        Self { context, watched: Watched::new(woken), servers: Arc::default() }
    }

    /// Begins to listen to the store.
    pub fn listen(&self) {
        let Context { databases, tasks, .. } = &self.context;
        if let Some(updates) = databases.updates() {
            // Jobs come later, and read what is there.
            let (watched, since) = (self.watched.clone(), updates.seq());
            let listen = move || local::listen(watched.clone(), (updates.clone(), since));
            tasks.keep("wake jobs of local databases", listen);
        }
    }

    /// From now on a job is told of its source, if anybody can. `caller`: who asked for the job, the same one whenever it is named.
    pub fn watch(&self, job: Number, source: &Endpoint, caller: &Caller) {
        let Some((database, server)) = self.watchable(source, caller) else { return };
        if let (WatchedDatabase::Remote(key, _), Some((endpoint, policy))) = (&database, server) {
            let new = || Server { endpoint, policy, jobs: 0, told: Arc::default(), hub: None };
            self.servers().entry(*key).or_insert_with(new).jobs += 1;
        }
        self.watched.add(job, database);
    }

    /// A job is gone.
    pub fn unwatch(&self, job: Number, source: &Endpoint, caller: &Caller) {
        let Some((database, _)) = self.watchable(source, caller) else { return };
        if !self.watched.remove(job, &database) {
            return;
        }
        let WatchedDatabase::Remote(key, _) = &database else { return };
        let mut servers = self.servers();
        let Some(server) = servers.get_mut(key) else { return };
        server.jobs -= 1;
        if server.jobs == 0 {
            if let Some(hub) = &server.hub {
                hub.cancel();
            }
            servers.remove(key);
        }
    }

    /// A job has got through to its source: whoever is to listen there may begin. Not before, so that a login which is refused isn't
    /// tried for this too.
    pub fn opened(&self, source: &Endpoint, caller: &Caller) {
        let Some((WatchedDatabase::Remote(key, _), _)) = self.watchable(source, caller) else { return };
        let mut servers = self.servers();
        let Some(server) = servers.get_mut(&key).filter(|server| server.hub.is_none()) else { return };
        let stop = self.context.tasks.stopping().child_token();
        server.hub = Some(stop.clone());
        let hub = Hub {
            key,
            endpoint: server.endpoint.clone(),
            policy: server.policy.clone(),
            context: self.context.clone(),
            watched: self.watched.clone(),
            told: server.told.clone(),
        };
        self.context.tasks.keep("wake jobs of a server", move || {
            let (hub, stop) = (hub.clone(), stop.clone());
            async move { _ = stop.run_until_cancelled(hub.listen()).await }
        });
    }

    /// Whether jobs of this source are told of its changes, as it changes; `None` if nobody ever tells.
    pub fn told(&self, source: &Endpoint, caller: &Caller) -> Option<Arc<AtomicBool>> {
        match self.watchable(source, caller)?.0 {
            WatchedDatabase::Local(_) => Some(Arc::new(AtomicBool::new(true))),
            WatchedDatabase::Remote(key, _) => self.servers().get(&key).map(|server| server.told.clone()),
        }
    }

    /// The database, and its server if that isn't this one; `None` if no feed tells of it.
    fn watchable(
        &self,
        source: &Endpoint,
        caller: &Caller,
    ) -> Option<(WatchedDatabase, Option<(RemoteEndpoint, Policy)>)> {
        match source {
            Endpoint::Local(name) => Some((WatchedDatabase::Local(name.clone()), None)),
            Endpoint::Remote(remote) => {
                let policy = self.context.databases.policy(remote, caller);
                let (server, name) = remote.server()?;
                let (is_narrow, is_beside) = (policy.is_narrow(), remote.local_name.is_some());
                let key = HubKey { endpoint: server.fingerprint()?, is_narrow, is_beside };
                Some((WatchedDatabase::Remote(key, name.into()), Some((server, policy))))
            }
        }
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<HubKey, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
