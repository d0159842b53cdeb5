//! Whether a password is somebody's.
//!
//! A hash is slow to check, on purpose, and every request may bring a password, so what was found right is remembered: one
//! keyed hash a name, in memory, under a key that this process made up. The stored hash is part of what is remembered, so a
//! new password ends it.
//!
//! Guessing stays slow, yet can't take the machine. Few hashes are checked at once, on threads that may block. Passwords
//! from one address are looked at one after another, after the pauses of [`super::guesses`], so that however many come from
//! it, other addresses wait for one of them at most. Few wait in a line, and none for long; who gets no turn is told to come
//! back. A check that has begun runs to its end and counts, even if its client hangs up. An unknown name costs as much as a
//! known one, so that the time doesn't tell them apart.

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use lru::LruCache;
use ring::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::guesses::Guesses;
use super::logins::Logins;
use super::refused::Refused;
use crate::config::Password as Hash;
use crate::tasks;
use crate::users::Account;
use crate::users::password::Password;

/// How long a login waits for its turn: hashes that take a quarter of a second leave forty logins before it.
const TURN: Duration = Duration::from_secs(10);
/// Logins that wait for a hash to be checked; more would be as many requests that others can't make.
const WAITING: usize = 64;
/// Right passwords that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("more than nothing");

/// Checks passwords.
pub(super) struct Passwords {
    memory: Arc<Memory>,
    /// Who checks a hash.
    hashing: Arc<Semaphore>,
    /// Who checks one or waits for it.
    places: Semaphore,
    patience: Duration,
    /// Nobody's.
    other: Password,
    logins: Arc<Logins>,
}

/// What was found out.
struct Memory {
    key: hmac::Key,
    /// By a tag of the name, a tag of name, password and stored hash. Locked to look and to put something in.
    right: Mutex<LruCache<Tag, Tag>>,
    guesses: Guesses,
}

type Tag = [u8; digest::SHA256_OUTPUT_LEN];

impl Passwords {
    /// Remembers nothing yet. An unknown name costs so many iterations.
    pub(super) fn new(iterations: NonZeroU32, logins: Arc<Logins>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        // One that no password has; it needn't be hashed for that.
        let nobodys = Hash::pbkdf2("sha256", &hex::encode(rand::random::<Tag>()), "salt", iterations.get());
        let other = nobodys.unwrap_or_else(|_| Hash::hash("", "salt", NonZeroU32::MIN)).into();
        // Others have requests too.
        let at_once = available_parallelism().map_or(1, |threads| (threads.get() / 2).max(1));
        let memory = Memory { key, right: Mutex::new(LruCache::new(REMEMBERED)), guesses: Guesses::new() };
        Self {
            memory: Arc::new(memory),
            hashing: Arc::new(Semaphore::new(at_once)),
            places: Semaphore::new(WAITING),
            patience: TURN,
            other,
            logins,
        }
    }

    /// Whether the password is that of this account; [`Refused::Busy`] if that couldn't be found out in time.
    pub(super) async fn is_right(
        &self,
        name: &str,
        account: Option<&Account>,
        password: &SecretString,
        address: Option<IpAddr>,
    ) -> Result<bool, Refused> {
        let own = account.and_then(|account| account.password.as_ref());
        let (salt, key) = own.map_or((&[][..], &[][..]), |own| (own.salt().as_bytes(), own.key()));
        let whose = self.memory.tag(&[name.as_bytes()]);
        let tag = self.memory.tag(&[name.as_bytes(), password.expose_secret().as_bytes(), salt, key]);
        if own.is_some() && self.is_known(&whose, &tag) {
            return Ok(true);
        }
        let guesses = &self.memory.guesses;
        let line = guesses.line(name, address, Instant::now());
        let _place = line.places.try_acquire().map_err(|_| Refused::Busy)?;
        let turn = async {
            let turn = line.turn.clone().acquire_owned().await.map_err(|_| Refused::Busy)?;
            let (next, now) = (guesses.next(name, address, Instant::now()), Instant::now());
            if next > now {
                self.logins.held_up.increment();
            }
            sleep_until(next).await;
            let _place = self.places.try_acquire().map_err(|_| Refused::Busy)?;
            let hashing = self.hashing.clone().acquire_owned().await.map_err(|_| Refused::Busy)?;
            Ok::<_, Refused>((turn, hashing))
        };
        let turns = timeout(self.patience, turn).await.map_err(|_| Refused::Busy)??;
        // The one before may have brought the same password.
        if own.is_some() && self.is_known(&whose, &tag) {
            return Ok(true);
        }
        self.logins.hashed.increment();
        let (hash, is_own) = (own.unwrap_or(&self.other).clone(), own.is_some());
        let (memory, name, password) = (self.memory.clone(), name.to_owned(), password.clone());
        let check = move || {
            let _turns = turns;
            let right = hash.is(password.expose_secret()) && is_own;
            if right {
                memory.remember(whose, tag);
                memory.guesses.right(&name, address, Instant::now());
            } else {
                memory.guesses.wrong(&name, address, Instant::now());
            }
            right
        };
        Ok(tasks::blocking("check a password", check).await?)
    }

