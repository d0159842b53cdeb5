//! Who a name is, and whether somebody proves to be it.
//!
//! A name is an administrator of the settings, else the user whose document `org.couchdb.user:NAME` stands in the database
//! `_users`; an administrator has the roles of such a document besides. It is proven by a password ([`passwords`]), by the
//! cookie of a session that a password began, by a signed token, or by the word of a proxy; what makes the last three true
//! stands in [`crate::users`].
//!
//! A session is in its cookie and nowhere else. It ends with its time, with a new password, or with a new secret; the secret
//! and the salts of administrators are therefore kept in the data directory ([`kept`]).

mod refused;
mod kept;
mod people;
mod guesses;
mod passwords;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{collections::BTreeMap, io};

use secrecy::{ExposeSecret, SecretString};

use self::passwords::Passwords;
use self::people::People;
use crate::config::auth::Auth;
use crate::config::{Admin, Config, Password};
use crate::store::{DbName, Store, StoreError};
use crate::tasks::{self, Panicked};
use crate::users::cookie::{self, Cookie};
use crate::users::token::{BadKey, Claims, Tokens};
use crate::users::{Account, proxy};
use crate::uuids;

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
    admins: Vec<Admin>,
    people: People,
    passwords: Passwords,
    secret: SecretString,
    tokens: Tokens,
    settings: Auth,
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
    /// What is kept can't be read or written.
    #[error("could not use {}", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A key of the settings can't be used.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// `_users` can't be made.
    #[error("could not make the database _users")]
    Users(#[source] StoreError),
    /// Hashing crashed.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl Accounts {
    /// Reads what is kept, hashes the passwords of administrators that aren't hashed yet, and makes `_users` if there are
    /// administrators, so that they can add people at once.
    pub async fn open(config: &Config, store: Store) -> Result<Self, AccountsError> {
        let settings = config.auth.clone();
        let tokens = Tokens::new(&settings.jwt)?;
        let (dir, admins, iterations) = (config.data_dir.clone(), config.admins.clone(), settings.iterations);
        let given = settings.secret.clone();
        let opening = move || Ok::<_, AccountsError>((secret(&dir, given)?, hashed(&dir, admins, iterations)?));
        let (secret, admins) = tasks::blocking("read who may log in", opening).await??;
        let users = DbName::parse(USERS).map_err(AccountsError::Users)?;
        if !admins.is_empty() {
            match store.create(&users).await {
                Ok(_) | Err(StoreError::AlreadyExists) => {}
                Err(error) => return Err(AccountsError::Users(error)),
            }
        }
        let passwords = Passwords::new(settings.iterations);
        let people = People::new(store, users);
        Ok(Self { inner: Arc::new(Inner { admins, people, passwords, secret, tokens, settings }) })
    }

    /// Whether there are administrators. Without any, everyone is one.
    pub fn has_admins(&self) -> bool {
        !self.inner.admins.is_empty()
    }

    /// How people prove who they are, by CouchDB's names.
    pub fn handlers(&self) -> Vec<&'static str> {
        let mut handlers = vec!["cookie", "default"];
        handlers.extend((!self.inner.tokens.is_empty()).then_some("jwt"));
        handlers.extend(self.inner.settings.proxy.enabled.then_some("proxy"));
        handlers
    }

    /// Who has this name and password. `address` is where the request comes from.
    pub async fn by_password(
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
        let timeout = self.timeout();
        let Some(left) = cookie.left(now(), timeout) else { return Ok(None) };
        let Some(account) = self.find(cookie.name()).await? else { return Ok(None) };
        if !cookie.is_signed(self.inner.secret.expose_secret(), &account.salt) {
            return Ok(None);
        }
        let account = without_conflicts(account)?;
        let old = (left as f64) < timeout as f64 * (1.0 - RENEWED_AFTER);
        let renewed = old.then(|| self.cookie(&account));
        Ok(Some(Session { account, renewed }))
    }

    /// A new cookie's value for somebody who has proven who he is.
    pub fn cookie(&self, account: &Account) -> String {
        cookie::sign(&account.name, now(), self.inner.secret.expose_secret(), &account.salt)
    }

    /// Whom a JSON web token is for; `None` if tokens aren't looked at.
    pub fn by_token(&self, token: &str) -> Result<Option<Claims>, Refused> {
        if self.inner.tokens.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.inner.tokens.check(token, now())?))
    }

    /// Whether a proxy's word for this name is to be believed.
    pub fn believes_proxy(&self, name: &str, token: Option<&str>) -> bool {
        let proxy = &self.inner.settings.proxy;
        let signed = || token.is_some_and(|token| proxy::is_token(token, name, self.inner.secret.expose_secret()));
        proxy.enabled && (!proxy.use_secret || signed())
    }

    async fn find(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let person = self.inner.people.find(name).await?;
        let admin = self.inner.admins.iter().find(|admin| admin.name == name);
        Ok(match admin {
            Some(admin) => Some(Account::of_admin(admin, person.as_deref())),
            None => person.map(|person| (*person).clone()),
        })
    }

    fn timeout(&self) -> i64 {
        i64::try_from(self.inner.settings.timeout.as_secs()).unwrap_or(i64::MAX)
    }
}

fn without_conflicts(account: Account) -> Result<Account, Refused> {
    if account.conflicts { Err(Refused::Conflicts) } else { Ok(account) }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

const SECRET_FILE: &str = "session.secret";
const ADMINS_FILE: &str = "admins.hashed";

/// The secret of the settings, else the kept one, else a new one, which is kept.
fn secret(dir: &Path, given: Option<SecretString>) -> Result<SecretString, AccountsError> {
    if let Some(secret) = given {
        return Ok(secret);
    }
    let path = dir.join(SECRET_FILE);
    let read = || match kept::read(&path)? {
        Some(text) if text.trim().is_empty() => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        Some(text) => Ok(text.trim().to_owned()),
        None => {
            let secret = uuids::random();
            kept::write(&path, &secret).map(|()| secret)
        }
    };
    let secret = read();
    secret.map(SecretString::from).map_err(|source| AccountsError::Kept { path, source })
}

/// The administrators, each with a hash: a password that isn't hashed gets the hash that is kept for it, else a new one,
/// which is kept. A hash of another password is replaced, and one of somebody who isn't named any more is forgotten.
fn hashed(dir: &Path, mut admins: Vec<Admin>, iterations: NonZeroU32) -> Result<Vec<Admin>, AccountsError> {
    if admins.iter().all(|admin| admin.password.salt().is_some()) {
        return Ok(admins);
    }
    let path = dir.join(ADMINS_FILE);
    let failed = |source| AccountsError::Kept { path: path.clone(), source };
    let text = kept::read(&path).map_err(failed)?.unwrap_or_else(|| "{}".into());
    let old: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|error| failed(error.into()))?;
    let mut new = BTreeMap::new();
    for admin in &mut admins {
        let Password::Plain(password) = &admin.password else { continue };
        let known = old.get(&admin.name).and_then(|hash| Admin::new(&admin.name, hash).ok());
        let known = known.map(|known| known.password).filter(|known| known.is(password.expose_secret()));
        let hash = known.unwrap_or_else(|| Password::hash(password.expose_secret(), &uuids::random(), iterations));
        new.extend(hash.hashed_text().map(|text| (admin.name.clone(), text)));
        admin.password = hash;
    }
    if new != old {
        let text = serde_json::to_string_pretty(&new).map_err(|error| failed(error.into()))?;
        kept::write(&path, &text).map_err(failed)?;
    }
    Ok(admins)
}

#[cfg(test)]
mod tests;
