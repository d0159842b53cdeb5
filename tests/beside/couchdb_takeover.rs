//! Taking over from a real CouchDB and giving back, many times, under writes and kills; once over a job without a document, which stands
//! still meanwhile, and with a second couchrep, which is refused; every third time a node of CouchDB's is killed, too. For a CouchDB of its
//! own: nothing else may run there.
//!
//! Runs when `COUCHDB_TAKEOVER_URLS` names it (`url1,url2,…`, one for each node, an admin's credentials in each), and `COUCHDB_TAKEOVER_RESTART`
//! is a shell command that kills a node, `{n}` counted from 1, and ends when it answers again. `COUCHREP_TAKEOVER_ROUNDS` is 10.
//! Its `[replicator] interval` is set to `COUCHREP_TAKEOVER_TICK` seconds meanwhile, which is 5. It takes ten minutes or so.
//!
//! Both read and write through a peer that counts which documents they write. Each has one revision, so one that is written twice was copied
//! twice. And where a feed begins is compared with the checkpoint that stood before.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use couchrep::tasks::{self, Tasks};
use rand::RngExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{FaultyPeer, Process, client, json as ask, leaves_in_bulk};

/// How long a job may be run by both, besides a tick of CouchDB's scheduler: a heartbeat, and how coarsely this is looked at.
const BOTH: Duration = Duration::from_secs(10 + 3);
/// Until what was written last has been copied.
const PATIENCE: Duration = Duration::from_secs(180);
/// The round with a job in CouchDB that has no document, and with a second couchrep.
const OTHERS_ROUND: u64 = 2;

