//! Who a name is, and whether somebody proves to be it.
//!
//! A name is an administrator of the settings, else the user whose document `org.couchdb.user:NAME` stands in the database
//! `_users`; an administrator has the roles of such a document besides. It is proven by a password ([`passwords`]), by the
//! cookie of a session that a password began, by a signed token, or by the word of a proxy; what makes the last three true
//! stands in [`crate::users`].
//!
//! A session is in its cookie and nowhere else. It ends with its time, with a new password, or with a new secret.
//!
//! Settings are asked for each time, since they may change.

mod logins;
mod refused;
mod people;
mod guesses;
mod passwords;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use self::passwords::Passwords;
use self::people::People;
use crate::access::Caller;
use crate::config::Config;
use crate::store::{DbName, Store, StoreError};
use crate::users::cookie::{self, Cookie};
use crate::users::token::{Claims, Tokens};
use crate::users::{Account, proxy};

pub use self::logins::Logins;
pub use self::refused::Refused;

/// The database of users.
pub const USERS: &str = "_users";

/// The share of a session after which its cookie is made anew, as in CouchDB.
const RENEWED_AFTER: f64 = 0.1;

/// Everybody who may log in. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

struct Inner {
    settings: watch::Receiver<Arc<Config>>,
    people: People,
    passwords: Passwords,
    logins: Arc<Logins>,
    /// Made when they are asked for. Locked to look and to replace them.
    tokens: Mutex<Option<CachedTokens>>,
}

/// What checks tokens by certain settings.
struct CachedTokens {
    config: Arc<Config>,
    tokens: Arc<Tokens>,
}

/// Somebody whom a cookie proves.
pub struct Session {
    /// Who.
    pub account: Account,
    /// A new cookie, if it is time for one.
    pub renewed: Option<String>,
}

/// Why nobody could log in.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// `_users` can't be made.
    #[error("could not make the database _users")]
    Users(#[source] StoreError),
}

impl Accounts {
    /// Everybody whom the settings and the store name. Makes `_users` if there are administrators, so that they can add people at
    /// once.
    pub async fn open(settings: watch::Receiver<Arc<Config>>, store: Store) -> Result<Self, AccountsError> {
        let users = DbName::parse(USERS).map_err(AccountsError::Users)?;
        let logins: Arc<Logins> = Arc::default();
        let passwords = Passwords::new(settings.borrow().auth.iterations, logins.clone());
        let people = People::new(store, users);
        let accounts =
            Self { inner: Arc::new(Inner { settings, people, passwords, logins, tokens: Mutex::default() }) };
        if accounts.has_admins() {
            accounts.make_users().await.map_err(AccountsError::Users)?;
        }
        Ok(accounts)
    }

    /// Makes `_users` if it isn't there.
    pub async fn make_users(&self) -> Result<(), StoreError> {
        self.inner.people.make().await
    }

    /// Whether there are administrators. Without any, everyone is one.
    pub fn has_admins(&self) -> bool {
        !self.settings().admins.is_empty()
    }

    /// How logins went.
    pub fn logins(&self) -> &Logins {
        &self.inner.logins
    }

    fn settings(&self) -> Arc<Config> {
        self.inner.settings.borrow().clone()
    }

    /// What checks tokens by the settings as they are now; `None` if they aren't looked at.
    fn tokens(&self, config: &Arc<Config>) -> Option<Arc<Tokens>> {
        if !config.auth.handlers.jwt {
            return None;
        }
        let mut cached = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = match cached.as_ref().filter(|cached| Arc::ptr_eq(&cached.config, config)) {
            Some(cached) => cached.tokens.clone(),
            None => {
                // Settings with keys that can't be used are refused.
                let tokens = Arc::new(Tokens::new(&config.auth.jwt).ok()?);
                *cached = Some(CachedTokens { config: config.clone(), tokens: tokens.clone() });
                tokens
            }
        };
        Some(tokens).filter(|tokens| !tokens.is_empty())
    }

