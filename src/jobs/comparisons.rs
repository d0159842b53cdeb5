//! How many comparisons of databases go on: each reads two databases whole.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many go on at once; others wait.
const AT_ONCE: usize = 2;

/// The comparisons that go on or wait.
pub struct Comparisons {
    places: Semaphore,
    /// Guards the names of those who ask for them.
    askers: Mutex<HashSet<Option<String>>>,
}

impl Default for Comparisons {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE), askers: Mutex::default() }
    }
}

impl Comparisons {
    /// Somebody asks for one, if he has none.
    pub fn begin(&self, name: Option<&str>) -> Option<Asking<'_>> {
        let asker = name.map(str::to_owned);
        let is_new = self.askers().insert(asker.clone());
        is_new.then(|| Asking { comparisons: self, asker })
    }

    /// Waits until it may go on.
    pub async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.places.acquire().await.ok()
    }

    fn askers(&self) -> MutexGuard<'_, HashSet<Option<String>>> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That somebody asks; no more when it is dropped.
pub struct Asking<'a> {
    comparisons: &'a Comparisons,
    asker: Option<String>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.comparisons.askers().remove(&self.asker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asker_has_one_at_a_time() {
        let comparisons = Comparisons::default();
        let first = comparisons.begin(Some("ann"));
        assert!(first.is_some() && comparisons.begin(Some("ann")).is_none() && comparisons.begin(None).is_some());
        drop(first);
        assert!(comparisons.begin(Some("ann")).is_some());
    }
}
