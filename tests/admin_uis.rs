//! An admin UI's files are served, nothing else is, and beside a CouchDB they come from whom the settings say.

use std::fs;

use couchrep::config::couchdb::CouchDb;
use reqwest::header::{
    CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, IF_MODIFIED_SINCE, LAST_MODIFIED, LOCATION, RANGE,
};
use reqwest::{Client, Method, Response, redirect};
use tempfile::TempDir;

use crate::asking::{Answer, ask, get, request, send, with_db};
use crate::beside::raw::Wire;
use crate::support::Server;

const PAGE: &str = "<!DOCTYPE html><title>Futon</title><script src=js/a.js></script>";

/// A UI with a page and a script; what stands beside it is nobody's business.
fn ui() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("ui/js")).unwrap();
    fs::write(dir.path().join("ui/index.html"), PAGE).unwrap();
    fs::write(dir.path().join("ui/js/a b.js"), "alert(1)").unwrap();
    fs::write(dir.path().join("ui/favicon.ico"), "icon").unwrap();
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
    assert_eq!(get("/favicon.ico").await.text().await.unwrap(), "icon");
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

/// Sends a document's form as a browser does: each part with its head's parameters, a type if it is a file, and its content.
async fn sent_form(server: &Server, path: &str, referer: Option<String>, parts: &[(&str, &str)]) -> Answer {
    let part = |(head, content): &(&str, &str)| {
        let kind = if head.contains("filename") { "\r\nContent-Type: text/x-note" } else { "" };
        format!("--b\r\nContent-Disposition: form-data; {head}{kind}\r\n\r\n{content}\r\n")
    };
    let body = parts.iter().map(part).collect::<String>() + "--b--\r\n";
    let form = request(server, "POST", path).header("Content-Type", "multipart/form-data; boundary=b").body(body);
    send(referer.into_iter().fold(form, |form, page| form.header("Referer", page))).await
}

#[tokio::test]
async fn futons_form_adds_files_to_a_document() {
    let server = with_db().await;
    let first =
        ask(&server, "PUT", "/db/soup", r#"{"v":1,"_attachments":{"old":{"data":"eA=="},"kept":{"data":"eQ=="}}}"#)
            .await
            .rev();
    let page = || Some(server.url("/_utils/document.html?db/soup"));
    let files = [
        (r#"name="_attachments"; filename="Menü 1.txt""#, "salt"),
        (r#"name="_attachments"; filename="old""#, "new"),
        (r#"name="other""#, "x"),
    ];
    let rev = (r#"name="_rev""#, first.as_str());
    let added = sent_form(&server, "/db/soup", page(), &[&files[..], &[rev]].concat()).await;
    assert_eq!((added.status, added.rev().starts_with("2-")), (201, true), "{}", added.text());
    let doc = get(&server, "/db/soup").await.json();
    assert_eq!((&doc["v"], doc["_attachments"].as_object().unwrap().len()), (&1.into(), 3));
    assert_eq!(doc["_attachments"]["Menü 1.txt"]["content_type"], "text/x-note");
    assert_eq!(get(&server, "/db/soup/Men%C3%BC%201.txt").await.text(), "salt");
    assert_eq!(get(&server, "/db/soup/old").await.text(), "new");
    assert_eq!(get(&server, "/db/soup/kept").await.text(), "y");

    let stale = sent_form(&server, "/db/soup", page(), &[files[0], rev]).await;
    assert_eq!(stale.status, 409);
    for (parts, status, reason) in [
        (&files[..1], 400, "Invalid rev format"),
        (&[(r#"name="_rev""#, "x")], 400, "Invalid rev format"),
        (
            &[(r#"name="_attachments"; filename="_x""#, "")],
            400,
            "Attachment name '_x' starts with prohibited character '_'",
        ),
        (&[(r#"name="_doc""#, "{}")], 501, "couchrep has no forms with a document's JSON in them (_doc)."),
    ] {
        let refused = sent_form(&server, "/db/soup", page(), parts).await;
        assert_eq!((refused.status, &refused.json()["reason"]), (status, &reason.into()));
    }
    let other = send(request(&server, "POST", "/db/soup").header("Referer", page().unwrap()).body("{}")).await;
    assert_eq!((other.status, &other.json()["error"]), (415, &"bad_content_type".into()));
}

#[tokio::test]
async fn another_sites_form_changes_nothing_even_where_there_are_no_admins() {
    let server = with_db().await;
    let rev = ask(&server, "PUT", "/db/soup", "{}").await.rev();
    let parts = [(r#"name="_attachments"; filename="a""#, "x"), (r#"name="_rev""#, rev.as_str())];
    for (referer, reason) in [
        (None, "Referer header required."),
        (Some("https://evil.example.com/".to_owned()), "Referer header must match host."),
    ] {
        let refused = sent_form(&server, "/db/soup", referer, &parts).await;
        assert_eq!((refused.status, &refused.json()["reason"]), (400, &reason.into()));
    }
    assert_eq!(get(&server, "/db/soup").await.json()["_rev"], rev);
}

#[tokio::test]
async fn futon_finds_what_it_reads() {
    let server = with_db().await;
    let info = get(&server, "/db").await.json();
    assert!(info["disk_size"].is_u64() && info["disk_size"] == info["sizes"]["file"]);
    assert_eq!(get(&server, "/_session").await.json()["info"]["authentication_db"], "_users");
    ask(&server, "PUT", "/db2", "").await;
    ask(&server, "POST", "/_replicate", r#"{"source":"db","target":"db2","continuous":true}"#).await;
    let task = &get(&server, "/_active_tasks").await.json()[0];
    assert_eq!(task["task"], format!("{} to {}", server.url("/db/"), server.url("/db2/")));
    assert!(task["status"].as_str().unwrap().contains(": 0 documents written"), "{task}");
}
