//! couchrep's own page, and what it asks: of all jobs, of one, and what may be done with it.

use std::io::Read as _;
use std::time::Duration;

use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, redirect};
use serde_json::{Value, json};

use crate::support::Server;

/// Asks until it is so.
async fn wait_until(mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap();
}

fn client() -> Client {
    Client::builder().redirect(redirect::Policy::none()).no_gzip().no_proxy().build().unwrap()
}

fn asked(method: Method, server: &Server, path: &str) -> RequestBuilder {
    client().request(method, server.anonymous_url(path))
}

async fn get(server: &Server, path: &str) -> Response {
    asked(Method::GET, server, path).send().await.unwrap()
}

async fn told(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

fn with(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header(CONTENT_TYPE, "application/json").body(body.to_string())
}

#[tokio::test]
async fn the_page_is_everybodys_and_nothing_from_elsewhere_runs_in_it() {
    let server = Server::with_admin_and("root", "secret", |_| {}).await;
    for (path, status, leads_to) in [("/_couchrep", 301, "/_couchrep/"), ("/_utils", 302, "/_couchrep/")] {
        let answer = get(&server, path).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[LOCATION]),
            (status, &server.anonymous_url(leads_to).parse().unwrap())
        );
    }
    let page = get(&server, "/_couchrep/").await;
    let headers = page.headers().clone();
    assert_eq!((page.status().as_u16(), headers[CONTENT_TYPE].to_str().unwrap()), (200, "text/html; charset=utf-8"));
    assert_eq!(headers[CACHE_CONTROL], "no-cache");
    let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
    for part in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    let text = page.text().await.unwrap();
    assert!(text.contains("couchrep"), "{text}");
    let again = asked(Method::GET, &server, "/_couchrep/index.html").header(IF_NONE_MATCH, &headers[ETAG]);
    assert_eq!(again.send().await.unwrap().status(), 304);
    assert_eq!(get(&server, "/_couchrep/nothing.js").await.status(), 404);
    assert_eq!(asked(Method::PUT, &server, "/_couchrep/").send().await.unwrap().status(), 405);
}

/// A job that copies nothing, and one that can't.
async fn two_jobs(server: &Server) -> [String; 2] {
    server.put("/recipes", json!({}), 201).await;
    server.put("/recipes/soup", json!({ "salt": 1 }), 201).await;
    let mut ids = Vec::new();
    for (name, source) in [("good", "recipes"), ("bad", "nosuch")] {
        let body = json!({ "source": source, "target": "copy", "create_target": true, "continuous": true });
        server.put(&format!("/_replicator/{name}"), body, 201).await;
        let path = format!("/_scheduler/docs/_replicator/{name}");
        let state = if name == "good" { "running" } else { "crashing" };
        wait_until(async || {
            let told: Value = server.get(&path, 200).await;
            told["state"] == state
        })
        .await;
        let told: Value = server.get(&path, 200).await;
        ids.push(told["id"].as_str().unwrap().to_owned());
    }
    ids.try_into().unwrap()
}

