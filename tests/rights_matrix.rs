//! Who may do what on every route, beside a CouchDB 3.5.0: `data/rights.txt` has its statuses, eleven callers by two hundred
//! requests. Every status is the same here, or the difference stands in [`DIFFERENT`] with its reason.
//!
//! `COUCHREP_MATRIX=1` prints the matrix.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName};
use ring::hmac;
use serde_json::{Value, json};

use super::support::{Server, client};

const SECRET: &str = "the cookies' secret";

/// What is otherwise here, by method and path (a `*` stands for any text): for which statuses of CouchDB which ones of ours,
/// and why.
const DIFFERENT: &[(&str, &[u16], &[u16], &str)] = &[
    ("GET /_utils/", &[404], &[302], "the CouchDB that was asked has no Fauxton; here it leads to couchrep's own page"),
    (
        "*",
        &[200, 202, 404, 405, 410, 503],
        &[501],
        "couchrep doesn't have it, and says so to whoever CouchDB would answer",
    ),
    ("PUT /m_*/_security", &[500], &[401, 403], "CouchDB refuses too, with the words `no_majority`"),
    ("PUT /m_*/_revs_limit", &[500], &[401, 403], "CouchDB refuses too, with the words `badmatch`"),
    ("POST /_replicate", &[500], &[400], "the request names no source"),
    ("GET /_db_updates", &[404], &[200], "CouchDB's had no database `_global_changes`, which couchrep needs not"),
    ("GET /_replicate", &[400], &[401], "couchrep asks first who calls"),
    ("GET /_users/_design/_auth", &[200], &[404], "the rules of that design document are the server's own"),
    ("POST /_users/_purge", &[403], &[401], "couchrep asks for a server admin first, as everywhere"),
];

/// A caller: the header that proves him; of Basic credentials the text.
type Caller = Option<(HeaderName, String)>;

/// In the order of the table's columns.
async fn callers(server: &Server) -> Vec<Caller> {
    let basic = |text: &str| Some((AUTHORIZATION, text.to_owned()));
    let salt = server.get("/_users/org.couchdb.user:m_member", 200).await["salt"].as_str().unwrap().to_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let cookie = |secret: &str, time: u64| {
        let mut text = format!("m_member:{time:X}").into_bytes();
        let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{secret}{salt}").as_bytes());
        let tag = hmac::sign(&key, &text);
        text.push(b':');
        text.extend_from_slice(tag.as_ref());
        Some((COOKIE, format!("AuthSession={}", URL_SAFE_NO_PAD.encode(text))))
    };
    vec![
        None,
        basic("m_user:pw"),
        basic("m_member:pw"),
        basic("m_role:pw"),
        basic("m_dba:pw"),
        basic("root:hunter2"),
        cookie(SECRET, now),
        cookie(SECRET, now - 100_000),
        cookie("not the secret", now),
        Some((COOKIE, "AuthSession=%%%".into())),
        // Another name each time: who is wrong again and again is made to wait.
        basic("m_nobody~:wrong"),
    ]
}

async fn server() -> Server {
    let server = Server::with_admin_and("root", "hunter2", |config| {
        config.auth.secret = Some(SECRET.into());
        // Hashing costs what it must in `users`; here it would cost minutes.
        config.auth.iterations = std::num::NonZeroU32::MIN;
    });
    let server = server.await;
    for (name, roles) in
        [("m_user", json!([])), ("m_member", json!([])), ("m_role", json!(["staff"])), ("m_dba", json!([]))]
    {
        let doc = json!({ "name": name, "password": "pw", "roles": roles, "type": "user" });
        server.put(&format!("/_users/org.couchdb.user:{name}"), doc, 201).await;
    }
    // CouchDB's had this set.
    server.put("/_node/_local/_config/log/level", json!("warning"), 200).await;
    let members = json!({ "names": ["m_member"], "roles": ["staff"] });
    for (name, security) in [
        ("m_db", Some(json!({ "admins": { "names": ["m_dba"], "roles": [] }, "members": members }))),
        ("m_public", Some(json!({ "admins": { "names": [], "roles": [] }, "members": { "names": [], "roles": [] } }))),
        ("m_default", None),
    ] {
        server.database(name).await;
        if let Some(security) = security {
            server.put(&format!("/{name}/_security"), security, 200).await;
        }
        let attached = json!({ "a.txt": { "content_type": "text/plain", "data": "aGVsbG8=" } });
        server.put(&format!("/{name}/doc"), json!({ "_attachments": attached }), 201).await;
        let filters = json!({ "filters": { "f": "function () { return true; }" } });
        server.put(&format!("/{name}/_design/d"), filters, 201).await;
        server.put(&format!("/{name}/_local/l"), json!({ "x": 1 }), 201).await;
    }
    server
}

