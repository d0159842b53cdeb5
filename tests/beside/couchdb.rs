//! Beside a real CouchDB, if `COUCHDB_URL` names one: what it answers to us it answers through us.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use couchrep::config::couchdb::CouchDb;
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use super::raw::{Wire, lines};
use crate::support::{self, Server, client};

/// The CouchDB, a couchrep beside it, and a database of the test's own.
struct Rig {
    couchdb: Url,
    server: Server,
    db: String,
}

impl Rig {
    async fn start() -> Option<Self> {
        let couchdb = Url::parse(&std::env::var("COUCHDB_URL").ok().filter(|url| !url.is_empty())?).unwrap();
        let mut root = couchdb.clone();
        root.set_username("").unwrap();
        root.set_password(None).unwrap();
        let server = Server::with_config(|config| config.couchdb = Some(CouchDb::parse(root.as_str()).unwrap())).await;
        let rig = Self { couchdb, server, db: format!("couchrep-test-{:032x}", rand::random::<u128>()) };
        rig.json(Method::PUT, "", None, 201).await;
        Some(rig)
    }

    /// The admin's URL of a path below the database, or of another one, through us.
    fn url(&self, path: &str) -> String {
        let (name, password) = (self.couchdb.username(), self.couchdb.password().unwrap());
        format!("http://{name}:{password}@{}{path}", self.server.addr())
    }

    async fn json(&self, method: Method, path: &str, body: Option<Value>, status: u16) -> Value {
        support::json(&client(), method, self.url(&format!("/{}{path}", self.db)), body.as_ref(), status).await
    }

    async fn end(self) {
        self.json(Method::DELETE, "", None, 200).await;
    }

    fn addr(&self) -> SocketAddr {
        self.couchdb.socket_addrs(|| None).unwrap()[0]
    }

    /// What is answered to these bytes, without what is another's in each answer.
    async fn answered(&self, addr: SocketAddr, request: &str) -> (Vec<String>, String) {
        let mut client = Wire::connect(addr).await;
        client.send(request.replace("{db}", &self.db).replace("{host}", "couch.example:1234")).await;
        let answer = client.rest().await;
        // A multipart answer's boundary is drawn.
        let boundary = answer.split_once("boundary=\"").and_then(|(_, rest)| rest.split('"').next());
        let answer =
            boundary.map_or_else(|| answer.clone(), |boundary| answer.replace(boundary, &"b".repeat(boundary.len())));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {answer:?}"));
        let mut lines = lines(head);
        let of_its_own = [
            "date:",
            "x-couch-request-id:",
            "x-couchdb-body-time:",
            "connection:",
            "transfer-encoding:",
            "set-cookie:",
        ];
        lines.retain(|line| !of_its_own.iter().any(|name| line.to_lowercase().starts_with(name)));
        let body =
            if head.to_lowercase().contains("transfer-encoding: chunked") { dechunked(body) } else { body.to_owned() };
        (lines, body)
    }
}

/// The text of a chunked body, in which a character is a byte.
fn dechunked(text: &str) -> String {
    let (mut whole, mut rest) = (String::new(), text.to_owned());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        whole.extend(after.chars().take(size));
        rest = after.chars().skip(size + 2).collect();
    }
    whole
}

