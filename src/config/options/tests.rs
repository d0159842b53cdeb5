use std::fs;
use std::time::Duration;

use super::*;
use crate::config::secrets::SecretValue;

fn read(toml: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("couchrep.toml");
    fs::write(&path, toml).unwrap();
    Options { config: Some(path), ..Options::default() }.config()
}

fn problem(result: Result<Config, ConfigError>) -> String {
    let text = result.unwrap_err().to_string();
    text.rsplit_once("couchrep.toml, ").map_or(text.clone(), |(_, problem)| problem.to_owned())
}

#[test]
fn the_file_sets_what_it_names_and_leaves_the_rest() {
    let config = read(
        "listen = '[::1]:0'\nadmin = ['root:se:cret']\n\
         [replicator]\ncheckpoint_interval = '500ms'\nmemory_budget = '1GiB'\n[store]\ncache_bytes = 4096\n",
    )
    .unwrap();
    assert_eq!(config.listen, "[::1]:0");
    assert_eq!(config.admins[0].name, "root");
    assert!(config.admins[0].password.is("se:cret"));
    assert_eq!(config.replicator.checkpoint_interval, Duration::from_millis(500));
    assert_eq!(config.replicator.memory_budget, 1 << 30);
    assert_eq!(config.store.cache_bytes, 4096);
    assert_eq!(config.replicator.worker_batch_size, 500);
}

#[test]
fn options_win_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("couchrep.toml");
    fs::write(&path, "listen = 'a:1'\nadmin = ['file:x']\n").unwrap();
    let options =
        Options { config: Some(path), listen: Some("b:2".into()), admin: vec!["line:y".into()], ..Options::default() };
    let config = options.config().unwrap();
    assert_eq!(config.listen, "b:2");
    assert_eq!(config.admins.len(), 1);
    assert_eq!(config.admins[0].name, "line");
}

#[test]
fn defaults_are_what_the_help_says() {
    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        options: Options,
    }
    let (command, default) = (<CommandLine as clap::CommandFactory>::command(), Options::default().config().unwrap());
    let mut compared = 0;
    for arg in command.get_arguments() {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let said = help.rsplit_once("[default: ").map(|(_, rest)| rest.split([']', ',', ';']).next().unwrap().trim());
        // Some defaults are told in words.
        let said = said.filter(|said| *said != "none" && !said.contains([' ', '{']));
        let (Some(said), Some(name)) = (said, arg.get_long()) else { continue };
        let Ok(given) = <CommandLine as clap::Parser>::try_parse_from(["couchrep", &format!("--{name}={said}")]) else {
            panic!("--{name}: {said} is no value")
        };
        // Nothing said and what it stands for are told apart for certificates: a replication's own word comes between.
        let shown = |config: &Config| format!("{config:?}").replace("certificates: Some(true)", "certificates: None");
        assert!(shown(&given.options.config().unwrap()) == shown(&default), "--{name}: {said}");
        compared += 1;
    }
    assert!(compared > 30, "{compared}");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    assert!(problem(read("log = 'info'\nlissten = 'x'\n")).starts_with("line 2: unknown field `lissten`"));
    assert!(problem(read("[http]\nmax_bodies = 1\n")).starts_with("line 2: unknown field `max_bodies`"));
}

#[test]
fn a_value_of_the_wrong_kind_is_told_with_its_line() {
    assert_eq!(
        problem(read("[replicator]\n\nheartbeat = '10 parsecs'\n")),
        "line 3: expected a span of time such as 500ms, 5s or 10m"
    );
}

#[test]
fn values_that_make_no_sense_name_their_option() {
    assert_eq!(problem(read("uuid = 'xyz'\n")), "--uuid must be 32 hex digits");
    assert_eq!(problem(read("local_address = 'h'\n")), "--local-address must be HOST:PORT");
    assert_eq!(problem(read("hostname = ''\n")), "--hostname must not be empty");
    assert_eq!(problem(read("[replicator]\nworker_processes = 0\n")), "--worker-processes must be at least 1");
    assert_eq!(problem(read("[http]\nmax_bodies_bytes = 1\n")), "--max-bodies-bytes must be at least --max-body-bytes");
}

