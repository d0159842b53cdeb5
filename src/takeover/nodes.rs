//! CouchDB's own schedulers: how many jobs each node may run, and what they run now.
//!
//! `max_jobs` is set with `X-Couch-Persist: false`: a node that restarts is itself again. It is put, never deleted: deleting the key
//! ends the listener of the node's scheduler, which then goes on with the old value.

use bytes::Bytes;
use hyper::{Method, Request};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::beside::{AdminError, CouchDbAsAdmin, Unanswered};

/// A node runs nothing.
pub const NONE: &str = "0";
/// CouchDB's own value, where it isn't set.
pub const DEFAULT: &str = "500";
/// Of `_scheduler/jobs`; with its history each takes up to 3 KB of an answer.
const JOBS_A_PAGE: usize = 2000;

/// The nodes' schedulers.
#[derive(Clone)]
pub struct Nodes {
    couchdb: CouchDbAsAdmin,
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

    /// The names of the cluster's nodes that are up.
    pub async fn up(&self) -> Result<Vec<String>, AdminError> {
        let Membership { all_nodes, mut cluster_nodes } = self.couchdb.get("/_membership").await?;
        cluster_nodes.retain(|node| all_nodes.contains(node));
        Ok(cluster_nodes)
    }

    /// The names of the cluster's nodes.
    pub async fn all(&self) -> Result<Vec<String>, AdminError> {
        Ok(self.couchdb.get::<Membership>("/_membership").await?.cluster_nodes)
    }

    /// A node's `max_jobs`; `None` where it isn't set.
    pub async fn max_jobs(&self, node: &str) -> Result<Option<String>, AdminError> {
        match self.couchdb.get(&path(node)).await {
            Ok(value) => Ok(Some(value)),
            // Not set, and no such node, are both a 404.
            Err(AdminError::Refused { reason, .. }) if reason == "unknown_config_value" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets it. The node's scheduler follows at its next tick.
    pub async fn set_max_jobs(&self, node: &str, value: &str) -> Result<(), AdminError> {
        let path = path(node);
        let body = Bytes::from(Value::from(value).to_string());
        let request = Request::builder().method(Method::PUT).uri(&path).header("X-Couch-Persist", "false").body(body);
        let request = request.map_err(|_| Unanswered::Malformed(path))?;
        let limit = self.couchdb.upstream().settings().answer_timeout;
        self.couchdb.answer::<Value>(request, limit).await.map(drop)
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
            let page: Page = self.couchdb.get(&path).await?;
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

#[derive(Deserialize)]
struct Membership {
    all_nodes: Vec<String>,
    cluster_nodes: Vec<String>,
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
