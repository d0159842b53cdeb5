//! Sessions of callers that last longer than a cookie: made anew here, from CouchDB's own secret.
//!
//! A cookie `AuthSession` is good for ten minutes, and a continuous replication of somebody who proved by one who he is would end with
//! it. CouchDB's admin reads with what cookies are made ([`crate::users::cookie`]): the server's secret, `[chttpd_auth] secret`, and the
//! user's salt, which stands in his document, or for an admin in his hash in `[admins]`. So a cookie can be made that CouchDB takes for
//! one of its own. It is made with the hash that the user's own cookie had, and lasts as long.
//!
//! # For whom, and for how long
//! A session begins only with a cookie that is itself made with that secret and with the salt that the user has now. So his salt is
//! what it was when his cookie was made, whatever happened meanwhile. Each new cookie is made only if the salt is still the same: a new
//! password has a new salt, and whoever was deleted has none. And none is made after the stated maximum, which counts from when the user
//! last asked for it with a cookie.
//!
//! # What it doesn't defend
//! Whoever has stolen a cookie is for CouchDB the user, as long as the cookie lasts, and may begin a session here as well; a logout takes the
//! cookie from the browser that logs out and from nobody else. What ends such a session is a new password, or the maximum.
//! CouchDB makes a new salt, too, when it hashes an old password anew at a login: then the session is over, as is the cookie.
//! A new secret ends cookies, and not these sessions: they are made with the new one. The nodes of a cluster must have the same secret, as
//! for their own cookies, and its clock must be ours within a cookie's time.
//!
//! Nothing here prints a secret, a salt or a cookie.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;

use super::{AdminError, CouchDbAsAdmin};
use crate::access::Caller;
use crate::percent;
use crate::users::cookie::{self, Cookie};

/// A cookie's time if no setting says, as in CouchDB.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Begins sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    admin: CouchDbAsAdmin,
    longest: Duration,
}

/// A session of one user, which may be renewed for as long as he is who he was.
pub struct LastingSession {
    admin: CouchDbAsAdmin,
    name: String,
    salt: SecretString,
    hash: hmac::Algorithm,
    longest: Duration,
    /// Guards nothing else, and is held for a look at it only.
    until: Mutex<Instant>,
}

/// A cookie that was made here.
pub struct MadeCookie {
    /// `AuthSession=…`.
    pub pair: SecretString,
    /// How long CouchDB takes it.
    pub lifetime: Duration,
}

/// Why what somebody proves can't be made to last.
#[derive(Debug, thiserror::Error)]
pub enum NotLasting {
    /// It isn't a session's cookie.
    #[error("what proves who he is isn't a session's cookie")]
    NoCookie,
    /// It is, or was, but not one that CouchDB's secret and the user's salt make now.
    #[error("the cookie isn't made of this CouchDB's secret and the user's password as they are now")]
    Foreign,
    /// It couldn't be found out.
    #[error(transparent)]
    Unanswered(#[from] AdminError),
}

/// Why a session isn't renewed any more. It is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionOver {
    /// His salt is another one.
    #[error("the password of `{0}` has changed since the login: ask again")]
    PasswordChanged(String),
    /// There is no document of his, and he isn't an admin.
    #[error("there is no user `{0}` any more")]
    UserGone(String),
    /// The stated maximum has passed.
    #[error("a session of `{name}` lasts for at most {} here (--couchdb-session-max): ask again", humantime::format_duration(*.longest))]
    TooLong {
        /// Whose.
        name: String,
        /// The maximum.
        longest: Duration,
    },
}

