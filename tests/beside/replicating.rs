//! The replicator's part beside a CouchDB: who may replicate what, under which ids, and what is listed.

use std::time::Duration;

use couchrep::config::couchdb::CouchDb;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{self, Fault, FaultyPeer, Server, client};

/// A CouchDB with the admin `root` and the user `ann`, who is a member of `src` and `tgt`, and a couchrep beside it.
async fn pair() -> (Server, Server) {
    let couchdb = Server::with_admin("root", "secret").await;
    for name in ["src", "tgt", "closed"] {
        couchdb.put(&format!("/{name}"), json!(null), 201).await;
    }
    for name in ["src", "tgt"] {
        couchdb.put(&format!("/{name}/_security"), json!({ "members": { "names": ["ann"] } }), 200).await;
    }
    let ann = json!({ "name": "ann", "password": "pw", "roles": [], "type": "user" });
    couchdb.put("/_users/org.couchdb.user:ann", ann, 201).await;
    couchdb.put("/src/doc", json!({ "a": 1 }), 201).await;
    let url = couchdb.anonymous_url("");
    let server = Server::with_config(|config| config.couchdb = Some(CouchDb::parse(&url).unwrap())).await;
    (couchdb, server)
}

/// The URL of a path, with somebody's credentials.
fn url_as(server: &Server, who: &str, path: &str) -> String {
    server.anonymous_url(path).replace("://", &format!("://{who}@"))
}

async fn replicate(server: &Server, who: &str, body: Value, status: u16) -> Value {
    let url = if who.is_empty() { server.anonymous_url("/_replicate") } else { url_as(server, who, "/_replicate") };
    support::json(&client(), Method::POST, url, Some(&body), status).await
}

#[tokio::test]
async fn local_names_are_couchdbs_databases_with_the_callers_own_rights() {
    let (couchdb, server) = pair().await;
    let done = replicate(&server, "ann:pw", json!({ "source": "src", "target": "tgt" }), 200).await;
    assert_eq!(done["history"][0]["docs_written"], 1);
    assert_eq!(couchdb.get("/tgt/doc", 200).await["a"], 1);
    replicate(&server, "ann:pw", json!({ "source": "src", "target": "closed" }), 401).await;
    replicate(&server, "ann:pw", json!({ "source": "src", "target": "new", "create_target": true }), 401).await;
    replicate(&server, "root:secret", json!({ "source": "src", "target": "new", "create_target": true }), 200).await;
    assert_eq!(couchdb.get("/new", 200).await["doc_count"], 1);
    let missing = replicate(&server, "root:secret", json!({ "source": "nowhere", "target": "tgt" }), 404).await;
    let named = format!("could not open http://{}/nowhere/", couchdb.addr());
    assert_eq!((&missing["error"], missing["reason"].as_str().unwrap()), (&json!("db_not_found"), named.as_str()));
}

#[tokio::test]
async fn who_asks_couchdb_says() {
    let (_couchdb, server) = pair().await;
    let body = json!({ "source": "src", "target": "tgt" });
    let nobody = replicate(&server, "", body.clone(), 401).await;
    assert_eq!(nobody["reason"], "You are not an authenticated user");
    let wrong = replicate(&server, "ann:wrong", body.clone(), 401).await;
    assert_eq!(wrong["reason"], "Name or password is incorrect.");
    for (path, status) in [("/_active_tasks", 401), ("/_scheduler/jobs", 401), ("/_metrics", 401)] {
        support::json(&client(), Method::GET, url_as(&server, "ann:pw", path), None, status).await;
        let seen = client().get(url_as(&server, "root:secret", path)).send().await.unwrap();
        assert_eq!(seen.status(), StatusCode::OK, "{path}");
    }
}

