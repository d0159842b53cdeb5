//! Taking the replications of a CouchDB over and giving them back.

use std::time::Duration;

use couchrep::beside::{CouchDbAsAdmin, Upstream};
use couchrep::config::Config;
use couchrep::config::connection::Tls;
use couchrep::config::couchdb::{CouchDb, CouchDbAdmin, TakeOver, TakeoverTimes};
use couchrep::server::StartError;
use couchrep::takeover::{self, DocumentRunner, GivenBack, Takeover, TakeoverError};
use couchrep::tasks::Tasks;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::schedulers::{NOTE, Schedulers};
use crate::support::{Process, Server, client};

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings(url: &str) -> CouchDb {
    let millis = Duration::from_millis;
    let takeover = TakeoverTimes {
        heartbeat: millis(50),
        node_limit: millis(200),
        doubt_after: millis(1000),
        dead_after: millis(1500),
        claim_limit: millis(300),
        stand_still_patience: PATIENCE,
    };
    CouchDb { takeover, ..CouchDb::parse(url).unwrap() }
}

fn admin() -> CouchDbAdmin {
    CouchDbAdmin::parse("root:secret").unwrap()
}

fn as_admin(settings: CouchDb) -> CouchDbAsAdmin {
    CouchDbAsAdmin::new(Upstream::new(settings, &Tls::default(), Tasks::default()).unwrap(), &admin())
}

async fn begin(couchdb: &Schedulers, take_over: TakeOver) -> Result<Takeover, TakeoverError> {
    begin_with(settings(couchdb.url()), Some(take_over)).await
}

async fn begin_with(settings: CouchDb, take_over: Option<TakeOver>) -> Result<Takeover, TakeoverError> {
    let mut takeover = Takeover::new(as_admin(settings), take_over);
    takeover.begin(std::future::pending()).await.map(|()| takeover)
}

/// One that has taken over, and whose documents run.
async fn taken_over(couchdb: &Schedulers) -> Takeover {
    let takeover = begin(couchdb, TakeOver::Force).await.unwrap();
    couchdb.tick();
    until(&takeover, DocumentRunner::Us).await;
    takeover
}

/// A node had a value of its own.
async fn taken_over_from_seven() -> (Schedulers, Takeover) {
    let couchdb = Schedulers::start(&["a@h"]).await;
    couchdb.set("a@h", Some("7"));
    let takeover = taken_over(&couchdb).await;
    (couchdb, takeover)
}

/// It is gone, and can't be written anew.
fn lose_note_for_good(couchdb: &Schedulers) {
    let mut played = couchdb.state();
    (played.note, played.fails) = (None, Some(format!("PUT {NOTE}")));
}

async fn until(takeover: &Takeover, runner: DocumentRunner) {
    let mut told = takeover.runner();
    let told = timeout(PATIENCE, told.wait_for(|told| *told == runner)).await;
    assert!(told.is_ok(), "it is never {runner:?}, but {:?}", *takeover.runner().borrow());
}

