//! Who asks: every kind of credentials, right, wrong, ended and renewed; how peers are reached.

use axum::http::header::{COOKIE, SET_COOKIE, WWW_AUTHENTICATE};
use futures::future::join_all;

use super::*;
use crate::endpoint::connection::Proxy;

/// A peer at `{url}/db` with an `auth` object.
fn with_auth(url: &str, auth: serde_json::Value) -> RemotePeer {
    let endpoint = endpoint(json!({"url": format!("{url}/db"), "auth": auth}));
    assert!(!format!("{endpoint:?}").contains(SECRET));
    let peer = peer_of(endpoint);
    assert!(!format!("{peer:?}").contains(SECRET), "{peer:?}");
    peer
}

fn with_password(url: &str) -> RemotePeer {
    let peer = peer_as("ann", url);
    assert!(!format!("{peer:?}").contains(SECRET), "{peer:?}");
    peer
}

fn header<'a>(seen: &'a Seen, name: &str) -> &'a str {
    seen.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

fn unauthorized() -> Response {
    answer(401, r#"{"error":"unauthorized","reason":"no"}"#)
}

fn cookie(value: usize, rest: &str) -> Response {
    let mut response = ok(json!({"ok": true}));
    response.headers_mut().insert(SET_COOKIE, format!("AuthSession=c{value}; {rest}").parse().unwrap());
    response
}

/// Serves a database to whoever shows the cookie of the newest login, unless `revoked` says otherwise.
async fn with_sessions(logins: &Arc<AtomicUsize>, rest: &'static str) -> String {
    let logins = logins.clone();
    serve(move |seen| {
        if seen.is("POST /_session") {
            assert_eq!(seen.body, format!("name=ann&password={SECRET}"));
            return cookie(logins.fetch_add(1, Ordering::Relaxed) + 1, rest);
        }
        assert!(!seen.headers.contains_key(AUTHORIZATION));
        match header(&seen, COOKIE.as_str()) == format!("AuthSession=c{}", logins.load(Ordering::Relaxed)) {
            true => info(),
            false => unauthorized(),
        }
    })
    .await
}

#[tokio::test]
async fn requests_at_once_share_one_login() {
    let logins = Arc::new(AtomicUsize::new(0));
    let peer = with_password(&format!("{}/db", with_sessions(&logins, "Max-Age=600").await));
    for answer in join_all((0..10).map(|_| peer.info())).await {
        answer.unwrap();
    }
    assert_eq!(logins.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_session_is_renewed_in_time_and_when_it_is_refused() {
    let logins = Arc::new(AtomicUsize::new(0));
    let peer = with_password(&format!("{}/db", with_sessions(&logins, "Max-Age=600").await));
    peer.info().await.unwrap();
    // The peer forgets the session: only the cookie of the login that it counts now would do.
    logins.fetch_add(1, Ordering::Relaxed);
    peer.info().await.unwrap();
    assert_eq!(logins.load(Ordering::Relaxed), 3);

    let logins = Arc::new(AtomicUsize::new(0));
    let peer = with_password(&format!("{}/db", with_sessions(&logins, "Max-Age=0").await));
    peer.info().await.unwrap();
    peer.info().await.unwrap();
    assert_eq!(logins.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn without_sessions_the_password_is_sent_and_that_is_found_out_once() {
    for status in [404, 405, 501, 200] {
        let logins = Arc::new(AtomicUsize::new(0));
        let url = serve({
            let logins = logins.clone();
            move |seen| {
                if seen.is("POST /_session") {
                    logins.fetch_add(1, Ordering::Relaxed);
                    return answer(status, "<html></html>");
                }
                assert_eq!(header(&seen, "authorization"), "Basic YW5uOnMzY3JldA==");
                info()
            }
        });
        let peer = with_password(&format!("{}/db", url.await));
        peer.info().await.unwrap();
        peer.info().await.unwrap();
        assert_eq!(logins.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_cookie_that_a_proxy_does_not_take_makes_way_for_basic() {
    let url = serve(|seen| match seen.is("POST /_session") {
        true => cookie(1, "Max-Age=600"),
        false if seen.headers.contains_key(AUTHORIZATION) => info(),
        false => unauthorized(),
    });
    with_password(&format!("{}/db", url.await)).info().await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_of_every_kind_are_unauthorized() {
    let url = serve(|_| unauthorized()).await;
    let oauth = json!({"consumer_key": "k", "consumer_secret": SECRET, "token": "t", "token_secret": SECRET});
    let peers = [
        with_password(&format!("{url}/db")),
        with_auth(&url, json!({"oauth": oauth})),
        with_auth(&url, json!({"bearer": SECRET})),
        with_auth(&url, json!({"iam": {"api_key": SECRET, "token_url": format!("{url}/token")}})),
        with_auth(
            &url,
            json!({"oauth2": {"client_id": "c", "client_secret": SECRET, "token_url": format!("{url}/token")}}),
        ),
    ];
    for peer in peers {
        let error = peer.info().await.unwrap_err();
        assert!(matches!(error, PeerError::WrongCredentials { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains(SECRET));
    }
}

/// A password was sent for a session, then as Basic, then again for every request under way: CouchDB locks an account
/// after five.
#[tokio::test]
async fn a_refused_password_is_sent_once_and_the_peers_reason_is_told() {
    const WRONG: &str = r#"{"error":"unauthorized","reason":"Name or password is incorrect."}"#;
    const LOCKED: &str = r#"{"error":"forbidden","reason":"Account is temporarily locked"}"#;
    for (login, database, requests, reason) in [
        ((401, WRONG), (200, "{}"), 1, Some("Name or password is incorrect.")),
        ((403, LOCKED), (200, "{}"), 1, Some("Account is temporarily locked")),
        // Without sessions the first question carries the password.
        ((404, "{}"), (401, WRONG), 2, Some("Name or password is incorrect.")),
        ((404, "{}"), (401, "<html>"), 2, None),
    ] {
        let seen = Arc::new(AtomicUsize::new(0));
        let url = serve({
            let seen = seen.clone();
            move |request| {
                seen.fetch_add(1, Ordering::Relaxed);
                let (status, body) = if request.is("POST /_session") { login } else { database };
                answer(status, body)
            }
        });
        let peer = with_password(&format!("{}/db", url.await));
        let refused = |error: &PeerError| match error {
            PeerError::WrongCredentials { reason: told, .. } => assert_eq!(told.as_deref(), reason, "{error}"),
            error => panic!("{login:?}, {database:?}: {error:?}"),
        };
        refused(&peer.info().await.unwrap_err());
        for error in join_all((0..5).map(|_| peer.info())).await {
            refused(&error.unwrap_err());
        }
        refused(&peer.ensure_full_commit().await.unwrap_err());
        assert_eq!(seen.load(Ordering::Relaxed), requests, "{login:?}, {database:?}");
    }
}

#[tokio::test]
async fn whoever_asks_for_basic_credentials_gets_them() {
    let url = serve(|seen| match header(&seen, "authorization") == "Basic YW5uOnMzY3JldA==" {
        true => info(),
        false => {
            let mut asking = unauthorized();
            asking.headers_mut().insert(WWW_AUTHENTICATE, "Basic realm=\"x\"".parse().unwrap());
            asking
        }
    });
    with_password(&format!("{}/db", url.await)).info().await.unwrap();
}

#[tokio::test]
async fn peers_with_the_same_credentials_share_a_login_and_its_refusal() {
    let logins = Arc::new(AtomicUsize::new(0));
    let url = serve({
        let logins = logins.clone();
        move |seen| match seen.is("POST /_session") {
            // The first login is refused.
            true => match logins.fetch_add(1, Ordering::Relaxed) {
                0 => unauthorized(),
                login => cookie(login, "Max-Age=600"),
            },
            false => info(),
        }
    });
    let url = url.await;
    let settings = Arc::new(config::Replicator::default());
    let clients = Clients::new(&settings).unwrap();
    let policy = Policy::new(&settings.endpoints, true);
    let open = async |database: &str, password: &str| {
        let basic = json!({"basic": {"username": "ann", "password": password}});
        let named = endpoint(json!({"url": format!("{url}/{database}"), "auth": basic}));
        RemotePeer::new(&clients, named, &policy, settings.clone(), Pulse::default()).await.unwrap()
    };
    let (source, target) = (open("src", SECRET).await, open("tgt", SECRET).await);
    for peer in [source, target] {
        assert!(matches!(peer.info().await, Err(PeerError::WrongCredentials { .. })));
    }
    assert_eq!(logins.load(Ordering::Relaxed), 1);
    // Who comes later asks anew, and keeps the session for all.
    for database in ["src", "tgt", "other"] {
        open(database, SECRET).await.info().await.unwrap();
    }
    assert_eq!(logins.load(Ordering::Relaxed), 2);
    // Another password is another login.
    open("src", "another").await.info().await.unwrap();
    assert_eq!(logins.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn every_request_is_signed_anew() {
    let nonces = Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    let url = serve({
        let nonces = nonces.clone();
        move |seen| {
            let authorization = header(&seen, "authorization").to_owned();
            assert!(authorization.starts_with("OAuth oauth_consumer_key=\"k\", "), "{authorization}");
            nonces.lock().unwrap().insert(authorization);
            info()
        }
    });
    let oauth = json!({"consumer_key": "k", "consumer_secret": SECRET, "token": "t", "token_secret": SECRET});
    let peer = with_auth(&url.await, json!({"oauth": oauth}));
    peer.info().await.unwrap();
    peer.info().await.unwrap();
    assert_eq!(nonces.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_token_is_fetched_once_renewed_and_kept_from_other_hosts() {
    let given = Arc::new(AtomicUsize::new(0));
    let far = serve(|seen| {
        assert!(!seen.headers.contains_key(AUTHORIZATION) && !seen.headers.contains_key(COOKIE));
        info()
    });
    let far = far.await;
    let url = serve({
        let given = given.clone();
        move |seen| {
            let newest = || format!("Bearer {SECRET}{}", given.load(Ordering::Relaxed));
            match seen.path.as_str() {
                "/oauth2" => {
                    assert_eq!(header(&seen, "authorization"), "Basic Yy0xOnMzY3JldA==");
                    assert_eq!(seen.body, "grant_type=client_credentials&scope=a+b");
                }
                "/iam" => assert!(String::from_utf8_lossy(&seen.body).contains("&apikey=s3cret&")),
                "/db/_local/far" => return moved(307, &far),
                _ if header(&seen, "authorization") == newest() => return info(),
                _ => return unauthorized(),
            }
            let token = format!("{SECRET}{}", given.fetch_add(1, Ordering::Relaxed) + 1);
            ok(json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}))
        }
    });
    let url = url.await;
    let oauth2 =
        json!({"client_id": "c-1", "client_secret": SECRET, "scope": "a b", "token_url": format!("{url}/oauth2")});
    let iam = json!({"api_key": SECRET, "token_url": format!("{url}/iam")});
    for auth in [json!({"oauth2": oauth2}), json!({"iam": iam})] {
        let (peer, before) = (with_auth(&url, auth), given.load(Ordering::Relaxed));
        for answer in join_all((0..5).map(|_| peer.info())).await {
            answer.unwrap();
        }
        assert_eq!(given.load(Ordering::Relaxed), before + 1);
        // Another token is given out, so that this peer's has ended.
        given.fetch_add(1, Ordering::Relaxed);
        peer.info().await.unwrap();
        assert_eq!(given.load(Ordering::Relaxed), before + 3);
        assert!(!format!("{peer:?}").contains(SECRET));
        // The far host answers with a database's information, which has no `_rev`.
        assert!(matches!(peer.local_doc("far").await, Err(PeerError::Malformed { .. })));
    }
}

#[tokio::test]
async fn a_proxy_is_asked_with_its_own_credentials() {
    let proxy = serve(|seen| {
        assert_eq!(header(&seen, "proxy-authorization"), "Basic YW5uOnMzY3JldA==");
        info()
    });
    let mut endpoint = endpoint(json!("http://couchrep.invalid/db"));
    endpoint.connection.proxy = Proxy::parse(&proxy.await.replace("://", &format!("://ann:{SECRET}@")));
    assert!(!format!("{endpoint:?}").contains(SECRET));
    opened(endpoint).await.info().await.unwrap();
}

mod tls {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::config::connection::Tls;

    /// Serves a database to whoever shows a certificate of the authority, whose PEM files are put into `dir`.
    async fn serve_mutual(dir: &std::path::Path) -> String {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            (CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &authority).unwrap(), key)
        };
        let ((server, server_key), (client, client_key)) = (issue("127.0.0.1"), issue("couchrep"));
        std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(dir.join("cert.pem"), client.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), client_key.serialize_pem()).unwrap();

        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let config = rustls::ServerConfig::builder().with_client_cert_verifier(verifier);
        let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![server.der().clone()], key).unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        Tasks::default().spawn("tls server", async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                    let body = r#"{"update_seq":1}"#;
                    let head =
                        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        url
    }

    #[tokio::test]
    async fn certificates_are_verified_and_shown_as_the_endpoint_says() {
        let dir = tempfile::tempdir().unwrap();
        let url = serve_mutual(dir.path()).await;
        let file = |name: &str| Some(dir.path().join(name));
        let ask = async |tls: Tls| {
            let mut endpoint = endpoint(json!(format!("{url}/db")));
            endpoint.connection.tls = tls;
            opened(endpoint).await.info().await.map(drop)
        };
        let shown = Tls { cert_file: file("cert.pem"), key_file: file("key.pem"), ..Tls::default() };
        let trusted = Tls { ssl_trusted_certificates_file: file("ca.pem"), ..shown.clone() };
        ask(trusted.clone()).await.unwrap();
        ask(Tls { verify_ssl_certificates: Some(false), ..shown.clone() }).await.unwrap();
        let untrusting = Tls { ssl_trusted_certificates_file: None, ..shown };
        let unknown = Tls { cert_file: None, key_file: None, ..trusted };
        // Neither passes with time.
        for wrong in [untrusting, unknown] {
            let error = ask(wrong).await.unwrap_err();
            assert!(matches!(error, PeerError::Unreachable { tries: 1, .. }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.pem"), "nothing").unwrap();
        for (name, problem) in
            [("x.pem", "doesn't hold certificates"), ("y.pem", "could not read"), ("", "could not read")]
        {
            let mut endpoint = endpoint(json!("https://h/db"));
            endpoint.connection.tls.ssl_trusted_certificates_file = Some(dir.path().join(name));
            let settings = config::Replicator::default();
            let clients = Clients::new(&settings).unwrap();
            let policy = Policy::new(&settings.endpoints, true);
            let opened = RemotePeer::new(&clients, endpoint, &policy, Arc::new(settings), Pulse::default()).await;
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("ssl_trusted_certificates_file") && error.contains(problem), "{error}");
        }
    }
}
