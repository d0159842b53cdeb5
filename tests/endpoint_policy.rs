//! Where replications may connect to (`[replicator] allow`, `deny`, `allow_users`, `deny_users`): every way to an endpoint, with real
//! servers, one of them forbidden. What matters is that nobody comes there.

use std::sync::Arc;
use std::time::Duration;

use couchrep::config::Config;
use couchrep::policy::{EndpointRules, Rule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::scheduler::until;
use crate::support::{Fault, FaultyPeer, Process, Server, client};

/// A server with the admin root and the user ann, and another server behind two doors, at one of which nobody may knock.
struct Bench {
    server: Server,
    remote: Server,
    open: FaultyPeer,
    shut: FaultyPeer,
}

impl Bench {
    /// `rules`: from the port that is shut.
    async fn start(rules: impl FnOnce(u16) -> EndpointRules) -> Self {
        let remote = Server::start().await;
        remote.database("src").await.fill("doc", 3).await;
        remote.database("tgt").await;
        let code = "function(doc, req) { return true }";
        remote.put("/src/_design/d", json!({ "filters": { "f": code } }), 201).await;
        let (open, shut) = (FaultyPeer::before(&remote).await, FaultyPeer::before(&remote).await);
        let rules = rules(port(&shut));
        let server = Server::with_admin_and("root", "hunter2", |config: &mut Config| {
            config.replicator.endpoints = Arc::new(rules);
            config.replicator.restart_pause = Duration::from_millis(100);
            config.replicator.max_restart_pause = Duration::from_millis(300);
            config.replicator.retry_time_limit = Duration::from_secs(5);
        });
        let server = server.await;
        let user = json!({ "name": "ann", "password": "pw", "roles": [], "type": "user" });
        server.put("/_users/org.couchdb.user:ann", user, 201).await;
        for database in ["local", "copy"] {
            server.database(database).await;
        }
        for database in ["local", "copy", "_replicator"] {
            let security = json!({ "members": { "names": ["ann"], "roles": [] } });
            server.put(&format!("/{database}/_security"), security, 200).await;
        }
        Self { server, remote, open, shut }
    }

    /// A server that may not connect to the shut door, whatever it is called.
    async fn denying() -> Self {
        Self::start(|port| denied(&format!("127.0.0.0/8:{port}, [::1]:{port}"))).await
    }

    /// A request of somebody's; `None` is root.
    async fn send(&self, who: Option<&str>, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let url = match who {
            None => self.server.url(path),
            Some(name) => self.server.anonymous_url(path).replace("http://", &format!("http://{name}:pw@")),
        };
        let request = client().request(method, url).header("Content-Type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn replicate(&self, who: Option<&str>, body: &Value) -> (u16, Value) {
        self.send(who, Method::POST, "/_replicate", body).await
    }

    /// Why a replication is forbidden.
    async fn refused(&self, who: Option<&str>, body: Value) -> String {
        let (status, answer) = self.replicate(who, &body).await;
        assert_eq!((status, &answer["error"]), (403, &json!("forbidden")), "{body} {answer}");
        let reason = answer["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("replications may not connect to "), "{reason}");
        reason
    }

    /// The forbidden database, as other words for the same address have it.
    fn shut_urls(&self) -> Vec<String> {
        let hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:7f00:1]", "0"];
        hosts.iter().map(|host| self.shut.url("/src").replace("127.0.0.1", host)).collect()
    }

    #[track_caller]
    fn nobody_came(&self) {
        assert_eq!(self.shut.requests(), [""; 0]);
    }
}

fn port(peer: &FaultyPeer) -> u16 {
    peer.url("").rsplit(':').next().unwrap().parse().unwrap()
}

fn denied(rules: &str) -> EndpointRules {
    EndpointRules { deny: Rule::list(rules).unwrap(), ..EndpointRules::default() }
}

fn to(url: &str) -> Fault {
    Fault::Answer(307, vec![("location", url.to_owned())], String::new())
}

#[tokio::test]
async fn no_source_and_no_target_is_forbidden_and_connected_to() {
    let bench = Bench::denying().await;
    for url in bench.shut_urls() {
        let rule = format!("`deny` has `127.0.0.0/8:{}`", port(&bench.shut));
        for body in [json!({ "source": url, "target": "local" }), json!({ "source": "local", "target": url })] {
            let reason = bench.refused(None, body).await;
            assert!(reason.contains(&rule) || url.contains("localhost") && reason.contains("`deny` has `"), "{reason}");
        }
    }
    // By its URL a continuous one is refused at once, whether it is to be kept or not.
    for keep in [false, true] {
        let source = bench.shut.url("/src");
        bench.refused(None, json!({ "source": source, "target": "local", "continuous": true, "keep": keep })).await;
    }
    assert_eq!(bench.server.get("/_active_tasks", 200).await, json!([]));
    assert_eq!(bench.server.get("/_replicator", 200).await["doc_count"], 0);
    bench.nobody_came();
    let (status, answer) = bench.replicate(None, &json!({ "source": bench.open.url("/src"), "target": "local" })).await;
    assert_eq!((status, &answer["history"][0]["docs_written"]), (200, &json!(4)), "{answer}");
}

#[tokio::test]
async fn databases_of_this_server_are_no_endpoints() {
    let bench = Bench::start(|_| denied("*")).await;
    bench.server.put("/local/a", json!({}), 201).await;
    let (status, answer) = bench.replicate(Some("ann"), &json!({ "source": "local", "target": "copy" })).await;
    assert_eq!((status, &answer["history"][0]["docs_written"]), (200, &json!(1)), "{answer}");
    bench.refused(None, json!({ "source": bench.open.url("/src"), "target": "local" })).await;
}

#[tokio::test]
async fn redirects_filters_tokens_and_proxies_lead_nowhere_either() {
    let bench = Bench::denying().await;
    let here = |source: Value| json!({ "source": source, "target": "local" });
    for url in bench.shut_urls() {
        bench.open.keep_failing(Method::GET, "/src", to(&url), None);
        bench.refused(None, here(json!(bench.open.url("/src")))).await;
        let filtered = json!({ "source": bench.open.url("/src"), "target": "local", "filter": "d/f" });
        bench.refused(None, filtered).await;
        bench.open.heal();
        let shut = url.replace("/src", "");
        for name in ["source_proxy", "proxy"] {
            let mut body = here(json!("http://192.0.2.1/src"));
            body[name] = json!(shut);
            bench.refused(None, body).await;
        }
        let oauth2 = json!({ "token_url": format!("{shut}/token"), "client_id": "c", "client_secret": "s" });
        bench.refused(None, here(json!({ "url": bench.open.url("/src"), "auth": { "oauth2": oauth2 } }))).await;
    }
    // In the middle: what is asked for later is led elsewhere, and no document is given up for it.
    let elsewhere = to(&bench.shut.url("/src/_bulk_get"));
    bench.open.keep_failing(Method::POST, "/_bulk_get", elsewhere, None);
    bench.refused(None, here(json!(bench.open.url("/src")))).await;
    assert_eq!(
        bench.server.get("/local/_local_docs", 200).await["rows"],
        json!([]),
        "no checkpoint, no list of failures"
    );
    bench.nobody_came();
}

#[tokio::test]
async fn a_document_that_names_a_forbidden_url_fails_and_one_that_meets_it_on_the_way_is_tried_again() {
    let bench = Bench::denying().await;
    let put = async |name: &str, body: Value| {
        let (status, answer) = bench.send(Some("ann"), Method::PUT, &format!("/_replicator/{name}"), &body).await;
        assert_eq!(status, 201, "{answer}");
    };
    let state = async |name: &str, state: &str| {
        let path = format!("/_scheduler/docs/_replicator/{name}");
        let entry = until(&bench.server, &path, |entry| entry["state"] == state).await;
        entry["info"]["error"].as_str().unwrap().to_owned()
    };
    let shut = bench.shut.url("/src");
    put("source", json!({ "source": shut, "target": "local", "continuous": true })).await;
    put("target", json!({ "source": "local", "target": shut })).await;
    put("filter", json!({ "source": shut, "target": "local", "filter": "d/f" })).await;
    put("proxy", json!({ "source": "http://192.0.2.1/src", "target": "local", "source_proxy": bench.shut.url("") }))
        .await;
    for name in ["source", "target", "filter", "proxy"] {
        let reason = state(name, "failed").await;
        assert!(reason.starts_with("forbidden: replications may not connect to http://127.0.0.1:"), "{reason}");
        let document = bench.server.get(&format!("/_replicator/{name}"), 200).await;
        assert_eq!(document["_replication_state_reason"], reason);
    }
    // What a name stands for, and where a server leads, isn't in the document.
    let named = shut.replace("127.0.0.1", "localhost");
    put("named", json!({ "source": named, "target": "local", "continuous": true })).await;
    put("named-filter", json!({ "source": named, "target": "copy", "filter": "d/f" })).await;
    bench.open.keep_failing(Method::GET, "/src", to(&shut), None);
    put("moved", json!({ "source": bench.open.url("/src"), "target": "local", "continuous": true })).await;
    assert!(state("named", "crashing").await.contains("forbidden: replications may not connect to http://localhost:"));
    assert!(state("named-filter", "error").await.contains("forbidden: "));
    assert!(state("moved", "crashing").await.contains(&format!("`deny` has `127.0.0.0/8:{}`", port(&bench.shut))));
    bench.nobody_came();
    // It goes on when it may.
    bench.open.heal();
    let (docs, rows) = ("/local/_all_docs", "total_rows");
    // All but the design document, which ann may not write.
    until(&bench.server, docs, |found| found[rows].as_u64() >= Some(3)).await;
    // Written again, a failed one is looked at again.
    let mut document = bench.server.get("/_replicator/source", 200).await;
    document["source"] = json!(bench.open.url("/src"));
    document["target"] = json!("copy");
    document.as_object_mut().unwrap().retain(|name, _| !name.starts_with("_replication_"));
    bench.server.put("/_replicator/source", document, 201).await;
    until(&bench.server, "/copy/_all_docs", |found| found[rows].as_u64() >= Some(3)).await;
}

#[tokio::test]
async fn the_feed_that_wakes_jobs_goes_nowhere_else() {
    let bench = Bench::denying().await;
    bench.open.keep_failing(Method::GET, "/_db_updates", to(&bench.shut.url("/_db_updates")), None);
    bench.open.keep_failing(Method::POST, "/_dbs_info", to(&bench.shut.url("/_dbs_info")), None);
    let (status, _) = bench
        .replicate(None, &json!({ "source": bench.open.url("/src"), "target": "local", "continuous": true }))
        .await;
    assert_eq!(status, 202);
    bench.open.saw("/_db_updates").await;
    bench.remote.put("/src/later", json!({}), 201).await;
    until(&bench.server, "/local/later", |found| found["_id"] == "later").await;
    bench.nobody_came();
}

#[tokio::test]
async fn users_may_be_held_to_less_than_admins() {
    let narrow = |port| EndpointRules {
        allow_users: Rule::list(&format!("*:1-{}, *:{}-65535", port - 1, port + 1)).unwrap(),
        ..EndpointRules::default()
    };
    let bench = Bench::start(narrow).await;
    let body = |target: &str| json!({ "source": bench.shut.url("/src"), "target": target });
    let reason = bench.refused(Some("ann"), body("local")).await;
    assert!(reason.ends_with("`allow_users` doesn't have it"), "{reason}");
    let put = async |who: Option<&str>, name: &str, target: &str| {
        let (status, _) = bench.send(who, Method::PUT, &format!("/_replicator/{name}"), &body(target)).await;
        assert_eq!(status, 201);
    };
    put(Some("ann"), "anns", "copy").await;
    until(&bench.server, "/_replicator/anns", |doc| doc["_replication_state"] == "failed").await;
    bench.nobody_came();
    put(None, "roots", "copy").await;
    until(&bench.server, "/_replicator/roots", |doc| doc["_replication_state"] == "completed").await;
    assert_eq!(bench.replicate(None, &body("local")).await.0, 200);
    let came = bench.shut.requests().len();
    assert!(came > 0);
    // What is kept of admins' connections isn't for users.
    bench.refused(Some("ann"), body("local")).await;
    assert_eq!(bench.shut.requests().len(), came);
    let (status, _) =
        bench.replicate(Some("ann"), &json!({ "source": bench.open.url("/src"), "target": "local" })).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn what_clouds_tell_of_a_machine_is_forbidden_without_any_setting() {
    let bench = Bench::start(|_| EndpointRules::default()).await;
    for (host, rule) in [
        ("169.254.169.254", "metadata"),
        ("2852039166", "metadata"),
        ("0xa9.0xfe.0xa9.0xfe", "metadata"),
        ("[::ffff:169.254.169.254]", "metadata"),
        ("[fd00:ec2::254]", "metadata"),
        ("169.254.0.1", "link-local"),
        ("[fe80::1]", "link-local"),
    ] {
        let reason =
            bench.refused(Some("ann"), json!({ "source": format!("http://{host}/latest"), "target": "local" }));
        let reason = reason.await;
        assert!(reason.ends_with(&format!(": `{rule}` is denied unless `allow` names it")), "{reason}");
    }
    bench.open.keep_failing(Method::GET, "/src", to("http://169.254.169.254/latest/"), None);
    // Loopback and private networks are allowed.
    let (status, answer) = bench.replicate(None, &json!({ "source": bench.open.url("/src"), "target": "local" })).await;
    assert_eq!(status, 502, "another rule was faster: {answer}");
    bench.open.heal();
    assert_eq!(bench.replicate(None, &json!({ "source": bench.open.url("/src"), "target": "local" })).await.0, 200);
}

/// A user proved who he wasn't with an operator's certificate, and was told which files there are.
#[tokio::test]
async fn files_of_the_server_are_named_by_server_admins_alone() {
    let bench = Bench::start(|_| EndpointRules::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("client.pem");
    std::fs::write(&there, "no certificate").unwrap();
    let source = |tls: Value| json!({ "url": bench.open.url("/src"), "tls": tls });
    let ending = "only server admins may name files of this server in `tls`";
    for file in [there, dir.path().join("missing")] {
        for tls in [
            json!({ "cert_file": file }),
            json!({ "cert_file": file, "key_file": file }),
            json!({ "ssl_trusted_certificates_file": file }),
        ] {
            for (source, target) in [(source(tls.clone()), json!("local")), (json!("local"), source(tls))] {
                for more in [json!({}), json!({ "continuous": true }), json!({ "continuous": true, "keep": true })] {
                    let mut body = json!({ "source": source, "target": target });
                    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                    let reason = bench.refused(Some("ann"), body).await;
                    assert!(reason.ends_with(ending), "{reason}");
                }
            }
        }
    }
    let body = |tls| json!({ "source": source(tls), "target": "local" });
    let missing = json!({ "cert_file": dir.path().join("missing") });
    let (status, _) = bench.send(Some("ann"), Method::PUT, "/_replicator/anns", &body(missing.clone())).await;
    assert_eq!(status, 201);
    let failed = until(&bench.server, "/_replicator/anns", |doc| doc["_replication_state"] == "failed").await;
    let reason = failed["_replication_state_reason"].as_str().unwrap();
    assert!(reason.starts_with("forbidden: ") && reason.ends_with(ending), "{reason}");
    assert_eq!(bench.open.requests(), [""; 0]);
    // An admin's file is looked for.
    let (status, answer) = bench.replicate(None, &body(missing.clone())).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["reason"].as_str().unwrap().starts_with("could not read `cert_file`"), "{answer}");
    bench.server.put("/_replicator/roots", body(missing), 201).await;
    let path = "/_scheduler/docs/_replicator/roots";
    let entry = until(&bench.server, path, |entry| entry["state"] == "crashing").await;
    assert!(entry["info"]["error"].as_str().unwrap().contains("could not read `cert_file`"), "{entry}");
    // What names no file is anybody's.
    let (status, answer) = bench.replicate(Some("ann"), &body(json!({ "verify_ssl_certificates": false }))).await;
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn the_command_line_and_the_environment_have_rules_too() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let run = |args: &[&str], environment: &[(&str, &str)]| {
        let command = ["replicate", "http://127.0.0.1:1/a", "http://127.0.0.1:2/b"];
        let ran = Process::run(&[&command[..], args].concat(), environment);
        (ran.status.code().unwrap(), String::from_utf8(ran.stderr).unwrap())
    };
    let environment = [("COUCHREP_DENY", "127.0.0.0/8:2"), ("COUCHREP_DATA_DIR", data)];
    for (args, environment) in [(&["--deny", "db.example,:1"][..], &[][..]), (&[], &environment)] {
        let (code, told) = run(args, environment);
        assert_ne!(code, 0);
        assert!(told.contains("replications may not connect to http://127.0.0.1:"), "{told}");
    }
    let (code, told) = run(&["--allow", "10.*"], &[]);
    assert!(code != 0 && told.contains("a network is written as 10.0.0.0/8"), "{told}");
}
