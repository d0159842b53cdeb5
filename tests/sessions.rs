//! Logging in and out: `/_session`, cookies, tokens, and a proxy's word.
//!
//! Statuses and words are those of a CouchDB 3.5.0 that was asked the same.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use ring::hmac;
use serde_json::{Value, json};

use super::support::Server;

const FORM: &str = "application/x-www-form-urlencoded";

/// An answer.
struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answered {
    /// The cookie that it sets, with its attributes.
    fn set_cookie(&self) -> &str {
        self.headers.get(SET_COOKIE).map_or("", |cookie| cookie.to_str().unwrap())
    }

    /// The cookie as a client sends it back.
    fn cookie(&self) -> String {
        self.set_cookie().split(';').next().unwrap().to_owned()
    }

    fn refusal(&self) -> (u16, &str, &str) {
        (self.status, self.body["error"].as_str().unwrap_or(""), self.body["reason"].as_str().unwrap_or(""))
    }
}

fn request(server: &Server, method: Method, path: &str) -> RequestBuilder {
    let client = Client::builder().redirect(Policy::none()).build().unwrap();
    client.request(method, server.anonymous_url(path))
}

fn post_json(server: &Server, body: &Value) -> RequestBuilder {
    request(server, Method::POST, "/_session").header(CONTENT_TYPE, "application/json").body(body.to_string())
}

async fn answered(request: RequestBuilder) -> Answered {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answered { status, headers, body: serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default() }
}

async fn log_in(server: &Server, name: &str, password: &str) -> Answered {
    let login = json!({ "name": name, "password": password });
    answered(post_json(server, &login)).await
}

async fn who(server: &Server, headers: &[(&str, &str)]) -> Answered {
    let get = request(server, Method::GET, "/_session");
    answered(headers.iter().fold(get, |get, (name, value)| get.header(*name, *value))).await
}

#[tokio::test]
async fn a_login_gives_a_cookie_that_proves_who_asks_until_he_logs_out() {
    let server = Server::with_admin("root", "hunter2").await;
    let login = log_in(&server, "root", "hunter2").await;
    assert_eq!((login.status, &login.body), (200, &json!({ "ok": true, "name": "root", "roles": ["_admin"] })));
    assert!(login.set_cookie().contains("; Version=1; Expires=") && login.set_cookie().ends_with("; Path=/; HttpOnly"));
    assert!(login.set_cookie().contains("; Max-Age=600;"), "{}", login.set_cookie());

    let session = who(&server, &[("cookie", &login.cookie())]).await;
    let info = json!({ "authentication_db": "_users", "authentication_handlers": ["cookie", "default"], "authenticated": "cookie" });
    assert_eq!(session.body, json!({ "ok": true, "userCtx": { "name": "root", "roles": ["_admin"] }, "info": info }));
    assert_eq!(session.set_cookie(), "", "it is fresh");
    let list = request(&server, Method::GET, "/_all_dbs").header("cookie", login.cookie());
    assert_eq!(answered(list).await.body, json!(["_replicator", "_users"]), "made at the start");

    let logout = answered(request(&server, Method::DELETE, "/_session").header("cookie", login.cookie())).await;
    assert_eq!((logout.status, logout.cookie()), (200, "AuthSession=".to_owned()));
    let basic = answered(request(&server, Method::GET, "/_session").basic_auth("root", Some("hunter2"))).await;
    assert_eq!(basic.body["info"]["authenticated"], "default");
}

