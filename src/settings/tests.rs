use tempfile::TempDir;

use super::*;
use crate::config::Admin;

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> Config {
        let mut config = Config { data_dir: self.dir.path().into(), ..Config::default() };
        config.auth.iterations = 10.try_into().unwrap();
        config
    }

    async fn open(&self) -> Settings {
        self.open_with(|_| ()).await
    }

    async fn open_with(&self, change: impl FnOnce(&mut Config)) -> Settings {
        let mut config = self.config();
        change(&mut config);
        Settings::open(config).await.unwrap()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

async fn put(settings: &Settings, section: &str, name: &str, text: &str) -> Result<Option<String>, String> {
    settings.put(section, name, text, Persist::Yes).await.map_err(|refused| refused.to_string())
}

#[tokio::test]
async fn what_is_put_counts_at_once_and_after_a_restart_and_over_options() {
    let place = Place::new();
    let settings = place.open().await;
    let mut watch = settings.watch();
    assert_eq!(put(&settings, "cors", "origins", " https://a , https://b").await, Ok(None));
    assert!(watch.has_changed().unwrap());
    assert_eq!(watch.borrow_and_update().cors.origins, ["https://a", "https://b"]);
    assert_eq!(put(&settings, "cors", "origins", "*").await, Ok(Some("https://a, https://b".into())));

    let settings = place.open_with(|config| config.cors.origins = vec!["https://c".into()]).await;
    assert_eq!(settings.current().cors.origins, ["*"]);
    assert_eq!(settings.delete("cors", "origins", Persist::Yes).await.unwrap(), "*");
    assert!(settings.current().cors.origins.is_empty());
    assert_eq!(settings.get("cors", "origins").await, None);
    assert!(matches!(settings.delete("cors", "origins", Persist::Yes).await, Err(SettingRefused::NotSet)));
    let settings = place.open_with(|config| config.cors.origins = vec!["https://c".into()]).await;
    assert_eq!(settings.current().cors.origins, ["https://c"]);
}

#[tokio::test]
async fn a_change_that_is_not_to_last_ends_with_the_process() {
    let place = Place::new();
    let settings = place.open().await;
    settings.put("log", "level", "warning", Persist::No).await.unwrap();
    assert_eq!(settings.current().log, "warn");
    put(&settings, "cors", "credentials", "true").await.unwrap();
    let settings = place.open().await;
    assert_eq!(settings.current().log, "info");
    assert!(settings.current().cors.credentials);
}

#[tokio::test]
async fn passwords_of_admins_are_kept_and_shown_as_hashes_and_those_of_options_stay() {
    let place = Place::new();
    let options = |config: &mut Config| config.admins.push(Admin::new("root", "open").unwrap());
    let settings = place.open_with(options).await;
    assert_eq!(put(&settings, "admins", "joe", "s3cret pw").await, Ok(None));
    let shown = settings.get("admins", "joe").await.unwrap();
    assert!(shown.starts_with("-pbkdf2:sha256-"), "{shown}");
    assert!(place.file(FILE).contains(&shown) && !place.file(FILE).contains("s3cret"), "{}", place.file(FILE));
    let root = settings.get("admins", "root").await;

    let settings = place.open_with(options).await;
    assert_eq!(settings.get("admins", "joe").await, Some(shown.clone()), "the hash that sessions hang on");
    assert_eq!(settings.get("admins", "root").await, root);
    let joe = settings.current().admins.iter().find(|admin| admin.name == "joe").cloned().unwrap();
    assert!(joe.password.is("s3cret pw"));
    assert_eq!(settings.delete("admins", "joe", Persist::Yes).await.unwrap(), shown);
    assert!(matches!(settings.delete("admins", "root", Persist::Yes).await, Err(SettingRefused::LastAdmin)));
    assert!(put(&settings, "admins", "root", "").await.unwrap_err().contains("empty password"));
    assert_eq!(settings.current().admins.len(), 1);
}

#[tokio::test]
async fn what_was_deleted_for_now_can_be_deleted_for_good() {
    let place = Place::new();
    let settings = place.open().await;
    put(&settings, "admins", "root", "pw").await.unwrap();
    put(&settings, "admins", "joe", "pw").await.unwrap();
    settings.delete("admins", "joe", Persist::No).await.unwrap();
    assert_eq!(settings.get("admins", "joe").await, None);
    assert_eq!(settings.delete("admins", "joe", Persist::Yes).await.unwrap(), "*****");
    assert_eq!(place.open().await.get("admins", "joe").await, None);
}

#[tokio::test]
async fn what_makes_no_sense_changes_nothing() {
    let place = Place::new();
    let settings = place.open().await;
    let before = settings.sections().await;
    for (section, name, text, problem) in [
        ("cors", "credentials", "maybe", "[cors] credentials must be true or false"),
        ("chttpd_auth", "timeout", "0", "[chttpd_auth] timeout must be a positive integer"),
        ("replicator", "key_file", "key.pem", "[replicator] key_file needs a cert_file"),
        ("couchdb", "uuid", "xyz", "[couchdb] uuid must be 32 hex digits"),
        (
            "chttpd",
            "authentication_handlers",
            "{chttpd_auth, jwt_handler}",
            "[chttpd] authentication_handlers must name",
        ),
        ("jwt_keys", "rsa:x", "no key", "the JWT key x"),
        ("jwt_keys", "x", "no kind", "[jwt_keys] x must be named"),
        ("smoosh", "x", "y", "couchrep has no setting [smoosh] x"),
        ("admins", "a:b", "pw", "[admins] a:b may not have a colon"),
        ("admins", "", "pw", "[admins]  needs a name"),
    ] {
        let refused = put(&settings, section, name, text).await.unwrap_err();
        assert!(refused.starts_with(problem), "{refused}");
    }
    assert_eq!(settings.sections().await, before);
    assert_eq!(place.file(FILE), "");
}

#[tokio::test]
async fn secrets_are_kept_and_never_shown() {
    let place = Place::new();
    let settings = place.open().await;
    let made = place.file("session.secret");
    assert_eq!(made.trim().len(), 32);
    put(&settings, "chttpd_auth", "secret", "s3cret").await.unwrap();
    put(&settings, "jwt_keys", "hmac:_default", "czNjcmV0").await.unwrap();
    let shown = format!("{:?}", settings.sections().await);
    assert!(!shown.contains("s3cret") && !shown.contains("czNj") && !shown.contains(made.trim()), "{shown}");
    assert_eq!(settings.delete("chttpd_auth", "secret", Persist::Yes).await.unwrap(), "*****");
    let secret = settings.current().auth.secret.clone().unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&secret), made.trim(), "the server's own again");
}

#[tokio::test]
async fn damaged_files_are_errors() {
    let place = Place::new();
    for (file, text) in [("session.secret", "\n"), (FILE, "{"), (FILE, r#"{"cors":{"credentials":"x"}}"#)] {
        let path = place.dir.path().join(file);
        std::fs::write(&path, text).unwrap();
        let error = Settings::open(place.config()).await.err().unwrap();
        assert!(error.to_string().contains(file), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}

/// A client that hangs up could leave the file and the memory apart.
#[tokio::test]
async fn a_change_that_nobody_waits_for_is_made_all_the_same_and_one_at_a_time() {
    let place = Place::new();
    let settings = place.open().await;
    let begun = settings.put("admins", "joe", "pw", Persist::Yes);
    assert!(tokio::time::timeout(std::time::Duration::ZERO, begun).await.is_err());
    let changes = (1..=20).map(async |n: u32| put(&settings, "chttpd_auth", "timeout", &n.to_string()).await.unwrap());
    futures::future::join_all(changes).await;
    assert!(settings.get("admins", "joe").await.is_some());
    let reopened = place.open().await;
    assert_eq!(reopened.sections().await, settings.sections().await);
}
