//! A server as a whole: what happens to which of its databases.
//!
//! `GET /_db_updates?feed=longpoll&since=…&heartbeat=…`, and `POST /_dbs_info` for a hundred names at once. CouchDB has the first for
//! admins, and only if there is a database `_global_changes`. It may lose events, and tells some of them half a second late; so
//! whoever relies on it looks at `_dbs_info` now and then.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::call::Call;
use super::judgement::Meaning;
use super::path::encode;
use super::retry::Operation;
use super::{Clients, RemotePeer};
use crate::config;
use crate::document::Seq;
use crate::effort::pulse::Pulse;
use crate::endpoint::RemoteEndpoint;
use crate::peer::PeerError;
use crate::policy::Policy;

/// A waiting feed without a sign of life for so many heartbeats is dead.
const MISSED_HEARTBEATS: u32 = 2;

/// Names that `_dbs_info` takes at once, as in CouchDB.
pub const NAMES_AT_ONCE: usize = 100;

/// A server over HTTP. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RemoteServer {
    /// Asked for what lies below the server's own URL.
    root: RemotePeer,
}

/// What happened to databases.
#[derive(Debug, Deserialize)]
pub struct DatabaseUpdates {
    /// In the order in which it happened.
    pub results: Vec<DatabaseUpdate>,
    /// Where to go on.
    pub last_seq: Seq,
}

/// What happened to one.
#[derive(Debug, Deserialize)]
pub struct DatabaseUpdate {
    /// Its name.
    pub db_name: String,
    /// `created`, `updated` or `deleted`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl RemoteServer {
    /// The server of this URL, for those who are held to this policy; nothing is sent yet.
    pub async fn new(
        clients: &Clients,
        endpoint: RemoteEndpoint,
        policy: &Policy,
        settings: Arc<config::Replicator>,
    ) -> Result<Self, PeerError> {
        Ok(Self { root: RemotePeer::new(clients, endpoint, policy, settings, Pulse::default()).await? })
    }

    /// What it is called in logs.
    pub fn name(&self) -> &str {
        self.root.name()
    }

    /// Where the feed of all databases is now; `None` if there is none, or not for us.
    pub async fn now(&self) -> Result<Option<Seq>, PeerError> {
        let call = Call::get(Operation::Changes, "_db_updates?feed=normal&since=now&limit=1");
        Ok(self.updates(&call).await?.map(|updates| updates.last_seq))
    }

    /// Waits for something to happen after `since`; `None` as above.
    ///
    /// # Errors
    /// [`PeerError::Broken`] if the wait broke off: it is to be begun again.
    pub async fn updates_after(&self, since: &Seq) -> Result<Option<DatabaseUpdates>, PeerError> {
        let heartbeat = self.root.inner.settings.heartbeat;
        let (since, beat) = (encode(&since.as_query()).to_string(), heartbeat.as_millis());
        let mut call = Call::get(Operation::Wait, format!("_db_updates?feed=longpoll&since={since}&heartbeat={beat}"));
        call.silence = Some(heartbeat * MISSED_HEARTBEATS);
        self.updates(&call).await
    }

    async fn updates(&self, call: &Call) -> Result<Option<DatabaseUpdates>, PeerError> {
        let updates = self.root.ask(call, |reply| match reply.meaning() {
            _ if reply.status == 401 => Err(self.root.not_allowed(&reply)),
            Meaning::NotThere
            | Meaning::NoDatabase
            | Meaning::NotTaken
            | Meaning::NotSupported
            | Meaning::NotAllowed => Ok(None),
            _ => self.root.expected(reply)?.json("what happened to databases").map(Some),
        });
        match updates.await {
            // A gateway's own 404 or 403.
            Err(PeerError::Answered { status: Some(403 | 404 | 405 | 501), .. }) => Ok(None),
            updates => updates,
        }
    }

    /// The update seqs of these databases, at most [`NAMES_AT_ONCE`]; those that the server doesn't know, or doesn't know now, are
    /// left out. `None` if there is no such request.
    pub async fn update_seqs(&self, names: &[String]) -> Result<Option<BTreeMap<String, Seq>>, PeerError> {
        #[derive(Deserialize)]
        struct Row {
            key: String,
            info: Option<Info>,
        }
        #[derive(Deserialize)]
        struct Info {
            update_seq: Seq,
        }
        let call = Call::post(Operation::Info, "_dbs_info", json!({ "keys": names }).to_string());
        let rows = self.root.ask(&call, |reply| match reply.meaning() {
            _ if reply.status == 401 => Err(self.root.not_allowed(&reply)),
            Meaning::NotThere
            | Meaning::NoDatabase
            | Meaning::NotTaken
            | Meaning::NotSupported
            | Meaning::NotAllowed => Ok(None),
            _ => self.root.expected(reply)?.json::<Vec<Row>>("databases' information").map(Some),
        });
        let rows = match rows.await {
            Err(PeerError::Answered { status: Some(403 | 404 | 405 | 501), .. }) => None,
            rows => rows?,
        };
        let seqs = |rows: Vec<Row>| rows.into_iter().filter_map(|row| Some((row.key, row.info?.update_seq))).collect();
        Ok(rows.map(seqs))
    }
}
