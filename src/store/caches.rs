//! Memory for the page caches of all open databases.
//!
//! The engine takes a cache's size when a file is opened, and fills it for as long as the file is open. So each database
//! gets an eighth of what the others have left, at most [`MOST`]: a few have all that helps, and hundreds together
//! don't exceed what was set, but for [`LEAST`] each.

use std::sync::{Arc, Mutex, PoisonError};

/// Beyond this the operating system's own cache does as well.
const MOST: usize = 16 << 20;
/// With less the engine reads the same pages of a transaction again and again.
const LEAST: usize = 256 << 10;

/// What is left of the memory for caches. Clones share it.
#[derive(Debug, Clone)]
pub struct Caches {
    /// Guards nothing else.
    left: Arc<Mutex<usize>>,
}

/// One database's cache; given back when dropped.
#[derive(Debug)]
pub struct Cache {
    bytes: usize,
    /// What it was taken from: the least was there even where nothing was left.
    taken: usize,
    caches: Caches,
}

impl Caches {
    /// So many bytes for all.
    pub fn new(bytes: usize) -> Self {
        Self { left: Arc::new(Mutex::new(bytes)) }
    }

    /// A cache for a database that is opened.
    pub fn cache(&self) -> Cache {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = (*left / 8).clamp(LEAST, MOST);
        let taken = bytes.min(*left);
        *left -= taken;
        Cache { bytes, taken, caches: self.clone() }
    }
}

impl Cache {
    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        *self.caches.left.lock().unwrap_or_else(PoisonError::into_inner) += self.taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundreds_of_caches_stay_within_what_was_set() {
        let caches = Caches::new(256 << 20);
        let all: Vec<_> = (0..500).map(|_| caches.cache()).collect();
        assert_eq!(all[0].bytes(), MOST);
        assert_eq!(all[499].bytes(), LEAST);
        let bytes: usize = all.iter().map(Cache::bytes).sum();
        assert!(bytes <= (256 << 20) + 500 * LEAST);
        drop(all);
        assert_eq!(caches.cache().bytes(), MOST, "what was given back is there again");
    }
}
