//! The schedulers of a CouchDB's nodes, and the note that is left there: played as FACTS 9 has them, but that a tick comes when the test
//! says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use couchrep::tasks::Tasks;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A CouchDB.
#[derive(Clone)]
pub struct Schedulers {
    url: String,
    state: Arc<Mutex<Played>>,
    /// Serve it.
    _tasks: Tasks,
}

/// One of its nodes.
#[derive(Debug, Clone, Default)]
pub struct PlayedNode {
    /// As `_config` has it.
    pub max_jobs: Option<String>,
    /// As of its last tick.
    pub stands_still: bool,
    pub is_down: bool,
    /// It counts as up, and never answers.
    pub is_silent: bool,
}

#[derive(Default)]
pub struct Played {
    pub nodes: BTreeMap<String, PlayedNode>,
    /// Each runs on the first node that does run jobs.
    pub jobs: Vec<Value>,
    pub note: Option<Value>,
    pub is_away: bool,
    /// What is answered by an error: the beginning of `METHOD /path`.
    pub fails: Option<String>,
    /// How often that was.
    pub failed: usize,
    /// What is never answered.
    pub hangs: Option<String>,
    /// At which request the note's owner, who was paused, gives a sign of life again.
    pub wakes_at: Option<String>,
    /// What was changed, in order: `PUT /path body`.
    pub changes: Vec<String>,
}

pub const NOTE: &str = "/_replicator/_local/couchrep-takeover";

impl Schedulers {
    /// With nodes of these names, whose `max_jobs` isn't set.
    pub async fn start(nodes: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let nodes = nodes.iter().map(|name| ((*name).to_owned(), PlayedNode::default())).collect();
        let state = Arc::new(Mutex::new(Played { nodes, ..Played::default() }));
        let routes = axum::Router::new().fallback(answer).with_state(state.clone());
        let tasks = Tasks::default();
        tasks.spawn("a test's CouchDB", async move { axum::serve(listener, routes).await });
        Self { url, state, _tasks: tasks }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn state(&self) -> MutexGuard<'_, Played> {
        self.state.lock().unwrap()
    }

    pub fn set(&self, node: &str, max_jobs: Option<&str>) {
        self.state().nodes.get_mut(node).unwrap().max_jobs = max_jobs.map(str::to_owned);
    }

    pub fn max_jobs(&self, node: &str) -> Option<String> {
        self.state().nodes[node].max_jobs.clone()
    }

    /// The nodes follow their `max_jobs`.
    pub fn tick(&self) {
        for node in self.state().nodes.values_mut() {
            node.stands_still = node.max_jobs.as_deref() == Some("0");
        }
    }

    /// A node that starts is itself again.
    pub fn restart(&self, node: &str, own: Option<&str>) {
        let restarted = PlayedNode { max_jobs: own.map(str::to_owned), ..PlayedNode::default() };
        self.state().nodes.insert(node.into(), restarted);
    }
}

async fn answer(State(state): State<Arc<Mutex<Played>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path().to_owned();
    let asked = format!("{} {path}", parts.method);
    if state.lock().unwrap().is_silent(&asked) {
        return std::future::pending().await;
    }
    let mut played = state.lock().unwrap();
    let fails = played.fails.as_ref().is_some_and(|fails| asked.starts_with(fails));
    played.failed += usize::from(fails);
    if played.is_away || fails {
        return (StatusCode::INTERNAL_SERVER_ERROR, "away").into_response();
    }
    if played.wakes_at.take_if(|wakes_at| asked.starts_with(&*wakes_at)).is_some()
        && let Some(note) = &mut played.note
    {
        note["beat"] = json!(note["beat"].as_u64().unwrap() + 1);
    }
    if parts.method != Method::GET {
        let persist =
            parts.headers.get("x-couch-persist").map(|persist| format!(" persist {}", persist.to_str().unwrap()));
        let change =
            format!("{} {path}{} {}", parts.method, persist.unwrap_or_default(), String::from_utf8_lossy(&body));
        played.changes.push(change);
    }
    match played.answer(&parts.method, &path, &body) {
        Some(answer) => answer.to_string().into_response(),
        None => {
            let reason = if path.starts_with("/_node/") { "unknown_config_value" } else { "missing" };
            (StatusCode::NOT_FOUND, json!({ "error": "not_found", "reason": reason }).to_string()).into_response()
        }
    }
}

impl Played {
    fn is_silent(&self, asked: &str) -> bool {
        let of_node = |name: &str| asked.contains(&format!(" /_node/{name}/"));
        self.hangs.as_ref().is_some_and(|hangs| asked.starts_with(hangs))
            || self.nodes.iter().any(|(name, node)| node.is_silent && of_node(name))
    }

    fn answer(&mut self, method: &Method, path: &str, body: &Bytes) -> Option<Value> {
        if let Some(node) =
            path.strip_prefix("/_node/").and_then(|rest| rest.strip_suffix("/_config/replicator/max_jobs"))
        {
            let node = self.nodes.get_mut(node).filter(|node| !node.is_down)?;
            if *method == Method::PUT {
                let value = serde_json::from_slice(body).unwrap();
                return Some(node.max_jobs.replace(value).unwrap_or_default().into());
            }
            assert_eq!(method, Method::GET, "{path}");
            return node.max_jobs.clone().map(Value::from);
        }
        match (method.as_str(), path) {
            ("GET", "/_session") => Some(json!({ "ok": true, "userCtx": { "name": "root", "roles": ["_admin"] } })),
            ("GET", "/_membership") => {
                let up = self.nodes.iter().filter(|(_, node)| !node.is_down).map(|(name, _)| name);
                Some(
                    json!({ "all_nodes": up.collect::<Vec<_>>(), "cluster_nodes": self.nodes.keys().collect::<Vec<_>>() }),
                )
            }
            ("GET", "/_scheduler/jobs") => {
                let runs = self.runs();
                let mut jobs = self.jobs.clone();
                jobs.iter_mut().for_each(|job| job["pid"] = if runs { json!("<0.1.0>") } else { Value::Null });
                Some(json!({ "total_rows": jobs.len(), "offset": 0, "jobs": jobs }))
            }
            ("GET", "/_active_tasks") => {
                let running = if self.runs() { self.jobs.len() } else { 0 };
                Some(vec![json!({ "type": "replication" }); running].into())
            }
            ("GET", NOTE) => self.note.clone(),
            // As CouchDB: whatever `_rev` says.
            ("PUT", NOTE) => {
                self.note = Some(serde_json::from_slice(body).unwrap());
                Some(json!({ "ok": true, "rev": "0-1" }))
            }
            ("DELETE", NOTE) => self.note.take().map(|_| json!({ "ok": true })),
            // It has nothing else.
            _ => None,
        }
    }

    fn runs(&self) -> bool {
        self.nodes.values().any(|node| !node.stands_still && !node.is_down)
    }
}
