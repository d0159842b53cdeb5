//! Replications that name a secret of the settings instead of holding a password: for whom and for which server it is, and nobody
//! and nowhere else.

use std::time::Duration;

use couchrep::config::secrets::{DeclaredSecret, SecretValue, server_url};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::scheduler::until;
use crate::support::{Fault, FaultyPeer, Server, client};

const PASSWORD: &str = "pw-of-the-carrier";
const TOKEN: &str = "token-of-the-carrier";

/// A server with ann, bob and the admin root; and another one behind a peer, to which secrets of its may be sent.
struct Bench {
    server: Server,
    remote: Server,
    peer: FaultyPeer,
}

impl Bench {
    /// The other server has the admin `carrier`, and a database `src`.
    async fn start() -> Self {
        Self::before(Server::with_admin("carrier", PASSWORD).await).await
    }

    /// The other server is this one.
    async fn before(remote: Server) -> Self {
        remote.database("src").await.fill("doc", 5).await;
        let peer = FaultyPeer::before(&remote).await;
        let there = server_url(&peer.url("")).unwrap();
        let password = |password: &str| SecretValue::Password { username: "carrier".into(), password: password.into() };
        let secret = |value, users: &[&str]| DeclaredSecret {
            value,
            origins: vec![there.clone()],
            users: users.iter().map(|name| (*name).to_owned()).collect(),
        };
        let secrets = [
            ("carrier", secret(password(PASSWORD), &["ann", "root"])),
            ("token", secret(SecretValue::Token(TOKEN.into()), &["ann"])),
            ("outdated", secret(password("pw-of-last-year"), &["ann"])),
        ];
        let server = Server::with_admin_and("root", "hunter2", |config| {
            config.replicator.secrets = secrets.into_iter().map(|(name, secret)| (name.to_owned(), secret)).collect();
            config.replicator.restart_pause = Duration::from_millis(100);
            config.replicator.max_restart_pause = Duration::from_millis(500);
        });
        let server = server.await;
        for name in ["ann", "bob"] {
            let user = json!({ "name": name, "password": "pw", "roles": [], "type": "user" });
            server.put(&format!("/_users/org.couchdb.user:{name}"), user, 201).await;
        }
        server.database("tgt").await;
        for database in ["tgt", "_replicator"] {
            let security = json!({ "members": { "names": ["ann", "bob"], "roles": [] } });
            server.put(&format!("/{database}/_security"), security, 200).await;
        }
        Self { server, remote, peer }
    }

