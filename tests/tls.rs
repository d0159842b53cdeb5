//! The server over TLS.

use std::path::Path;
use std::time::Duration;

use couchrep::config::couchdb::CouchDb;
use couchrep::config::{Config, TlsFiles};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Process, Server, client_builder, json as ask};

/// Writes a certificate for this machine, and its key.
fn certificate(dir: &Path) -> (TlsFiles, Certificate) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().self_signed(&key).unwrap();
    let files = TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    std::fs::write(&files.cert, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    (files, Certificate::from_pem(certificate.pem().as_bytes()).unwrap())
}

fn config(dir: &Path, tls: TlsFiles) -> Config {
    Config { listen: "127.0.0.1:0".into(), data_dir: dir.join("data"), tls: Some(tls), ..Config::default() }
}

#[tokio::test]
async fn a_server_with_a_certificate_speaks_tls_and_replicates_with_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (files, own) = certificate(dir.path());
    let mut config = config(dir.path(), files.clone());
    config.replicator.tls.ssl_trusted_certificates_file = Some(files.cert);
    let server = couchrep::server::Server::start(config).await.unwrap();
    let url = server.url();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let client = reqwest::Client::builder().tls_certs_only([own]).build().unwrap();
    ask(&client, Method::PUT, format!("{url}/a"), None, 201).await;
    ask(&client, Method::PUT, format!("{url}/a/doc"), Some(&json!({ "n": 1 })), 201).await;
    let body = json!({ "source": format!("{url}/a"), "target": format!("{url}/b"), "create_target": true });
    ask(&client, Method::POST, format!("{url}/_replicate"), Some(&body), 200).await;
    assert_eq!(ask(&client, Method::GET, format!("{url}/b/doc"), None, 200).await["n"], 1);
    let put = client.put(format!("{url}/a/where")).header("content-type", "application/json").body("{}");
    assert_eq!(put.send().await.unwrap().headers()["location"], format!("{url}/a/where"));
    server.stop().await;
}

#[tokio::test]
async fn a_couchdb_behind_tls_is_believed_by_the_certificates_of_replications() {
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = certificate(dir.path());
    let couchdb = couchrep::server::Server::start(config(dir.path(), files.clone())).await.unwrap();
    let server = Server::with_config(|config| {
        config.couchdb = Some(CouchDb::parse(&couchdb.url()).unwrap());
        config.replicator.tls.ssl_trusted_certificates_file = Some(files.cert.clone());
    })
    .await;
    server.put("/a", json!(null), 201).await;
    server.put("/a/doc", json!({ "n": 1 }), 201).await;
    server.replicate(json!({ "source": "a", "target": "b", "create_target": true })).await;
    assert_eq!(server.get("/b/doc", 200).await["n"], 1);
    let doubting = Server::with_config(|config| {
        config.couchdb = Some(CouchDb::parse(&couchdb.url()).unwrap());
        config.uuid = Some("0123456789abcdef0123456789abcdef".into());
    })
    .await;
    let told = doubting.get("/", 502).await["reason"].as_str().unwrap().to_owned();
    assert!(told.contains("certificate"), "{told}");
    couchdb.stop().await;
}

#[tokio::test]
async fn who_speaks_no_tls_is_sent_away() {
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = certificate(dir.path());
    let server = couchrep::server::Server::start(config(dir.path(), files)).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good an end.
    _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_that_cant_be_used_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path());
    let other = KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("other.pem"), other.serialize_pem()).unwrap();
    std::fs::write(dir.path().join("nothing.pem"), "nothing").unwrap();
    for (cert, key, told) in [
        ("cert.pem", "other.pem", "it can't be used with that key"),
        ("cert.pem", "nothing.pem", "expected a PEM file with an unencrypted key"),
        ("nowhere.pem", "key.pem", "expected a PEM file with a certificate and its chain"),
        ("nothing.pem", "key.pem", "expected a PEM file with a certificate and its chain"),
    ] {
        let files = TlsFiles { cert: dir.path().join(cert), key: dir.path().join(key) };
        let started = couchrep::server::Server::start(config(dir.path(), files)).await;
        let Err(error) = started else { panic!("{cert}, {key}") };
        assert!(error.to_string().contains(told), "{error}");
    }
}

/// A certificate of 90 days needed a restart, which breaks off what passes through.
#[tokio::test]
async fn on_a_hangup_the_certificate_is_read_again_and_one_that_cant_be_used_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let (files, first) = certificate(dir.path());
    let log = dir.path().join("log");
    let option = |path: &Path| path.to_str().unwrap().to_owned();
    let args = ["--tls-cert", &option(&files.cert), "--tls-key", &option(&files.key)];
    let server = Process::logging(&dir.path().join("data"), &args, &log);
    let url = server.url("/");
    let trusting = |certificate: &Certificate| client_builder().tls_certs_only([certificate.clone()]).build().unwrap();
    let answers =
        async |client: &reqwest::Client| client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200);
    let open = trusting(&first);
    assert!(answers(&open).await);

    let (_, second) = certificate(dir.path());
    server.signal("HUP");
    wait_for(&log, "read the certificate again").await;
    assert!(answers(&trusting(&second)).await);
    assert!(!answers(&trusting(&first)).await, "who connects anew sees the new one");
    assert!(answers(&open).await, "an open connection goes on");

    std::fs::write(&files.cert, "nothing").unwrap();
    server.signal("HUP");
    wait_for(&log, "the certificate stays what it was").await;
    assert!(answers(&trusting(&second)).await);
}

async fn wait_for(log: &Path, line: &str) {
    let found = async {
        while !std::fs::read_to_string(log).unwrap().contains(line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("the log says nothing of it");
}
