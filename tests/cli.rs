//! The command line: help, settings and their errors.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Process, client, json};

fn run(args: &[&str], envs: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Process::run(args, envs);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn help_names_the_options_and_the_three_places_for_them() {
    for args in [["--help"].as_slice(), &["serve", "--help"], &["-h"]] {
        let (code, help) = run(args, &[]);
        assert_eq!(code, Some(0));
        for word in ["--listen", "--data-dir", "--uuid", "--admin", "--config", "--log", "COUCHREP_DATA_DIR"] {
            assert!(help.contains(word), "{args:?}: {word}: {help}");
        }
    }
}

#[test]
fn help_does_not_show_passwords_of_the_environment() {
    let (_, help) = run(&["--help"], &[("COUCHREP_ADMIN", "root:hunter2")]);
    assert!(!help.contains("hunter2"), "{help}");
}

#[test]
fn an_open_address_without_admins_is_refused() {
    let (code, text) = run(&["--listen", "0.0.0.0:0"], &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("refusing to listen on 0.0.0.0:0 without admins"), "{text}");
}

#[test]
fn settings_that_make_no_sense_are_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("couchrep.toml");
    std::fs::write(&file, "listen = '127.0.0.1:0'\n[store]\ncache = 1\n").unwrap();
    let file = file.to_str().unwrap();
    for (args, envs, told) in [
        (["--uuid", "xyz"], ("X", ""), "--uuid must be 32 hex digits"),
        (["--config", file], ("X", ""), "line 3: unknown field `cache`"),
        (["--config", "/no/such.toml"], ("X", ""), "could not read /no/such.toml: No such file"),
        (["--log", "info,=="], ("X", ""), "--log must be a level or directives"),
        (["--log", "nonsense"], ("X", ""), "--log: `nonsense` is no level: error, warn, info, debug or trace"),
        (["--log", "info,debgu"], ("X", ""), "--log: `debgu` is no level"),
        (["--data-dir", "/x"], ("COUCHREP_ADMIN_FILE", "/no/such"), "could not read /no/such: No such file"),
        (["--data-dir", "/x"], ("COUCHREP_HEARTBEAT", "soon"), "invalid value 'soon' for '--heartbeat <TIME>'"),
        (["--data-dir", "/x"], ("COUCHREP_ADMIN", "hunter2"), "--admin must be NAME:PASSWORD"),
    ] {
        let (code, text) = run(&args, &[envs]);
        assert_ne!(code, Some(0), "{args:?}");
        assert!(text.contains(told), "{args:?}: {text}");
        assert!(!text.contains("hunter2"), "{args:?}: {text}");
    }
}

#[test]
fn the_command_line_wins_over_the_environment_and_the_environment_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("couchrep.toml");
    std::fs::write(&file, "listen = '192.0.2.1:1'\n").unwrap();
    let file = file.to_str().unwrap();
    let env = ("COUCHREP_LISTEN", "192.0.2.2:2");
    for (args, envs, listen) in [
        (["--config", file].as_slice(), [].as_slice(), "192.0.2.1:1"),
        (&["--config", file], &[env], "192.0.2.2:2"),
        (&["--config", file, "--listen", "192.0.2.3:3"], &[env], "192.0.2.3:3"),
        (&["serve", "--config", file, "--listen", "192.0.2.3:3"], &[env], "192.0.2.3:3"),
    ] {
        let (_, text) = run(args, envs);
        assert!(text.contains(&format!("refusing to listen on {listen} ")), "{args:?}: {text}");
    }
}

#[tokio::test]
async fn the_uuid_is_made_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut uuids = Vec::new();
    for _ in 0..2 {
        let process = Process::start(dir.path());
        uuids.push(json(&client(), Method::GET, process.url("/"), None, 200).await["uuid"].clone());
        process.kill();
    }
    assert_eq!(uuids[0].as_str().unwrap().len(), 32);
    assert_eq!(uuids[0], uuids[1]);

    let given = "0123456789abcdef0123456789abcdef";
    let process = Process::with_args(dir.path(), &["--uuid", given]);
    assert_eq!(json(&client(), Method::GET, process.url("/"), None, 200).await["uuid"], given);
}

#[test]
fn starting_prints_what_to_try() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path());
    process.signal("TERM");
    process.ended_within(Duration::from_secs(30));
    assert_eq!(process.printed().matches("\n  curl ").count(), 2);
}

