use serde_json::{Value, json};
use tempfile::TempDir;

use std::num::NonZeroU32;

use super::*;
use crate::access::Caller;
use crate::config::auth::Auth;
use crate::config::{Admin, StoreSettings};
use crate::document::DocParts;
use crate::settings::Settings;
use crate::store::{Durability, Edit};

/// `secret`, in CouchDB 3.4's form.
const HASHED: &str = "-pbkdf2:sha256-bfe6fdbe61ad363383eb08faf515e04254417563d2430470e7c97e54bbc7fec0,\
                      921a12f74df0c1052b3e562a23cd227f,50000";

struct Place {
    dir: TempDir,
    store: Store,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreSettings::default()).await.unwrap();
        Self { dir, store }
    }

    async fn accounts(&self, admins: &[(&str, &str)], change: impl FnOnce(&mut Auth)) -> Accounts {
        let admins = admins.iter().map(|(name, password)| Admin::new(name, password).unwrap()).collect();
        let mut config = Config { data_dir: self.dir.path().into(), admins, ..Config::default() };
        config.auth.iterations = NonZeroU32::new(10).unwrap();
        change(&mut config.auth);
        let settings = Settings::read(config).await.unwrap();
        settings.complete().await.unwrap();
        Accounts::open(settings.watch(), self.store.clone()).await.unwrap()
    }

    /// Writes a user's document as it is.
    async fn write(&self, name: &str, rev: Option<&str>, mut document: Value) -> String {
        document["type"] = "user".into();
        document["name"] = name.into();
        if document["roles"].is_null() {
            document["roles"] = json!([]);
        }
        document["_id"] = format!("org.couchdb.user:{name}").into();
        document["_rev"] = rev.into();
        if rev.is_none() {
            document.as_object_mut().unwrap().remove("_rev");
        }
        let text = document.to_string();
        let parts = DocParts::parse(text.as_bytes()).unwrap();
        let id = parts.id.clone().unwrap().as_ref().into();
        let edit = Edit::new(&parts, id, false, Vec::new()).unwrap();
        let users = self.store.database(&DbName::parse(USERS).unwrap()).await.unwrap();
        users
            .write(vec![edit], &Caller::server_admin(), Durability::Synced)
            .await
            .unwrap()
            .remove(0)
            .unwrap()
            .to_string()
    }
}

async fn log_in(accounts: &Accounts, name: &str, password: &str) -> Result<Account, String> {
    accounts.by_password(name, &password.into(), None).await.map_err(|refused| refused.to_string())
}

const WRONG: &str = "Name or password is incorrect.";

#[tokio::test]
async fn admins_of_every_kind_and_users_log_in() {
    let place = Place::new().await;
    let accounts = place.accounts(&[("plain", "open"), ("root", HASHED)], |_| ()).await;
    let simple = json!({ "salt": "s4lt", "password_sha": "1529357fa93ad14972810f90141874e28ed4beea", "roles": ["a"] });
    place.write("ann", None, simple.clone()).await;
    place.write("plain", None, simple).await;
    assert_eq!(log_in(&accounts, "root", "secret").await.unwrap().roles, ["_admin"]);
    assert_eq!(log_in(&accounts, "plain", "open").await.unwrap().roles, ["_admin", "a"]);
    assert_eq!(log_in(&accounts, "ann", "pass").await.unwrap().roles, ["a"]);
    for (name, password) in [("root", "open"), ("root", HASHED), ("plain", "pass"), ("ann", "open"), ("bob", "pass")] {
        assert_eq!(log_in(&accounts, name, password).await.unwrap_err(), WRONG, "{name}");
    }
}

