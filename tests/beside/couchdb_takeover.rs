//! Taking over from a real CouchDB and giving back, many times, under writes and kills. For a CouchDB of its own: nothing else may run there.
//!
//! Runs when `COUCHDB_TAKEOVER_URLS` names it (`url1,url2,…`, one for each node, an admin's credentials in each), and `COUCHDB_TAKEOVER_RESTART`
//! is a shell command that kills a node, `{n}` counted from 1, and ends when it answers again. `COUCHREP_TAKEOVER_ROUNDS` is 10.
//! Its `[replicator] interval` is set to 5 s meanwhile. It takes ten minutes or so.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use couchrep::tasks::{self, Tasks};
use rand::RngExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Process, client, json as ask, leaves_in_bulk};

/// Of CouchDB's scheduler, as it is set here.
const TICK: Duration = Duration::from_secs(5);
/// How long a job may be run by both: a heartbeat and a tick; and how coarsely this is looked at.
const BOTH: Duration = Duration::from_secs(10 + 5 + 3);
/// Until what was written last has been copied.
const PATIENCE: Duration = Duration::from_secs(180);

struct Rig {
    /// With credentials.
    urls: Vec<String>,
    restart: String,
    nodes: Vec<String>,
    dir: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Option<Self> {
        let urls = std::env::var("COUCHDB_TAKEOVER_URLS").ok().filter(|urls| !urls.is_empty())?;
        let urls: Vec<_> = urls.split(',').map(|url| url.trim_end_matches('/').to_owned()).collect();
        let restart = std::env::var("COUCHDB_TAKEOVER_RESTART").expect("COUCHDB_TAKEOVER_RESTART is needed");
        let dir = tempfile::tempdir().unwrap();
        let pair = urls[0].split_once("://").unwrap().1.rsplit_once('@').unwrap().0;
        std::fs::write(dir.path().join("admin"), pair).unwrap();
        let mut rig = Self { urls, restart, nodes: Vec::new(), dir };
        let membership = rig.get("/_membership").await;
        rig.nodes =
            membership["cluster_nodes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().into()).collect();
        for node in 0..rig.nodes.len() {
            rig.quicken(node).await;
        }
        for path in ["/src", "/tgt"] {
            _ = client().delete(rig.url(path)).send().await.unwrap();
            ask(&client(), Method::PUT, rig.url(path), None, 201).await;
        }
        Some(rig)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.urls[0])
    }

    async fn get(&self, path: &str) -> Value {
        ask(&client(), Method::GET, self.url(path), None, 200).await
    }

    /// Has a node's scheduler tick sooner; a restart forgets it.
    async fn quicken(&self, node: usize) {
        let path = format!("/_node/{}/_config/replicator/interval", self.nodes[node]);
        let put = client().put(self.url(&path)).header("X-Couch-Persist", "false").body("\"5000\"");
        assert_eq!(put.send().await.unwrap().status(), 200);
    }

    async fn restart(&self, node: usize) {
        let command = self.restart.replace("{n}", &(node + 1).to_string());
        let run = move || assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
        tasks::blocking("restart", run).await.unwrap();
        let up = async {
            while client().get(self.url("/_membership")).send().await.is_err() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.unwrap();
        self.quicken(node).await;
    }

    /// A couchrep that takes over. A dead one's note is watched before.
    async fn take_over(&self) -> Process {
        let (root, admin) = (self.root(), self.dir.path().join("admin"));
        let (data, log) = (self.dir.path().join("data"), self.dir.path().join("log"));
        let start = move || {
            let args = ["--couchdb", &root, "--couchdb-admin-file", admin.to_str().unwrap(), "--take-over"];
            Process::logging(&data, &args, &log)
        };
        tasks::blocking("start couchrep", start).await.unwrap()
    }

    /// Runs a command of couchrep to its end: how it ended, and all that it said.
    async fn run(&self, command: &[&str]) -> (Option<i32>, String) {
        let admin = self.dir.path().join("admin").to_str().unwrap().to_owned();
        let mut args: Vec<String> = command.iter().map(|&word| word.into()).collect();
        args.extend(["--couchdb".into(), self.root(), "--couchdb-admin-file".into(), admin]);
        let run = move || Process::run(&args.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        let output = tasks::blocking("run couchrep", run).await.unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&told).into_owned())
    }

    /// Without credentials.
    fn root(&self) -> String {
        let (scheme, rest) = self.urls[0].split_once("://").unwrap();
        format!("{scheme}://{}", rest.rsplit_once('@').unwrap().1)
    }