    /// A request of somebody's; `None` is root.
    async fn send(&self, who: Option<&str>, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let url = match who {
            None => self.server.url(path),
            Some(name) => self.server.anonymous_url(path).replace("http://", &format!("http://{name}:pw@")),
        };
        let request = client().request(method, url).header("Content-Type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(!text.contains(PASSWORD) && !text.contains(TOKEN), "{text}");
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn replicate(&self, who: Option<&str>, body: Value) -> (u16, Value) {
        let (status, answer) = self.send(who, Method::POST, "/_replicate", body).await;
        (status.as_u16(), answer)
    }

    /// The other server's database as a source that names a secret.
    fn source(&self, secret: &str) -> Value {
        json!({ "url": self.peer.url("/src"), "auth": { "secret": secret } })
    }

    /// Why a replication from there was refused, without anybody's having asked there.
    async fn refused(&self, who: Option<&str>, source: Value) -> String {
        let before = self.peer.requests().len();
        let (status, answer) = self.replicate(who, json!({ "source": source, "target": "tgt" })).await;
        assert_eq!((status, &answer["error"]), (401, &json!("unauthorized")), "{answer}");
        assert_eq!(self.peer.requests()[before..], [""; 0]);
        answer["reason"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn whoever_is_named_replicates_with_a_password_that_stands_in_the_settings_alone() {
    let bench = Bench::start().await;
    let (status, answer) =
        bench.replicate(Some("ann"), json!({ "source": bench.source("carrier"), "target": "tgt" })).await;
    assert_eq!((status, &answer["history"][0]["docs_written"]), (200, &json!(5)), "{answer}");
    bench.server.database("other").await;
    let (status, _) = bench.replicate(None, json!({ "source": bench.source("carrier"), "target": "other" })).await;
    assert_eq!(status, 200, "root is named");
    // And as a target, in a document, which shows the name alone.
    bench.remote.database("made").await;
    let target = json!({ "url": bench.peer.url("/made"), "auth": { "secret": "carrier" } });
    let document = json!({ "source": "tgt", "target": target });
    let (status, _) = bench.send(Some("ann"), Method::PUT, "/_replicator/doc", document).await;
    assert_eq!(status, 201);
    let done = until(&bench.server, "/_replicator/doc", |doc| doc["_replication_state"] == "completed").await;
    assert_eq!((&done["owner"], &done["target"]), (&json!("ann"), &target));
    assert_eq!(bench.remote.leaves("made").await, bench.remote.leaves("src").await);
}

#[tokio::test]
async fn a_token_is_sent_as_a_bearers() {
    let bench = Bench::before(Server::start().await).await;
    let (status, answer) =
        bench.replicate(Some("ann"), json!({ "source": bench.source("token"), "target": "tgt" })).await;
    assert_eq!(status, 200, "{answer}");
    let (told, asked) = (bench.peer.credentials(), bench.peer.requests());
    assert_eq!(told.len(), asked.len(), "each request tells who asks");
    assert!(told.iter().all(|told| told.ends_with(&format!(" Bearer {TOKEN}"))), "{told:#?}");
}

#[tokio::test]
async fn nobody_else_has_it_sent_and_it_is_sent_nowhere_else() {
    let bench = Bench::start().await;
    let not_for = |name: &str, user: &str| format!("there is no secret `{name}` that {user} may use");
    assert_eq!(bench.refused(Some("bob"), bench.source("carrier")).await, not_for("carrier", "bob"));
    assert_eq!(bench.refused(Some("bob"), bench.source("unknown")).await, not_for("unknown", "bob"));
    assert_eq!(bench.refused(Some("ann"), bench.source("unknown")).await, not_for("unknown", "ann"));
    assert_eq!(bench.refused(None, bench.source("token")).await, not_for("token", "root"), "an admin who isn't named");
    let elsewhere = FaultyPeer::before(&bench.remote).await;
    let source = json!({ "url": elsewhere.url("/src"), "auth": { "secret": "carrier" } });
    let reason = format!("the secret `carrier` may not be sent to {}", elsewhere.url(""));
    assert_eq!(bench.refused(Some("ann"), source).await, reason);
    let mut source = bench.source("carrier");
    source["url"] = bench.peer.url("/src").replace("127.0.0.1", "localhost").into();
    assert!(
        bench
            .refused(Some("ann"), source)
            .await
            .starts_with("the secret `carrier` may not be sent to http://localhost:")
    );
    let through = json!({ "source": bench.source("carrier"), "target": "tgt", "source_proxy": elsewhere.url("") });
    let (status, answer) = bench.replicate(Some("ann"), through).await;
    assert_eq!(status, 401);
    assert!(answer["reason"].as_str().unwrap().contains("may not be sent through a proxy"), "{answer}");
    assert_eq!(elsewhere.requests(), [""; 0]);
}

#[tokio::test]
async fn no_redirect_takes_it_elsewhere() {
    for secret in ["carrier", "token"] {
        let bench = Bench::before(Server::start().await).await;
        let elsewhere = FaultyPeer::before(&bench.remote).await;
        let moved = |path: &str| Fault::Answer(308, vec![("location", elsewhere.url(path))], String::new());
        bench.peer.keep_failing(Method::POST, "/_session$", moved("/_session"), None);
        bench.peer.keep_failing(Method::GET, "/src/$", moved("/src/"), None);
        let (status, answer) =
            bench.replicate(Some("ann"), json!({ "source": bench.source(secret), "target": "tgt" })).await;
        assert_eq!((status, &answer["history"][0]["docs_written"]), (200, &json!(5)), "{answer}");
        assert!(bench.peer.credentials().iter().any(|told| told.starts_with("GET /src/ ")));
        let asked = elsewhere.requests();
        assert!(asked.iter().any(|asked| asked.contains("/_bulk_get")), "{asked:#?}");
        assert!(!asked.iter().any(|asked| asked.contains("/_session")), "{asked:#?}");
        assert_eq!(elsewhere.credentials(), [""; 0]);
    }
}

/// An update function in a database of whoever names the secret was sent name and password.
#[tokio::test]
async fn it_is_sent_to_no_other_path_of_its_server() {
    let bench = Bench::start().await;
    for (secret, path) in [
        ("carrier", "/anns/_design/d/_update/x"),
        ("token", "/anns/_design/d/_update/x"),
        ("carrier", "/anns%2F..%2Fsrc"),
        ("carrier", "/src?x=1"),
        ("carrier", ""),
    ] {
        let mut source = bench.source(secret);
        source["url"] = bench.peer.url(path).into();
        let reason = bench.refused(Some("ann"), source).await;
        assert!(reason.starts_with(&format!("the secret `{secret}` may not be sent to http://")), "{reason}");
        assert!(reason.ends_with("it isn't one of the secret's `origins` and a database's name after it"), "{reason}");
    }
    // No redirect leads it there either.
    let bench = Bench::before(Server::start().await).await;
    bench.remote.database("moved").await.fill("doc", 5).await;
    let moved = Fault::Answer(308, vec![("location", bench.peer.url("/moved/"))], String::new());
    bench.peer.keep_failing(Method::GET, "/src/$", moved, None);
    let (status, answer) =
        bench.replicate(Some("ann"), json!({ "source": bench.source("token"), "target": "tgt" })).await;
    assert_eq!((status, &answer["history"][0]["docs_written"]), (200, &json!(5)), "{answer}");
    let told = bench.peer.credentials();
    assert!(!told.is_empty() && !told.iter().any(|told| told.contains("/moved/")), "{told:#?}");
}

/// Whoever may answer for the server, as a function of a design document does, could repeat what it was sent.
#[tokio::test]
async fn what_the_server_says_to_it_is_not_shown() {
    for (secret, method, path) in [("carrier", Method::POST, "/_session$"), ("token", Method::GET, "/src/$")] {
        for status in [401, 403] {
            for body in [json!({ "error": "unauthorized", "reason": "you sent xyzzy" }).to_string(), "xyzzy".to_owned()]
            {
                let bench = Bench::start().await;
                bench.peer.keep_failing(method.clone(), path, Fault::Answer(status, Vec::new(), body.clone()), None);
                let body = json!({ "source": bench.source(secret), "target": "tgt", "retries_per_request": 1 });
                let (_, answer) = bench.replicate(Some("ann"), body).await;
                assert!(answer["reason"].is_string() || secret == "carrier", "{answer}");
                assert!(!answer.to_string().contains("xyzzy"), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_document_has_the_secrets_of_its_owner_whoever_that_is_now() {
    let bench = Bench::start().await;
    let mut document = json!({ "source": bench.source("carrier"), "target": "tgt", "continuous": true });
    let (status, written) = bench.send(Some("bob"), Method::PUT, "/_replicator/doc", document.clone()).await;
    assert_eq!(status, 201);
    let place = "/_scheduler/docs/_replicator/doc";
    let refused = "there is no secret `carrier` that bob may use";
    let is_refused = |entry: &Value| entry["state"] == "error" && entry["info"]["error"] == refused;
    until(&bench.server, place, is_refused).await;
    assert_eq!(bench.peer.requests(), [""; 0]);
    // Bob can't make it ann's, root can.
    let give = |document: &mut Value, owner: &str, rev: &Value| {
        document["owner"] = owner.into();
        document["_rev"] = rev.clone();
        document.clone()
    };
    let taken = give(&mut document, "ann", &written["rev"]);
    assert_eq!(bench.send(Some("bob"), Method::PUT, "/_replicator/doc", taken.clone()).await.0, 403);
    let written = bench.server.put("/_replicator/doc", taken, 201).await;
    until(&bench.server, place, |entry| entry["state"] == "running").await;
    until(&bench.server, "/tgt", |info| info["doc_count"] == 5).await;
    let back = give(&mut document, "bob", &written["rev"]);
    bench.server.put("/_replicator/doc", back, 201).await;
    until(&bench.server, place, is_refused).await;
    until(&bench.server, "/_scheduler/jobs", |jobs| jobs["total_rows"] == 0).await;
}

#[tokio::test]
async fn a_password_that_moves_into_a_secret_leaves_the_checkpoints_where_they_are() {
    let bench = Bench::start().await;
    let auth = json!({ "basic": { "username": "carrier", "password": PASSWORD } });
    let held = json!({ "url": bench.peer.url("/src"), "auth": auth });
    let bearer = json!({ "url": bench.peer.url("/src"), "auth": { "bearer": TOKEN } });
    for (held, secret) in [(held, "carrier"), (bearer, "token")] {
        let mut ids = Vec::new();
        for source in [held, bench.source(secret)] {
            let body = json!({ "source": source, "target": "tgt", "continuous": true });
            let (status, answer) = bench.replicate(Some("ann"), body.clone()).await;
            assert_eq!(status, 202, "{answer}");
            ids.push(answer["_local_id"].clone());
            let mut cancel = body;
            cancel["cancel"] = true.into();
            assert_eq!(bench.replicate(Some("ann"), cancel).await, (200, answer));
        }
        assert_eq!(ids[0], ids[1], "{secret}");
    }
    let once = |source: Value| bench.replicate(Some("ann"), json!({ "source": source, "target": "tgt" }));
    let (_, first) = once(
        json!({ "url": bench.peer.url("/src"), "auth": { "basic": { "username": "carrier", "password": PASSWORD } } }),
    )
    .await;
    let (_, second) = once(bench.source("carrier")).await;
    assert_eq!((&second["no_changes"], &second["session_id"]), (&json!(true), &first["session_id"]), "{second}");
}

#[tokio::test]
async fn the_feed_of_all_databases_is_listened_to_with_it() {
    let bench = Bench::start().await;
    let document = json!({ "source": bench.source("carrier"), "target": "tgt", "continuous": true });
    assert_eq!(bench.send(Some("ann"), Method::PUT, "/_replicator/doc", document).await.0, 201);
    bench.peer.saw("/_db_updates?feed=longpoll").await;
    for round in 0..3 {
        bench.remote.put(&format!("/src/late{round}"), json!({}), 201).await;
        until(&bench.server, "/tgt", |info| info["doc_count"] == 6 + round).await;
    }
    let told = bench.peer.credentials();
    assert!(told.iter().any(|told| told.contains("/_db_updates")), "{told:#?}");
}

#[tokio::test]
async fn with_a_token_each_job_waits_by_itself() {
    let bench = Bench::before(Server::start().await).await;
    let document = json!({ "source": bench.source("token"), "target": "tgt", "continuous": true });
    assert_eq!(bench.send(Some("ann"), Method::PUT, "/_replicator/doc", document).await.0, 201);
    for round in 0..3 {
        until(&bench.server, "/tgt", |info| info["doc_count"] == 5 + round).await;
        bench.remote.put(&format!("/src/late{round}"), json!({}), 201).await;
    }
    assert_eq!(bench.peer.count("GET /_db_updates"), 0);
}

#[tokio::test]
async fn one_that_the_server_refuses_is_tried_once_for_all_jobs() {
    let bench = Bench::start().await;
    for n in 0..10 {
        let source = json!({ "url": bench.peer.url(&format!("/db{n}")), "auth": { "secret": "outdated" } });
        let document = json!({ "source": source, "target": "tgt", "continuous": true });
        assert_eq!(bench.send(Some("ann"), Method::PUT, &format!("/_replicator/doc{n}"), document).await.0, 201);
    }
    until(&bench.server, "/_scheduler/docs?states=crashing", |docs| docs["total_rows"].as_u64() > Some(0)).await;
    until(&bench.server, "/_scheduler/docs?states=initializing", |docs| docs["total_rows"] == 0).await;
    let logins = bench.peer.count("POST /_session");
    // Those that began before the first was refused share its refusal.
    assert!((1..=3).contains(&logins), "{logins}");
}

/// Whose secret it is reads the list with it, for an admin too who isn't named.
#[tokio::test]
async fn what_could_not_be_copied_is_listed_with_the_secret_of_who_replicates() {
    let bench = Bench::start().await;
    bench
        .server
        .put("/tgt/_design/no", json!({ "validate_doc_update": "function() { throw({ forbidden: 'no' }) }" }), 201)
        .await;
    let document = json!({ "source": bench.source("carrier"), "target": "tgt", "continuous": true });
    assert_eq!(bench.send(Some("ann"), Method::PUT, "/_replicator/doc", document).await.0, 201);
    let place = "/_scheduler/docs/_replicator/doc";
    let entry = until(&bench.server, place, |entry| entry["info"]["doc_write_failures"] == 5).await;
    let list = format!("/_replicate/{}/failures", entry["id"].as_str().unwrap().replace('+', "%2B"));
    // An admin, who isn't named. Some are told twice while they are being put on the list.
    until(&bench.server, &list, |listed| listed["total"] == 5).await;
    let (_, listed) = bench.send(Some("ann"), Method::GET, &list, Value::Null).await;
    let ids: std::collections::BTreeSet<_> =
        listed["failures"].as_array().unwrap().iter().map(|failure| failure["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 5, "{listed}");
    assert_eq!(bench.send(Some("bob"), Method::GET, &list, Value::Null).await.0, 404);
}

/// Where there are no admins nobody has a name, and everyone may do everything.
#[tokio::test]
async fn without_admins_everybody_may_name_it() {
    let remote = Server::with_admin("carrier", PASSWORD).await;
    remote.database("src").await.fill("doc", 5).await;
    let there = server_url(&remote.anonymous_url("")).unwrap();
    let server = Server::with_config(|config| {
        let value = SecretValue::Password { username: "carrier".into(), password: PASSWORD.into() };
        let secret = |users: &[&str]| DeclaredSecret {
            value: value.clone(),
            origins: vec![there.clone()],
            users: users.iter().map(|name| (*name).to_owned()).collect(),
        };
        let secrets = [("carrier".to_owned(), secret(&["ann"])), ("off".to_owned(), secret(&[]))];
        config.replicator.secrets = secrets.into_iter().collect();
    });
    let server = server.await;
    server.database("tgt").await;
    let body = |secret: &str| {
        let source = json!({ "url": remote.anonymous_url("/src"), "auth": { "secret": secret } });
        json!({ "source": source, "target": "tgt" })
    };
    server.replicate(body("carrier")).await;
    let refused = server.post("/_replicate", body("off"), 401).await;
    assert_eq!(refused["reason"], "there is no secret `off` that nobody in particular may use");
}