    /// How people prove who they are, by CouchDB's names.
    pub fn handlers(&self) -> Vec<&'static str> {
        let config = self.settings();
        let mut handlers = vec!["cookie", "default"];
        handlers.extend(self.tokens(&config).map(|_| "jwt"));
        handlers.extend(config.auth.handlers.proxy.then_some("proxy"));
        handlers
    }

    /// Who has this name and password. `address` is where the request comes from.
    pub async fn by_password(
        &self,
        name: &str,
        password: &SecretString,
        address: Option<IpAddr>,
    ) -> Result<Account, Refused> {
        let found = self.with_password(name, password, address).await;
        self.inner.logins.ended(&found);
        found
    }

    async fn with_password(
        &self,
        name: &str,
        password: &SecretString,
        address: Option<IpAddr>,
    ) -> Result<Account, Refused> {
        let account = self.find(name).await?;
        if !self.inner.passwords.is_right(name, account.as_ref(), password, address).await? {
            // Not the name: people type passwords there.
            tracing::warn!(client.address = ?address, "a name or password was wrong");
            return Err(Refused::WrongPassword);
        }
        account.ok_or(Refused::WrongPassword).and_then(without_conflicts)
    }

    /// Whose session a cookie's value is. A cookie that is forged, expired, or of nobody any more, is nobody's.
    pub async fn by_cookie(&self, value: &str) -> Result<Option<Session>, Refused> {
        let Some(cookie) = Cookie::parse(value)? else { return Ok(None) };
        let config = self.settings();
        let timeout = i64::try_from(config.auth.timeout.as_secs()).unwrap_or(i64::MAX);
        let Some(left) = cookie.left(now(), timeout) else { return Ok(None) };
        let Some(account) = self.find(cookie.name()).await? else { return Ok(None) };
        if !cookie.is_signed(secret(&config), &account.salt) {
            return Ok(None);
        }
        let account = without_conflicts(account)?;
        let old = (left as f64) < timeout as f64 * (1.0 - RENEWED_AFTER);
        let renewed = old.then(|| self.cookie(&account));
        Ok(Some(Session { account, renewed }))
    }

    /// Somebody as he is now, who has proven nothing: whose documents' jobs have his rights. `None` if nobody has the name.
    pub async fn caller(&self, name: &str) -> Result<Option<Caller>, Refused> {
        let account = self.find(name).await?;
        Ok(account.map(|account| Caller { name: Some(account.name), roles: account.roles, ..Caller::default() }))
    }

    /// A new cookie's value for somebody who has proven who he is.
    pub fn cookie(&self, account: &Account) -> String {
        cookie::sign(&account.name, now(), secret(&self.settings()), &account.salt)
    }

    /// Whom a JSON web token is for; `None` if tokens aren't looked at.
    pub fn by_token(&self, token: &str) -> Result<Option<Claims>, Refused> {
        let tokens = self.tokens(&self.settings());
        Ok(tokens.map(|tokens| tokens.check(token, now())).transpose()?)
    }

    /// Whether a proxy's word for this name is to be believed.
    pub fn believes_proxy(&self, name: &str, token: Option<&str>) -> bool {
        let config = self.settings();
        let signed = || token.is_some_and(|token| proxy::is_token(token, name, secret(&config)));
        config.auth.handlers.proxy && (!config.auth.proxy.use_secret || signed())
    }

    async fn find(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let person = self.inner.people.find(name).await?;
        let config = self.settings();
        let admin = config.admins.iter().find(|admin| admin.name == name);
        Ok(match admin {
            Some(admin) => Some(Account::of_admin(admin, person.as_deref())),
            None => person.map(|person| (*person).clone()),
        })
    }
}

fn without_conflicts(account: Account) -> Result<Account, Refused> {
    if account.conflicts { Err(Refused::Conflicts) } else { Ok(account) }
}

/// What cookies and a proxy's tokens are signed with.
fn secret(config: &Config) -> &str {
    config.auth.secret.as_ref().expect("settings have one").expose_secret()
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