/// Why there is no new cookie.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// There won't be one.
    #[error(transparent)]
    Over(#[from] SessionOver),
    /// CouchDB didn't tell what is needed. That says nothing of the user.
    #[error(transparent)]
    Unanswered(#[from] AdminError),
}

/// Of whom and of what cookies are made, as CouchDB's settings were at a moment.
pub struct Salts {
    admin: CouchDbAsAdmin,
    settings: Section,
    admins: Section,
}

/// A section of CouchDB's settings.
type Section = BTreeMap<String, SecretString>;

impl Sessions {
    /// With the admin's help; none of them lasts longer than `longest`.
    pub fn new(admin: CouchDbAsAdmin, longest: Duration) -> Self {
        Self { admin, longest }
    }

    /// How often it should be looked whether sessions are over.
    pub fn check_every(&self) -> Duration {
        self.admin.upstream().settings().session_check
    }

    /// Begins one for a caller whom CouchDB knows by his cookie.
    pub async fn begin(&self, caller: &Caller) -> Result<LastingSession, NotLasting> {
        let headers = caller.temporary_proofs.iter().filter(|(name, _)| name == "cookie");
        let value = cookie::find(headers.map(|(_, value)| value.expose_secret()));
        let cookie = value.and_then(|value| Cookie::parse(value).ok().flatten());
        let cookie = cookie.filter(|cookie| caller.name.as_deref() == Some(cookie.name()));
        let (Some(cookie), Some(name)) = (cookie, &caller.name) else { return Err(NotLasting::NoCookie) };
        let salts = self.salts().await?;
        let (secret, timeout) = salts.cookies().await?;
        let salt = salts.of(name).await?.ok_or(NotLasting::Foreign)?;
        let hash = cookie.hash(secret.expose_secret(), salt.expose_secret()).ok_or(NotLasting::Foreign)?;
        // CouchDB took it a moment ago, if that was what it looked at.
        cookie.left(now(), timeout.as_secs() as i64).ok_or(NotLasting::Foreign)?;
        let (admin, longest) = (self.admin.clone(), self.longest);
        Ok(LastingSession {
            admin,
            name: name.clone(),
            salt,
            hash,
            longest,
            until: Mutex::new(Instant::now() + longest),
        })
    }

    /// What users' cookies are made of now.
    pub async fn salts(&self) -> Result<Salts, AdminError> {
        Salts::read(&self.admin).await
    }
}

impl LastingSession {
    /// Whose it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stands for his password, of which it is made.
    pub fn salt(&self) -> &SecretString {
        &self.salt
    }

    /// Makes a cookie, if he still is who he was.
    pub async fn renew(&self) -> Result<MadeCookie, RenewError> {
        self.is_within_its_time()?;
        let salts = Salts::read(&self.admin).await?;
        self.is_his(salts.of(&self.name).await?.as_ref())?;
        let (secret, lifetime) = salts.cookies().await?;
        let value = cookie::sign_by(self.hash, &self.name, now(), secret.expose_secret(), self.salt.expose_secret());
        Ok(MadeCookie { pair: format!("{}={value}", cookie::NAME).into(), lifetime })
    }

    /// Whether the maximum hasn't passed yet.
    pub fn is_within_its_time(&self) -> Result<(), SessionOver> {
        let over = SessionOver::TooLong { name: self.name.clone(), longest: self.longest };
        (Instant::now() < *self.until()).then_some(()).ok_or(over)
    }

    /// Its user has proven himself anew, by another session: from now on it lasts as long as that one, if that is of the same password.
    pub fn extend(&self, by: &Self) -> Result<(), SessionOver> {
        self.is_his(Some(&by.salt))?;
        let until = *by.until();
        *self.until() = until;
        Ok(())
    }

    fn until(&self) -> MutexGuard<'_, Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether he still is who he was, if this is his salt now.
    pub fn is_his(&self, salt: Option<&SecretString>) -> Result<(), SessionOver> {
        match salt {
            Some(salt) if salt.expose_secret() == self.salt.expose_secret() => Ok(()),
            Some(_) => Err(SessionOver::PasswordChanged(self.name.clone())),
            None => Err(SessionOver::UserGone(self.name.clone())),
        }
    }
}

impl Salts {
    async fn read(admin: &CouchDbAsAdmin) -> Result<Self, AdminError> {
        let (settings, admins) = (section(admin, "chttpd_auth").await?, section(admin, "admins").await?);
        Ok(Self { admin: admin.clone(), settings, admins })
    }

    /// A user's salt: an admin's is in his hash. `None` if there is no such user.
    pub async fn of(&self, name: &str) -> Result<Option<SecretString>, AdminError> {
        #[derive(Deserialize)]
        struct User {
            #[serde(default)]
            salt: SecretString,
        }
        if let Some(salt) = self.admins.get(name).and_then(|hash| salt_of(hash.expose_secret())) {
            return Ok(Some(salt.into()));
        }
        let database = self.settings.get("authentication_db").map_or("_users", |name| name.expose_secret());
        let id = percent::encode(&format!("org.couchdb.user:{name}")).to_string();
        match self.admin.get(&format!("/{}/{id}", percent::encode(database))).await {
            Ok(User { salt }) => Ok(Some(salt)),
            // And no word of the whole database.
            Err(AdminError::Refused { status, error, reason, .. })
                if status == 404 && error == "not_found" && matches!(&*reason, "missing" | "deleted") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The secret that cookies are made with, and how long they last. As in CouchDB, what an old section says counts too.
    async fn cookies(&self) -> Result<(SecretString, Duration), AdminError> {
        let (mut secret, mut timeout) = (self.settings.get("secret").cloned(), self.settings.get("timeout").cloned());
        if secret.is_none() || timeout.is_none() {
            let old = section(&self.admin, "couch_httpd_auth").await?;
            secret = secret.or_else(|| old.get("secret").cloned());
            timeout = timeout.or_else(|| old.get("timeout").cloned());
        }
        let seconds = timeout.and_then(|text| text.expose_secret().trim().parse().ok());
        Ok((secret.unwrap_or_default(), seconds.map_or(TIMEOUT, Duration::from_secs)))
    }
}

async fn section(admin: &CouchDbAsAdmin, name: &str) -> Result<Section, AdminError> {
    Ok(admin.find(&format!("/_node/_local/_config/{name}")).await?.unwrap_or_default())
}

/// That of a password hashed by CouchDB: `-pbkdf2:sha256-KEY,SALT,ITERATIONS`, `-hashed-KEY,SALT`.
fn salt_of(hash: &str) -> Option<&str> {
    let is_hash = hash.starts_with("-hashed-") || hash.starts_with("-pbkdf2");
    hash.split(',').nth(1).filter(|_| is_hash)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

impl fmt::Debug for LastingSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastingSession").field("name", &self.name).finish_non_exhaustive()
    }
}