/// Waits until something holds of the played CouchDB.
async fn until_it(couchdb: &Schedulers, holds: impl Fn(&super::schedulers::Played) -> bool) {
    let waiting = async {
        while !holds(&couchdb.state()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it never comes");
}

/// What a crashed couchrep leaves.
fn dead_note(max_jobs: Value) -> Value {
    json!({ "id": "dead", "host": "there", "pid": 7, "version": "0.1.0", "beat": 5, "max_jobs": max_jobs })
}

fn job(database: Value) -> Value {
    json!({ "database": database, "id": "1f", "source": "http://ann:pw@h/a/", "target": "http://h/b/" })
}

#[tokio::test]
async fn own_values_are_noted_before_they_are_set_and_put_back_at_the_end() {
    let couchdb = Schedulers::start(&["a@h", "b@h"]).await;
    couchdb.set("a@h", Some("7"));
    let takeover = taken_over(&couchdb).await;
    assert_eq!((couchdb.max_jobs("a@h"), couchdb.max_jobs("b@h")), (Some("0".into()), Some("0".into())));
    assert_eq!(couchdb.state().note.as_ref().unwrap()["max_jobs"], json!({ "a@h": "7", "b@h": null }));
    takeover.give_back(PATIENCE).await;
    assert_eq!((couchdb.max_jobs("a@h"), couchdb.max_jobs("b@h")), (Some("7".into()), Some("500".into())));
    assert_eq!(couchdb.state().note, None);
    let changes = couchdb.state().changes.clone();
    assert!(changes[0].starts_with(&format!("PUT {NOTE} ")), "{changes:?}");
    assert!(changes.last().unwrap().starts_with(&format!("DELETE {NOTE} ")), "{changes:?}");
    let mut set: Vec<_> = changes.into_iter().filter(|change| change.contains("/_config/")).collect();
    assert!(set.iter().all(|change| change.contains("max_jobs persist false \"")), "{set:?}");
    set.sort();
    assert_eq!(set.len(), 4);
}

#[tokio::test]
async fn documents_are_run_when_couchdbs_own_jobs_stand_still() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    couchdb.state().jobs = vec![job(json!("_replicator"))];
    let takeover = begin(&couchdb, TakeOver::UnlessSome).await.unwrap();
    until_it(&couchdb, |played| played.note.as_ref().unwrap()["beat"].as_u64() > Some(2)).await;
    assert_eq!(*takeover.runner().borrow(), DocumentRunner::Nobody);
    couchdb.tick();
    until(&takeover, DocumentRunner::Us).await;
    takeover.give_back(PATIENCE).await;
}

#[tokio::test]
async fn what_cant_be_taken_over_is_named_and_nothing_is_changed() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    couchdb.state().jobs = vec![job(json!("_replicator")), job(Value::Null)];
    let refused = begin(&couchdb, TakeOver::UnlessSome).await.err().unwrap().to_string();
    assert!(refused.starts_with("1 of its replications can't be taken over"), "{refused}");
    assert!(refused.contains(": 1f (http://h/a/ → http://h/b/);"), "{refused}");
    assert_eq!((couchdb.max_jobs("a@h"), couchdb.state().changes.clone()), (None, vec![]));
    taken_over(&couchdb).await.give_back(PATIENCE).await;
    assert_eq!(couchdb.max_jobs("a@h").as_deref(), Some("500"));
}

#[tokio::test]
async fn a_second_one_beside_a_living_one_refuses() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    let takeover = taken_over(&couchdb).await;
    let refused = begin(&couchdb, TakeOver::Force).await;
    assert!(matches!(refused, Err(TakeoverError::Living(_))));
    let refused = takeover::give_back(as_admin(settings(couchdb.url()))).await;
    assert!(matches!(refused, Err(TakeoverError::Living(_))));
    assert_eq!((*takeover.runner().borrow(), couchdb.max_jobs("a@h").as_deref()), (DocumentRunner::Us, Some("0")));
    takeover.give_back(PATIENCE).await;
}

/// A crash leaves zeros, and the zeros aren't the nodes' own.
#[tokio::test]
async fn a_dead_ones_note_says_what_is_to_be_put_back() {
    let couchdb = Schedulers::start(&["a@h", "b@h", "c@h"]).await;
    for (node, found) in [("a@h", Some("0")), ("b@h", Some("0")), ("c@h", Some("9"))] {
        couchdb.set(node, found);
    }
    couchdb.state().note = Some(dead_note(json!({ "a@h": "7", "b@h": null, "c@h": "8" })));
    let takeover = taken_over(&couchdb).await;
    // The third has restarted since, with a value of its own.
    assert_eq!(couchdb.state().note.as_ref().unwrap()["max_jobs"], json!({ "a@h": "7", "b@h": null, "c@h": "9" }));
    takeover.give_back(PATIENCE).await;
    let found = ["a@h", "b@h", "c@h"].map(|node| couchdb.max_jobs(node).unwrap());
    assert_eq!(found, ["7", "500", "9"]);
}

/// To refuse would leave all of them to nobody.
#[tokio::test]
async fn after_a_crash_what_it_had_suspended_is_no_reason_to_refuse() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    couchdb.set("a@h", Some("0"));
    couchdb.state().jobs = vec![job(Value::Null)];
    couchdb.state().note = Some(dead_note(json!({ "a@h": null })));
    let takeover = begin(&couchdb, TakeOver::UnlessSome).await.unwrap();
    takeover.give_back(PATIENCE).await;
    assert_eq!(couchdb.max_jobs("a@h").as_deref(), Some("500"));
}

