//! Ids that are made here, all of 32 hexadecimal digits.
//!
//! [`random`] names the server, sessions of checkpoints, and whatever must not be met twice. [`sequential`] is for new
//! documents, as in CouchDB by default: ids that follow each other keep an index's pages full and together.

use std::sync::{LazyLock, Mutex, PoisonError};

use uuid::Uuid;

/// An id that nobody can foretell.
pub fn random() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The next id of this process's sequence.
pub fn sequential() -> String {
    static SEQUENCE: LazyLock<Mutex<Sequence>> = LazyLock::new(|| Mutex::new(Sequence::new()));
    // Holds a prefix and a number, which are whole after every step.
    SEQUENCE.lock().unwrap_or_else(PoisonError::into_inner).next_id()
}

/// CouchDB's algorithm `sequential` (`couch_uuids`): 26 random digits, then six that grow by a random step each time; a
/// new prefix before they run out.
struct Sequence {
    prefix: String,
    number: u32,
}

/// A step at most.
const MAX_STEP: u32 = 0xffd;
/// From here on the next step might not fit in six digits.
const LAST: u32 = 0xfff000;

impl Sequence {
    fn new() -> Self {
        Self { prefix: hex::encode(rand::random::<[u8; 13]>()), number: step() }
    }

    fn next_id(&mut self) -> String {
        let id = format!("{}{:06x}", self.prefix, self.number);
        match self.number >= LAST {
            true => *self = Self::new(),
            false => self.number += step(),
        }
        id
    }
}

fn step() -> u32 {
    rand::random_range(1..=MAX_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_an_id(id: &str) -> bool {
        id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    #[test]
    fn random_ids_are_32_hexadecimal_digits_and_differ() {
        let (one, other) = (random(), random());
        assert!(is_an_id(&one) && is_an_id(&other));
        assert_ne!(one, other);
    }

    #[test]
    fn sequential_ids_grow_and_take_another_prefix_before_they_run_out() {
        let mut sequence = Sequence::new();
        let ids: Vec<_> = (0..20_000).map(|_| sequence.next_id()).collect();
        assert!(ids.iter().all(|id| is_an_id(id)));
        let prefixes: std::collections::BTreeSet<_> = ids.iter().map(|id| &id[..26]).collect();
        assert!((2..=4).contains(&prefixes.len()), "{} prefixes", prefixes.len());
        assert!(ids.windows(2).all(|pair| pair[0][..26] != pair[1][..26] || pair[0] < pair[1]));
    }
}
