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
        let settings = Settings::read(config).await.unwrap();
        settings.complete().await.unwrap();
        settings
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

async fn put(settings: &Settings, section: &str, key: &str, text: &str) -> Result<Option<String>, String> {
    let put = settings.put((section, key), text, &admin(), Persist::Yes).await;
    put.map_err(|refused| refused.to_string())
}

async fn delete(settings: &Settings, section: &str, key: &str) -> Result<String, SettingRefused> {
    settings.delete((section, key), &admin(), Persist::Yes).await
}

fn admin() -> Caller {
    Caller { name: Some("root".into()), ..Caller::server_admin() }
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
    assert_eq!(delete(&settings, "cors", "origins").await.unwrap(), "*");
    assert!(settings.current().cors.origins.is_empty());
    assert_eq!(settings.get("cors", "origins").await, None);
    assert!(matches!(delete(&settings, "cors", "origins").await, Err(SettingRefused::NotSet)));
    let settings = place.open_with(|config| config.cors.origins = vec!["https://c".into()]).await;
    assert_eq!(settings.current().cors.origins, ["https://c"]);
}

#[tokio::test]
async fn a_change_that_is_not_to_last_ends_with_the_process() {
    let place = Place::new();
    let settings = place.open().await;
    settings.put(("log", "level"), "warning", &admin(), Persist::No).await.unwrap();
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
    assert_eq!(delete(&settings, "admins", "joe").await.unwrap(), shown);
    assert!(matches!(delete(&settings, "admins", "root").await, Err(SettingRefused::LastAdmin)));
    assert!(put(&settings, "admins", "root", "").await.unwrap_err().contains("empty password"));
    assert_eq!(settings.current().admins.len(), 1);
}

/// A request could begin while everybody was admin and end after the first one was put.
#[tokio::test]
async fn nobody_changes_settings_once_there_is_an_admin() {
    let place = Place::new();
    let settings = place.open().await;
    let nobody = Caller::server_admin();
    settings.put(("admins", "root"), "pw", &nobody, Persist::Yes).await.unwrap();
    let refused = settings.put(("admins", "evil"), "pw", &nobody, Persist::Yes).await;
    assert!(matches!(refused, Err(SettingRefused::Denied(_))));
    assert!(matches!(settings.delete(("admins", "root"), &nobody, Persist::Yes).await, Err(SettingRefused::Denied(_))));
}

/// The next start would have failed, or let everybody in.
#[tokio::test]
async fn what_is_put_for_now_alone_carries_nothing_that_lasts() {
    let place = Place::new();
    let settings = place.open().await;
    put(&settings, "admins", "lasting", "pw").await.unwrap();
    settings.put(("admins", "passing"), "pw", &admin(), Persist::No).await.unwrap();
    assert!(matches!(delete(&settings, "admins", "lasting").await, Err(SettingRefused::LastAdmin)));
    let pem = place.dir.path().join("pem");
    std::fs::write(&pem, "").unwrap();
    let pem = pem.to_str().unwrap();
    settings.put(("replicator", "cert_file"), pem, &admin(), Persist::No).await.unwrap();
    put(&settings, "replicator", "key_file", pem).await.unwrap_err();
    place.open().await;
}

#[tokio::test]
async fn what_was_deleted_for_now_can_be_deleted_for_good() {
    let place = Place::new();
    let settings = place.open().await;
    put(&settings, "admins", "root", "pw").await.unwrap();
    put(&settings, "admins", "joe", "pw").await.unwrap();
    settings.delete(("admins", "joe"), &admin(), Persist::No).await.unwrap();
    assert_eq!(settings.get("admins", "joe").await, None);
    assert_eq!(delete(&settings, "admins", "joe").await.unwrap(), "*****");
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
        ("replicator", "cert_file", "/no/such/file", "[replicator] cert_file names a file that can't be read"),
        ("replicator", "http_connections", "99999999999", "[replicator] http_connections must be"),
        ("replicator", "connection_timeout", "+0", "[replicator] connection_timeout must be a positive integer"),
        ("chttpd_auth", "timeout", "9999999999999", "[chttpd_auth] timeout must be"),
        ("chttpd_auth", "cookie_domain", "a.example; Secure", "[chttpd_auth] cookie_domain must be a domain"),
        ("chttpd_auth", "x_auth_roles", "X Roles", "[chttpd_auth] x_auth_roles must be"),
        ("chttpd_auth", "secret", "*****", "[chttpd_auth] secret is what is shown in place"),
        ("jwt_keys", "rsa:y", "-----BEGIN PRIVATE KEY-----", "[jwt_keys] rsa:y must be a public key"),
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
    assert_eq!(delete(&settings, "chttpd_auth", "secret").await.unwrap(), "*****");
    let secret = settings.current().auth.secret.clone().unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(&secret), made.trim(), "the server's own again");
}

#[tokio::test]
async fn damaged_files_are_errors() {
    let place = Place::new();
    for (file, text) in [("session.secret", "\n"), (FILE, "{"), (FILE, r#"{"cors":{"credentials":"x"}}"#)] {
        let path = place.dir.path().join(file);
        std::fs::write(&path, text).unwrap();
        let error = match Settings::read(place.config()).await {
            Ok(settings) => settings.complete().await.err().unwrap(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(file), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}

/// A client that hangs up could leave the file and the memory apart.
#[tokio::test]
async fn a_change_that_nobody_waits_for_is_made_all_the_same_and_one_at_a_time() {
    let place = Place::new();
    let settings = place.open().await;
    let author = admin();
    let mut begun = Box::pin(settings.put(("admins", "joe"), "pw", &author, Persist::Yes));
    _ = futures::poll!(&mut begun);
    drop(begun);
    let changes = (1..=20).map(async |n: u32| put(&settings, "chttpd_auth", "timeout", &n.to_string()).await.unwrap());
    futures::future::join_all(changes).await;
    assert!(settings.get("admins", "joe").await.is_some());
    let reopened = place.open().await;
    assert_eq!(reopened.sections().await, settings.sections().await);
}
