//! What is made for others: the dashboard, the alerts, the systemd unit, man pages and completions.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::{Value, json};

use crate::metrics::Scrape;
use crate::support::{Process, Server};

/// Generous: other tests run beside this one.
const LIMIT: Duration = Duration::from_secs(30);

/// Queries of the dashboard and of the alerts.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(include_str!("../contrib/grafana/couchrep.json")).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array());
    let shown = targets.flatten().map(|target| target["expr"].as_str().unwrap().to_owned());
    let choice = dashboard["templating"]["list"][1]["query"]["query"].as_str().unwrap().to_owned();
    let alerts = include_str!("../contrib/prometheus/alerts.yml");
    let alerts = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned);
    shown.chain([choice]).chain(alerts).collect()
}

/// The metrics that a query names.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    words.filter(|word| ["couchrep_", "couchdb_", "process_"].iter().any(|prefix| word.starts_with(prefix)))
}

/// A panel that asks for a metric which isn't there stays empty, and an alert that does never comes.
#[tokio::test]
async fn every_metric_of_the_dashboard_and_the_alerts_is_there() {
    let server = Server::start().await;
    server.database("src").await.fill("doc", 1).await;
    server.database("tgt").await;
    server.replicate(json!({ "source": "src", "target": "tgt", "continuous": true })).await;
    server.until_equal("src", "tgt").await;
    let scrape = loop {
        let scrape = Scrape::of(&server).await;
        // The document is there before it is counted.
        if scrape.text.contains("couchrep_job_lag_seconds{") {
            break scrape;
        }
    };
    let there: BTreeSet<_> = scrape.names().collect();
    let queries = queries();
    let asked: BTreeSet<_> = queries.iter().flat_map(|query| metrics(query)).collect();
    assert!(asked.len() > 30, "{asked:?}");
    // Other systems tell less of a process.
    let is_told = |name: &str| cfg!(target_os = "linux") || !name.starts_with("process_");
    let missing: Vec<_> = asked.difference(&there).filter(|name| is_told(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let told = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };
    let mut process = Process::notifying(&dir.path().join("data"), &path);
    assert_eq!(told().trim(), "READY=1");
    process.signal("TERM");
    assert_eq!(told().trim(), "STOPPING=1");
    assert_eq!(process.ended_within(LIMIT).code(), Some(0));
}

#[test]
fn man_pages_and_completions_know_every_command_and_option() {
    let dir = tempfile::tempdir().unwrap();
    let written = Process::run(&["man", dir.path().to_str().unwrap()], &[]);
    assert!(written.status.success(), "{written:?}");
    for (page, word) in
        [("couchrep", "couchrep\\-verify"), ("couchrep-serve", "metrics\\-jobs"), ("couchrep-health", "listen")]
    {
        let text = std::fs::read_to_string(dir.path().join(format!("{page}.1"))).unwrap();
        assert!(text.contains(word), "{page}: {text}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = Process::run(&["completions", shell], &[("COUCHREP_ADMIN", "root:hunter2")]);
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["metrics-jobs", "verify", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("hunter2"));
    }
}