    fn is_known(&self, whose: &Tag, tag: &Tag) -> bool {
        let known = self.memory.knows(whose, tag);
        if known {
            self.logins.remembered.increment();
        }
        known
    }
}

impl Memory {
    fn knows(&self, whose: &Tag, tag: &Tag) -> bool {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(whose).is_some_and(|right| right.ct_eq(tag).into())
    }

    fn remember(&self, whose: Tag, tag: Tag) {
        self.right.lock().unwrap_or_else(PoisonError::into_inner).put(whose, tag);
    }

    /// A keyed hash of these, each with its length, so that none can pass for a part of another.
    fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Admin;

    const ITERATIONS: NonZeroU32 = NonZeroU32::new(1000).unwrap();

    fn account(password: &str) -> Account {
        let password = Hash::hash(password, "salt", ITERATIONS);
        Account::of_admin(&Admin { name: "root".into(), password }, None)
    }

    fn passwords() -> Passwords {
        Passwords::new(ITERATIONS, Arc::default())
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    async fn is_right(passwords: &Passwords, account: &Account, password: &str) -> Result<bool, Refused> {
        passwords.is_right("root", Some(account), &password.into(), address(1)).await
    }

    #[tokio::test]
    async fn a_password_is_its_accounts_and_a_new_one_ends_the_old_one() {
        let passwords = passwords();
        let root = account("secret");
        assert!(is_right(&passwords, &root, "secret").await.unwrap());
        assert!(is_right(&passwords, &root, "secret").await.unwrap());
        assert!(!is_right(&passwords, &root, "wrong").await.unwrap());
        assert!(!passwords.is_right("root", None, &"secret".into(), None).await.unwrap(), "the account is gone");
        let changed = account("other");
        assert!(!is_right(&passwords, &changed, "secret").await.unwrap());
        assert!(is_right(&passwords, &changed, "other").await.unwrap());
    }

    #[tokio::test]
    async fn who_was_known_needs_no_turn_and_others_wait_no_longer_than_for_one() {
        let passwords = Passwords { patience: Duration::from_millis(1), ..passwords() };
        let root = account("secret");
        passwords.memory.remember(passwords.memory.tag(&[b"root"]), {
            let key = root.password.as_ref().unwrap().key();
            passwords.memory.tag(&[b"root", b"secret", b"salt", key])
        });
        let taken = passwords.hashing.available_permits() as u32;
        let _taken = passwords.hashing.acquire_many(taken).await.unwrap();
        assert!(is_right(&passwords, &root, "secret").await.unwrap());
        assert!(matches!(is_right(&passwords, &root, "guess").await, Err(Refused::Busy)));
        assert!(matches!(passwords.is_right("nobody", None, &"x".into(), None).await, Err(Refused::Busy)));
    }

    /// One lock for all logins let whoever guessed keep everybody out who wasn't known yet.
    #[tokio::test]
    async fn a_flood_from_one_address_keeps_no_other_one_out() {
        let passwords = Arc::new(passwords());
        let root = account("secret");
        let line = passwords.memory.guesses.line("root", address(1), Instant::now());
        let _flood = line.places.acquire_many(line.places.available_permits() as u32).await.unwrap();
        let _turn = line.turn.acquire().await.unwrap();
        assert!(matches!(is_right(&passwords, &root, "secret").await, Err(Refused::Busy)));
        assert!(passwords.is_right("root", Some(&root), &"secret".into(), address(2)).await.unwrap());
        assert!(is_right(&passwords, &root, "secret").await.unwrap(), "known now, wherever from");
    }

    #[tokio::test]
    async fn who_was_wrong_often_waits_and_gets_in_all_the_same() {
        let passwords = passwords();
        let root = account("secret");
        for _ in 0..5 {
            passwords.memory.guesses.wrong("root", address(1), Instant::now());
        }
        let started = Instant::now();
        assert!(is_right(&passwords, &root, "secret").await.unwrap());
        assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
        assert!(passwords.memory.guesses.next("root", address(1), Instant::now()) <= Instant::now());
        assert_eq!((passwords.logins.held_up.get(), passwords.logins.hashed.get()), (1, 1));
    }
}