#[tokio::test]
async fn one_of_two_that_start_at_once_takes_over() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    couchdb.set("a@h", Some("7"));
    let (one, other) = tokio::join!(begin(&couchdb, TakeOver::Force), begin(&couchdb, TakeOver::Force));
    assert_ne!(one.is_ok(), other.is_ok());
    let refused = if one.is_ok() { other.as_ref().err() } else { one.as_ref().err() };
    assert!(matches!(refused, Some(TakeoverError::LostRace(_) | TakeoverError::Living(_))), "{refused:?}");
    let takeover = one.or(other).unwrap_or_else(|_| unreachable!());
    couchdb.tick();
    until(&takeover, DocumentRunner::Us).await;
    takeover.give_back(PATIENCE).await;
    assert_eq!((couchdb.max_jobs("a@h").as_deref(), &couchdb.state().note), (Some("7"), &None));
}

#[tokio::test]
async fn nodes_that_restart_or_join_are_set_anew_and_get_their_own_values_back() {
    let couchdb = Schedulers::start(&["a@h", "b@h"]).await;
    couchdb.set("a@h", Some("7"));
    let takeover = taken_over(&couchdb).await;
    couchdb.restart("a@h", Some("8"));
    couchdb.restart("b@h", None);
    couchdb.restart("c@h", Some("9"));
    until_it(&couchdb, |played| played.nodes.values().all(|node| node.max_jobs.as_deref() == Some("0"))).await;
    assert_eq!(couchdb.state().note.as_ref().unwrap()["max_jobs"], json!({ "a@h": "8", "b@h": null, "c@h": "9" }));
    takeover.give_back(PATIENCE).await;
    let found = ["a@h", "b@h", "c@h"].map(|node| couchdb.max_jobs(node).unwrap());
    assert_eq!(found, ["8", "500", "9"]);
}

/// It may only be cut off, and return with its 0.
#[tokio::test]
async fn a_node_that_is_down_at_the_end_stays_in_the_note() {
    let couchdb = Schedulers::start(&["a@h", "b@h"]).await;
    let takeover = taken_over(&couchdb).await;
    couchdb.state().nodes.get_mut("b@h").unwrap().is_down = true;
    takeover.give_back(PATIENCE).await;
    assert_eq!(couchdb.state().note.as_ref().unwrap()["max_jobs"], json!({ "b@h": null }));
    couchdb.state().nodes.get_mut("b@h").unwrap().is_down = false;
    assert_eq!(takeover::give_back(as_admin(settings(couchdb.url()))).await.unwrap(), GivenBack::All);
    assert_eq!((couchdb.max_jobs("b@h").as_deref(), &couchdb.state().note), (Some("500"), &None));
}

#[tokio::test]
async fn whoever_was_overtaken_runs_no_documents_until_the_other_is_dead() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    let takeover = taken_over(&couchdb).await;
    let own = couchdb.state().note.clone().unwrap();
    let mut other = dead_note(own["max_jobs"].clone());
    couchdb.state().note = Some(other.clone());
    until(&takeover, DocumentRunner::AnotherCouchrep).await;
    // The other one gives signs of life for longer than a dead one could.
    for beat in 6..26 {
        other["beat"] = json!(beat);
        couchdb.state().note = Some(other.clone());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(*takeover.runner().borrow(), DocumentRunner::AnotherCouchrep);
    }
    assert_eq!(couchdb.state().note.as_ref().unwrap()["id"], "dead");
    until(&takeover, DocumentRunner::Us).await;
    assert_eq!(couchdb.state().note.as_ref().unwrap()["id"], own["id"]);
    takeover.give_back(PATIENCE).await;
    assert_eq!(couchdb.max_jobs("a@h").as_deref(), Some("500"));
}