#[tokio::test]
async fn a_login_may_be_a_form_and_lead_elsewhere() {
    let server = Server::with_admin("root", "hunter2").await;
    let form = |path: &str, body: &'static str| {
        answered(request(&server, Method::POST, path).header(CONTENT_TYPE, FORM).body(body))
    };
    let login = form("/_session?next=/_utils%23x", "name=root&password=hunter2").await;
    assert_eq!((login.status, login.body["ok"].clone()), (302, json!(true)));
    assert_eq!(login.headers[LOCATION].to_str().unwrap(), server.anonymous_url("/_utils#x"));
    assert!(login.cookie().len() > 20);
    let refused = form("/_session?fail=/login", "name=root&password=wrong").await;
    assert_eq!((refused.status, refused.cookie()), (302, "AuthSession=".to_owned()));
    assert_eq!(refused.headers[LOCATION].to_str().unwrap(), server.anonymous_url("/login"));
    for next in ["http://evil.example.com", "evil", ""] {
        let login = form(&format!("/_session?next={next}"), "name=root&password=hunter2").await;
        assert_eq!(login.refusal(), (400, "bad_request", "path must begin with a /."), "{next}");
    }
}

#[tokio::test]
async fn a_login_that_is_none_is_refused_as_couchdb_does() {
    let server = Server::with_admin("root", "hunter2").await;
    for (body, refusal) in [
        (json!({ "name": "root", "password": "x" }), (401, "unauthorized", "Name or password is incorrect.")),
        (json!({ "name": "nobody", "password": "x" }), (401, "unauthorized", "Name or password is incorrect.")),
        (json!({ "name": "root" }), (401, "unauthorized", "Name or password is incorrect.")),
        (json!({ "password": "x" }), (400, "bad_request", "request body must contain a username")),
        (
            json!({ "name": "a", "username": "b", "password": "x" }),
            (400, "bad_request", "request body contains different usernames"),
        ),
        (json!({ "name": 1, "password": "x" }), (400, "bad_request", "parameter `name` must be a string")),
        (json!([]), (400, "bad_request", "Request body must be a JSON object")),
    ] {
        let refused = answered(post_json(&server, &body)).await;
        assert_eq!(refused.refusal(), refusal, "{body}");
        assert_eq!(refused.cookie(), if refusal.0 == 401 { "AuthSession=" } else { "" }, "{body}");
    }
    let login = answered(post_json(&server, &json!({ "username": "root", "password": "hunter2" })));
    assert_eq!(login.await.status, 200);
    let text = answered(request(&server, Method::POST, "/_session").header(CONTENT_TYPE, "text/plain").body("x")).await;
    let reason = "Content-Type must be 'application/x-www-form-urlencoded' or 'application/json'";
    assert_eq!(text.refusal(), (415, "bad_content_type", reason));
    let please = answered(request(&server, Method::GET, "/_session?basic=true")).await;
    assert_eq!(please.refusal(), (401, "unauthorized", "Please login."));
}

#[tokio::test]
async fn a_cookie_that_proves_nothing_is_nobodys_and_one_that_is_none_is_refused() {
    let server = Server::with_admin("root", "hunter2").await;
    let cookie = log_in(&server, "root", "hunter2").await.cookie();
    let at = cookie.len() - 9;
    let other = if cookie.as_bytes()[at] == b'A' { "B" } else { "A" };
    let forged = format!("{}{other}{}", &cookie[..at], &cookie[at + 1..]);
    assert_eq!(who(&server, &[("cookie", &forged)]).await.body["userCtx"], json!({ "name": null, "roles": [] }));
    let list = answered(request(&server, Method::GET, "/_all_dbs").header("cookie", &forged)).await;
    assert_eq!(list.refusal(), (401, "unauthorized", "You are not a server admin."));
    let both = answered(
        request(&server, Method::GET, "/_session").header("cookie", &forged).basic_auth("root", Some("hunter2")),
    );
    assert_eq!(both.await.body["info"]["authenticated"], "default");
    for path in ["/", "/_session", "/_all_dbs"] {
        let refused = answered(request(&server, Method::GET, path).header("cookie", "AuthSession=zz!")).await;
        let reason = "Malformed AuthSession cookie. Please clear your cookies.";
        assert_eq!(refused.refusal(), (400, "bad_request", reason), "{path}");
    }
    assert_eq!(who(&server, &[("cookie", "AuthSession=")]).await.status, 200);
    let basic = who(&server, &[("authorization", "Basic !!!")]).await;
    assert_eq!(basic.refusal(), (400, "bad_request", "Authorization header has invalid base64 value"));
    let wrong = answered(request(&server, Method::GET, "/").basic_auth("root", Some("x"))).await;
    assert_eq!(wrong.refusal(), (401, "unauthorized", "Name or password is incorrect."));
}

