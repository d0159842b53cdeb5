//! What browsers are told about other sites' pages.

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use super::support::{Server, client};

const APP: &str = "https://app.example.com";

async fn server(credentials: bool, origins: &[&str]) -> Server {
    let origins = origins.iter().map(ToString::to_string).collect();
    let server = Server::with_config(|config| {
        config.cors.enabled = true;
        config.cors.origins = origins;
        config.cors.credentials = credentials;
    });
    server.await
}

async fn sent(url: String, method: Method, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap) {
    let mut request = client().request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.headers().clone())
}

fn allowed(headers: &HeaderMap) -> Option<&str> {
    headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn answers_tell_an_admitted_origin_that_its_pages_may_read_them_errors_too() {
    let server = server(false, &[APP]).await;
    for (path, status) in [("/", 200), ("/_no_such/thing", 404), ("/nowhere", 404)] {
        let (got, headers) = sent(server.url(path), Method::GET, &[("origin", APP)]).await;
        assert_eq!((got.as_u16(), allowed(&headers)), (status, Some(APP)), "{path}");
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("content-type") && exposed.contains("etag"), "{exposed}");
        assert!(!headers.contains_key("access-control-allow-credentials"));
        assert_eq!(headers["vary"], "Origin");
    }
}

#[tokio::test]
async fn a_browsers_question_is_answered_before_anybody_has_to_log_in() {
    let admin = couchrep::config::Admin { name: "root".into(), password: "hunter2".into() };
    let server = Server::with_config(|config| {
        config.admins.push(admin);
        config.cors.enabled = true;
        config.cors.origins = vec![APP.into()];
        config.cors.credentials = true;
    });
    let server = server.await;
    let question = [
        ("origin", APP),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "Content-Type, authorization"),
    ];
    let (status, headers) = sent(server.url("/db/doc"), Method::OPTIONS, &question).await;
    assert_eq!((status.as_u16(), allowed(&headers)), (204, Some(APP)));
    assert_eq!(headers["access-control-allow-headers"], "Content-Type, authorization");
    assert_eq!(headers["access-control-allow-methods"], "COPY, DELETE, GET, HEAD, OPTIONS, POST, PUT");
    assert_eq!(
        (&headers["access-control-max-age"], &headers["access-control-allow-credentials"]),
        (&"600".parse().unwrap(), &"true".parse().unwrap())
    );
    let (status, headers) = sent(server.url("/db/doc"), Method::PUT, &[("origin", APP)]).await;
    assert_eq!((status.as_u16(), allowed(&headers)), (404, Some(APP)), "there is no such database");
}

#[tokio::test]
async fn what_no_page_may_do_is_no_question() {
    let server = server(true, &[APP]).await;
    let method = ("access-control-request-method", "PATCH");
    let header = ("access-control-request-headers", "x-own");
    let get = ("access-control-request-method", "GET");
    for question in [
        &[("origin", APP), method][..],
        &[("origin", APP), get, header],
        &[("origin", "https://evil.example.com"), get],
        &[get],
    ] {
        let (status, headers) = sent(server.url("/"), Method::OPTIONS, question).await;
        assert_eq!(status.as_u16(), 405, "{question:?}");
        assert!(!headers.contains_key("access-control-allow-methods"));
    }
    let (_, headers) =
        sent(server.url("/"), Method::GET, &[("origin", "https://app.example.com.evil.example.com")]).await;
    assert_eq!(allowed(&headers), None);
}

#[tokio::test]
async fn a_star_admits_every_origin_and_nothing_is_told_where_cors_is_off() {
    let open = server(false, &["*"]).await;
    let (_, headers) = sent(open.url("/"), Method::GET, &[("origin", APP)]).await;
    assert_eq!(allowed(&headers), Some(APP));
    let off = Server::start().await;
    let (_, headers) = sent(off.url("/"), Method::GET, &[("origin", APP)]).await;
    assert_eq!((allowed(&headers), headers.contains_key("vary")), (None, false));
}
