//! What is told to whoever watches the server: Prometheus' text, CouchDB's JSON, and whether it is up.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::asking::{Answer, get, send};
use crate::support::{Fault, FaultyPeer, Process, Server, client};

/// What a scrape told: a number for each name with its labels, as they are written.
pub struct Scrape {
    pub text: String,
    numbers: BTreeMap<String, f64>,
}

impl Scrape {
    pub async fn of(server: &Server) -> Self {
        Self::read(get(server, "/_metrics").await)
    }

    fn read(answer: Answer) -> Self {
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
        let text = answer.text().to_owned();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let numbers = lines.map(|line| {
            let (name, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), number.parse().unwrap_or_else(|_| panic!("{line}")))
        });
        Self { numbers: numbers.collect(), text }
    }

    /// The number of this name and these labels.
    #[track_caller]
    pub fn number(&self, name: &str) -> f64 {
        *self.numbers.get(name).unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }

    /// Names without labels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.numbers.keys().map(|name| name.split('{').next().unwrap())
    }

    /// The one line of this name that has all these words in its labels.
    #[track_caller]
    fn labelled(&self, name: &str, words: &[&str]) -> f64 {
        let is = |key: &&String| {
            key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
                && words.iter().all(|word| key.contains(word))
        };
        let found: Vec<_> = self.numbers.keys().filter(is).collect();
        assert_eq!(found.len(), 1, "{name} {words:?}: {}", self.text);
        self.numbers[found[0]]
    }
}