/// A cookie that another server with the same secret made counts here, and an old one is made anew.
#[tokio::test]
async fn a_cookie_is_renewed_after_a_tenth_of_its_time() {
    const HASHED: &str = "-pbkdf2-96af052aaa3384add6895c65f483a9148b13c678,921a12f74df0c1052b3e562a23cd227f,10";
    let server = Server::with_config(|config| {
        config.admins.push(couchrep::config::Admin::new("root", HASHED).unwrap());
        config.auth.secret = Some("s3cret".into());
    })
    .await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let cookie = |age: i64| {
        let value = couchrep::users::cookie::sign("root", now - age, "s3cret", "921a12f74df0c1052b3e562a23cd227f");
        format!("AuthSession={value}")
    };
    let (fresh, old, gone) = (
        who(&server, &[("cookie", &cookie(0))]).await,
        who(&server, &[("cookie", &cookie(100))]).await,
        who(&server, &[("cookie", &cookie(700))]).await,
    );
    assert_eq!((&fresh.body["userCtx"]["name"], fresh.set_cookie()), (&json!("root"), ""));
    assert_eq!(old.body["userCtx"]["name"], "root");
    assert_eq!(who(&server, &[("cookie", &old.cookie())]).await.body["userCtx"]["name"], "root");
    assert_eq!((&gone.body["userCtx"]["name"], gone.set_cookie()), (&Value::Null, ""));
    let logout = answered(request(&server, Method::DELETE, "/_session").header("cookie", cookie(100))).await;
    assert_eq!(logout.cookie(), "AuthSession=", "a logout isn't undone by a renewal");
}

/// A browser adds the cookie to what any site's page sends: a form that adds an admin, say.
#[tokio::test]
async fn another_sites_page_writes_nothing_with_somebodys_cookie() {
    let server = Server::with_admin("root", "hunter2").await;
    let cookie = log_in(&server, "root", "hunter2").await.cookie();
    let put = |path: &str, headers: &[(&str, &str)]| {
        let put = request(&server, Method::PUT, path);
        answered(headers.iter().fold(put, |put, (name, value)| put.header(*name, *value)))
    };
    let refusal = (403, "forbidden", "A page of another origin may not do this in your name.");
    let from_elsewhere = ("origin", "https://evil.example.com");
    assert_eq!(put("/a", &[("cookie", &cookie), from_elsewhere]).await.refusal(), refusal);
    assert_eq!(put("/a", &[("cookie", &cookie), ("sec-fetch-site", "cross-site")]).await.refusal(), refusal);
    assert_eq!(put("/a", &[("cookie", &cookie)]).await.status, 201);
    let own = server.anonymous_url("");
    assert_eq!(put("/b", &[("cookie", &cookie), ("origin", &own)]).await.status, 201);
    let basic = request(&server, Method::PUT, "/c").basic_auth("root", Some("hunter2")).header("origin", "https://x");
    assert_eq!(answered(basic).await.status, 201, "a page that knows the password needs no cookie");
    let get = answered(request(&server, Method::GET, "/a").header("cookie", &cookie).header("origin", "https://x"));
    assert_eq!(get.await.status, 200);
}

