//! Beside a real CouchDB, if `COUCHDB_URL` names one: sessions' jobs last, and end within a minute when they are to.

use std::time::{Duration, Instant};

use couchrep::config::couchdb::CouchDb;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::support::{self, Process, client};

/// Within so long a job whose session is over is gone.
const LIMIT: Duration = Duration::from_secs(60);

/// The CouchDB, as its admin asks it, and a name that is the test's own.
struct Rig {
    couchdb: Url,
    own: String,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Option<Self> {
        let couchdb = Url::parse(&std::env::var("COUCHDB_URL").ok().filter(|url| !url.is_empty())?).unwrap();
        let own = format!("couchrep-test-{:016x}", rand::random::<u64>());
        Some(Self { couchdb, own, dir: tempfile::tempdir().unwrap() })
    }

    async fn json(&self, method: Method, path: &str, body: Option<Value>, status: u16) -> Value {
        let url = self.couchdb.join(path).unwrap();
        support::json(&client(), method, url.to_string(), body.as_ref(), status).await
    }

    /// A couchrep beside it, with its admin's help, and its log.
    fn beside(&self, name: &str, args: &[&str]) -> (Process, std::path::PathBuf) {
        let file = |name: String| self.dir.path().join(name);
        let (admin, log) = (file(format!("{name}.admin")), file(format!("{name}.log")));
        let (user, password) = (self.couchdb.username(), self.couchdb.password().unwrap());
        std::fs::write(&admin, format!("{user}:{password}")).unwrap();
        let mut root = self.couchdb.clone();
        root.set_username("").unwrap();
        root.set_password(None).unwrap();
        assert!(CouchDb::parse(root.as_str()).is_ok());
        let mut all = vec!["--couchdb", root.as_str(), "--couchdb-admin-file", admin.to_str().unwrap()];
        // Those of others.
        all.extend(["--run-documents", "false"]);
        all.extend(args);
        (Process::logging(&file(name.into()), &all, &log), log)
    }

    fn db(&self, side: &str) -> String {
        format!("{}-{side}", self.own)
    }

    fn user(&self, name: &str) -> String {
        format!("{}-{name}", self.own)
    }

    fn user_path(&self, name: &str) -> String {
        format!("/_users/org.couchdb.user:{}", self.user(name))
    }

    async fn databases_and_users(&self, names: &[&str]) {
        let users: Vec<_> = names.iter().map(|name| self.user(name)).collect();
        for side in ["src", "tgt"] {
            self.json(Method::PUT, &format!("/{}", self.db(side)), None, 201).await;
            let security = json!({ "members": { "names": users }, "admins": { "names": users } });
            self.json(Method::PUT, &format!("/{}/_security", self.db(side)), Some(security), 200).await;
        }
        for (name, user) in names.iter().zip(&users) {
            let user = json!({ "name": user, "password": "pw", "roles": [], "type": "user" });
            self.json(Method::PUT, &self.user_path(name), Some(user), 201).await;
        }
    }

    async fn end(self, names: &[&str]) {
        for side in ["src", "tgt"] {
            self.json(Method::DELETE, &format!("/{}", self.db(side)), None, 200).await;
        }
        for name in names {
            let rev = self.json(Method::GET, &self.user_path(name), None, 200).await["_rev"].clone();
            let path = format!("{}?rev={}", self.user_path(name), rev.as_str().unwrap());
            self.json(Method::DELETE, &path, None, 200).await;
        }
    }

    async fn write(&self, id: &str) {
        self.json(Method::PUT, &format!("/{}/{id}", self.db("src")), Some(json!({})), 201).await;
    }

    async fn until_copied(&self, id: &str) {
        let url = self.couchdb.join(&format!("/{}/{id}", self.db("tgt"))).unwrap();
        while client().get(url.clone()).send().await.unwrap().status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    }

    /// Logs somebody in through a couchrep, and begins a continuous replication in his name.
    async fn begin(&self, server: &Process, name: &str) -> (String, String) {
        let form = client().post(server.url("/_session")).body(format!("name={}&password=pw", self.user(name)));
        let answer = form.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let (status, answer) = self.replicate(server, &cookie).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        (answer["_local_id"].as_str().unwrap().to_owned(), cookie)
    }