/// Else a CouchDB couldn't go on from our checkpoints, nor we from its.
#[tokio::test]
async fn ids_are_couchdbs_own() {
    let (couchdb, server) = pair().await;
    for (source, target) in [("src", "tgt"), ("src", "http://h.invalid/x"), ("http://u:p@h.invalid/x", "tgt")] {
        let mut body = json!({ "source": source, "target": target, "continuous": true });
        let (own, through) = (
            replicate(&couchdb, "ann:pw", body.clone(), 202).await,
            replicate(&server, "ann:pw", body.clone(), 202).await,
        );
        assert_eq!(own, through, "{source} {target}");
        body["cancel"] = json!(true);
        assert_eq!(replicate(&server, "ann:pw", body, 200).await, own);
    }
}

async fn cookie(server: &Server) -> String {
    let form = client().post(server.anonymous_url("/_session")).body("name=ann&password=pw");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let answer = form.send().await.unwrap();
    answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
}

async fn replicate_by(server: &Server, cookie: &str, body: Value, status: StatusCode) -> Value {
    let post = client().post(server.anonymous_url("/_replicate")).header("cookie", cookie);
    let answer = post.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    let (found, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Somebody else's password, right or wrong, would have given him that one's id, and with it the other's job.
#[tokio::test]
async fn a_sessions_user_has_his_own_ids_whatever_he_sends_besides() {
    let (couchdb, server) = pair().await;
    let cookie = cookie(&server).await;
    for server in [&server, &couchdb] {
        let id = async |authorization: Option<&str>| {
            let post = client().post(server.anonymous_url("/_replicate")).header("cookie", &cookie);
            let post = authorization.into_iter().fold(post, |post, value| post.header("authorization", value));
            let body = json!({ "source": "src", "target": "tgt" }).to_string();
            let answer = post.header("content-type", "application/json").body(body).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            answer.headers()["x-couchrep-replication-id"].to_str().unwrap().to_owned()
        };
        assert_eq!(id(Some("Basic Ym9iOng=")).await, id(None).await);
    }
}

#[tokio::test]
async fn a_session_is_good_for_one_shots_and_for_nothing_that_outlives_it() {
    let (couchdb, server) = pair().await;
    // Logged in through us: the cookie is CouchDB's.
    let cookie = cookie(&server).await;
    replicate_by(&server, &cookie, json!({ "source": "src", "target": "tgt" }), StatusCode::OK).await;
    assert_eq!(couchdb.get("/tgt/doc", 200).await["a"], 1);
    let continuous = |source: &str, target: &str| json!({ "source": source, "target": target, "continuous": true });
    let refused = replicate_by(&server, &cookie, continuous("src", "tgt"), StatusCode::UNAUTHORIZED).await;
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("`src` outlives a session"), "{reason}");
    let elsewhere = continuous("http://h.invalid/a", "http://h.invalid/b");
    replicate_by(&server, &cookie, elsewhere, StatusCode::ACCEPTED).await;
    let forged = cookie.replace(&cookie[20..24], "AAAA");
    let refused =
        replicate_by(&server, &forged, json!({ "source": "src", "target": "tgt" }), StatusCode::UNAUTHORIZED).await;
    assert_eq!(refused["reason"], "You are not an authenticated user");
}

#[tokio::test]
async fn a_continuous_job_follows_a_database_of_couchdb() {
    let (couchdb, server) = pair().await;
    replicate(&server, "ann:pw", json!({ "source": "src", "target": "tgt", "continuous": true }), 202).await;
    couchdb.until_equal("src", "tgt").await;
    couchdb.put("/src/later", json!({}), 201).await;
    couchdb.until_equal("src", "tgt").await;
    let tasks =
        support::json(&client(), Method::GET, url_as(&server, "root:secret", "/_active_tasks"), None, 200).await;
    let named = |name: &str| format!("http://{}/{name}/", couchdb.addr());
    assert_eq!((&tasks[0]["source"], &tasks[0]["target"]), (&json!(named("src")), &json!(named("tgt"))));
    assert_eq!((&tasks[0]["user"], tasks.as_array().unwrap().len()), (&json!("ann"), 1));
}

#[tokio::test]
async fn couchdbs_tasks_and_jobs_and_ours_are_one_list() {
    let (couchdb, server) = pair().await;
    let own = json!({ "source": "src", "target": "http://h.invalid/own", "continuous": true });
    let theirs = json!({ "source": "src", "target": "http://h.invalid/theirs", "continuous": true });
    let own = replicate(&server, "ann:pw", own, 202).await["_local_id"].clone();
    let theirs = replicate(&couchdb, "ann:pw", theirs, 202).await["_local_id"].clone();
    let read =
        async |path: &str| support::json(&client(), Method::GET, url_as(&server, "root:secret", path), None, 200).await;
    let tasks = read("/_active_tasks").await;
    let mut found: Vec<_> = tasks.as_array().unwrap().iter().map(|task| task["replication_id"].clone()).collect();
    found.sort_by_key(ToString::to_string);
    let mut expected = vec![own.clone(), theirs.clone()];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(found, expected);
    let ids = |page: &Value| page["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect::<Vec<_>>();
    let all = read("/_scheduler/jobs").await;
    assert_eq!((&all["total_rows"], ids(&all)), (&json!(2), expected.clone()));
    let second = read("/_scheduler/jobs?skip=1&limit=1").await;
    assert_eq!((&second["offset"], ids(&second)), (&json!(1), expected[1..].to_vec()));
    for id in [&own, &theirs] {
        let path = format!("/_scheduler/jobs/{}", id.as_str().unwrap());
        assert_eq!(read(&path).await["id"], *id);
    }
    // Whoever sees a job of CouchDB's here cancels it here, if he may.
    let cancel = |id: &Value| json!({ "replication_id": id, "cancel": true });
    for id in [&theirs, &own] {
        assert_eq!(replicate(&server, "ann:pw", cancel(id), 200).await["_local_id"], *id);
        replicate(&server, "ann:pw", cancel(id), 404).await;
    }
    assert_eq!(read("/_scheduler/jobs").await["total_rows"], 0);
}

/// A page of another site asks in its browser, and the browser asks CouchDB's settings, whoever answers.
#[tokio::test]
async fn which_page_may_read_an_answer_of_ours_is_couchdbs_to_say() {
    let couchdb = Server::with_admin_and("root", "secret", |config| {
        config.cors.enabled = true;
        config.cors.origins = vec!["https://app.example".into()];
        config.cors.credentials = true;
    })
    .await;
    let url = couchdb.anonymous_url("");
    let server = Server::with_config(|config| config.couchdb = Some(CouchDb::parse(&url).unwrap())).await;
    for (origin, may) in [("https://app.example", true), ("https://evil.example", false)] {
        let asks = client().request(Method::OPTIONS, server.anonymous_url("/_replicate")).header("origin", origin);
        let asks = asks.header("access-control-request-method", "POST").send().await.unwrap();
        assert_eq!(asks.headers().contains_key("access-control-allow-origin"), may, "{origin}");
        let reads = client().get(url_as(&server, "root:secret", "/_active_tasks")).header("origin", origin);
        let reads = reads.send().await.unwrap();
        assert_eq!(reads.status(), StatusCode::OK);
        assert_eq!(reads.headers().get("access-control-allow-origin").is_some(), may, "{origin}");
    }
}

/// The seed's rule for local sources: who joins late, and asks for what came late, gets it.
#[tokio::test]
async fn a_joiner_behind_a_database_of_couchdb_that_moved_on_runs_again() {
    let couchdb = Server::start().await;
    couchdb.database("src").await.fill("doc-", 10).await;
    couchdb.database("tgt").await;
    let between = FaultyPeer::before(&couchdb).await;
    let server = super::beside(&between.url("")).await;
    let job = json!({ "source": "src", "target": "tgt" });
    between.fail(Method::POST, "/tgt/_ensure_full_commit", Fault::Slow(Duration::from_secs(3)));
    let (starter, joiner) = tokio::join!(server.replicate(job.clone()), async {
        between.saw("POST /tgt/_ensure_full_commit").await;
        couchdb.put("/src/late", json!({}), 201).await;
        server.replicate(job.clone()).await
    });
    assert_eq!(starter["history"][0]["docs_written"], 10);
    assert_eq!(joiner["history"][0]["docs_written"], 1, "{joiner}");
    couchdb.get("/tgt/late", 200).await;
}