#[tokio::test]
async fn nobody_but_users_is_answered_where_the_settings_say_so() {
    let server = Server::with_config(|config| {
        config.admins.push(couchrep::config::Admin::new("root", "hunter2").unwrap());
        config.auth.require_valid_user_except_for_up = true;
    })
    .await;
    for path in ["/", "/_session", "/_uuids", "/nothing"] {
        let refused = answered(request(&server, Method::GET, path)).await;
        assert_eq!(refused.refusal(), (401, "unauthorized", "Authentication required."), "{path}");
    }
    assert_eq!(answered(request(&server, Method::GET, "/_up")).await.status, 200);
    let cookie = log_in(&server, "root", "hunter2").await.cookie();
    assert_eq!(who(&server, &[("cookie", &cookie)]).await.status, 200);
}

#[tokio::test]
async fn a_token_says_who_asks_where_its_key_is_known() {
    let server = Server::with_config(|config| {
        config.admins.push(couchrep::config::Admin::new("root", "hunter2").unwrap());
        config.auth.handlers.jwt = true;
        config.auth.jwt.keys.push("hmac:_default=aGVsbG8=".parse().unwrap());
    })
    .await;
    let token = |claims: Value, secret: &[u8]| {
        let encode = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encode(json!({ "alg": "HS256" })), encode(claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("Bearer {message}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let claims = json!({ "sub": "ann", "exp": 4_000_000_000_u64, "_couchdb.roles": ["a"] });
    let session = who(&server, &[("authorization", &token(claims.clone(), b"hello"))]).await;
    assert_eq!(session.body["userCtx"], json!({ "name": "ann", "roles": ["a"] }));
    assert_eq!(session.body["info"]["authentication_handlers"], json!(["cookie", "default", "jwt"]));
    assert_eq!(session.body["info"]["authenticated"], "jwt");
    let forged = who(&server, &[("authorization", &token(claims, b"other"))]).await;
    assert_eq!(forged.refusal(), (400, "bad_request", "Bad HMAC"));
    let old = who(&server, &[("authorization", &token(json!({ "sub": "ann", "exp": 1 }), b"hello"))]).await;
    assert_eq!(old.refusal(), (401, "unauthorized", "exp not in future"));

    let without_keys = Server::with_admin("root", "hunter2").await;
    assert_eq!(who(&without_keys, &[("authorization", "Bearer x")]).await.body["userCtx"]["name"], Value::Null);
}

#[tokio::test]
async fn a_proxy_is_believed_where_the_settings_say_so_and_it_signs() {
    let headers = [
        ("x-auth-couchdb-username", "foo"),
        ("x-auth-couchdb-roles", "a, b"),
        ("x-auth-couchdb-token", "0a60ae371f04a1f4850c8cc1dffcfa55fddab926"),
    ];
    let server = Server::with_config(|config| {
        config.admins.push(couchrep::config::Admin::new("root", "hunter2").unwrap());
        config.auth.secret = Some("92de07df7e7a3fe14808cef90a7cc0d91".into());
        config.auth.handlers.proxy = true;
    })
    .await;
    let session = who(&server, &headers).await;
    assert_eq!(session.body["userCtx"], json!({ "name": "foo", "roles": ["a", "b"] }));
    assert_eq!(session.body["info"]["authenticated"], "proxy");
    assert_eq!(who(&server, &headers[..2]).await.body["userCtx"]["name"], Value::Null);
    let server = Server::with_admin("root", "hunter2").await;
    assert_eq!(who(&server, &headers).await.body["userCtx"]["name"], Value::Null);
}

#[tokio::test]
async fn another_sites_form_logs_nobody_in_or_out() {
    let server = Server::with_admin("root", "hunter2").await;
    for password in ["hunter2", "wrong"] {
        let login = request(&server, Method::POST, "/_session")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("name=root&password={password}"));
        let forged = answered(login.try_clone().unwrap().header("origin", "https://evil.example.com")).await;
        let reason = "A page of another origin may not do this in your name.";
        assert_eq!((forged.refusal(), forged.set_cookie()), ((403, "forbidden", reason), ""));
        let own = answered(login.header("origin", server.anonymous_url(""))).await;
        assert_eq!(own.status, if password == "wrong" { 401 } else { 200 });
    }
}