#[tokio::test]
async fn failing_jobs_stand_first_and_what_is_the_same_is_not_told_twice() {
    let server = Server::with_config(|config| config.replicator.restart_pause = Duration::from_millis(600)).await;
    let [good, bad] = two_jobs(&server).await;
    let overview: Value = server.get("/_couchrep/jobs", 200).await;
    assert_eq!((&overview["total"], &overview["states"]["crashing"]), (&json!(2), &json!(1)));
    let rows: Vec<_> = overview["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(rows, [&bad, &good]);
    let failing = &overview["jobs"][0];
    // Since its first failure, however often it is tried.
    let path = format!("/_couchrep/jobs/{bad}");
    wait_until(async || server.get(&path, 200).await["error_count"].as_u64() >= Some(3)).await;
    assert_eq!(server.get(&path, 200).await["since"], failing["since"]);
    assert!(failing["reason"].as_str().unwrap().contains("could not open http://"), "{failing}");
    assert!(failing["next_try"].is_string() && failing["since"].is_string(), "{failing}");
    assert_eq!((&overview["server"]["admin"], &overview["server"]["couchdb"]), (&json!(true), &json!(null)));
    assert_eq!(overview["server"]["documents"], "couchrep");
    assert!(overview["server"]["refresh_ms"].as_u64().unwrap() >= 2000, "{overview}");
    for (query, found) in [
        ("states=running", vec![&good]),
        ("search=NOSUCH", vec![&bad]),
        ("search=%2Fgood", vec![&good]),
        ("limit=1&skip=1", vec![&good]),
    ] {
        let some: Value = server.get(&format!("/_couchrep/jobs?{query}"), 200).await;
        let ids: Vec<_> = some["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
        assert_eq!(ids, found, "{query}");
    }
    let packed =
        asked(Method::GET, &server, "/_couchrep/jobs").header("accept-encoding", "br, gzip").send().await.unwrap();
    assert_eq!(
        packed.headers().get("content-encoding").map(|coding| coding.as_bytes()),
        Some(&b"gzip"[..]),
        "{packed:?}"
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed.bytes().await.unwrap()[..]).read_to_string(&mut text).unwrap();
    assert!(serde_json::from_str::<Value>(&text).unwrap()["total"] == 2, "{text}");
    wait_until(async || {
        let first = get(&server, "/_couchrep/jobs?states=running").await;
        let again = asked(Method::GET, &server, "/_couchrep/jobs?states=running");
        again.header(IF_NONE_MATCH, &first.headers()[ETAG]).send().await.unwrap().status() == 304
    })
    .await;
}

#[tokio::test]
async fn jobs_are_paused_resumed_and_looked_at_one_by_one() {
    let server = Server::start().await;
    let [good, _] = two_jobs(&server).await;
    let path = format!("/_couchrep/jobs/{good}");
    for (action, paused) in [("pause", true), ("resume", false), ("retry_now", false)] {
        let (status, told) = told(with(asked(Method::POST, &server, &path), &json!({ "action": action }))).await;
        assert_eq!((status, &told["paused"]), (200, &json!(paused)), "{action}: {told}");
        if paused {
            let retried = with(asked(Method::POST, &server, &path), &json!({ "action": "retry_failures" }));
            assert_eq!(retried.send().await.unwrap().status(), 409, "a paused job copies nothing");
        }
    }
    let details: Value = server.get(&path, 200).await;
    assert!(details["history"].as_array().unwrap().iter().any(|event| event["type"] == "stopped"), "{details}");
    let (status, answer) = told(with(asked(Method::POST, &server, &path), &json!({ "action": "explode" }))).await;
    assert_eq!((status, &answer["error"]), (400, &json!("bad_request")), "{answer}");
    for body in [json!({}), json!([]), json!({ "action": 7 })] {
        assert_eq!(told(with(asked(Method::POST, &server, &path), &body)).await.0, 400);
    }
    let none = format!("/_couchrep/jobs/{}", "0".repeat(32));
    assert_eq!(get(&server, &none).await.status(), 404);
    assert_eq!(told(with(asked(Method::POST, &server, &none), &json!({ "action": "pause" }))).await.0, 404);
}

#[tokio::test]
async fn both_ends_are_looked_at_before_a_replication_is_asked_for() {
    let server = Server::start().await;
    let guarded = Server::with_admin_and("root", "secret", |_| {}).await;
    server.put("/recipes", json!({}), 201).await;
    server.put("/recipes/soup", json!({}), 201).await;
    let check = async |body: Value| told(with(asked(Method::POST, &server, "/_couchrep/check"), &body)).await;
    let (status, found) = check(json!({ "source": "recipes", "target": "copy", "create_target": true })).await;
    assert_eq!((status, &found["ok"], &found["source"]["doc_count"]), (200, &json!(true), &json!(1)), "{found}");
    assert_eq!((&found["target"]["missing"], &found["running"]), (&json!(true), &json!(false)));
    assert_eq!(found["id"].as_str().map(|id| id.split('+').next().unwrap().len()), Some(32), "{found}");
    assert_eq!(get(&server, "/copy").await.status(), 404, "nothing is made");

    let remote = |password: &str| {
        let auth = json!({ "basic": { "username": "root", "password": password } });
        json!({ "url": guarded.anonymous_url("/there"), "auth": auth })
    };
    let (_, found) = check(json!({ "source": "nosuch", "target": remote("wrong"), "create_target": true })).await;
    assert_eq!((&found["ok"], &found["source"]["error"]), (&json!(false), &json!("db_not_found")), "{found}");
    assert_eq!(found["target"]["error"], "unauthorized", "{found}");
    assert!(!found.to_string().contains("wrong"), "{found}");
    // A mended password counts at once, whatever a wrong one has shut, for the job that has it too.
    let job = json!({ "source": "recipes", "target": remote("wrong"), "create_target": true, "continuous": true });
    server.put("/_replicator/job", job.clone(), 201).await;
    let is = async |state: &str| {
        let entry: Value = server.get("/_scheduler/docs/_replicator/job", 200).await;
        entry["state"] == state
    };
    wait_until(async || is("crashing").await).await;
    let (_, found) = check(json!({ "source": "recipes", "target": remote("secret"), "create_target": true })).await;
    assert_eq!((&found["ok"], &found["target"]["missing"]), (&json!(true), &json!(true)), "{found}");
    let mut mended: Value = server.get("/_replicator/job", 200).await;
    mended["target"] = remote("secret");
    server.put("/_replicator/job", mended, 201).await;
    let started = std::time::Instant::now();
    wait_until(async || is("running").await).await;
    assert!(started.elapsed() < Duration::from_secs(30), "after a later refusal it waits for 100 s");

    let (_, found) = check(json!({ "source": "http://127.0.0.1:1/a", "target": "recipes" })).await;
    assert!(found["source"]["reason"].as_str().unwrap().contains("127.0.0.1:1"), "{found}");
    let (_, found) =
        check(json!({ "source": "recipes", "target": "copy", "create_target": true, "filter": "d/none" })).await;
    assert_eq!(
        (&found["ok"], &found["error"], &found["id"]),
        (&json!(false), &json!("not_found"), &json!(null)),
        "{found}"
    );
    for (body, reason) in
        [(json!({ "target": "b" }), "`source` is missing"), (json!([]), "Request body must be a JSON object")]
    {
        let (status, found) = check(body).await;
        assert_eq!((status, &found["reason"]), (400, &json!(reason)));
    }
}

#[tokio::test]
async fn a_jobs_databases_are_compared_while_somebody_reads_how_far_it_is() {
    let server = Server::start().await;
    let [good, bad] = two_jobs(&server).await;
    let verify = async |id: &str| {
        let request = with(asked(Method::POST, &server, "/_couchrep/verify"), &json!({ "id": id }));
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let last = text.lines().rfind(|line| !line.is_empty()).unwrap();
        (status, serde_json::from_str::<Value>(last).unwrap())
    };
    wait_until(async || {
        verify(&good).await == (200, json!({ "ok": true, "compared": 1, "missing": 0, "differences": [] }))
    })
    .await;
    let (_, wrong) = verify(&bad).await;
    assert_eq!(wrong["error"], "db_not_found", "{wrong}");
    assert_eq!(verify(&"0".repeat(32)).await.0, 404);
    let job = asked(Method::POST, &server, &format!("/_couchrep/jobs/{good}"));
    assert_eq!(told(with(job, &json!({ "action": "pause" }))).await.0, 200);
    server.put("/recipes/bread", json!({ "salt": 2 }), 201).await;
    let (_, lacking) = verify(&good).await;
    assert_eq!(
        (&lacking["ok"], &lacking["missing"], &lacking["differences"][0]["id"]),
        (&json!(false), &json!(1), &json!("bread"))
    );
}

/// What a design document refused is copied again when somebody has mended that, and wants it.
#[tokio::test]
async fn what_a_target_refused_is_tried_again_for_whoever_asks() {
    let server = Server::start().await;
    for db in ["/recipes", "/copy"] {
        server.put(db, json!({}), 201).await;
    }
    let refuses =
        json!({ "validate_doc_update": "function (doc) { if (!doc.salt) throw({forbidden: 'needs salt'}); }" });
    server.put("/copy/_design/salt", refuses, 201).await;
    server.put("/recipes/soup", json!({}), 201).await;
    let job = json!({ "source": "recipes", "target": "copy", "continuous": true });
    server.put("/_replicator/job", job, 201).await;
    let row = async || {
        let overview: Value = server.get("/_couchrep/jobs", 200).await;
        overview["jobs"][0].clone()
    };
    wait_until(async || row().await["doc_write_failures"] == 1).await;
    let id = row().await["id"].as_str().unwrap().to_owned();
    let retry = async || {
        let request = asked(Method::POST, &server, &format!("/_couchrep/jobs/{id}"));
        told(with(request, &json!({ "action": "retry_failures" }))).await
    };
    let (status, answer) = retry().await;
    assert_eq!((status, &answer["doc_write_failures"]), (200, &json!(1)), "{answer}");
    let design: Value = server.get("/copy/_design/salt", 200).await;
    let path = format!("/copy/_design/salt?rev={}", design["_rev"].as_str().unwrap());
    assert_eq!(asked(Method::DELETE, &server, &path).send().await.unwrap().status(), 200);
    let (status, answer) = retry().await;
    assert_eq!((status, &answer["docs_written"]), (200, &json!(1)), "{answer}");
    assert_eq!(get(&server, "/copy/soup").await.status(), 200);
}

/// A person who may read one database sees neither jobs nor names of others.
#[tokio::test]
async fn everybody_sees_and_touches_his_own_jobs_alone() {
    let server = Server::with_admin_and("root", "secret", |_| {}).await;
    server
        .put(
            "/_users/org.couchdb.user:ann",
            json!({ "name": "ann", "password": "pw", "type": "user", "roles": [] }),
            201,
        )
        .await;
    for db in ["/public", "/hidden", "/own"] {
        server.put(db, json!({}), 201).await;
    }
    server.put("/public/_security", json!({ "members": { "names": ["ann"] } }), 200).await;
    server.put("/own/_security", json!({ "members": { "names": ["ann"] } }), 200).await;
    let replicate = |source: &str, target: &str| json!({ "source": source, "target": target, "continuous": true });
    let theirs: Value = server.post("/_replicate", replicate("hidden", "public"), 202).await;
    let theirs = theirs["_local_id"].as_str().unwrap().to_owned();
    let ann = |method: Method, path: &str| asked(method, &server, path).basic_auth("ann", Some("pw"));
    let (status, own) = told(with(ann(Method::POST, "/_replicate"), &replicate("public", "own"))).await;
    assert_eq!(status, 202, "{own}");
    wait_until(async || {
        let (_, overview) = told(ann(Method::GET, "/_couchrep/jobs?limit=500")).await;
        assert!(!overview.to_string().contains("hidden") && !overview.to_string().contains(&theirs), "{overview}");
        assert_eq!((&overview["server"]["admin"], &overview["trend"]), (&json!(false), &json!(null)));
        overview["total"] == 1 && overview["jobs"][0]["id"] == own["_local_id"]
    })
    .await;
    let path = format!("/_couchrep/jobs/{theirs}");
    assert_eq!(told(ann(Method::GET, &path)).await.0, 404);
    for action in ["pause", "retry_now", "retry_failures"] {
        assert_eq!(told(with(ann(Method::POST, &path), &json!({ "action": action }))).await.0, 404, "{action}");
    }
    assert_eq!(told(with(ann(Method::POST, "/_couchrep/verify"), &json!({ "id": theirs }))).await.0, 404);
    let check = json!({ "source": "hidden", "target": "own" });
    let (_, found) = told(with(ann(Method::POST, "/_couchrep/check"), &check)).await;
    assert_eq!(found["source"]["error"], "unauthorized", "{found}");
    let own = format!("/_couchrep/jobs/{}", own["_local_id"].as_str().unwrap());
    assert_eq!(told(with(ann(Method::POST, &own), &json!({ "action": "retry_now" }))).await.0, 200);
    for path in ["/_couchrep/jobs", &own] {
        assert_eq!(get(&server, path).await.status(), 401, "{path}");
    }
}

/// Whoever had lost a role still had the databases of the jobs that he made with it compared, and read there what he mayn't.
#[tokio::test]
async fn what_is_done_with_a_job_is_done_with_the_rights_that_its_owner_has_now() {
    let server = Server::with_admin_and("root", "secret", |_| {}).await;
    let user = |roles: Value| json!({ "name": "ann", "password": "pw", "type": "user", "roles": roles });
    let made = server.put("/_users/org.couchdb.user:ann", user(json!(["hr"])), 201).await;
    for (db, members) in [
        ("/hr", json!({ "roles": ["hr"] })),
        ("/own", json!({ "names": ["ann"] })),
        ("/of%2F_replicator", json!({ "names": ["ann"] })),
    ] {
        server.put(db, json!({}), 201).await;
        server.put(&format!("{db}/_security"), json!({ "admins": {}, "members": members }), 200).await;
    }
    let ann = |method: Method, path: &str| asked(method, &server, path).basic_auth("ann", Some("pw"));
    let job = json!({ "source": "hr", "target": "own", "continuous": true });
    assert_eq!(told(with(ann(Method::PUT, "/of%2F_replicator/job"), &job)).await.0, 201);
    let mut id = String::new();
    wait_until(async || {
        let (_, overview) = told(ann(Method::GET, "/_couchrep/jobs")).await;
        id = overview["jobs"][0]["id"].as_str().unwrap_or_default().to_owned();
        overview["jobs"][0]["caught_up"] == true
    })
    .await;
    let verified = async || {
        let request = with(ann(Method::POST, "/_couchrep/verify"), &json!({ "id": id }));
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(text.lines().rfind(|line| !line.is_empty()).unwrap()).unwrap()
    };
    assert_eq!(verified().await["ok"], true);
    let mut without = user(json!([]));
    without["_rev"] = made["rev"].clone();
    server.put("/_users/org.couchdb.user:ann", without, 201).await;
    server.put("/hr/secret", json!({}), 201).await;
    let refused = verified().await;
    assert_eq!(refused["error"], "unauthorized", "{refused}");
    let retried = with(ann(Method::POST, &format!("/_couchrep/jobs/{id}")), &json!({ "action": "retry_failures" }));
    let (status, refused) = told(retried).await;
    assert_eq!((status, &refused["error"]), (401, &json!("unauthorized")), "{refused}");
}

/// A browser sends its cookie along with what another site's page asks for.
#[tokio::test]
async fn what_another_sites_page_asks_for_is_refused() {
    let server = Server::with_admin_and("root", "secret", |_| {}).await;
    let login = asked(Method::POST, &server, "/_session");
    let login = with(login, &json!({ "name": "root", "password": "secret" }));
    let login = login.send().await.unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let beside = Server::with_config(|config| {
        config.couchdb = Some(couchrep::config::couchdb::CouchDb::parse(&server.anonymous_url("")).unwrap());
    })
    .await;
    for server in [&server, &beside] {
        for path in ["/_couchrep/check", "/_couchrep/verify", "/_couchrep/jobs/x", "/_replicate", "/_scheduler/jobs/x"]
        {
            let forged =
                asked(Method::POST, server, path).header("cookie", &cookie).header("origin", "http://evil.example");
            let (status, answer) = told(with(forged, &json!({}))).await;
            assert_eq!((status, &answer["error"]), (403, &json!("forbidden")), "{path}: {answer}");
        }
        let own = asked(Method::POST, server, "/_couchrep/check").header("cookie", &cookie);
        let own = with(own.header("origin", server.anonymous_url("")), &json!({ "source": "a", "target": "b" }));
        assert_eq!(told(own.timeout(Duration::from_secs(60))).await.0, 200);
    }
}

/// Where there are no admins, a page of any site in a browser of this machine could write here.
#[tokio::test]
async fn where_everybody_is_admin_another_sites_page_writes_nothing() {
    let server = Server::with_config(|config| {
        config.cors.enabled = true;
        config.cors.origins = vec!["https://app.example.com".into()];
    })
    .await;
    let own = server.anonymous_url("");
    for (origin, status) in [("http://evil.example", 403), ("null", 403), ("https://app.example.com", 201), (&own, 201)]
    {
        let database = format!("/db-{}", origin.len());
        let answer = asked(Method::PUT, &server, &database).header("origin", origin).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{origin}");
    }
    let reading = asked(Method::GET, &server, "/").header("origin", "http://evil.example").send().await.unwrap();
    assert_eq!(reading.status(), 200);
}
