//! Callers whose proof passes: sessions that are renewed with an admin's help, what ends them, and who gets none.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use couchrep::config::Config;
use couchrep::config::couchdb::{CouchDb, CouchDbAdmin};
use reqwest::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

use crate::support::{self, Fault, FaultyPeer, Process, Server, client};

const SECRET: &str = "5e4d3c2b1a0f9e8d7c6b5a4f3e2d1c0b";
const SETTINGS: &str = "/_node/_local/_config/chttpd_auth";

/// A CouchDB with the admin `root` and users, who are members of `src` and `tgt`; what stands before it tells its secret to an
/// admin, as CouchDB does and couchrep doesn't; and a couchrep beside that.
struct Rig {
    couchdb: Server,
    between: FaultyPeer,
    server: Server,
}

impl Rig {
    /// With an admin's help, and sessions of so many seconds.
    async fn start(timeout: u64, change: impl FnOnce(&mut Config)) -> Self {
        let couchdb = couchdb(timeout).await;
        let between = telling(&couchdb, SECRET, timeout).await;
        let server = beside(&between, |config| {
            config.couchdb_admin = Some(CouchDbAdmin::parse("root:secret").unwrap());
            config.couchdb.as_mut().unwrap().session_check = Duration::from_millis(100);
            change(config);
        })
        .await;
        Self { couchdb, between, server }
    }

    /// Cookies that were sent with requests for this database.
    fn cookies(&self, database: &str) -> BTreeSet<String> {
        let seen = self.between.credentials().into_iter().filter(|seen| seen.contains(&format!(" /{database}/")));
        seen.filter_map(|seen| Some(seen.split_once("AuthSession=")?.1.to_owned())).collect()
    }

    async fn jobs(&self) -> u64 {
        let url = self.server.anonymous_url("/_scheduler/jobs").replace("://", "://root:secret@");
        let jobs = support::json(&client(), Method::GET, url, None, 200).await;
        jobs["total_rows"].as_u64().unwrap()
    }

    /// Waits until there are so many; whoever calls has a limit of its own.
    async fn until_jobs(&self, count: u64) {
        while self.jobs().await != count {
            self.between.saw_after(self.between.requests().len(), "GET /").await;
        }
    }

    async fn user(&self, name: &str) -> Value {
        self.couchdb.get(&format!("/_users/org.couchdb.user:{name}"), 200).await
    }

    async fn change_password(&self, name: &str) {
        let mut user = self.user(name).await;
        user["password"] = json!("another");
        self.couchdb.put(&format!("/_users/org.couchdb.user:{name}"), user, 201).await;
    }

    async fn delete_user(&self, name: &str) {
        let rev = self.user(name).await["_rev"].as_str().unwrap().to_owned();
        self.couchdb.delete(&format!("/_users/org.couchdb.user:{name}?rev={rev}"), 200).await;
    }
}

async fn couchdb(timeout: u64) -> Server {
    let couchdb = Server::with_admin_and("root", "secret", |config| {
        config.auth.secret = Some(SECRET.to_owned().into());
        config.auth.timeout = Duration::from_secs(timeout);
        config.auth.handlers.jwt = true;
        config.auth.jwt.keys.push("hmac:_default=aGVsbG8=".parse().unwrap());
    })
    .await;
    for name in ["src", "tgt"] {
        couchdb.put(&format!("/{name}"), json!(null), 201).await;
        let members = json!({ "members": { "names": ["ann", "bob"] } });
        couchdb.put(&format!("/{name}/_security"), members, 200).await;
    }
    for name in ["ann", "bob"] {
        let user = json!({ "name": name, "password": "pw", "roles": [], "type": "user" });
        couchdb.put(&format!("/_users/org.couchdb.user:{name}"), user, 201).await;
    }
    couchdb.put("/src/doc", json!({ "a": 1 }), 201).await;
    couchdb
}

