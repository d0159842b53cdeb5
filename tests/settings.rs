//! Settings that are read and changed while the server runs, as Futon, Fauxton and scripts do.
//!
//! Statuses and words are those of a CouchDB 3.5.0 that was asked the same, but for the last admin, who stays.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use reqwest::header::ORIGIN;
use ring::hmac;
use serde_json::{Value, json};

use super::support::{self, Process, Server, client};

const CONFIG: &str = "/_node/_local/_config";

/// What Futon's "Fix this" does.
#[tokio::test]
async fn the_first_admin_closes_the_server_at_once_and_for_good() {
    let server = Server::start().await;
    server.put("/db", Value::Null, 201).await;
    assert_eq!(server.put("/_config/admins/root", json!("s3cret"), 200).await, "");
    is_closed(&server).await;
    let as_root = format!("http://root:s3cret@{}/_users", server.addr());
    support::json(server.client(), Method::GET, as_root, None, 200).await;
    // There is no admin among its options.
    is_closed(&server.restart().await).await;
}

async fn is_closed(server: &Server) {
    for path in ["/_all_dbs", "/db", CONFIG, "/_config"] {
        server.get(path, 401).await;
    }
    server.put("/_config/admins/other", json!("x"), 401).await;
}

#[tokio::test]
async fn admins_are_changed_and_the_last_one_stays() {
    let server = Server::with_admin("root", "open").await;
    assert_eq!(server.put(&format!("{CONFIG}/admins/joe"), json!("pw"), 200).await, "");
    let hash = server.get(&format!("{CONFIG}/admins/joe"), 200).await;
    assert!(hash.as_str().unwrap().starts_with("-pbkdf2:sha256-"), "{hash}");
    let as_joe = |password: &str, status| {
        let url = format!("http://joe:{password}@{}/_all_dbs", server.addr());
        support::json(server.client(), Method::GET, url, None, status)
    };
    as_joe("pw", 200).await;
    assert_eq!(server.put(&format!("{CONFIG}/admins/joe"), json!("new"), 200).await, hash);
    as_joe("new", 200).await;
    as_joe("pw", 401).await;
    server.delete(&format!("{CONFIG}/admins/joe"), 200).await;
    as_joe("new", 401).await;
    let refused = server.delete(&format!("{CONFIG}/admins/root"), 403).await;
    assert_eq!(refused["reason"], "The last admin can't be deleted: without any, everyone is admin.");
    server.delete(&format!("{CONFIG}/admins/nobody"), 404).await;
}

/// What `add-cors-to-couchdb` and Fauxton's page do.
#[tokio::test]
async fn cors_is_turned_on_while_the_server_runs() {
    let server = Server::start().await;
    let allowed = async || {
        let asked = client().get(server.url("/")).header(ORIGIN, "https://app.example").send().await.unwrap();
        asked.headers().get("access-control-allow-origin").map(|origin| origin.to_str().unwrap().to_owned())
    };
    assert_eq!(allowed().await, None);
    for (key, value) in [
        ("httpd/enable_cors", "true"),
        ("cors/origins", "*"),
        ("cors/credentials", "true"),
        ("cors/methods", "GET, PUT, POST, HEAD, DELETE"),
        ("cors/headers", "accept, authorization, content-type, origin, referer, x-csrf-token"),
    ] {
        assert_eq!(server.put(&format!("{CONFIG}/{key}"), json!(value), 200).await, "", "{key}");
        assert_eq!(server.get(&format!("{CONFIG}/{key}"), 200).await, value);
    }
    assert_eq!(allowed().await.as_deref(), Some("https://app.example"));
    assert_eq!(server.get(CONFIG, 200).await["chttpd"], json!({ "enable_cors": "true" }));
    assert_eq!(server.delete(&format!("{CONFIG}/httpd/enable_cors"), 200).await, "true");
    assert_eq!(allowed().await, None);
}

#[tokio::test]
async fn logins_follow_the_settings() {
    let server = Server::with_admin("root", "open").await;
    let anonymous = async |status| {
        support::json(server.client(), Method::GET, server.anonymous_url("/"), None, status).await;
    };
    anonymous(200).await;
    server.put(&format!("{CONFIG}/chttpd/require_valid_user"), json!("true"), 200).await;
    anonymous(401).await;
    server.put(&format!("{CONFIG}/chttpd/require_valid_user"), json!("false"), 200).await;
    anonymous(200).await;

    let signed = || {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = part(json!({ "sub": "ann", "exp": 99_999_999_999u64, "_couchdb.roles": ["_admin"] }));
        let signed = format!("{}.{claims}", part(json!({ "alg": "HS256", "typ": "JWT" })));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"s3cret"), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let with_token = async || {
        let asked = client().get(server.anonymous_url("/_all_dbs")).bearer_auth(signed()).send().await.unwrap();
        asked.status().as_u16()
    };
    server.put(&format!("{CONFIG}/jwt_keys/hmac:_default"), json!(STANDARD.encode("s3cret")), 200).await;
    assert_eq!(with_token().await, 401, "no handler looks at it");
    let handlers = "{chttpd_auth, cookie_authentication_handler}, {chttpd_auth, jwt_authentication_handler}";
    server.put(&format!("{CONFIG}/chttpd/authentication_handlers"), json!(handlers), 200).await;
    assert_eq!(with_token().await, 200);
    assert_eq!(server.delete(&format!("{CONFIG}/jwt_keys/hmac:_default"), 200).await, "*****");
    assert_eq!(with_token().await, 401);
}

/// Its log is a file, which says more or less.
#[tokio::test]
async fn the_log_follows_its_level() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    // Each change of a setting is a line.
    let server = Process::tracing(&place.path().join("data"), &[], &log);
    let put = async |level: &str| {
        let url = server.url("/_node/_local/_config/log/level");
        support::json(&client(), Method::PUT, url, Some(&json!(level)), 200).await
    };
    let grows = async || {
        let before = std::fs::metadata(&log).unwrap().len();
        let url = server.url("/_node/_local/_config/cors/max_age");
        support::json(&client(), Method::PUT, url, Some(&json!("60")), 200).await;
        std::fs::metadata(&log).unwrap().len() > before
    };
    assert!(grows().await);
    put("none").await;
    // The level follows within a moment.
    let follows = async {
        while grows().await {}
        put("debug").await;
        while !grows().await {}
    };
    tokio::time::timeout(Duration::from_secs(60), follows).await.expect("the log follows");
}
