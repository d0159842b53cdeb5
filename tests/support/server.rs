//! A server in this process, on a free port, with a data dir of its own.

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use couchrep::config::{Admin, Config};

use super::{Leaf, client, json, leaves};

/// A running server; its data goes with it.
pub struct Server {
    server: couchrep::server::Server,
    client: Client,
    credentials: String,
    config: Config,
    data_dir: TempDir,
}

impl Server {
    /// Starts one where everyone is admin.
    pub async fn start() -> Self {
        Self::with_config(|_| ()).await
    }

    /// Starts one with an admin, whose credentials [`Server::url`] carries.
    pub async fn with_admin(name: &str, password: &str) -> Self {
        Self::with_admin_and(name, password, |_| ()).await
    }

    /// The same, with other settings.
    pub async fn with_admin_and(name: &str, password: &str, change: impl FnOnce(&mut Config)) -> Self {
        let admin = Admin { name: name.into(), password: password.into() };
        let mut server = Self::with_config(|config| {
            config.admins.push(admin);
            change(config);
        })
        .await;
        server.credentials = format!("{name}:{password}@");
        server
    }

    /// Starts one with other settings.
    pub async fn with_config(change: impl FnOnce(&mut Config)) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let mut config = Config { listen: "127.0.0.1:0".into(), data_dir: data_dir.path().into(), ..Config::default() };
        // Hashing takes its time elsewhere.
        config.auth.iterations = 10.try_into().unwrap();
        change(&mut config);
        let server = couchrep::server::Server::start(config.clone()).await.unwrap();
        Self { server, client: client(), credentials: String::new(), config, data_dir }
    }

    /// Where it listens.
    pub fn addr(&self) -> std::net::SocketAddr {
        self.server.addr()
    }

    /// The URL of a path that starts with a slash; with credentials, if there is an admin.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{}{path}", self.credentials, self.server.addr())
    }

    /// The same, as somebody without credentials uses it.
    pub fn anonymous_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.addr())
    }

    /// A client; its connections are kept from request to request.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Reads, and asserts the status.
    #[track_caller]
    pub fn get(&self, path: &str, status: u16) -> impl Future<Output = Value> + use<> {
        json(&self.client, Method::GET, self.url(path), None, status)
    }

    /// Puts JSON, and asserts the status.
    #[track_caller]
    pub fn put(&self, path: &str, body: Value, status: u16) -> impl Future<Output = Value> + use<> {
        json(&self.client, Method::PUT, self.url(path), Some(&body), status)
    }

    /// Posts JSON, and asserts the status.
    #[track_caller]
    pub fn post(&self, path: &str, body: Value, status: u16) -> impl Future<Output = Value> + use<> {
        json(&self.client, Method::POST, self.url(path), Some(&body), status)
    }

    /// Deletes, and asserts the status.
    #[track_caller]
    pub fn delete(&self, path: &str, status: u16) -> impl Future<Output = Value> + use<> {
        json(&self.client, Method::DELETE, self.url(path), None, status)
    }

    /// Makes a database.
    pub async fn database(&self, name: &str) -> Database<'_> {
        self.put(&format!("/{name}"), Value::Null, 201).await;
        Database { server: self, name: name.into() }
    }

    /// Replicates, and asserts that it worked: 200, or 202 where it is continuous.
    #[track_caller]
    pub fn replicate(&self, body: Value) -> impl Future<Output = Value> + use<> {
        let continuous = body["continuous"] == json!(true) && body["cancel"] != json!(true);
        self.post("/_replicate", body, if continuous { 202 } else { 200 })
    }

    /// Every leaf of a database here.
    pub async fn leaves(&self, database: &str) -> Vec<Leaf> {
        leaves(&self.url(&format!("/{database}"))).await
    }

    /// Waits until `target` has every leaf of `source`, and no other.
    pub async fn until_equal(&self, source: &str, target: &str) {
        loop {
            let since = self.get(&format!("/{target}"), 200).await["update_seq"].clone();
            if self.leaves(target).await == self.leaves(source).await {
                return;
            }
            self.get(&format!("/{target}/_changes?feed=longpoll&since={since}&timeout=60000"), 200).await;
        }
    }

    /// Ends it, and starts another one with the same settings and data, on another port.
    pub async fn restart(self) -> Self {
        let Self { server, client, credentials, config, data_dir } = self;
        server.stop().await;
        let server = couchrep::server::Server::start(config.clone()).await.unwrap();
        Self { server, client, credentials, config, data_dir }
    }

    /// Where its data lie.
    pub fn data_dir(&self) -> &std::path::Path {
        self.data_dir.path()
    }

    /// Ends it as the binary would.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// A database of a test's server.
pub struct Database<'a> {
    server: &'a Server,
    name: String,
}

impl Database<'_> {
    /// Its URL, as a replication's `source` or `target`.
    pub fn url(&self) -> String {
        self.server.url(&format!("/{}", self.name))
    }

    /// Writes `count` small documents named `{prefix}0000`, `{prefix}0001`, …
    pub async fn fill(&self, prefix: &str, count: usize) {
        for first in (0..count).step_by(1000) {
            let doc = |n| json!({ "_id": format!("{prefix}{n:04}"), "n": n, "text": "x".repeat(100) });
            let docs: Vec<_> = (first..count.min(first + 1000)).map(doc).collect();
            self.server.post(&format!("/{}/_bulk_docs", self.name), json!({ "docs": docs }), 201).await;
        }
    }

    /// Every leaf.
    pub async fn leaves(&self) -> Vec<Leaf> {
        leaves(&self.url()).await
    }
}
