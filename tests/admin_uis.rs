//! An admin UI's files are served, nothing else is, and beside a CouchDB they come from whom the settings say.

use std::fs;

use couchrep::config::couchdb::CouchDb;
use reqwest::header::{
    CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, IF_MODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
};
use reqwest::{Client, Method, Response, redirect};
use tempfile::TempDir;

use crate::beside::raw::Wire;
use crate::support::Server;

const PAGE: &str = "<!DOCTYPE html><title>Futon</title><script src=js/a.js></script>";

/// A UI with a page and a script; what stands beside it is nobody's business.
fn ui() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("ui/js")).unwrap();
    fs::write(dir.path().join("ui/index.html"), PAGE).unwrap();
    fs::write(dir.path().join("ui/js/a b.js"), "alert(1)").unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    dir
}

async fn asked(method: Method, url: String, header: Option<(reqwest::header::HeaderName, &str)>) -> Response {
    let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
    let mut request = client.request(method, url);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn an_admin_uis_files_are_served_to_everybody() {
    let dir = ui();
    let server =
        Server::with_admin_and("root", "secret", |config| config.utils_dir = Some(dir.path().join("ui"))).await;
    let get = |path: &str| asked(Method::GET, server.anonymous_url(path), None);
    for (path, leads_to) in [("/_utils", "/_utils/"), ("/_utils/js", "/_utils/js/")] {
        let answer = get(path).await;
        assert!(answer.status().is_redirection(), "{path}: {answer:?}");
        assert_eq!(answer.headers()[LOCATION], server.anonymous_url(leads_to));
    }
    let page = get("/_utils/").await;
    assert_eq!((page.status().as_u16(), &page.headers()[CONTENT_TYPE]), (200, &"text/html".parse().unwrap()));
    assert!(page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'self';"));
    let since = page.headers()[LAST_MODIFIED].to_str().unwrap().to_owned();
    assert_eq!(page.text().await.unwrap(), PAGE);
    let script = get("/_utils//js/a%20b.js?v=1").await;
    assert_eq!((script.status().as_u16(), &script.headers()[CONTENT_TYPE]), (200, &"text/javascript".parse().unwrap()));
    let url = || server.anonymous_url("/_utils/index.html");
    let part = asked(Method::GET, url(), Some((RANGE, "bytes=0-1"))).await;
    assert_eq!((part.status().as_u16(), &part.headers()[CONTENT_RANGE]), (206, &"bytes 0-1/64".parse().unwrap()));
    assert_eq!(asked(Method::GET, url(), Some((IF_MODIFIED_SINCE, &since))).await.status(), 304);
    assert_eq!(asked(Method::HEAD, url(), None).await.status(), 200);
    let refused = asked(Method::PUT, url(), None).await;
    assert_eq!(
        (refused.status().as_u16(), refused.text().await.unwrap().contains("Only GET,HEAD allowed")),
        (405, true)
    );
}

#[tokio::test]
async fn nothing_outside_of_the_directory_is_served_and_no_list_of_it() {
    let dir = ui();
    let server = Server::with_config(|config| config.utils_dir = Some(dir.path().join("ui"))).await;
    for path in [
        "/_utils/../secret",
        "/_utils/%2e%2e/secret",
        "/_utils/..%2fsecret",
        "/_utils/js/../../secret",
        "/_utils/%2Fetc/hosts",
        "/_utils//etc/hosts",
        "/_utils/js/",
        "/_utils/none",
        "/_utils/%ff",
        "/_utils/a%00b",
        &format!("/_utils/{}", "a".repeat(300)),
    ] {
        let mut wire = Wire::connect(server.addr()).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
        let answer = wire.rest().await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn beside_a_couchdb_they_are_the_couchdbs_unless_a_directory_is_named() {
    let (theirs, ours) = (ui(), ui());
    fs::write(ours.path().join("ui/index.html"), "ours").unwrap();
    let couchdb = Server::with_config(|config| config.utils_dir = Some(theirs.path().join("ui"))).await;
    for (dir, expected) in [(None, PAGE), (Some(ours.path().join("ui")), "ours")] {
        let server = Server::with_config(|config| {
            config.couchdb = Some(CouchDb::parse(&couchdb.url("")).unwrap());
            config.utils_dir = dir;
        })
        .await;
        let page = asked(Method::GET, server.url("/_utils/"), None).await;
        assert_eq!((page.status().as_u16(), page.text().await.unwrap().as_str()), (200, expected));
        assert_eq!(asked(Method::GET, server.url("/_utils"), None).await.headers()[LOCATION], server.url("/_utils/"));
    }
}