#[tokio::test]
async fn who_changes_in_users_is_known_as_he_is_at_once() {
    let place = Place::new().await;
    let accounts = place.accounts(&[("root", "open")], |_| ()).await;
    assert_eq!(log_in(&accounts, "ann", "pass").await.unwrap_err(), WRONG);
    let mut document = json!({ "salt": "s4lt", "password_sha": "1529357fa93ad14972810f90141874e28ed4beea" });
    let rev = place.write("ann", None, document.clone()).await;
    let account = log_in(&accounts, "ann", "pass").await.unwrap();
    let cookie = accounts.cookie(&account);
    assert!(accounts.by_cookie(&cookie).await.unwrap().is_some());
    document["roles"] = json!(["a"]);
    let rev = place.write("ann", Some(&rev), document.clone()).await;
    assert_eq!(accounts.by_cookie(&cookie).await.unwrap().unwrap().account.roles, ["a"]);
    document["salt"] = "other".into();
    place.write("ann", Some(&rev), document).await;
    assert!(accounts.by_cookie(&cookie).await.unwrap().is_none(), "a new password ends sessions");
    assert_eq!(log_in(&accounts, "ann", "pass").await.unwrap_err(), WRONG);
    place.store.delete(&DbName::parse(USERS).unwrap()).await.unwrap();
    assert_eq!(log_in(&accounts, "ann", "pass").await.unwrap_err(), WRONG);
    assert!(log_in(&accounts, "root", "open").await.is_ok());
}

/// Cookies are signed with the salt of the hash, which was another one after each start.
#[tokio::test]
async fn sessions_of_plain_admins_survive_a_restart_and_no_other_password() {
    let place = Place::new().await;
    let accounts = place.accounts(&[("root", "open"), ("gone", "x")], |_| ()).await;
    let cookie = accounts.cookie(&log_in(&accounts, "root", "open").await.unwrap());
    let kept = || std::fs::read_to_string(place.dir.path().join("admins.hashed")).unwrap();
    let hashes = kept();
    assert!(hashes.contains("-pbkdf2:sha256-") && !hashes.contains("open"), "{hashes}");

    let accounts = place.accounts(&[("root", "open"), ("gone", "x")], |_| ()).await;
    assert_eq!(accounts.by_cookie(&cookie).await.unwrap().unwrap().account.name, "root");
    assert_eq!(kept(), hashes);

    let accounts = place.accounts(&[("root", "other")], |_| ()).await;
    assert!(accounts.by_cookie(&cookie).await.unwrap().is_none());
    assert!(log_in(&accounts, "root", "other").await.is_ok());
    assert_eq!(log_in(&accounts, "root", "open").await.unwrap_err(), WRONG);
    assert!(!kept().contains("gone"));
}

#[tokio::test]
async fn a_cookie_lasts_for_its_time_and_is_renewed_after_a_tenth_of_it() {
    let place = Place::new().await;
    let accounts = place.accounts(&[("root", HASHED)], |auth| auth.secret = Some("s3cret".into())).await;
    let signed = |age: i64, secret: &str| cookie::sign("root", now() - age, secret, "921a12f74df0c1052b3e562a23cd227f");
    let session = async |cookie: &str| accounts.by_cookie(cookie).await.unwrap();
    for (age, secret, is_session, is_renewed) in [
        (0, "s3cret", true, false),
        (50, "s3cret", true, false),
        (70, "s3cret", true, true),
        (590, "s3cret", true, true),
        (601, "s3cret", false, false),
        (0, "other", false, false),
    ] {
        let session = session(&signed(age, secret)).await;
        let renewed = session.as_ref().and_then(|session| session.renewed.clone());
        assert_eq!((session.is_some(), renewed.is_some()), (is_session, is_renewed), "{age} s, {secret}");
        if let Some(renewed) = renewed {
            assert!(accounts.by_cookie(&renewed).await.unwrap().unwrap().renewed.is_none());
        }
    }
    assert!(session(&cookie::sign("nobody", now(), "s3cret", "")).await.is_none());
    assert!(matches!(accounts.by_cookie("zz!").await, Err(Refused::Cookie(_))));
}

#[tokio::test]
async fn a_proxys_word_counts_only_where_it_is_asked_for_and_signed() {
    let place = Place::new().await;
    let secret = || Some(SecretString::from("92de07df7e7a3fe14808cef90a7cc0d91"));
    let token = Some("0a60ae371f04a1f4850c8cc1dffcfa55fddab926");
    let off = place.accounts(&[], |auth| auth.secret = secret()).await;
    assert!(!off.believes_proxy("foo", token));
    let on = place.accounts(&[], |auth| (auth.secret, auth.handlers.proxy) = (secret(), true)).await;
    assert!(on.believes_proxy("foo", token) && !on.believes_proxy("bar", token) && !on.believes_proxy("foo", None));
    let open = place.accounts(&[], |auth| (auth.handlers.proxy, auth.proxy.use_secret) = (true, false)).await;
    assert!(open.believes_proxy("foo", None));
}