/// Of CouchDB's scheduler, as it is set here.
fn tick() -> Duration {
    Duration::from_secs(number("COUCHREP_TAKEOVER_TICK").unwrap_or(5))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

struct Rig {
    /// With credentials.
    urls: Vec<String>,
    restart: String,
    nodes: Vec<String>,
    dir: tempfile::TempDir,
    /// Stands before the first node: what jobs read and write goes through it.
    peer: FaultyPeer,
    /// How often each document was written to the target, by id.
    copied: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Rig {
    async fn start() -> Option<Self> {
        let urls = std::env::var("COUCHDB_TAKEOVER_URLS").ok().filter(|urls| !urls.is_empty())?;
        let urls: Vec<_> = urls.split(',').map(|url| url.trim_end_matches('/').to_owned()).collect();
        let restart = std::env::var("COUCHDB_TAKEOVER_RESTART").expect("COUCHDB_TAKEOVER_RESTART is needed");
        let dir = tempfile::tempdir().unwrap();
        let pair = urls[0].split_once("://").unwrap().1.rsplit_once('@').unwrap().0;
        std::fs::write(dir.path().join("admin"), pair).unwrap();
        let peer = FaultyPeer::before_url(without_credentials(&urls[0])).await;
        let copied = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
        let counted = copied.clone();
        peer.refuse(move |id| {
            *counted.lock().unwrap().entry(id.to_owned()).or_default() += 1;
            false
        });
        let mut rig = Self { urls, restart, nodes: Vec::new(), dir, peer, copied };
        let membership = rig.get("/_membership").await;
        rig.nodes =
            membership["cluster_nodes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().into()).collect();
        for node in 0..rig.nodes.len() {
            rig.quicken(node).await;
        }
        for path in ["/src", "/tgt", "/tgt2"] {
            _ = client().delete(rig.url(path)).send().await.unwrap();
            ask(&client(), Method::PUT, rig.url(path), None, 201).await;
        }
        Some(rig)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.urls[0])
    }

    /// The same through the peer.
    fn counted_url(&self, path: &str) -> String {
        format!("http://{}@{}", self.credentials(), self.peer.url(path).trim_start_matches("http://"))
    }

    /// Name and password.
    fn credentials(&self) -> &str {
        self.urls[0].split_once("://").unwrap().1.rsplit_once('@').unwrap().0
    }

    async fn get(&self, path: &str) -> Value {
        ask(&client(), Method::GET, self.url(path), None, 200).await
    }

    /// Has a node's scheduler tick sooner; a restart forgets it.
    async fn quicken(&self, node: usize) {
        let path = format!("/_node/{}/_config/replicator/interval", self.nodes[node]);
        let put = client()
            .put(self.url(&path))
            .header("X-Couch-Persist", "false")
            .body(format!("\"{}\"", tick().as_millis()));
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
    async fn take_over(&self, option: &'static str) -> Process {
        let (root, admin) = (self.root(), self.dir.path().join("admin"));
        let (data, log) = (self.dir.path().join("data"), self.dir.path().join("log"));
        let start = move || {
            let args = ["--couchdb", &root, "--couchdb-admin-file", admin.to_str().unwrap(), option];
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

    fn root(&self) -> String {
        without_credentials(&self.urls[0])
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

    /// Waits until a target has all that the source has now.
    async fn until_all_is_in(&self, target: &str) {
        let (start, source) = (Instant::now(), leaves_in_bulk(&self.url("/src")).await);
        loop {
            let target = leaves_in_bulk(&self.url(target)).await;
            let lacking = source.iter().filter(|leaf| target.binary_search(leaf).is_err()).count();
            if lacking == 0 {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{lacking} of {} are lacking; {}", source.len(), self.log());
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// The number in the source's seq up to which a checkpoint has been recorded.
    async fn checkpoint(&self) -> u64 {
        let put = self
            .peer
            .requests()
            .into_iter()
            .rev()
            .find_map(|seen| Some(seen.strip_prefix("PUT /tgt/_local/")?.to_owned()));
        let Some(id) = put else { return 0 };
        seq_number(self.get(&format!("/tgt/_local/{id}")).await["source_last_seq"].as_str().unwrap())
    }

    /// Documents that were written to the target more than once.
    fn copied_twice(&self) -> Vec<String> {
        let copied = self.copied.lock().unwrap();
        copied.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id.clone()).collect()
    }

    /// Where the feeds begin that were opened after so many requests: the numbers in the seqs.
    fn feeds_since(&self, before: usize) -> Vec<u64> {
        let requests = self.peer.requests();
        let feeds = requests[before..].iter().filter(|request| request.starts_with("GET /src/_changes?"));
        let since = |request: &String| {
            let query = request.split_once('?').unwrap().1.to_owned();
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(name, _)| name == "since")
                .map(|(_, since)| since.into_owned())
        };
        feeds.map(|request| since(request).map_or(0, |since| seq_number(&since))).collect()
    }
}

fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    format!("{scheme}://{}", rest.rsplit_once('@').unwrap().1)
}

/// A cluster's seq begins with the sum of its shards' numbers.
fn seq_number(seq: &str) -> u64 {
    seq.trim_matches('"').split('-').next().unwrap().parse().unwrap()
}

/// What goes on meanwhile: writes, and a look at who runs the job.
struct Meanwhile {
    tasks: Tasks,
    is_over: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    /// Where couchrep listens now.
    couchrep: Arc<Mutex<Option<String>>>,
    /// The longest time at a stretch that both were seen to run it, in milliseconds.
    both: Arc<AtomicUsize>,
    /// Who was seen to run it.
    seen: Arc<Mutex<BTreeSet<&'static str>>>,
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
    let document = json!({ "source": rig.counted_url("/src"), "target": rig.counted_url("/tgt"), "continuous": true });
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

/// What jobs read since then begins where the last checkpoint was, and not before; answers how many feeds that were.
fn goes_on_from(rig: &Rig, (checkpoint, requests): (u64, usize)) -> u64 {
    let feeds = rig.feeds_since(requests);
    assert!(feeds.iter().all(|since| *since >= checkpoint), "recorded up to {checkpoint}, and read from {feeds:?}");
    feeds.len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_and_forth_under_writes_and_kills_nothing_is_lost_nor_copied_twice_and_no_job_is_run_twice_for_long() {
    let Some(rig) = Rig::start().await else { return };
    let rounds = number("COUCHREP_TAKEOVER_ROUNDS").unwrap_or(10);
    forget(&rig).await;
    let before = rig.max_jobs().await;
    describe(&rig).await;
    let meanwhile = Meanwhile::begin(&rig);
    let random = |seconds: f64| Duration::from_secs_f64(rand::rng().random_range(0.0..seconds));
    let mut feeds = 0;
    for round in 0..rounds {
        let mut without_document = None;
        let mut place = (rig.checkpoint().await, rig.peer.requests().len());
        let before = rig.copied_twice();
        if round == OTHERS_ROUND {
            without_document = Some(begin_without_document(&rig).await);
        }
        let option = if without_document.is_some() { "--take-over=force" } else { "--take-over" };
        let process = rig.take_over(option).await;
        meanwhile.at(Some(&process));
        if round == OTHERS_ROUND {
            let told = refused(&rig, "--take-over").await;
            assert!(told.contains("and is living: stop it first"), "{told}");
        }
        sleep(random(15.0)).await;
        let killed = rand::rng().random_bool(0.5);
        let restarts = round % 3 == 1;
        if restarts {
            rig.restart(rand::rng().random_range(0..rig.nodes.len())).await;
            sleep(BOTH + tick()).await;
            assert!(rig.max_jobs().await.iter().all(|value| value == "0"), "{:?}", rig.max_jobs().await);
        }
        feeds += goes_on_from(&rig, place);
        eprintln!(
            "round {round}: {} written, {}",
            meanwhile.written.load(Ordering::Relaxed),
            if killed { "killed" } else { "stopped" }
        );
        if killed {
            process.kill();
            place = (rig.checkpoint().await, rig.peer.requests().len());
            meanwhile.at(None);
            // Else the next round repairs, which doesn't mind jobs that a dead one has suspended.
            let next_minds = round + 1 == OTHERS_ROUND;
            if next_minds || without_document.is_some() || rand::rng().random_bool(0.5) {
                let (code, told) = rig.run(&["give-back"]).await;
                assert_eq!(code, Some(0), "{told}");
            }
        } else {
            place = (rig.checkpoint().await, rig.peer.requests().len());
            let mut process = process;
            process.signal("TERM");
            let ended = tasks::blocking("ends", move || process.ended_within(Duration::from_secs(20))).await.unwrap();
            assert!(ended.success());
            meanwhile.at(None);
            assert!(rig.max_jobs().await.iter().all(|value| value != "0"), "{:?}", rig.max_jobs().await);
        }
        if let Some(job) = without_document {
            // It stood still, and goes on.
            rig.until_all_is_in("/tgt2").await;
            cancel(&rig, job).await;
        }
        sleep(random(2.0 * tick().as_secs_f64())).await;
        feeds += goes_on_from(&rig, place);
        // Nobody knows of a write that was under way at a kill whether it was done.
        assert!(killed || restarts || rig.copied_twice() == before, "{before:?}, then {:?}", rig.copied_twice());
    }
    let (code, told) = rig.run(&["give-back"]).await;
    assert_eq!(code, Some(0), "{told}");
    // Whatever was unset is the default now.
    let own: Vec<_> = before.iter().map(|value| if value == "unset" { "500" } else { value }).collect();
    let found = rig.max_jobs().await;
    assert!(found.iter().zip(own).all(|(found, own)| found == own || found == "unset"), "{found:?}");
    meanwhile.end().await;
    rig.until_all_is_in("/tgt").await;
    let (written, both) = (meanwhile.written.load(Ordering::Relaxed), meanwhile.both.load(Ordering::Relaxed));
    eprintln!(
        "{rounds} rounds, {written} documents, {} of them copied more than once, {feeds} feeds, run by both for {both} ms at most, seen: {:?}",
        rig.copied_twice().len(),
        meanwhile.seen.lock().unwrap()
    );
    assert!(feeds > rounds, "{feeds}");
    assert!(both <= usize::try_from((BOTH + tick()).as_millis()).unwrap(), "run by both for {both} ms");
    assert_eq!(meanwhile.seen.lock().unwrap().len(), 2);
    forget(&rig).await;
}

/// Has CouchDB run a job that has no document, and sees that it keeps couchrep from taking over.
async fn begin_without_document(rig: &Rig) -> Value {
    let job = json!({ "source": rig.url("/src"), "target": rig.url("/tgt2"), "continuous": true });
    ask(&client(), Method::POST, rig.url("/_replicate"), Some(&job), 202).await;
    let before = rig.max_jobs().await;
    let told = refused(rig, "--take-over").await;
    assert!(told.contains("1 of its replications can't be taken over"), "{told}");
    assert_eq!(rig.max_jobs().await, before);
    job
}

async fn cancel(rig: &Rig, mut job: Value) {
    job["cancel"] = json!(true);
    ask(&client(), Method::POST, rig.url("/_replicate"), Some(&job), 200).await;
}

/// What a couchrep says that isn't to start.
async fn refused(rig: &Rig, option: &str) -> String {
    let data = rig.dir.path().join("other");
    let (code, told) =
        rig.run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap(), option]).await;
    assert_eq!(code, Some(1), "{told}");
    told
}

/// Documents of users are theirs: what they may not do, their replications may not.
#[tokio::test]
async fn a_members_document_that_is_written_through_us_runs_with_his_rights() {
    let Some(rig) = Rig::start().await else { return };
    let user = json!({ "name": "ann-of-tests", "password": "pw", "roles": [], "type": "user" });
    // They may be there.
    _ = client().put(rig.url("/_users")).send().await;
    _ = client().put(rig.url("/_users/org.couchdb.user:ann-of-tests")).body(user.to_string()).send().await;
    let hers =
        [("/src", "ann-of-tests"), ("/tgt", "ann-of-tests"), ("/tgt2", "bob"), ("/anns%2F_replicator", "ann-of-tests")];
    _ = client().delete(rig.url("/anns%2F_replicator")).send().await;
    ask(&client(), Method::PUT, rig.url("/anns%2F_replicator"), None, 201).await;
    for (path, name) in hers {
        let security = json!({ "members": { "names": [name] }, "admins": {} });
        ask(&client(), Method::PUT, rig.url(&format!("{path}/_security")), Some(&security), 200).await;
    }
    ask(&client(), Method::PUT, rig.url("/src/doc"), Some(&json!({})), 201).await;
    let mut process = rig.take_over("--take-over").await;
    let hers = |url: String, path: &str| format!("{}{path}", url.replace("://", "://ann-of-tests:pw@"));
    for target in ["/tgt", "/tgt2"] {
        let document = json!({ "source": hers(rig.root(), "/src"), "target": hers(rig.root(), target) });
        let path = format!("/anns%2F_replicator{target}");
        ask(&client(), Method::PUT, hers(process.url(""), &path), Some(&document), 201).await;
    }
    let through = process.url("").replace("://", &format!("://{}@", rig.credentials()));
    let shown = async |id: &str, state: &str| {
        let start = Instant::now();
        loop {
            let url = format!("{through}/_scheduler/docs/anns%2F_replicator/{id}");
            let answer = client().get(url).send().await.unwrap().bytes().await.unwrap();
            let found: Value = serde_json::from_slice(&answer).unwrap();
            if found["state"] == state {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "{id} isn't {state} but {found}");
            sleep(Duration::from_millis(200)).await;
        }
    };
    shown("tgt", "completed").await;
    let done = rig.get("/anns%2F_replicator/tgt").await;
    assert_eq!((&done["owner"], &done["_replication_state"]), (&json!("ann-of-tests"), &json!("completed")));
    assert_eq!(done["_replication_stats"]["docs_written"], 1);
    let refused = shown("tgt2", "crashing").await;
    assert!(refused["info"]["error"].as_str().unwrap().contains("not allowed to access this db"), "{refused}");
    assert_eq!(rig.get("/tgt2").await["doc_count"], 0);
    process.signal("TERM");
    assert!(process.ended_within(Duration::from_secs(20)).success());
    for path in ["/anns%2F_replicator", "/src", "/tgt", "/tgt2"] {
        ask(&client(), Method::DELETE, rig.url(path), None, 200).await;
    }
}