async fn telling(couchdb: &Server, secret: &str, timeout: u64) -> FaultyPeer {
    let between = FaultyPeer::before(couchdb).await;
    let told = json!({ "secret": secret, "timeout": timeout.to_string() }).to_string();
    let json = vec![("content-type", "application/json".to_owned())];
    between.keep_failing(Method::GET, SETTINGS, Fault::Answer(200, json, told), None);
    between
}

async fn beside(between: &FaultyPeer, change: impl FnOnce(&mut Config)) -> Server {
    let url = between.url("");
    Server::with_config(|config| {
        config.couchdb = Some(CouchDb::parse(&url).unwrap());
        change(config);
    })
    .await
}

/// Logs somebody in, through us.
async fn cookie(server: &Server, name: &str) -> String {
    let form = client().post(server.anonymous_url("/_session")).body(format!("name={name}&password=pw"));
    let answer = form.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
}

async fn asked(server: &Server, header: (&str, &str), body: Value) -> (StatusCode, Value) {
    let post = client().post(server.anonymous_url("/_replicate")).header(header.0, header.1);
    let answer = post.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    (answer.status(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

async fn replicate(server: &Server, cookie: &str, body: Value, status: StatusCode) -> Value {
    let (found, answer) = asked(server, ("cookie", cookie), body).await;
    assert_eq!(found, status, "{answer}");
    answer
}

fn continuous(source: &str, target: &str) -> Value {
    json!({ "source": source, "target": target, "continuous": true })
}

async fn refused(server: &Server, header: (&str, &str), body: Value) -> String {
    let (status, answer) = asked(server, header, body).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{answer}");
    answer["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_sessions_job_outlives_its_cookie_with_an_admins_help() {
    let rig = Rig::start(2, |_| ()).await;
    let own = cookie(&rig.server, "ann").await;
    let id = replicate(&rig.server, &own, continuous("src", "tgt"), StatusCode::ACCEPTED).await;
    // A later login is no other replication.
    let later = cookie(&rig.server, "ann").await;
    assert_eq!(replicate(&rig.server, &later, continuous("src", "tgt"), StatusCode::ACCEPTED).await, id);
    for number in 0.. {
        rig.couchdb.put(&format!("/src/more-{number}"), json!({}), 201).await;
        rig.couchdb.until_equal("src", "tgt").await;
        if rig.cookies("src").len() > 3 {
            break;
        }
    }
    assert_eq!(rig.jobs().await, 1);
    // One-shots too, and a job between databases elsewhere needs none.
    let own = cookie(&rig.server, "ann").await;
    replicate(&rig.server, &own, json!({ "source": "src", "target": "tgt" }), StatusCode::OK).await;
    let elsewhere = continuous("http://h.invalid/a", "http://h.invalid/b");
    replicate(&rig.server, &own, elsewhere, StatusCode::ACCEPTED).await;
}

#[tokio::test]
async fn a_job_ends_when_its_users_password_changes_and_no_other_ones() {
    let rig = Rig::start(600, |_| ()).await;
    let [ann, bob] = [cookie(&rig.server, "ann").await, cookie(&rig.server, "bob").await];
    replicate(&rig.server, &ann, continuous("src", "tgt"), StatusCode::ACCEPTED).await;
    replicate(&rig.server, &bob, continuous("src", "tgt"), StatusCode::ACCEPTED).await;
    rig.couchdb.until_equal("src", "tgt").await;
    assert_eq!(rig.jobs().await, 2);
    // Somebody waits for another one.
    rig.between.keep_failing(Method::POST, "/tgt/_bulk_docs", Fault::Hang, None);
    rig.couchdb.put("/src/later", json!({}), 201).await;
    let once = json!({ "source": "src", "target": "tgt" });
    let (waiting, ()) = tokio::join!(asked(&rig.server, ("cookie", &ann), once.clone()), async {
        rig.until_jobs(3).await;
        rig.change_password("ann").await;
    });
    // Whoever finds it out first.
    let (status, reason) = (waiting.0, waiting.1["reason"].as_str().unwrap());
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(reason.contains("the password of `ann` has changed since the login: ask again"), "{reason}");
    rig.until_jobs(1).await;
    // Bob's.
    refused(&rig.server, ("cookie", &ann), once).await;
    rig.delete_user("bob").await;
    rig.until_jobs(0).await;
}

/// Whoever asks again needn't wait until it is noticed that his first job is over.
#[tokio::test]
async fn a_job_that_is_asked_for_with_another_proof_begins_anew() {
    let rig = Rig::start(600, |config| config.couchdb.as_mut().unwrap().session_check = Duration::from_secs(600)).await;
    let own = cookie(&rig.server, "ann").await;
    replicate(&rig.server, &own, continuous("src", "tgt"), StatusCode::ACCEPTED).await;
    rig.couchdb.until_equal("src", "tgt").await;
    rig.change_password("ann").await;
    let basic = format!("Basic {}", STANDARD.encode("ann:another"));
    let (status, answer) = asked(&rig.server, ("authorization", &basic), continuous("src", "tgt")).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    rig.couchdb.put("/src/later", json!({}), 201).await;
    rig.couchdb.until_equal("src", "tgt").await;
    assert_eq!(rig.jobs().await, 1);
}

/// His job was ended, and theirs, which could copy nothing, had its id from then on.
#[tokio::test]
async fn nobody_ends_another_ones_job_by_asking_for_the_same() {
    let rig = Rig::start(600, |_| ()).await;
    let own = cookie(&rig.server, "bob").await;
    let id = replicate(&rig.server, &own, continuous("src", "tgt"), StatusCode::ACCEPTED).await;
    rig.couchdb.until_equal("src", "tgt").await;
    let jobs = rig.server.anonymous_url("/_scheduler/jobs").replace("://", "://root:secret@");
    let listed = support::json(&client(), Method::GET, jobs.clone(), None, 200).await;
    let written = |side: &str| {
        let url = listed["jobs"][0][side].as_str().unwrap().replace("://", "://bob:x@");
        json!({ "url": url, "headers": { "cookie": "" } })
    };
    let same = json!({ "source": written("source"), "target": written("target"), "continuous": true });
    let basic = format!("Basic {}", STANDARD.encode("ann:pw"));
    // It is joined, as any other.
    assert_eq!(asked(&rig.server, ("authorization", &basic), same).await, (StatusCode::ACCEPTED, id));
    let listed = support::json(&client(), Method::GET, jobs, None, 200).await;
    assert_eq!((&listed["total_rows"], &listed["jobs"][0]["user"]), (&json!(1), &json!("bob")));
    rig.couchdb.put("/src/later", json!({}), 201).await;
    rig.couchdb.until_equal("src", "tgt").await;
}

#[tokio::test]
async fn a_job_ends_when_the_maximum_has_passed() {
    let rig = Rig::start(600, |config| config.couchdb_session_max = Duration::from_secs(2)).await;
    let own = cookie(&rig.server, "ann").await;
    replicate(&rig.server, &own, continuous("src", "tgt"), StatusCode::ACCEPTED).await;
    rig.couchdb.until_equal("src", "tgt").await;
    // Somebody waits for another one, and CouchDB says nothing of anybody.
    rig.between.keep_failing(Method::POST, "/tgt/_bulk_docs", Fault::Hang, None);
    rig.couchdb.put("/src/later", json!({}), 201).await;
    let once = json!({ "source": "src", "target": "tgt" });
    let (waiting, ()) = tokio::join!(asked(&rig.server, ("cookie", &own), once), async {
        rig.until_jobs(2).await;
        rig.between.keep_failing(Method::GET, "/_users/", Fault::status(500), None);
    });
    let reason =
        "the replication has ended: a session of `ann` lasts for at most 2s here (--couchdb-session-max): ask again";
    assert_eq!((waiting.0, &waiting.1["reason"]), (StatusCode::UNAUTHORIZED, &json!(reason)));
    rig.until_jobs(0).await;
}

/// A cluster in trouble forgets users for a moment.
#[tokio::test]
async fn what_couchdb_cant_say_ends_no_job() {
    let rig = Rig::start(600, |_| ()).await;
    let own = cookie(&rig.server, "ann").await;
    replicate(&rig.server, &own, continuous("src", "tgt"), StatusCode::ACCEPTED).await;
    rig.couchdb.until_equal("src", "tgt").await;
    let json = || vec![("content-type", "application/json".to_owned())];
    let no_database = r#"{"error":"not_found","reason":"Database does not exist."}"#;
    for fault in [
        Fault::status(500),
        Fault::status(404),
        Fault::Answer(404, json(), no_database.into()),
        Fault::Answer(200, json(), "<html>".into()),
        Fault::Disconnect,
    ] {
        let seen = rig.between.requests().len();
        for _ in 0..2 {
            rig.between.fail(Method::GET, "/_users/", fault.clone());
        }
        rig.between.met_all().await;
        rig.between.saw_after(rig.between.requests().len().max(seen), "GET /_users/").await;
        assert_eq!(rig.jobs().await, 1, "{fault:?}");
    }
    rig.delete_user("ann").await;
    rig.until_jobs(0).await;
}

/// The look ended with him each time.
#[tokio::test]
async fn a_user_whose_document_makes_no_sense_hides_no_other() {
    let rig = Rig::start(600, |_| ()).await;
    for name in ["ann", "bob"] {
        let own = cookie(&rig.server, name).await;
        replicate(&rig.server, &own, continuous("src", "tgt"), StatusCode::ACCEPTED).await;
    }
    rig.couchdb.until_equal("src", "tgt").await;
    let json = vec![("content-type", "application/json".to_owned())];
    let odd = json!({ "salt": 7 }).to_string();
    rig.between.keep_failing(Method::GET, "ann$", Fault::Answer(200, json, odd), None);
    rig.delete_user("bob").await;
    rig.until_jobs(1).await;
}

#[tokio::test]
async fn who_gets_no_session_that_lasts_is_told_what_would_help() {
    let rig = Rig::start(600, |_| ()).await;
    let job = continuous("src", "http://h.invalid/b");
    let outlives =
        "a continuous replication of the local database `src` outlives a session, a token and a proxy's word: ";
    // A token is as it came.
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!(
        "{}.{}",
        part(json!({ "alg": "HS256", "typ": "JWT" })),
        part(json!({ "sub": "ann", "exp": 4e9 as u64 }))
    );
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"hello"), message.as_bytes());
    let token = format!("Bearer {message}.{}", URL_SAFE_NO_PAD.encode(tag));
    let reason = refused(&rig.server, ("authorization", &token), job.clone()).await;
    assert_eq!(reason, format!("{outlives}ask with name and password, or with a session's cookie"));
    let (status, done) =
        asked(&rig.server, ("authorization", &token), json!({ "source": "src", "target": "tgt" })).await;
    assert_eq!(status, StatusCode::OK, "{done}");
    // A password needs nothing.
    let basic = format!("Basic {}", STANDARD.encode("ann:pw"));
    assert_eq!(asked(&rig.server, ("authorization", &basic), job.clone()).await.0, StatusCode::ACCEPTED);
    // Without an admin.
    let alone = beside(&rig.between, |_| ()).await;
    let own = cookie(&alone, "ann").await;
    let reason = refused(&alone, ("cookie", &own), job.clone()).await;
    assert!(reason.starts_with(outlives) && reason.contains("--couchdb-admin-file"), "{reason}");
    // What logs out loses the cookie.
    let logout = client().delete(rig.server.anonymous_url("/_session")).header("cookie", &own).send().await.unwrap();
    let left = logout.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(refused(&rig.server, ("cookie", &left), job).await, "You are not an authenticated user");
}

/// Stolen, say.
#[tokio::test]
async fn a_cookie_is_worth_nothing_beside_another_couchdb() {
    let (here, there) = (Rig::start(600, |_| ()).await, Server::with_admin("root", "secret").await);
    let user = json!({ "name": "ann", "password": "pw", "roles": [], "type": "user" });
    there.put("/_users/org.couchdb.user:ann", user, 201).await;
    // Even one that says of itself to be as the other is.
    let between = telling(&there, SECRET, 600).await;
    let server = beside(&between, |config| {
        config.couchdb_admin = Some(CouchDbAdmin::parse("root:secret").unwrap());
    })
    .await;
    let stolen = cookie(&here.server, "ann").await;
    for body in [continuous("src", "tgt"), json!({ "source": "src", "target": "tgt" })] {
        assert_eq!(refused(&server, ("cookie", &stolen), body).await, "You are not an authenticated user");
    }
    // Its own cookies aren't made of what it says: none is made here.
    let own = cookie(&server, "ann").await;
    let reason = refused(&server, ("cookie", &own), continuous("src", "tgt")).await;
    assert!(
        reason.ends_with("the cookie isn't made of CouchDB's secret and the user's password as they are now"),
        "{reason}"
    );
}

/// Neither to the other side of a replication, nor to where CouchDB, or whoever stands before it, redirects.
#[tokio::test]
async fn a_made_cookie_goes_to_couchdb_alone() {
    let rig = Rig::start(600, |_| ()).await;
    let elsewhere = Server::start().await;
    for name in ["src", "tgt"] {
        elsewhere.put(&format!("/{name}"), json!(null), 201).await;
    }
    let other = FaultyPeer::before(&elsewhere).await;
    let own = cookie(&rig.server, "ann").await;
    let target = other.url("/tgt");
    replicate(&rig.server, &own, json!({ "source": "src", "target": target }), StatusCode::OK).await;
    for method in [Method::GET, Method::POST, Method::PUT] {
        let there = vec![("location", other.url("/src/"))];
        rig.between.keep_failing(method, "/src/", Fault::Answer(307, there, String::new()), None);
    }
    let (seen, once) = (other.requests().len(), json!({ "source": "src", "target": "tgt" }));
    tokio::select! {
        answered = asked(&rig.server, ("cookie", &own), once) => panic!("{answered:?}"),
        () = other.saw_after(seen, "/src/") => {}
    }
    assert_eq!(other.credentials(), [""; 0]);
    assert!(!rig.cookies("src").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_tells_what_cookies_are_made_of() {
    let couchdb = couchdb(600).await;
    let between = telling(&couchdb, SECRET, 600).await;
    let dir = tempfile::tempdir().unwrap();
    let (admin, log) = (dir.path().join("admin"), dir.path().join("log"));
    std::fs::write(&admin, "root:secret").unwrap();
    let url = between.url("");
    let args = ["--couchdb", &url, "--couchdb-admin-file", admin.to_str().unwrap()];
    let server = Process::tracing(&dir.path().join("data"), &args, &log);
    let form = client().post(server.url("/_session")).body("name=ann&password=pw");
    let answer = form.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    let own = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let post = client().post(server.url("/_replicate")).header("cookie", &own);
    let post = post.header("content-type", "application/json").body(continuous("src", "tgt").to_string());
    assert_eq!(post.send().await.unwrap().status(), StatusCode::ACCEPTED);
    couchdb.until_equal("src", "tgt").await;
    let salt = couchdb.get("/_users/org.couchdb.user:ann", 200).await["salt"].as_str().unwrap().to_owned();
    let made = between.credentials().into_iter().filter_map(|seen| Some(seen.split_once("AuthSession=")?.1.to_owned()));
    let hidden: BTreeSet<_> = made.chain([salt, SECRET.to_owned()]).collect();
    // A cookie that is made in the same second is the same.
    assert!(hidden.len() > 2, "{hidden:?}");
    let mut told = String::new();
    for path in ["/_active_tasks", "/_scheduler/jobs", "/_metrics"] {
        let url = server.url(path).replace("://", "://root:secret@");
        told += &client().get(url).send().await.unwrap().text().await.unwrap();
    }
    told += &std::fs::read_to_string(&log).unwrap();
    for secret in hidden {
        assert!(!told.contains(&secret), "{secret}");
    }
}