#[test]
fn a_broken_admin_is_refused_without_showing_it() {
    for toml in ["admin = ['hunter2']", "admin = [':hunter2']", "admin = ['root:hunter2'", "admin = {root = 'hunter2'}"]
    {
        let error = read(toml).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn admins_stand_in_a_file_as_secrets_of_containers_do() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("admin");
    let config = |text: &str| {
        fs::write(&secret, text).unwrap();
        let options = Options { admin_file: Some(secret.clone()), admin: vec!["line:y".into()], ..Options::default() };
        options.config()
    };
    let admins = config("root:se:cret\n\nother:p w\r\n").unwrap().admins;
    assert_eq!(admins.iter().map(|admin| admin.name.as_str()).collect::<Vec<_>>(), ["line", "root", "other"]);
    assert!(admins[1].password.is("se:cret") && admins[2].password.is("p w"));
    // Nobody in it would make everybody admin.
    for broken in ["", "\n", "hunter2", ":hunter2", "root:x\nhunter2"] {
        let error = config(broken).unwrap_err();
        assert!(matches!(error, ConfigError::File { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let missing = Options { admin_file: Some(dir.path().join("none")), ..Options::default() };
    assert!(matches!(missing.config(), Err(ConfigError::Unreadable { .. })));
    let toml = format!("admin_file = '{}'\n", secret.display());
    fs::write(&secret, "root:x").unwrap();
    assert_eq!(read(&toml).unwrap().admins[0].name, "root");
}

#[test]
fn settings_can_be_printed_without_their_passwords() {
    let config = read("admin = ['root:hunter2']").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn an_empty_admin_is_none() {
    let options = Options { admin: vec!["".into()], ..Options::default() };
    assert!(options.config().unwrap().admins.is_empty());
}

const ORIGINS: &str = "origins = ['https://h:6984', 'http://h']\n";

#[test]
fn secrets_have_a_value_or_a_file_with_it_and_say_where_and_for_whom_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "hunter3\n").unwrap();
    let config = read(&format!(
        "[secrets.hq]\nusername = 'reader'\npassword = 'hunter2'\n{ORIGINS}users = ['ann', 'root']\n\
         [secrets.cloud]\ntoken_file = '{}'\n{ORIGINS}",
        file.display()
    ))
    .unwrap();
    let secret = |name: &str| config.replicator.secrets.get(name).unwrap();
    let (hq, cloud) = (secret("hq"), secret("cloud"));
    assert_eq!(hq.users, ["ann", "root"]);
    let origins: Vec<_> = hq.origins.iter().map(url::Url::as_str).collect();
    assert_eq!(origins, ["https://h:6984/", "http://h/"]);
    let SecretValue::Password { username, password } = &hq.value else { panic!("{hq:?}") };
    assert_eq!((username.as_str(), password.expose_secret()), ("reader", "hunter2"));
    assert!(matches!(&cloud.value, SecretValue::Token(token) if token.expose_secret() == "hunter3"));
    assert!(cloud.users.is_empty());
    assert!(!format!("{config:?}").contains("hunter"));
}

#[test]
fn a_secret_that_makes_no_sense_is_named_and_never_shown() {
    let either = "[secrets.hq] must have either a username and a password, or a token";
    let value = "[secrets.hq] has a username or a password that can't be one";
    let origins = "[secrets.hq] must have origins, each of them https://HOST:PORT or https://HOST:PORT/PATH";
    for (toml, expected) in [
        (format!("password = 'hunter2'\n{ORIGINS}"), either),
        (format!("username = 'u'\npassword = 'hunter2'\ntoken = 'hunter2'\n{ORIGINS}"), either),
        (ORIGINS.to_owned(), either),
        (format!("username = 'u:v'\npassword = 'hunter2'\n{ORIGINS}"), value),
        (format!("username = 'u'\npassword = ''\n{ORIGINS}"), value),
        (format!("token = \"hunter2\\n\"\n{ORIGINS}"), "[secrets.hq] has a token that can't be one"),
        (format!("token = 'hunter2'\ntoken_file = 'x'\n{ORIGINS}"), "[secrets.hq] has both a value and a file with it"),
        ("token = 'hunter2'\n".into(), origins),
        ("token = 'hunter2'\norigins = []\n".into(), origins),
        ("token = 'hunter2'\norigins = ['https://u:hunter2@h']\n".into(), origins),
        ("token = 'hunter2'\norigins = 'https://u:hunter2@h'\n".into(), "line 3: must be a list of texts"),
        ("token = 2\n".into(), "line 2: a secret must be a text"),
    ] {
        let found = problem(read(&format!("[secrets.hq]\n{toml}")));
        assert_eq!(found, expected, "{toml}");
    }
    let named = problem(read(&format!("[secrets.'a b']\ntoken = 'hunter2'\n{ORIGINS}")));
    assert!(named.starts_with("[secrets.a b] must be called by"), "{named}");
    assert!(problem(read("[secrets.hq]\ntokn = 'hunter2'\n")).starts_with("line 2: unknown field `tokn`"));
    let missing = read(&format!("[secrets.hq]\ntoken_file = 'nowhere/token'\n{ORIGINS}"));
    assert!(matches!(missing, Err(ConfigError::Unreadable { .. })));
}

#[test]
fn rules_of_endpoints_are_texts_or_lists_and_an_empty_one_opens_nothing() {
    let shown = |rules: &[crate::policy::Rule]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    let config =
        read("[replicator]\nallow = '*.example, 10.0.0.0/8'\ndeny = ['[fd00::]/8:22', 'https://*']\n").unwrap();
    let found = &config.replicator.endpoints;
    assert_eq!(shown(&found.allow), ["*.example", "10.0.0.0/8"]);
    assert_eq!(shown(&found.deny), ["[fd00::]/8:22", "https://*"]);
    assert!(found.allow_users.is_empty() && found.deny_users.is_empty());
    for (toml, expected) in [
        ("allow = []", "line 2: rules must not be empty: leave them out, or deny `*`"),
        ("allow_users = ' '", "line 2: rules must not be empty: leave them out, or deny `*`"),
        ("deny = ['10.0.0.0/33']", "line 2: has a network that is none"),
        ("deny_users = ['ftp://h']", "line 2: has a rule with another scheme than http, https and socks5"),
        ("deny = 7", "line 2: rules must be a text or a list of texts"),
        ("deny = ['h', 7]", "line 2: rules must be a text or a list of texts"),
    ] {
        assert_eq!(problem(read(&format!("[replicator]\n{toml}\n"))), expected, "{toml}");
    }
    // An empty variable says nothing.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("couchrep.toml");
    fs::write(&path, "[replicator]\nallow = 'a'\ndeny = 'b'\n").unwrap();
    let replicator = ReplicatorOptions {
        allow: Some("".parse().unwrap()),
        deny: Some("c d".parse().unwrap()),
        ..ReplicatorOptions::default()
    };
    let found = Options { config: Some(path), replicator, ..Options::default() }.config().unwrap().replicator.endpoints;
    assert_eq!((shown(&found.allow), shown(&found.deny)), (vec!["a".into()], vec!["c".into(), "d".into()]));
}
