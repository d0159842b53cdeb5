//! CouchDB's own schedulers: how many jobs each node may run, and what they run now.
//!
//! `max_jobs` is set with `X-Couch-Persist: false`: a node that restarts is itself again. It is put, never deleted: deleting the key
//! ends the listener of the node's scheduler, which then goes on with the old value.

use bytes::Bytes;
use hyper::Request;
use hyper::http::request::Builder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::beside::{AdminError, CouchDbAsAdmin, Unanswered};

/// A node runs nothing.
pub const NONE: &str = "0";
/// CouchDB's own value, where it isn't set.
pub const DEFAULT: &str = "500";
/// Of `_scheduler/jobs`; with its history each takes some KB of an answer, a few of them far more.
const JOBS_A_PAGE: usize = 2000;

/// The nodes' schedulers.
#[derive(Clone)]
pub struct Nodes {
    couchdb: CouchDbAsAdmin,
}

/// The cluster's nodes, by name.
pub struct Members {
    /// Those that are up.
    pub up: Vec<String>,
    /// With those that are down.
    pub all: Vec<String>,
}

/// A job of CouchDB's own.
#[derive(Debug, Clone, Deserialize)]
pub struct CouchDbJob {
    database: Option<String>,
    id: String,
    pid: Option<String>,
    #[serde(default)]
    source: String,
    #[serde(default)]
    target: String,
}

impl CouchDbJob {
    /// Whether it is described by no document: it was asked for at `_replicate`.
    pub fn is_without_document(&self) -> bool {
        self.database.is_none()
    }

    /// Whether it runs now.
    pub fn runs(&self) -> bool {
        self.pid.is_some()
    }

    /// What a person knows it by.
    pub fn shown(&self) -> String {
        format!("{} ({} → {})", self.id, shown(&self.source), shown(&self.target))
    }
}

/// Without credentials.
fn shown(endpoint: &str) -> String {
    let Ok(mut url) = Url::parse(endpoint) else { return endpoint.to_owned() };
    // They fail only for URLs that have no host.
    _ = url.set_username("");
    _ = url.set_password(None);
    url.to_string()
}

impl Nodes {
    /// Those of this CouchDB.
    pub fn new(couchdb: CouchDbAsAdmin) -> Self {
        Self { couchdb }
    }

    /// The names of the cluster's nodes that are up: at least one.
    pub async fn up(&self) -> Result<Vec<String>, AdminError> {
        Ok(self.members().await?.up)
    }

    /// The names of the cluster's nodes.
    pub async fn members(&self) -> Result<Members, AdminError> {
        #[derive(Deserialize)]
        struct Membership {
            all_nodes: Vec<String>,
            cluster_nodes: Vec<String>,
        }
        const PATH: &str = "/_membership";
        let Membership { all_nodes, cluster_nodes: all } = self.ask(Request::get(PATH), Bytes::new()).await?;
        let up: Vec<_> = all.iter().filter(|node| all_nodes.contains(node)).cloned().collect();
        // Who answers is one of them. Of none, all would stand still.
        if up.is_empty() {
            return Err(Unanswered::Malformed(PATH.to_owned()).into());
        }
        Ok(Members { up, all })
    }

    /// A node's `max_jobs`; `None` where it isn't set.
    pub async fn max_jobs(&self, node: &str) -> Result<Option<String>, AdminError> {
        match self.ask(Request::get(path(node)), Bytes::new()).await {
            Ok(value) => Ok(Some(value)),
            // Not set, and no such node, are both a 404.
            Err(AdminError::Refused { reason, .. }) if reason == "unknown_config_value" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets it. The node's scheduler follows at its next tick.
    pub async fn set_max_jobs(&self, node: &str, value: &str) -> Result<(), AdminError> {
        let request = Request::put(path(node)).header("X-Couch-Persist", "false");
        self.ask::<Value>(request, Bytes::from(Value::from(value).to_string())).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(&self, request: Builder, body: Bytes) -> Result<T, AdminError> {
        let path = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        let request = request.body(body).map_err(|_| Unanswered::Malformed(path))?;
        self.couchdb.answer(request, self.couchdb.upstream().settings().takeover.node_limit).await
    }

    /// All jobs, of all nodes.
    pub async fn jobs(&self) -> Result<Vec<CouchDbJob>, AdminError> {
        #[derive(Deserialize)]
        struct Page {
            total_rows: usize,
            jobs: Vec<CouchDbJob>,
        }
        let mut jobs: Vec<CouchDbJob> = Vec::new();
        loop {
            let path = format!("/_scheduler/jobs?limit={JOBS_A_PAGE}&skip={}", jobs.len());
            let page: Page = self.couchdb.list(&path).await?;
            let is_last = page.jobs.is_empty();
            jobs.extend(page.jobs);
            if is_last || jobs.len() >= page.total_rows {
                return Ok(jobs);
            }
        }
    }

    /// Whether any replication runs there now: a smaller question than all jobs are.
    pub async fn replicate(&self) -> Result<bool, AdminError> {
        let tasks: Vec<Value> = self.couchdb.get("/_active_tasks").await?;
        Ok(tasks.iter().any(|task| task["type"] == "replication"))
    }
}

fn path(node: &str) -> String {
    format!("/_node/{node}/_config/replicator/max_jobs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_shown_without_credentials() {
        let job = serde_json::json!({
            "database": null, "id": "1f+continuous", "pid": null,
            "source": "http://ann:*****@here:5984/a/", "target": "b"
        });
        let job: CouchDbJob = serde_json::from_value(job).unwrap();
        assert_eq!(job.shown(), "1f+continuous (http://here:5984/a/ → b)");
    }
}