#[tokio::test]
async fn documents_stop_before_others_may_think_us_dead_and_go_on_when_couchdb_is_back() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    let takeover = taken_over(&couchdb).await;
    couchdb.state().is_away = true;
    until(&takeover, DocumentRunner::Nobody).await;
    couchdb.restart("a@h", Some("9"));
    couchdb.state().jobs = vec![job(json!("_replicator"))];
    couchdb.state().is_away = false;
    until_it(&couchdb, |played| played.nodes["a@h"].max_jobs.as_deref() == Some("0")).await;
    assert_eq!(*takeover.runner().borrow(), DocumentRunner::Nobody);
    couchdb.tick();
    until(&takeover, DocumentRunner::Us).await;
    takeover.give_back(PATIENCE).await;
    assert_eq!(couchdb.max_jobs("a@h").as_deref(), Some("9"));
}

#[tokio::test]
async fn a_note_that_somebody_deleted_is_written_again_with_what_nodes_had() {
    let (couchdb, takeover) = taken_over_from_seven().await;
    couchdb.state().note = None;
    until_it(&couchdb, |played| played.note.is_some()).await;
    takeover.give_back(PATIENCE).await;
    assert_eq!(couchdb.max_jobs("a@h").as_deref(), Some("7"));
}

/// Each beat that couldn't write it would else know less of it.
#[tokio::test]
async fn what_nodes_had_is_known_however_many_beats_fail_after_the_note_is_gone() {
    let (couchdb, takeover) = taken_over_from_seven().await;
    lose_note_for_good(&couchdb);
    until_it(&couchdb, |played| played.failed > 2).await;
    couchdb.state().fails = None;
    until_it(&couchdb, |played| played.note.is_some()).await;
    assert_eq!(couchdb.state().note.as_ref().unwrap()["max_jobs"], json!({ "a@h": "7" }));
    takeover.give_back(PATIENCE).await;
    assert_eq!((couchdb.max_jobs("a@h").as_deref(), &couchdb.state().note), (Some("7"), &None));
}

#[tokio::test]
async fn what_nodes_had_is_known_before_the_first_beat() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    couchdb.set("a@h", Some("7"));
    let takeover = begin(&couchdb, TakeOver::Force).await.unwrap();
    couchdb.state().note = None;
    until_it(&couchdb, |played| played.note.is_some()).await;
    takeover.give_back(PATIENCE).await;
    assert_eq!(couchdb.max_jobs("a@h").as_deref(), Some("7"));
}

#[tokio::test]
async fn a_stop_that_finds_no_note_puts_back_what_nodes_had() {
    let (couchdb, takeover) = taken_over_from_seven().await;
    lose_note_for_good(&couchdb);
    takeover.give_back(PATIENCE).await;
    assert_eq!((couchdb.max_jobs("a@h").as_deref(), &couchdb.state().note), (Some("7"), &None));
}

/// It was suspended, and its documents run again.
#[tokio::test]
async fn whoever_wakes_after_it_was_thought_dead_keeps_its_takeover() {
    for (wakes_at, max_jobs) in [("GET /_membership", "0"), ("PUT /_node/a@h", "7")] {
        let couchdb = Schedulers::start(&["a@h"]).await;
        couchdb.set("a@h", Some("0"));
        couchdb.state().note = Some(dead_note(json!({ "a@h": "7" })));
        couchdb.state().wakes_at = Some(wakes_at.to_owned());
        let refused = takeover::give_back(as_admin(settings(couchdb.url()))).await;
        assert!(matches!(refused, Err(TakeoverError::Living(_))), "{wakes_at}: {refused:?}");
        let note = couchdb.state().note.clone().unwrap();
        assert_eq!((couchdb.max_jobs("a@h").as_deref(), &note["beat"]), (Some(max_jobs), &json!(6)));
    }
}

/// As after a power cut: CouchDB counts it as up for a while.
#[tokio::test]
async fn a_silent_node_keeps_nobody_from_signs_of_life_nor_the_others_from_being_set_and_put_back() {
    let couchdb = Schedulers::start(&["a@h", "b@h", "c@h"]).await;
    let takeover = taken_over(&couchdb).await;
    let mut told = takeover.runner();
    told.mark_unchanged();
    couchdb.state().nodes.get_mut("b@h").unwrap().is_silent = true;
    couchdb.restart("c@h", Some("9"));
    until_it(&couchdb, |played| played.nodes["c@h"].max_jobs.as_deref() == Some("0")).await;
    // That takes longer than one without signs of life may run documents.
    let beat = couchdb.state().note.as_ref().unwrap()["beat"].as_u64().unwrap();
    until_it(&couchdb, |played| played.note.as_ref().unwrap()["beat"].as_u64() > Some(beat + 8)).await;
    assert!(!told.has_changed().unwrap(), "{:?}", *told.borrow());
    takeover.give_back(PATIENCE).await;
    let found = ["a@h", "b@h", "c@h"].map(|node| couchdb.max_jobs(node).unwrap());
    assert_eq!(found, ["500", "0", "9"]);
    assert_eq!(couchdb.state().note.as_ref().unwrap()["max_jobs"], json!({ "b@h": null }));
}

