//! The server that runs the jobs: the binary, which is killed, stopped, suspended, and started again with what it has kept.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tempfile::TempDir;

use crate::support::{Process, signal};

/// What makes pauses short, batches many, and what nobody has asked to be synced lost in a kill.
const OPTIONS: [&str; 19] = [
    "serve",
    "--connection-timeout=1500ms",
    "--retry-time-limit=3s",
    "--retries-per-request=3",
    "--heartbeat=700ms",
    "--checkpoint-interval=50ms",
    "--restart-pause=50ms",
    "--max-restart-pause=400ms",
    "--refused-pause=100ms",
    "--max-refused-pause=400ms",
    "--max-probe-pause=400ms",
    "--sweep-interval=2s",
    "--worker-batch-size=5",
    "--worker-processes=3",
    "--stop-deadline=1s",
    "--drain-deadline=500ms",
    "--open-databases=4",
    "--cache-bytes=1MB",
    "--sync-interval=3s",
];
/// For a stop, whose deadlines together are less.
const STOPPED: Duration = Duration::from_secs(60);

/// A process that is started again with what it has kept.
pub struct Machine {
    dir: TempDir,
    options: Vec<&'static str>,
    process: Process,
    is_dead: bool,
}

impl Machine {
    pub fn start(rng: &mut StdRng) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = OPTIONS.to_vec();
        let mut maybe = |chance, more: &[&'static str]| {
            if rng.random_bool(chance) {
                options.extend_from_slice(more);
            }
        };
        // Else a local name stands for another port after each start, and its jobs have other ids.
        maybe(0.8, &["--local-address=127.0.0.1:5984"]);
        maybe(0.3, &["--update-docs=true"]);
        maybe(0.3, &["--copying-jobs=3", "--copying-jobs-per-server=2"]);
        let process = start(&dir, &options);
        Self { dir, options, process, is_dead: false }
    }

    /// Whether documents are told of passing states.
    pub fn updates_docs(&self) -> bool {
        self.options.contains(&"--update-docs=true")
    }

    pub fn url(&self, path: &str) -> String {
        self.process.url(path)
    }

    pub fn kill(&mut self) {
        self.process.kill_in_place();
        self.is_dead = true;
    }

    /// Stops it as a service manager does.
    pub async fn stop(&mut self) {
        self.process.signal("TERM");
        let ended = async {
            while !self.process.has_ended() {
                // Nothing signals a child's end without a thread of its own.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(STOPPED, ended).await.is_ok(), "it doesn't stop");
        self.is_dead = true;
    }

    /// Takes its time away: to it, the clock leaps.
    pub async fn suspend(&mut self, pause: Duration) {
        signal(self.process.id(), "STOP");
        tokio::time::sleep(pause).await;
        signal(self.process.id(), "CONT");
    }

    /// Tells whether it was dead.
    pub fn start_again_if_dead(&mut self) -> bool {
        if self.is_dead {
            self.process = start(&self.dir, &self.options);
        }
        std::mem::take(&mut self.is_dead)
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(log(&self.dir)).unwrap_or_default()
    }
}

/// Whatever fails, what it logged tells why.
impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log:\n{}", self.log());
        }
    }
}

fn start(dir: &TempDir, options: &[&str]) -> Process {
    Process::logging(&dir.path().join("data"), options, &log(dir))
}

fn log(dir: &TempDir) -> PathBuf {
    dir.path().join("log")
}