#[tokio::test]
async fn a_couchdb_answers_the_same_directly_and_through_us() {
    let Some(rig) = Rig::start().await else { return };
    for number in 0..5 {
        rig.json(Method::PUT, &format!("/doc{number}"), Some(json!({ "n": number, "text": "ü" })), 201).await;
    }
    let views = json!({ "v": { "map": "function (doc) { emit(doc.n, 1) }", "reduce": "_count" } });
    let shows = json!({ "s": "function (doc, req) { return {body: req.path.join('|'), headers: {'X-Mine': 'a'}} }" });
    rig.json(Method::PUT, "/_design/d", Some(json!({ "views": views, "shows": shows })), 201).await;
    let att = client().put(rig.url(&format!("/{}/att/a%20b.txt", rig.db))).header("content-type", "text/plain");
    assert_eq!(att.body("0123456789".repeat(1000)).send().await.unwrap().status(), 201);
    let rev = rig.json(Method::GET, "/doc1", None, 200).await["_rev"].as_str().unwrap().to_owned();
    let pair = format!("{}:{}", rig.couchdb.username(), rig.couchdb.password().unwrap());
    let authorization = format!("Authorization: Basic {}\r\n", STANDARD.encode(pair));
    let requests = [
        ("GET /", ""),
        ("GET /_all_dbs?limit=1", ""),
        ("GET /{db}/doc1", ""),
        ("GET /{db}/doc1/", ""),
        ("GET //{db}//doc1", ""),
        ("HEAD /{db}/doc1", ""),
        ("GET /{db}/doc1", "If-None-Match: \"{rev}\"\r\n"),
        ("GET /{db}/doc1?rev=9-x", ""),
        ("GET /{db}/doc1?attachments=true&revs=true", "Accept: multipart/related\r\n"),
        ("GET /{db}/doc1?open_revs=[\"{rev}\"]", ""),
        ("GET /{db}/doc1?open_revs=%5B%22{rev}%22%5D", "Accept: application/json\r\n"),
        ("GET /{db}/%64oc1", ""),
        ("GET /{db}/doc1%2Fx", ""),
        ("GET /{db}/nothing", ""),
        ("GET /{db}/_design/d/_view/v?key=1&reduce=false", ""),
        ("GET /{db}/_design%2Fd/_view/v?group=true", "Accept-Encoding: gzip\r\n"),
        ("GET /{db}/_design/d/_view/v?keys=[1,2]&reduce=false", ""),
        ("GET /{db}/_design/d/_view/none", ""),
        ("GET /{db}/_design/d/_show/s/a+b?q=\"x\"", ""),
        ("GET /{db}/_all_docs?startkey=\"doc2\"&endkey=%22doc3%22&include_docs=true", ""),
        ("HEAD /{db}/_all_docs", ""),
        ("GET /{db}/att/a%20b.txt", ""),
        ("GET /{db}/att/a%20b.txt", "Accept-Encoding: gzip\r\nRange: bytes=1-3\r\n"),
        ("HEAD /{db}/att/a%20b.txt", ""),
        ("GET /{db}/att/a+b.txt", ""),
        ("COPY /{db}/doc1", "Destination: doc1\r\n"),
        ("PATCH /{db}/doc1", "Content-Length: 0\r\n"),
        ("DELETE /{db}/doc1?rev=9-x", ""),
        ("PUT /{db}", "Content-Length: 0\r\n"),
        ("PUT /UPPER", "Content-Length: 0\r\n"),
        ("POST /{db}/_find", "Content-Type: text/plain\r\nContent-Length: 2\r\n"),
        ("OPTIONS /{db}", "Origin: https://app.example\r\nAccess-Control-Request-Method: PUT\r\n"),
        ("GET /_session", ""),
        ("GET /_session?basic=true", ""),
        ("GET /_utils", ""),
        ("GET /_utils/", ""),
        ("GET /_up", ""),
        ("GET /_nothing", ""),
        ("GET /{db}/_local/none", ""),
        ("POST /{db}/_bulk_docs", "Content-Type: application/json\r\nContent-Length: 2\r\n"),
        ("POST /{db}/_revs_diff", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"),
    ];
    let mut differing = Vec::new();
    for (line, headers) in requests {
        for who in ["", authorization.as_str()] {
            let mut request = format!("{line} HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n{who}{headers}\r\n");
            request.push_str(match () {
                () if headers.contains("chunked") => "2\r\n{}\r\n0\r\n\r\n",
                () if headers.contains("Content-Length: 2") => "{}",
                () => "",
            });
            let request = request.replace("{rev}", &rev);
            let direct = rig.answered(rig.addr(), &request).await;
            let through = rig.answered(rig.server.addr(), &request).await;
            if direct != through {
                differing.push(format!("{request}\n{direct:#?}\n{through:#?}"));
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
    rig.end().await;
}

#[tokio::test]
async fn a_couchdbs_feed_and_large_attachments_pass_through() {
    let Some(rig) = Rig::start().await else { return };
    let mut feed =
        client().get(rig.url(&format!("/{}/_changes?feed=continuous&heartbeat=200", rig.db))).send().await.unwrap();
    let large = vec![b'x'; 20 << 20];
    let sent =
        client().put(rig.url(&format!("/{}/doc/att", rig.db))).header("expect", "100-continue").body(large.clone());
    assert_eq!(sent.send().await.unwrap().status(), 201);
    let got = client().get(rig.url(&format!("/{}/doc/att", rig.db))).send().await.unwrap().bytes().await.unwrap();
    assert!(got == large);
    let (mut seen, mut heartbeats) = (String::new(), 0);
    while !seen.contains("\"id\":\"doc\"") || heartbeats < 2 {
        let piece = feed.chunk().await.unwrap().unwrap();
        heartbeats += usize::from(&piece[..] == b"\n");
        seen.push_str(std::str::from_utf8(&piece).unwrap());
    }
    drop(feed);
    rig.end().await;
}

/// Either goes on where the other stopped.
#[tokio::test]
async fn a_couchdb_gives_a_replication_the_id_that_we_give_it() {
    let Some(rig) = Rig::start().await else { return };
    rig.json(Method::PUT, "/doc", Some(json!({})), 201).await;
    let (target, direct) = (format!("{}-target", rig.db), rig.couchdb.join("_replicate").unwrap().to_string());
    let body = json!({ "source": rig.db, "target": target, "create_target": true, "continuous": true });
    let started = support::json(&client(), Method::POST, rig.url("/_replicate"), Some(&body), 202).await;
    let mut cancel = body.clone();
    cancel["cancel"] = json!(true);
    support::json(&client(), Method::POST, rig.url("/_replicate"), Some(&cancel), 200).await;
    let theirs = support::json(&client(), Method::POST, direct.clone(), Some(&body), 202).await;
    support::json(&client(), Method::POST, direct, Some(&cancel), 200).await;
    assert_eq!(started, theirs);
    let once = json!({ "source": rig.db, "target": target, "create_target": true });
    let done = support::json(&client(), Method::POST, rig.url("/_replicate"), Some(&once), 200).await;
    assert_eq!(done["ok"], true, "{done}");
    support::json(&client(), Method::DELETE, rig.url(&format!("/{target}")), None, 200).await;
    rig.end().await;
}

/// What somebody may do here is what CouchDB lets him do.
#[tokio::test]
async fn a_couchdbs_users_have_their_own_rights_and_no_more() {
    let Some(rig) = Rig::start().await else { return };
    rig.json(Method::PUT, "/doc", Some(json!({})), 201).await;
    let name = format!("couchrep-test-{:016x}", rand::random::<u64>());
    let user = rig.url(&format!("/_users/org.couchdb.user:{name}"));
    let account = json!({ "name": name, "password": "pw", "roles": [], "type": "user" });
    let made = support::json(&client(), Method::PUT, user.clone(), Some(&account), 201).await;
    let (target, closed) = (format!("{}-target", rig.db), format!("{}-closed", rig.db));
    for db in [&target, &closed] {
        support::json(&client(), Method::PUT, rig.url(&format!("/{db}")), None, 201).await;
    }
    let members = json!({ "members": { "names": [name] }, "admins": { "names": [name] } });
    for db in [&rig.db, &target] {
        support::json(&client(), Method::PUT, rig.url(&format!("/{db}/_security")), Some(&members), 200).await;
    }
    let as_user = rig.server.anonymous_url("/_replicate").replace("://", &format!("://{name}:pw@"));
    let ask = async |body: Value, status: u16| {
        support::json(&client(), Method::POST, as_user.clone(), Some(&body), status).await
    };
    let done = ask(json!({ "source": rig.db, "target": target }), 200).await;
    assert_eq!(done["history"][0]["docs_written"], 1, "{done}");
    ask(json!({ "source": closed, "target": target }), 401).await;
    ask(json!({ "source": rig.db, "target": closed }), 401).await;
    ask(json!({ "source": rig.db, "target": format!("{}-new", rig.db), "create_target": true }), 401).await;
    // A session of CouchDB's, got through us.
    let form = client().post(rig.server.anonymous_url("/_session")).body(format!("name={name}&password=pw"));
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let cookie =
        form.send().await.unwrap().headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let by_cookie = client().post(rig.server.anonymous_url("/_replicate")).header("cookie", cookie);
    let body = json!({ "source": rig.db, "target": target }).to_string();
    let answer = by_cookie.header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let anonymous = json!({ "source": rig.db, "target": target });
    support::json(&client(), Method::POST, rig.server.anonymous_url("/_replicate"), Some(&anonymous), 401).await;
    for db in [&target, &closed] {
        support::json(&client(), Method::DELETE, rig.url(&format!("/{db}")), None, 200).await;
    }
    support::json(&client(), Method::DELETE, format!("{user}?rev={}", made["rev"].as_str().unwrap()), None, 200).await;
    rig.end().await;
}
