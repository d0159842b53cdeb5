//! Memory for documents on their way, all replications together.
//!
//! A batch reserves before it fetches and gives back when what it fetched is written. It reserves once, all that it
//! will use, so no batch holds memory while it waits for more. A single document may still be larger than a
//! reservation: such documents are written one at a time ([`Budget::large`]), which nothing waits for while it holds
//! that place.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory that is left.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    total: u32,
    large: Arc<Semaphore>,
}

/// Memory taken; given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    _permit: Option<OwnedSemaphorePermit>,
}

/// The semaphore counts KiB, so that 32 bits are enough.
const UNIT: usize = 1024;

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        let units = Arc::new(Semaphore::new((total as usize).min(Semaphore::MAX_PERMITS)));
        Self { units, total, large: Arc::new(Semaphore::new(1)) }
    }

    /// Waits for so many bytes; more than the whole budget counts as the whole. First come, first served.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.total);
        Reserved { _permit: self.units.clone().acquire_many_owned(units).await.ok() }
    }

    /// Waits for the one place for documents larger than a reservation.
    pub async fn large(&self) -> Reserved {
        Reserved { _permit: self.large.clone().acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_reserved_is_missing_until_it_is_given_back() {
        let budget = Budget::new(4 * UNIT);
        let first = budget.reserve(3 * UNIT).await;
        assert!(budget.reserve(2 * UNIT).now_or_never().is_none());
        drop(first);
        assert!(budget.reserve(2 * UNIT).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_budget_takes_all_of_it_instead_of_waiting_for_ever() {
        let budget = Budget::new(4 * UNIT);
        assert!(budget.reserve(usize::MAX).now_or_never().is_some());
    }
}