    /// The log of all couchreps so far.
    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn max_jobs(&self) -> Vec<String> {
        let mut found = Vec::new();
        for node in &self.nodes {
            let value =
                client().get(self.url(&format!("/_node/{node}/_config/replicator/max_jobs"))).send().await.unwrap();
            let value: Value = serde_json::from_slice(&value.bytes().await.unwrap()).unwrap();
            found.push(value.as_str().unwrap_or("unset").to_owned());
        }
        found
    }

    /// Waits until all of the source is in the target.
    async fn until_equal(&self) {
        let start = Instant::now();
        loop {
            let (source, target) = (leaves_in_bulk(&self.url("/src")).await, leaves_in_bulk(&self.url("/tgt")).await);
            if source == target {
                return;
            }
            let lacking = source.len() - target.len();
            assert!(start.elapsed() < PATIENCE, "{lacking} of {} are lacking; {}", source.len(), self.log());
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// What goes on meanwhile: writes, and a look at who runs the job.
struct Meanwhile {
    tasks: Tasks,
    is_over: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    /// Where couchrep listens now.
    couchrep: Arc<std::sync::Mutex<Option<String>>>,
    /// The longest time at a stretch that both were seen to run it, in milliseconds.
    both: Arc<AtomicUsize>,
    /// Who was seen to run it.
    seen: Arc<std::sync::Mutex<BTreeSet<&'static str>>>,
}

impl Meanwhile {
    fn begin(rig: &Rig) -> Self {
        let this = Self {
            tasks: Tasks::default(),
            is_over: Arc::default(),
            written: Arc::default(),
            couchrep: Arc::default(),
            both: Arc::default(),
            seen: Arc::default(),
        };
        let (over, written, url) = (this.is_over.clone(), this.written.clone(), rig.url("/src"));
        this.tasks.spawn("writes", async move {
            while !over.load(Ordering::Relaxed) {
                let number = written.load(Ordering::Relaxed);
                let put = client().put(format!("{url}/doc-{number:06}")).body(json!({ "n": number }).to_string());
                // 409: an answer got lost.
                match put.send().await.map(|answer| answer.status().as_u16()) {
                    Ok(201 | 202 | 409) => _ = written.fetch_add(1, Ordering::Relaxed),
                    _ => sleep(Duration::from_millis(200)).await,
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        let (over, couchrep, couchdb) = (this.is_over.clone(), this.couchrep.clone(), rig.url("/_active_tasks"));
        let (both, seen) = (this.both.clone(), this.seen.clone());
        let pair = rig.urls[0].split_once("://").unwrap().1.rsplit_once('@').unwrap().0.to_owned();
        this.tasks.spawn("looks", async move {
            let mut since: Option<Instant> = None;
            while !over.load(Ordering::Relaxed) {
                let at = couchrep.lock().unwrap().clone();
                let ours = match at {
                    Some(at) => {
                        runs(&format!("{}/_active_tasks", at.replace("://", &format!("://{pair}@"))), true).await
                    }
                    None => Some(false),
                };
                // What isn't known changes nothing: whoever doesn't answer may run it.
                if let (Some(ours), Some(couchdbs)) = (ours, runs(&couchdb, false).await) {
                    let mut seen = seen.lock().unwrap();
                    _ = ours && seen.insert("couchrep");
                    _ = couchdbs && seen.insert("CouchDB");
                    since = (ours && couchdbs).then(|| since.unwrap_or_else(Instant::now));
                }
                let lasted = since.map_or(0, |since| since.elapsed().as_millis());
                both.fetch_max(usize::try_from(lasted).unwrap(), Ordering::Relaxed);
                sleep(Duration::from_millis(200)).await;
            }
        });
        this
    }

    fn at(&self, process: Option<&Process>) {
        *self.couchrep.lock().unwrap() = process.map(|process| process.url(""));
    }

    async fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        assert!(self.tasks.ended_within(PATIENCE).await);
    }
}

/// Whether a server runs the replication from `src` to `tgt`, in its own name or in CouchDB's; `None` if it doesn't answer.
async fn runs(url: &str, is_couchrep: bool) -> Option<bool> {
    let tasks = client().get(url).timeout(Duration::from_secs(3)).send().await.ok()?.bytes().await.ok()?;
    let tasks: Value = serde_json::from_slice(&tasks).ok()?;
    let runs = |task: &Value| {
        let node = task["node"].as_str().unwrap_or_default();
        task["type"] == "replication"
            && task["source"].as_str().is_some_and(|source| source.ends_with("/src/"))
            && node.starts_with("couchrep@") == is_couchrep
    };
    Some(tasks.as_array()?.iter().any(runs))
}

async fn describe(rig: &Rig) {
    let url = format!("/_replicator/takeover-{:08x}", rand::random::<u32>());
    let document = json!({ "source": rig.url("/src"), "target": rig.url("/tgt"), "continuous": true });
    ask(&client(), Method::PUT, rig.url(&url), Some(&document), 201).await;
}

async fn forget(rig: &Rig) {
    for row in rig.get("/_replicator/_all_docs").await["rows"].as_array().unwrap() {
        if row["id"].as_str().unwrap().starts_with("takeover-") {
            let path =
                format!("/_replicator/{}?rev={}", row["id"].as_str().unwrap(), row["value"]["rev"].as_str().unwrap());
            _ = client().delete(rig.url(&path)).send().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_and_forth_under_writes_and_kills_nothing_is_lost_and_no_job_is_run_twice_for_long() {
    let Some(rig) = Rig::start().await else { return };
    let rounds = std::env::var("COUCHREP_TAKEOVER_ROUNDS").map_or(10, |rounds| rounds.parse().unwrap());
    forget(&rig).await;
    let before = rig.max_jobs().await;
    describe(&rig).await;
    let meanwhile = Meanwhile::begin(&rig);
    for round in 0..rounds {
        let process = rig.take_over().await;
        meanwhile.at(Some(&process));
        sleep(Duration::from_millis(rand::rng().random_range(0..15_000))).await;
        let killed = rand::rng().random_bool(0.5);
        if round % 3 == 1 {
            rig.restart(rand::rng().random_range(0..rig.nodes.len())).await;
            sleep(BOTH).await;
            assert!(rig.max_jobs().await.iter().all(|value| value == "0"), "{:?}", rig.max_jobs().await);
        }
        eprintln!(
            "round {round}: {} written, {}",
            meanwhile.written.load(Ordering::Relaxed),
            if killed { "killed" } else { "stopped" }
        );
        if killed {
            process.kill();
            meanwhile.at(None);
            // Else the next round repairs.
            if rand::rng().random_bool(0.5) {
                let (code, told) = rig.run(&["give-back"]).await;
                assert_eq!(code, Some(0), "{told}");
            }
        } else {
            let mut process = process;
            process.signal("TERM");
            let ended = tasks::blocking("ends", move || process.ended_within(Duration::from_secs(20))).await.unwrap();
            assert!(ended.success());
            meanwhile.at(None);
            assert!(rig.max_jobs().await.iter().all(|value| value != "0"), "{:?}", rig.max_jobs().await);
        }
        sleep(2 * TICK.mul_f64(rand::rng().random_range(0.0..1.0))).await;
    }
    let (code, told) = rig.run(&["give-back"]).await;
    assert_eq!(code, Some(0), "{told}");
    // Whatever was unset is the default now.
    let own: Vec<_> = before.iter().map(|value| if value == "unset" { "500" } else { value }).collect();
    let found = rig.max_jobs().await;
    assert!(found.iter().zip(own).all(|(found, own)| found == own || found == "unset"), "{found:?}");
    meanwhile.end().await;
    rig.until_equal().await;
    let (written, both) = (meanwhile.written.load(Ordering::Relaxed), meanwhile.both.load(Ordering::Relaxed));
    eprintln!(
        "{rounds} rounds, {written} documents, run by both for {both} ms at most, seen: {:?}",
        meanwhile.seen.lock().unwrap()
    );
    assert!(both <= usize::try_from(BOTH.as_millis()).unwrap(), "run by both for {both} ms");
    assert_eq!(meanwhile.seen.lock().unwrap().len(), 2);
    forget(&rig).await;
}

#[tokio::test]
async fn beside_a_real_couchdb_a_second_couchrep_and_jobs_without_documents_are_refused() {
    let Some(rig) = Rig::start().await else { return };
    forget(&rig).await;
    let job = json!({ "source": rig.url("/src"), "target": rig.url("/tgt"), "continuous": true });
    ask(&client(), Method::POST, rig.url("/_replicate"), Some(&job), 202).await;
    let before = rig.max_jobs().await;
    let data = rig.dir.path().join("other");
    let serve = ["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap(), "--take-over"];
    let (code, told) = rig.run(&serve).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("1 of its replications can't be taken over"), "{told}");
    assert_eq!(rig.max_jobs().await, before);
    let mut cancel = job;
    cancel["cancel"] = json!(true);
    ask(&client(), Method::POST, rig.url("/_replicate"), Some(&cancel), 200).await;

    let mut process = rig.take_over().await;
    let (code, told) = rig.run(&serve).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("and is living: stop it first"), "{told}");
    process.signal("TERM");
    assert!(process.ended_within(Duration::from_secs(20)).success());
    assert!(rig.max_jobs().await.iter().all(|value| value != "0"));
}
