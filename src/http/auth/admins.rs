//! Whether a name and a password are an admin's.
//!
//! A plain password is compared at once. A hash is slow to check, on purpose, and every request brings a password, so
//! what was found right is remembered: one keyed hash of name and password an admin, in memory, under a key that this
//! process made up. Guessing stays slow, yet can't take the machine: one hash is checked at a time, few logins wait for
//! their turn, and who gets none is told to come back. An unknown name costs as much as a known one, so that the time
//! doesn't tell them apart.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::Admin;
use crate::http::error::ApiError;
use crate::tasks;

/// How long a login waits for its turn: hashes that take a quarter of a second leave forty logins before it.
const TURN: Duration = Duration::from_secs(10);

/// Logins that wait for their turn; more would be as many requests that others can't make.
const WAITING: usize = 64;

/// Those who may do everything.
pub struct Admins {
    all: Vec<Entry>,
    key: hmac::Key,
    /// Who checks a hash.
    turn: Arc<Semaphore>,
    /// Who checks one or waits for it.
    line: Semaphore,
    patience: Duration,
}

struct Entry {
    admin: Arc<Admin>,
    /// The keyed hash of the name and password that were found right; locked only to look and to replace it.
    right: Mutex<Option<[u8; digest::SHA256_OUTPUT_LEN]>>,
}

impl Admins {
    /// Remembers nothing yet.
    pub fn new(admins: Vec<Admin>) -> Self {
        let all = admins.into_iter().map(|admin| Entry { admin: Arc::new(admin), right: Mutex::default() });
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        Self {
            all: all.collect(),
            key,
            turn: Arc::new(Semaphore::new(1)),
            line: Semaphore::new(WAITING),
            patience: TURN,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether the password is that of this admin; [`ApiError::Busy`] if it couldn't be found out in time.
    pub async fn know(&self, name: &str, password: SecretString) -> Result<bool, ApiError> {
        let tag = self.tag(name, password.expose_secret());
        if self.at_once(name, password.expose_secret(), &tag) {
            return Ok(true);
        }
        let slow = || self.all.iter().filter(|entry| entry.admin.password.is_slow());
        let named = slow().find(|entry| is(&entry.admin, name).into());
        let Some(entry) = named.or_else(|| slow().next()) else { return Ok(false) };

        let _place = self.line.try_acquire().map_err(|_| ApiError::Busy)?;
        let turn = timeout(self.patience, self.turn.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(ApiError::Busy) };
        // The one before may have brought the same password.
        if self.at_once(name, password.expose_secret(), &tag) {
            return Ok(true);
        }
        let admin = entry.admin.clone();
        let right = tasks::blocking("check a password", move || {
            let _turn = turn;
            admin.password.is(password.expose_secret())
        });
        let right = right.await? && named.is_some();
        if right {
            *entry.right.lock().unwrap_or_else(PoisonError::into_inner) = Some(tag);
        }
        Ok(right)
    }

    /// Compares with every admin, so that the time tells neither which names exist nor how much of a password is right.
    fn at_once(&self, name: &str, password: &str, tag: &[u8]) -> bool {
        let known = self.all.iter().fold(Choice::from(0), |known, Entry { admin, right }| {
            let same = match admin.password.is_slow() {
                true => {
                    let right = *right.lock().unwrap_or_else(PoisonError::into_inner);
                    right.map_or(Choice::from(0), |right| right.ct_eq(tag))
                }
                false => u8::from(admin.password.is(password)).into(),
            };
            known | (is(admin, name) & same)
        });
        known.into()
    }

    fn tag(&self, name: &str, password: &str) -> [u8; digest::SHA256_OUTPUT_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(name.as_bytes());
        // A name in a Basic header has no colon.
        context.update(b":");
        context.update(password.as_bytes());
        let mut tag = [0; digest::SHA256_OUTPUT_LEN];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

fn is(admin: &Admin, name: &str) -> Choice {
    admin.name.as_bytes().ct_eq(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `secret`, in CouchDB 3.4's form.
    const HASHED: &str = "-pbkdf2:sha256-bfe6fdbe61ad363383eb08faf515e04254417563d2430470e7c97e54bbc7fec0,\
                          921a12f74df0c1052b3e562a23cd227f,50000";

    fn admins() -> Admins {
        let admin = |(name, password)| Admin::new(name, password).unwrap();
        Admins::new([("plain", "open"), ("root", HASHED)].map(admin).into())
    }

    async fn know(admins: &Admins, name: &str, password: &str) -> bool {
        admins.know(name, password.into()).await.unwrap()
    }

    #[tokio::test]
    async fn a_hashed_admin_is_known_by_name_and_password() {
        let admins = admins();
        assert!(know(&admins, "root", "secret").await);
        assert!(know(&admins, "plain", "open").await);
        for (name, password) in [("root", "wrong"), ("root", HASHED), ("plain", "secret"), ("nobody", "secret")] {
            assert!(!know(&admins, name, password).await, "{name}");
        }
        assert!(know(&admins, "root", "secret").await);
    }

    #[tokio::test]
    async fn who_was_known_needs_no_turn_and_others_wait_no_longer_than_for_one() {
        let admins = Admins { patience: Duration::from_millis(1), ..admins() };
        assert!(know(&admins, "root", "secret").await);
        let _taken = admins.turn.acquire().await.unwrap();
        assert!(know(&admins, "root", "secret").await);
        assert!(know(&admins, "plain", "open").await);
        assert!(matches!(admins.know("root", "guess".into()).await, Err(ApiError::Busy)));
        assert!(matches!(admins.know("nobody", "secret".into()).await, Err(ApiError::Busy)));
    }

    #[tokio::test]
    async fn a_line_that_is_full_takes_no_more_and_lets_pass_who_was_known() {
        let admins = admins();
        assert!(know(&admins, "root", "secret").await);
        let _line = admins.line.acquire_many(WAITING as u32).await.unwrap();
        assert!(matches!(admins.know("root", "guess".into()).await, Err(ApiError::Busy)));
        assert!(know(&admins, "root", "secret").await);
    }
}
