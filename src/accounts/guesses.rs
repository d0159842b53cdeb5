//! Guessing gets slower: who was wrong lately waits before his next password is looked at.
//!
//! Wrong passwords are counted by where they come from, and by that and the name together. Some are free, since people
//! mistype. After that the next one from there is looked at a second later, then two, up to [`LONGEST`]. Nobody is locked
//! out: whoever knows the password waits once and is in, and other addresses never wait for these. [`super::passwords`] asks
//! here only for passwords that aren't remembered, so a client that works doesn't wait while others guess from beside it.
//!
//! An address is an IPv4 address or the /64 of an IPv6 one, which is what one customer has. Addresses of this machine are
//! counted with the name only: behind a proxy on the same machine everybody comes from there. A count is forgotten after
//! [`FORGOTTEN`], or, if there are too many, when it is the one that was used longest ago.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Counts that are kept: CouchDB keeps as many.
const COUNTS: NonZeroUsize = NonZeroUsize::new(10_000).expect("more than nothing");
/// As CouchDB does.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// Wrong passwords of one name that cost nothing.
const FREE: u32 = 4;
/// The same of all names from one address: an office may come from it.
const FREE_BY_ADDRESS: u32 = 20;
/// The first wait, doubled each time.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest wait. Shorter than a login's patience.
const LONGEST: Duration = Duration::from_secs(5);
/// Passwords that wait for their turn in one line; more would only keep each other out.
const WAITING: usize = 16;

/// Wrong passwords, counted.
pub(super) struct Guesses {
    /// Locked to look and to count.
    counts: Mutex<LruCache<Key, Count>>,
    /// Names are kept as numbers: they may be long, and what is typed as one may be a password.
    names: RandomState,
}

/// Where a wrong password came from: `None` where that isn't known.
type Network = Option<IpAddr>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Address(Network),
    Name(u64, Network),
}

struct Count {
    wrong: u32,
    last: Instant,
    line: Line,
}

/// Where passwords wait that are looked at one after another.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Who has it, has his password looked at.
    pub(super) turn: Arc<Semaphore>,
    /// Who has it or waits for it.
    pub(super) places: Arc<Semaphore>,
}

impl Guesses {
    /// Nothing was wrong yet.
    pub(super) fn new() -> Self {
        Self { counts: Mutex::new(LruCache::new(COUNTS)), names: RandomState::new() }
    }

    /// The line of whoever comes from there: one for an address, whatever names it tries.
    pub(super) fn line(&self, name: &str, address: Option<IpAddr>, now: Instant) -> Line {
        let (by_name, by_address) = self.keys(name, address);
        self.with(by_address.unwrap_or(by_name), now, |count| count.line.clone())
    }

    /// When the next password may be looked at.
    pub(super) fn next(&self, name: &str, address: Option<IpAddr>, now: Instant) -> Instant {
        let (by_name, by_address) = self.keys(name, address);
        let by_name = self.with(by_name, now, |count| count.next(FREE));
        let by_address = by_address.map(|key| self.with(key, now, |count| count.next(FREE_BY_ADDRESS)));
        by_address.map_or(by_name, |by_address| by_address.max(by_name))
    }

    /// Counts a wrong one.
    pub(super) fn wrong(&self, name: &str, address: Option<IpAddr>, now: Instant) {
        let (by_name, by_address) = self.keys(name, address);
        for key in [Some(by_name), by_address].into_iter().flatten() {
            self.with(key, now, |count| (count.wrong, count.last) = (count.wrong.saturating_add(1), now));
        }
    }

    /// Forgets what was wrong with this name. Not what was with others: one's own password would buy guesses at theirs.
    pub(super) fn right(&self, name: &str, address: Option<IpAddr>, now: Instant) {
        let (by_name, _) = self.keys(name, address);
        self.with(by_name, now, |count| count.wrong = 0);
    }

    fn with<T>(&self, key: Key, now: Instant, look: impl FnOnce(&mut Count) -> T) -> T {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get_or_insert_mut(key, || Count::new(now));
        if now.saturating_duration_since(count.last) >= FORGOTTEN {
            count.wrong = 0;
        }
        look(count)
    }

    /// By name, and by address if that counts.
    fn keys(&self, name: &str, address: Option<IpAddr>) -> (Key, Option<Key>) {
        let network = address.map(network);
        let is_here = network.is_none_or(|network| network.is_loopback());
        (Key::Name(self.names.hash_one(name), network), (!is_here).then_some(Key::Address(network)))
    }
}

impl Count {
    fn new(now: Instant) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { wrong: 0, last: now, line: Line { turn: semaphore(1), places: semaphore(WAITING) } }
    }

    fn next(&self, free: u32) -> Instant {
        match self.wrong.checked_sub(free) {
            None | Some(0) => self.last,
            Some(beyond) => self.last + SHORTEST.saturating_mul(1 << (beyond - 1).min(8)).min(LONGEST),
        }
    }
}

/// An address as far as one customer has it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const AWAY: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));
    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn wait(guesses: &Guesses, name: &str, address: Option<IpAddr>, now: Instant) -> u64 {
        guesses.next(name, address, now).saturating_duration_since(now).as_secs()
    }

    #[test]
    fn wrong_passwords_of_a_name_make_the_next_one_wait_longer_each_time_up_to_a_limit() {
        let (guesses, now) = (Guesses::new(), Instant::now());
        let waits = (0..9).map(|_| {
            guesses.wrong("ann", HOME, now);
            wait(&guesses, "ann", HOME, now)
        });
        assert_eq!(waits.collect::<Vec<_>>(), [0, 0, 0, 0, 1, 2, 4, 5, 5]);
        assert_eq!((wait(&guesses, "ann", AWAY, now), wait(&guesses, "bob", HOME, now)), (0, 0));
        guesses.right("ann", HOME, now);
        assert_eq!(wait(&guesses, "ann", HOME, now), 0);
    }

    #[test]
    fn many_names_from_one_address_are_guesses_too_and_one_right_one_buys_none() {
        let (guesses, now) = (Guesses::new(), Instant::now());
        for name in 0..30 {
            guesses.wrong(&name.to_string(), HOME, now);
            guesses.wrong(&name.to_string(), HERE, now);
        }
        guesses.right("0", HOME, now);
        assert_eq!((wait(&guesses, "new", HOME, now), wait(&guesses, "new", AWAY, now)), (5, 0));
        assert_eq!(wait(&guesses, "new", HERE, now), 0, "everybody comes from there");
        let later = now + FORGOTTEN;
        assert_eq!(wait(&guesses, "new", HOME, later), 0);
        guesses.wrong("new", HOME, later);
        assert_eq!(wait(&guesses, "new", HOME, later), 0, "what was forgotten counts no longer");
    }

    #[test]
    fn one_customer_is_one_address() {
        let network = |address: &str| network(address.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!((network("192.0.2.1"), network("::1")), ("192.0.2.1".into(), "::1".into()));
    }

    #[test]
    fn a_flood_of_names_takes_no_more_memory_than_was_given() {
        let (guesses, now) = (Guesses::new(), Instant::now());
        for name in 0..COUNTS.get() + 100 {
            guesses.wrong(&name.to_string(), HOME, now);
        }
        assert_eq!(guesses.counts.lock().unwrap().len(), COUNTS.get());
    }
}