#[tokio::test]
async fn signs_of_life_dont_wait_for_questions_that_arent_answered() {
    for hangs in ["GET /_membership", "GET /_active_tasks"] {
        let couchdb = Schedulers::start(&["a@h"]).await;
        let takeover = taken_over(&couchdb).await;
        let mut told = takeover.runner();
        told.mark_unchanged();
        couchdb.state().hangs = Some(hangs.to_owned());
        let beat = couchdb.state().note.as_ref().unwrap()["beat"].as_u64().unwrap();
        until_it(&couchdb, |played| played.note.as_ref().unwrap()["beat"].as_u64() > Some(beat + 4)).await;
        assert!(!told.has_changed().unwrap(), "{hangs}: {:?}", *told.borrow());
        // Nor does the end.
        couchdb.state().hangs = None;
        takeover.give_back(PATIENCE).await;
        assert_eq!(couchdb.max_jobs("a@h").as_deref(), Some("500"));
    }
}

/// As of a server that isn't set up: of no nodes all stand still.
#[tokio::test]
async fn a_couchdb_without_nodes_is_nobodys() {
    let couchdb = Schedulers::start(&[]).await;
    let takeover = begin_with(settings(couchdb.url()), None).await.unwrap();
    assert_eq!(*takeover.runner().borrow(), DocumentRunner::Nobody);
    takeover.give_back(PATIENCE).await;
    assert!(begin(&couchdb, TakeOver::Force).await.is_err());
    assert_eq!(couchdb.state().note, None);
}

/// Thousands of jobs with their histories.
#[tokio::test]
async fn a_page_of_jobs_may_be_long() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    let mut long = job(json!("_replicator"));
    long["history"] = "x".repeat(17 << 20).into();
    couchdb.state().jobs = vec![long];
    let takeover = begin(&couchdb, TakeOver::UnlessSome).await.unwrap();
    takeover.give_back(PATIENCE).await;
}

#[tokio::test]
async fn jobs_that_arent_told_arent_waited_for_for_ever() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    let mut settings = settings(couchdb.url());
    settings.takeover.stand_still_patience = Duration::from_millis(300);
    let takeover = begin_with(settings, Some(TakeOver::Force)).await.unwrap();
    couchdb.state().fails = Some("GET /_scheduler/jobs".to_owned());
    until(&takeover, DocumentRunner::CouchDb).await;
    assert_eq!((couchdb.max_jobs("a@h").as_deref(), &couchdb.state().note), (Some("500"), &None));
    takeover.give_back(PATIENCE).await;
}

#[tokio::test]
async fn a_couchdb_whose_jobs_dont_stand_still_gets_all_back() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    couchdb.state().jobs = vec![job(json!("_replicator"))];
    let mut settings = settings(couchdb.url());
    settings.takeover.stand_still_patience = Duration::from_millis(300);
    let takeover = begin_with(settings, Some(TakeOver::Force)).await.unwrap();
    until(&takeover, DocumentRunner::CouchDb).await;
    assert_eq!((couchdb.max_jobs("a@h").as_deref(), &couchdb.state().note), (Some("500"), &None));
    takeover.give_back(PATIENCE).await;
}