#[tokio::test]
async fn more_clients_stay_connected_than_the_soft_limit_of_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::with_soft_limit_of_open_files(dir.path(), 64);
    let addr = process.url("").replace("http://", "");
    let clients = (0..100).map(|_| async {
        let mut client = TcpStream::connect(&addr).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        client
    });
    let connected = timeout(Duration::from_secs(30), join_all(clients)).await;
    assert_eq!(connected.expect("some were never answered").len(), 100);
}

#[test]
fn a_data_dir_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Process::start(dir.path());
    let (code, text) = run(&["--listen", "127.0.0.1:0", "--data-dir", dir.path().to_str().unwrap()], &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("could not open the store in"), "{text}");
}

#[tokio::test]
async fn admins_whom_couchdb_hashed_log_in_with_their_passwords() {
    let dir = tempfile::tempdir().unwrap();
    let ini = dir.path().join("local.ini");
    // `secret`; computed with Python's hashlib.
    let hash = "-pbkdf2:sha256-bfe6fdbe61ad363383eb08faf515e04254417563d2430470e7c97e54bbc7fec0,\
                921a12f74df0c1052b3e562a23cd227f,50000";
    std::fs::write(&ini, format!("[admins]\nroot = {hash}\n")).unwrap();
    let process = Process::with_args(dir.path(), &["--couchdb-ini", ini.to_str().unwrap()]);
    let url = |user: &str| process.url("/_all_dbs").replace("http://", &format!("http://{user}@"));
    for _ in 0..2 {
        assert_eq!(
            json(&client(), Method::GET, url("root:secret"), None, 200).await,
            serde_json::json!(["_replicator", "_users"])
        );
        for wrong in ["root:wrong", "other:secret"] {
            let answer = json(&client(), Method::GET, url(wrong), None, 401).await;
            assert_eq!(answer["reason"], "Name or password is incorrect.");
        }
    }
}

/// It said `Address already in use (os error 98)`, and left it to the reader what to do about it.
#[test]
fn a_taken_port_is_told_with_the_option_for_another() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = run(&["--listen", &address], &[]);
    assert_eq!(code, Some(1));
    let told = format!("couchrep: could not listen on {address}: the address is taken; take another one with --listen");
    assert!(text.contains(&told), "{text}");
}

/// A misspelt level was the name of a module to the log, and silenced all others.
#[test]
fn levels_and_directives_are_taken_as_what_to_log() {
    let dir = tempfile::tempdir().unwrap();
    for log in ["INFO", "off", "", "warn,couchrep::replicate=debug", "couchrep", "hyper=info", "couchrep[request]=info"]
    {
        let mut process = Process::with_args(dir.path(), &["--log", log]);
        process.signal("TERM");
        assert!(process.ended_within(Duration::from_secs(30)).success(), "{log}");
    }
}

#[test]
fn health_tells_whether_a_server_works() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("admin");
    std::fs::write(&secret, "root:secret\n").unwrap();
    let mut process = Process::with_args(&dir.path().join("data"), &["--admin-file", secret.to_str().unwrap()]);
    let url = process.url("");
    let port = url.rsplit_once(':').unwrap().1;
    let everywhere = format!("0.0.0.0:{port}");
    // As in a container, whose environment the server and its health check share.
    let env = [("COUCHREP_LISTEN", everywhere.as_str()), ("COUCHREP_ADMIN_FILE", "/run/secrets/admin")];
    let works = (Some(0), format!("http://127.0.0.1:{port} works\n"));
    assert_eq!(run(&["health"], &env), works);
    assert_eq!(run(&["health", &format!("http://root:hunter2@127.0.0.1:{port}/")], &[]), works);
    process.kill_in_place();
    let (code, text) = run(&["health", &url], &[]);
    assert_eq!(code, Some(1));
    assert!(text.starts_with(&format!("couchrep: {url} doesn't work: ")), "{text}");
    for nonsense in ["root:hunter2@host", "ftp://root:hunter2@host/", "http://root:hunter2@"] {
        let (code, text) = run(&["health", nonsense], &[]);
        assert_eq!((code, text.as_str()), (Some(2), "couchrep: URL must be http://HOST:PORT\n"));
    }
}

#[tokio::test]
async fn admins_may_stand_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("admin");
    std::fs::write(&secret, "root:secret\n").unwrap();
    let process = Process::with_args(&dir.path().join("data"), &["--admin-file", secret.to_str().unwrap()]);
    json(&client(), Method::GET, process.url("/_all_dbs"), None, 401).await;
    let url = process.url("/_all_dbs").replace("http://", "http://root:secret@");
    assert_eq!(json(&client(), Method::GET, url, None, 200).await, serde_json::json!(["_replicator", "_users"]));
}