#[tokio::test]
async fn what_happened_is_told_and_each_server_tells_its_own() {
    let (server, other) = (Server::with_admin("root", "hunter2").await, Server::start().await);
    other.database("src").await.fill("doc", 3).await;
    let peer = FaultyPeer::before(&other).await;
    peer.fail(Method::GET, "/src/$", Fault::status(500));
    server.replicate(json!({ "source": peer.url("/src"), "target": "tgt", "create_target": true })).await;
    server.get("/nosuch", 404).await;
    let wrong = client().get(server.anonymous_url("/")).basic_auth("root", Some("wrong"));
    assert_eq!(send(wrong).await.status, 401);

    let scrape = Scrape::of(&server).await;
    let replicator = |name: &str| scrape.number(&format!("couchdb_couch_replicator_{name}"));
    assert_eq!(replicator("requests_total"), peer.requests().len() as f64);
    assert_eq!((replicator("responses_failure_total"), replicator("checkpoints_total")), (1.0, 1.0));
    assert_eq!(replicator("responses_total"), replicator("requests_total") - 1.0);
    assert!(replicator("connection_creates_total") >= 1.0);
    assert_eq!(replicator("checkpoints_failure_total"), 0.0);
    assert_eq!(scrape.number("couchdb_httpd_status_codes{code=\"404\"}"), 1.0);
    assert_eq!(scrape.number("couchdb_httpd_request_methods{method=\"POST\"}"), 1.0);
    assert_eq!(scrape.number("couchrep_http_requests_total{method=\"GET\",class=\"4xx\"}"), 2.0);
    assert_eq!(scrape.number("couchrep_http_request_duration_seconds_count{method=\"POST\"}"), 1.0);
    assert_eq!(scrape.number("couchrep_http_request_duration_seconds_bucket{method=\"POST\",le=\"+Inf\"}"), 1.0);
    assert_eq!(scrape.number("couchdb_document_writes_total"), 3.0);
    let databases = server.get("/_all_dbs", 200).await;
    assert_eq!(scrape.number("couchrep_store_databases"), databases.as_array().unwrap().len() as f64);
    assert!(scrape.number("couchrep_store_file_bytes") > 10_000.0);
    // Each request brings name and password; this one is counted before it is answered.
    assert_eq!(scrape.number("couchrep_logins_total{outcome=\"accepted\"}"), 3.0);
    assert_eq!(scrape.number("couchrep_logins_total{outcome=\"refused\"}"), 1.0);
    assert_eq!(scrape.number("couchdb_password_hashing_slow_total"), 2.0);
    assert_eq!(scrape.number("couchrep_memory_bytes{budget=\"replications\"}"), 0.0);
    assert_eq!(scrape.number("couchrep_memory_limit_bytes{budget=\"replications\"}"), f64::from(64 << 20));
    assert_eq!((scrape.number("couchrep_http_requests_open"), scrape.number("couchrep_ready")), (1.0, 1.0));
    assert!(scrape.number("couchrep_http_connections") >= 1.0);
    let jobs = ["total", "adds_total", "starts_total", "removes_total", "crashes_total", "stops_total"];
    let jobs = jobs.map(|name| replicator(&format!("jobs_{name}")));
    assert_eq!(jobs, [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    #[cfg(target_os = "linux")]
    assert!(scrape.number("process_resident_memory_bytes") > 1e6);

    let others = Scrape::of(&other).await;
    assert_eq!(others.number("couchdb_couch_replicator_requests_total"), 0.0);
    assert!(others.number("couchdb_httpd_requests_total") > scrape.number("couchdb_httpd_requests_total"));
}

/// Prometheus reads no metric twice, and knows what each is.
#[tokio::test]
async fn every_metric_has_its_kind_and_is_told_once() {
    let server = Server::start().await;
    let scrape = Scrape::of(&server).await;
    let lines = scrape.text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    assert_eq!(lines, scrape.numbers.len(), "a line stands there twice");
    let kinds: Vec<_> =
        scrape.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let helps = scrape.text.lines().filter(|line| line.starts_with("# HELP ")).count();
    assert_eq!(helps, kinds.len());
    for name in scrape.names() {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let count = kinds.iter().filter(|kind| [name, base].contains(*kind)).count();
        assert_eq!(count, 1, "{name}");
    }
}

#[tokio::test]
async fn a_job_is_told_with_its_names_as_long_as_it_is_there() {
    let server = Server::with_config(|config| config.http.metrics_jobs = 1).await;
    server.database("src").await.fill("doc", 2).await;
    for target in ["a", "b"] {
        server.database(target).await;
    }
    let body = |target: &str| json!({ "source": "src", "target": target, "continuous": true });
    server.replicate(body("a")).await;
    server.until_equal("src", "a").await;
    let scrape = loop {
        let scrape = Scrape::of(&server).await;
        // The document is there before it is counted.
        if scrape.text.contains("couchrep_job_lag_seconds{") {
            break scrape;
        }
    };
    let names = [&format!("source=\"http://{}/src/\"", server.addr()), "/a/\""];
    assert_eq!(scrape.labelled("couchrep_job_docs_written_total", &names), 2.0);
    assert_eq!(scrape.labelled("couchrep_job_changes_pending", &names), 0.0);
    assert_eq!(scrape.labelled("couchrep_job_state", &["state=\"running\""]), 1.0);
    assert!(scrape.labelled("couchrep_job_last_success_timestamp_seconds", &names) > 1.7e9);
    assert_eq!(scrape.number("couchrep_jobs{state=\"running\"}"), 1.0);
    assert_eq!(scrape.number("couchdb_couch_replicator_jobs_running"), 1.0);

    server.replicate(body("b")).await;
    let two = Scrape::of(&server).await;
    assert_eq!((two.number("couchrep_jobs_untold"), two.number("couchrep_jobs{state=\"running\"}")), (1.0, 2.0));
    two.labelled("couchrep_job_docs_read_total", &[]);

    for target in ["a", "b"] {
        let mut cancel = body(target);
        cancel["cancel"] = true.into();
        server.post("/_replicate", cancel, 200).await;
    }
    let none = Scrape::of(&server).await;
    assert_eq!(none.number("couchrep_jobs{state=\"running\"}"), 0.0);
    assert!(!none.text.contains("couchrep_job_docs_read_total{"), "{}", none.text);
}

#[tokio::test]
async fn a_job_that_fails_is_told_with_its_failures() {
    let server = Server::start().await;
    server.database("tgt").await;
    let job = json!({ "source": "http://127.0.0.1:1/src", "target": "tgt", "continuous": true });
    server.replicate(job).await;
    let scrape = loop {
        let scrape = Scrape::of(&server).await;
        if scrape.text.contains("couchrep_jobs_failing{state=\"crashing\"}") {
            break scrape;
        }
    };
    assert!(scrape.labelled("couchrep_job_failures", &["127.0.0.1:1"]) >= 1.0);
    assert_eq!(scrape.labelled("couchrep_job_state", &["127.0.0.1:1"]), 1.0);
    assert_eq!(scrape.number("couchrep_jobs{state=\"crashing\"}"), 1.0);
    assert_eq!(scrape.number("couchdb_couch_replicator_jobs_crashed"), 1.0);
    assert!(scrape.number("couchdb_couch_replicator_jobs_crashes_total") >= 1.0);
    assert!(scrape.number("couchrep_peer_requests_unanswered_total") >= 1.0);
    assert!(!scrape.text.contains("couchrep_job_lag_seconds{"), "nobody knows what the source has");
}

#[tokio::test]
async fn admins_and_the_role_metrics_may_read_and_nobody_else() {
    let server = Server::with_admin("root", "hunter2").await;
    for (name, roles) in [("watcher", json!(["_metrics"])), ("ann", json!(["metrics"]))] {
        let doc = json!({ "name": name, "password": "pw", "roles": roles, "type": "user" });
        server.put(&format!("/_users/org.couchdb.user:{name}"), doc, 201).await;
    }
    let node = "/_node/_local";
    let watched =
        ["/_metrics".to_owned(), format!("{node}/_prometheus"), format!("{node}/_stats"), format!("{node}/_system")];
    let closed = ["/_active_tasks".to_owned(), format!("{node}/_config"), "/_all_dbs".into(), node.into()];
    for (path, is_watched) in watched.iter().map(|path| (path, true)).chain(closed.iter().map(|path| (path, false))) {
        assert_eq!(get(&server, path).await.status, 200, "{path}");
        for (name, may) in [(None, false), (Some("ann"), false), (Some("watcher"), is_watched)] {
            let request = client().get(server.anonymous_url(path));
            let request = match name {
                Some(name) => request.basic_auth(name, Some("pw")),
                None => request,
            };
            let answer = send(request).await;
            assert_eq!(answer.status, if may { 200 } else { 401 }, "{path} {name:?}");
            if is_watched && !may {
                let reason = "You are not a server admin or read-only metrics user";
                assert_eq!(answer.json(), json!({ "error": "unauthorized", "reason": reason }));
            }
        }
    }
}

/// What couchdb-prometheus-exporter and telegraf read, in CouchDB's form; what isn't true here is missing.
#[tokio::test]
async fn exporters_of_couchdb_find_their_numbers() {
    let server = Server::start().await;
    server.database("db").await.fill("doc", 2).await;
    let stats = server.get("/_node/_local/_stats", 200).await;
    let leaf = |value: u64, desc: &str| json!({ "value": value, "type": "counter", "desc": desc });
    assert_eq!(stats["couchdb"]["httpd_request_methods"]["PUT"], leaf(1, "number of HTTP requests by method"));
    assert_eq!(stats["couchdb"]["httpd_status_codes"]["201"]["value"], 2);
    assert_eq!(stats["couchdb"]["httpd"]["bulk_requests"]["value"], 1);
    assert!(stats["couchdb"]["open_databases"]["value"].as_u64().unwrap() >= 1);
    assert_eq!(stats["couch_replicator"]["jobs"]["running"]["type"], "gauge");
    assert_eq!(stats["couch_replicator"]["checkpoints"]["success"]["value"], 0);
    assert!(stats["couchdb"].get("database_reads").is_none() && stats.get("mango").is_none());

    let part = server.get("/_node/_local/_stats/couchdb/httpd_request_methods/PUT", 200).await;
    assert_eq!(part, leaf(1, "number of HTTP requests by method"));
    let node = server.get("/_node/_local", 200).await["name"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/_node/{node}/_stats/nosuch"), 200).await, Value::Null);
    assert_eq!(server.get("/_node/another/_stats", 404).await["reason"], "no such node: another");

    let system = server.get("/_node/_local/_system", 200).await;
    assert_eq!((&system["os_proc_count"], &system["message_queues"]), (&json!(0), &json!({})));
    assert!(system["process_count"].as_u64().unwrap() > 0 && system["uptime"].is_u64());
    #[cfg(target_os = "linux")]
    assert!(system["memory"]["other"].as_u64().unwrap() > 1 << 20);
}

/// Balancers went on sending requests to a server that was about to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_so_as_long_as_it_answers() {
    let (server, other) = (Server::start().await, Server::start().await);
    server.database("src").await.fill("doc", 1).await;
    other.database("tgt").await;
    let (peer, written) = (FaultyPeer::before(&other).await, Arc::new(Notify::new()));
    peer.fail(Method::POST, "/tgt/_bulk_docs", Fault::Until(written.clone(), None));
    assert_eq!(get(&server, "/_up").await.json(), json!({ "status": "ok", "seeds": {} }));
    server.replicate(json!({ "source": "src", "target": peer.url("/tgt"), "continuous": true })).await;
    peer.saw("/tgt/_bulk_docs").await;

    let (up, root, client) = (server.url("/_up"), server.url(""), client());
    let looking = async {
        let answer = loop {
            let answer = send(client.get(&up)).await;
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!((answer.status, answer.json()["status"].clone()), (503, json!("stopping")));
        let health = Process::run(&["health", &root], &[]);
        let told = String::from_utf8(health.stderr).unwrap();
        assert_eq!(health.status.code(), Some(1));
        assert!(told.ends_with("doesn't work: it answers 503, \"stopping\"\n"), "{told}");
        written.notify_one();
    };
    tokio::join!(server.stop(), looking);
    assert_eq!(other.leaves("tgt").await.len(), 1, "what was under way was finished");
}