#[tokio::test]
async fn without_taking_over_documents_are_run_while_the_operator_has_couchdb_stand_still() {
    let couchdb = Schedulers::start(&["a@h", "b@h"]).await;
    couchdb.set("a@h", Some("0"));
    let takeover = begin_with(settings(couchdb.url()), None).await.unwrap();
    assert_eq!(*takeover.runner().borrow(), DocumentRunner::CouchDb);
    couchdb.set("b@h", Some("0"));
    couchdb.tick();
    until(&takeover, DocumentRunner::Us).await;
    // Then it isn't the operator who has it stand still.
    couchdb.state().note = Some(dead_note(json!({ "a@h": "0", "b@h": "0" })));
    until(&takeover, DocumentRunner::AnotherCouchrep).await;
    couchdb.state().note = None;
    couchdb.set("a@h", Some("1"));
    until(&takeover, DocumentRunner::CouchDb).await;
    takeover.give_back(PATIENCE).await;
    assert_eq!(couchdb.state().changes, Vec::<String>::new());
}

#[tokio::test]
async fn requests_pass_through_until_it_is_known_whether_another_one_is_living_and_a_stop_ends_the_wait() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    couchdb.state().note = Some(dead_note(json!({ "a@h": "7" })));
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = settings(couchdb.url());
    settings.takeover.dead_after = 10 * PATIENCE;
    let config = Config {
        listen: "127.0.0.1:0".into(),
        data_dir: data_dir.path().into(),
        couchdb: Some(settings),
        couchdb_admin: Some(admin()),
        take_over: Some(TakeOver::UnlessSome),
        uuid: Some("0123456789abcdef0123456789abcdef".into()),
        ..Config::default()
    };
    let server = couchrep::server::Server::accept(config).await.unwrap();
    let url = format!("{}/_membership", server.url());
    let passes = async {
        let answer = client().get(url).send().await.unwrap().text().await.unwrap();
        assert!(answer.contains("all_nodes"), "{answer}");
    };
    let refused = timeout(PATIENCE, server.take_over(passes)).await.unwrap().err().unwrap();
    assert!(matches!(refused, StartError::TakeOver { source: TakeoverError::Stopped, .. }), "{refused}");
    assert_eq!(couchdb.state().changes, Vec::<String>::new());
}

#[tokio::test]
async fn a_server_gives_back_when_it_stops_and_refuses_to_start_where_it_cant_take_over() {
    let couchdb = Schedulers::start(&["a@h"]).await;
    let server = Server::with_config(|config| {
        config.couchdb = Some(settings(couchdb.url()));
        config.couchdb_admin = Some(admin());
        config.take_over = Some(TakeOver::UnlessSome);
        config.uuid = Some("0123456789abcdef0123456789abcdef".into());
    })
    .await;
    assert_eq!(couchdb.max_jobs("a@h").as_deref(), Some("0"));
    server.stop().await;
    assert_eq!((couchdb.max_jobs("a@h").as_deref(), &couchdb.state().note), (Some("500"), &None));

    couchdb.state().jobs = vec![job(Value::Null)];
    let dir = tempfile::tempdir().unwrap();
    let (data, admin) = (dir.path().join("data"), dir.path().join("admin"));
    std::fs::write(&admin, "root:secret\n").unwrap();
    let common = ["--couchdb", couchdb.url(), "--couchdb-admin-file", admin.to_str().unwrap()];
    let serve = ["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap(), "--take-over"];
    let uuid = [("COUCHREP_UUID", "0123456789abcdef0123456789abcdef")];
    let (args, give_back) = ([&common[..], &serve[..]].concat(), [&["give-back"], &common[..]].concat());
    let args: Vec<_> = args.into_iter().map(str::to_owned).collect();
    let refused = couchrep::tasks::blocking("couchrep", move || {
        Process::run(&args.iter().map(String::as_str).collect::<Vec<_>>(), &uuid)
    });
    let refused = refused.await.unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("could not take over the replications of the CouchDB at http://127.0.0.1"), "{told}");
    assert!(told.contains("1f (http://h/a/ → http://h/b/)"), "{told}");

    // There is nothing to be given back, and yet nothing is replicated.
    couchdb.set("a@h", Some("0"));
    let give_back: Vec<_> = give_back.into_iter().map(str::to_owned).collect();
    let told = couchrep::tasks::blocking("couchrep", move || {
        Process::run(&give_back.iter().map(String::as_str).collect::<Vec<_>>(), &[])
    });
    let told = told.await.unwrap();
    assert_eq!(told.status.code(), Some(0));
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.starts_with("nothing is to be given back\nbut max_jobs is 0 on a@h"), "{told}");
}