    async fn replicate(&self, server: &Process, cookie: &str) -> (StatusCode, Value) {
        let body = json!({ "source": self.db("src"), "target": self.db("tgt"), "continuous": true });
        let post = client().post(server.url("/_replicate")).header("cookie", cookie);
        let answer = post.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        (answer.status(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn runs(&self, server: &Process, id: &str) -> bool {
        let (user, password) = (self.couchdb.username(), self.couchdb.password().unwrap());
        let url = server.url("/_scheduler/jobs").replace("://", &format!("://{user}:{password}@"));
        let jobs = support::json(&client(), Method::GET, format!("{url}?limit=1000"), None, 200).await;
        jobs["jobs"].as_array().unwrap().iter().any(|job| job["id"] == id)
    }

    /// Waits until a job is gone, and tells how long that took.
    async fn until_gone(&self, server: &Process, id: &str, since: Instant) -> Duration {
        while self.runs(server, id).await {
            assert!(since.elapsed() < LIMIT, "{id} still runs");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        since.elapsed()
    }
}

/// The four endings that issue 11 names.
#[tokio::test]
async fn a_sessions_job_ends_within_a_minute_when_it_is_to() {
    let names = ["password", "deleted", "maximum", "stays"];
    let Some(rig) = Rig::new() else { return };
    rig.databases_and_users(&names).await;
    rig.write("first").await;
    let (server, log) = rig.beside("long", &[]);
    let (short, short_log) = rig.beside("short", &["--couchdb-session-max", "10s"]);
    let (changed, changed_cookie) = rig.begin(&server, "password").await;
    let (deleted, _) = rig.begin(&server, "deleted").await;
    let (stays, _) = rig.begin(&server, "stays").await;
    let maximum_since = Instant::now() + Duration::from_secs(10);
    let (maximum, stolen) = rig.begin(&short, "maximum").await;
    rig.until_copied("first").await;
    for id in [&changed, &deleted, &stays] {
        assert!(rig.runs(&server, id).await, "{id}");
    }
    // Stolen from him, and tried where CouchDB has another secret; where it has the same, he is for it the user.
    let forged = format!("{}AAAA", &stolen[..stolen.len() - 4]);
    assert_eq!(rig.replicate(&server, &forged).await.0, StatusCode::UNAUTHORIZED);

    let mut user = rig.json(Method::GET, &rig.user_path("password"), None, 200).await;
    user["password"] = json!("another");
    rig.json(Method::PUT, &rig.user_path("password"), Some(user), 201).await;
    let since = Instant::now();
    let rev = rig.json(Method::GET, &rig.user_path("deleted"), None, 200).await["_rev"].clone();
    let path = format!("{}?rev={}", rig.user_path("deleted"), rev.as_str().unwrap());
    rig.json(Method::DELETE, &path, None, 200).await;
    let (one, two, three) = tokio::join!(
        rig.until_gone(&server, &changed, since),
        rig.until_gone(&server, &deleted, since),
        rig.until_gone(&short, &maximum, maximum_since.min(Instant::now())),
    );
    println!("password changed: {one:?}, user deleted: {two:?}, maximum passed: {three:?}");
    assert_eq!(rig.replicate(&server, &changed_cookie).await.0, StatusCode::UNAUTHORIZED);
    let (log, short_log) = (std::fs::read_to_string(log).unwrap(), std::fs::read_to_string(short_log).unwrap());
    let told = |log: &str, id: &str, reason: &str| {
        let lines = log.lines().filter(|line| line.contains("its user's session is over") && line.contains(id));
        let lines: Vec<_> = lines.collect();
        assert!(lines.len() == 1 && lines[0].contains(reason), "{lines:?}\n{log}");
    };
    told(&log, &changed, &format!("the password of `{}` has changed since the login", rig.user("password")));
    told(&log, &deleted, &format!("there is no user `{}` any more", rig.user("deleted")));
    told(&short_log, &maximum, "lasts for at most 10s here (--couchdb-session-max)");
    // Whose session isn't over goes on.
    rig.write("last").await;
    rig.until_copied("last").await;
    assert!(rig.runs(&server, &stays).await);
    drop((server, short));
    rig.end(&["password", "maximum", "stays"]).await;
}

/// CouchDB's sessions last for four seconds meanwhile.
#[tokio::test]
async fn a_sessions_job_goes_on_with_cookies_that_couchdb_takes_for_its_own() {
    const TIMEOUT: &str = "/_node/_local/_config/chttpd_auth/timeout";
    let Some(rig) = Rig::new() else { return };
    rig.databases_and_users(&["ann"]).await;
    let set = async |method: Method, body: Option<&str>| {
        let mut request =
            client().request(method, rig.couchdb.join(TIMEOUT).unwrap()).header("x-couch-persist", "false");
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(json!(body).to_string());
        }
        assert!(request.send().await.unwrap().status().is_success());
    };
    let before = client().get(rig.couchdb.join(TIMEOUT).unwrap()).send().await.unwrap();
    let before = match before.status() {
        StatusCode::OK => serde_json::from_str::<Option<String>>(&before.text().await.unwrap()).unwrap(),
        _ => None,
    };
    set(Method::PUT, Some("4")).await;
    let (server, log) = rig.beside("renewing", &[]);
    let begun = Instant::now();
    let (id, cookie) = rig.begin(&server, "ann").await;
    let mut copied = 0;
    while begun.elapsed() < Duration::from_secs(15) {
        rig.write(&format!("doc-{copied}")).await;
        rig.until_copied(&format!("doc-{copied}")).await;
        copied += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (status, own) = rig.replicate(&server, &cookie).await;
    match before {
        Some(before) => set(Method::PUT, Some(&before)).await,
        None => set(Method::DELETE, None).await,
    }
    // His own cookie is over, and the job isn't.
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{own}");
    assert!(rig.runs(&server, &id).await);
    println!("{copied} documents in {:?}, one after another", begun.elapsed());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains("replication failed"), "{log}");
    drop(server);
    rig.end(&["ann"]).await;
}