#[tokio::test]
async fn every_caller_is_answered_on_every_route_as_couchdb_answers_him() {
    let server = server().await;
    let (callers, client) = (callers(&server).await, client());
    let mut count = 0;
    let (mut unexplained, mut needed) = (Vec::new(), vec![false; DIFFERENT.len()]);
    for line in include_str!("data/rights.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let theirs: Vec<u16> = words.by_ref().take(callers.len()).map(|status| status.parse().unwrap()).collect();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body = words.next();
        let mut ours = Vec::new();
        for caller in &callers {
            count += 1;
            let unique = |text: &str| text.replace('~', &count.to_string());
            let path = if method == "COPY" { path.replace('~', "") } else { unique(path) };
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let mut request = client.request(method.clone(), server.anonymous_url(&path));
            if let Some((name, value)) = caller {
                let value = if *name == AUTHORIZATION {
                    format!("Basic {}", STANDARD.encode(unique(value)))
                } else {
                    value.clone()
                };
                request = request.header(name, value);
            }
            if method.as_str() == "COPY" {
                request = request.header("destination", format!("copy{count}"));
            }
            if matches!(method, Method::PUT | Method::POST) {
                request = request.header(CONTENT_TYPE, "application/json").body(body.map(unique).unwrap_or_default());
            }
            ours.push(request.send().await.unwrap().status().as_u16());
        }
        if std::env::var_os("COUCHREP_MATRIX").is_some() {
            println!("{ours:?} {method} {path}");
        }
        let asked = format!("{method} {path}");
        for (place, (theirs, ours)) in theirs.into_iter().zip(ours).enumerate().filter(|(_, (a, b))| a != b) {
            let explained = |(what, their, our, _): &(&str, &[u16], &[u16], &str)| {
                matches(what, &asked) && their.contains(&theirs) && our.contains(&ours)
            };
            match DIFFERENT.iter().position(explained) {
                Some(line) => needed[line] = true,
                None => unexplained.push(format!("{asked}, caller {place}: CouchDB {theirs}, couchrep {ours}")),
            }
        }
    }
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    let needless: Vec<_> = DIFFERENT.iter().zip(needed).filter(|(_, needed)| !needed).map(|(line, _)| line.0).collect();
    assert!(needless.is_empty(), "these are no longer different: {needless:?}");
    assert!(count > 2000, "{count}");
}

/// Whether a text is what a pattern says, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => text.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
    }
}

/// A session ends with its owner's password, and a logout takes the cookie away; see `sessions.rs`. Here: a role that is
/// given or taken counts from the next request on, whatever the caller was before.
#[tokio::test]
async fn rights_that_change_count_from_the_next_request_on() {
    let server = server().await;
    let status = async |path: &str| {
        let url = server.anonymous_url(path).replace("http://", "http://m_user:pw@");
        client().get(url).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("/m_db/doc").await, 403);
    let mut doc: Value = server.get("/_users/org.couchdb.user:m_user", 200).await;
    doc["roles"] = json!(["staff"]);
    server.put("/_users/org.couchdb.user:m_user", doc, 201).await;
    assert_eq!(status("/m_db/doc").await, 200);
    server.put("/m_db/_security", json!({ "members": { "names": ["nobody"] } }), 200).await;
    assert_eq!(status("/m_db/doc").await, 403);
}

/// The paths of the table of routes, with `m_db` for the database and words for the rest, as the source has them.
fn routes() -> Vec<String> {
    let table = include_str!("../src/http.rs").split("#[cfg(test)]").next().unwrap();
    let paths = table.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/'));
    let filled = paths.map(|path| {
        let fill = |segment: &str| match segment {
            "{db}" => "m_db".to_owned(),
            "{ddoc}" => "d".to_owned(),
            segment if segment.starts_with('{') => "x".to_owned(),
            segment => segment.to_owned(),
        };
        path.split('/').map(fill).collect::<Vec<_>>().join("/")
    });
    filled.collect()
}

/// A new route that nobody thought of in `rights.txt` is closed to strangers all the same, or stands among those for everybody.
#[tokio::test]
async fn every_route_of_the_table_is_closed_to_strangers_unless_it_is_for_everybody() {
    const EVERYBODYS: [&str; 9] =
        ["/", "/_up", "/_uuids", "/_session", "/_couchrep", "/_couchrep/x", "/_utils", "/_utils/x", "/favicon.ico"];
    let server = server().await;
    let routes = routes();
    assert!(routes.len() > 60, "{routes:?}");
    for path in routes.iter().filter(|path| !EVERYBODYS.contains(&path.as_str())) {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "COPY", "PATCH", "OPTIONS"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let request = client().request(method.clone(), server.anonymous_url(path)).body("{}");
            let status = request.header(CONTENT_TYPE, "application/json").send().await.unwrap().status();
            assert_eq!(status, 401, "{method} {path}");
        }
    }
}
