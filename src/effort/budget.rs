//! Memory for what is on its way, all replications together: one number of bytes, in fixed parts.
//!
//! | part | of the budget | for |
//! | --- | --- | --- |
//! | common | 3/8 | documents that are gathered and written, by [`Share`]s |
//! | the large place | 1/2 | one share at a time that needs more than the common part has left |
//! | pages ahead | 1/16 | pages of feeds beyond the one that every job may have in hand |
//! | streams | 1/16 | documents whose attachments stream, beyond the one that every job may have |
//!
//! A document counts twice its bytes: once as it came, once as it goes on (a buffer that grows is copied, the store
//! and the HTTP client keep what they write). One that is larger than [`Budget::max_document`], a quarter of the budget,
//! isn't held at all: it is a recorded failure. Outside of the budget, and bounded for themselves: of each job one page,
//! one stream and what it remembers of a first copy's feed, some 2 MiB together at most; of each connection what the
//! HTTP client has read ahead, 0.5 MiB at most (200 jobs with their connections were measured at 33 MiB); and the page
//! caches of the embedded store.
//!
//! # Why nothing gets stuck
//! Who waits for what, while holding what:
//! 1. A batch takes its share of the common part *before* it asks its source, holding none. What arrives is therefore
//!    read at once, and stalls no connection.
//! 2. A source that keeps a share waiting for longer than [`PATIENCE`] takes from it all that isn't filled
//!    ([`Share::waiting`]). So sources that never answer, or answer a head and nothing more, hold nothing, however many
//!    they are; one that falls silent halfway holds what it sent, until the peer's own limit of silence ends it.
//! 3. Needs more memory while it holds some: a share whose document grows, or whose source goes on after a silence. It
//!    gets more at once, or it hands on the documents that are whole, or, when it holds but an unfinished one, it waits
//!    ([`Share::hold`]) for the common part or for the large place, whichever comes first.
//! 4. The large place has room for any document. So whoever holds it waits for no memory, only for its two peers, each of
//!    whose silences has a limit; it comes free, and those who wait for it get it in the order in which they came.
//!    Hence all of 3 end, hence all that is held of the common part is given back, hence all of 1 go on.
//! 5. Pages and streams take their places holding no share, and a job's own place doesn't depend on other jobs. What
//!    holds a page waits for shares, which never wait for pages.
//!
//! Who waits for memory rests ([`Pulse::rest`]): the job's watchdog doesn't count that against it, unless another part of
//! the same job is at work. So whoever holds memory is watched, and a peer which drips byte after byte doesn't hold it for
//! ever either.
//!
//! A target that hangs in the middle of a write keeps its documents in memory until the write's own limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::effort::guarded::guarded;
use crate::effort::pulse::Pulse;

/// A source that is silent for longer gets no memory kept free for what it may send.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of a page of the feed as it travels. A longer one is asked for with fewer rows.
pub const PAGE_BYTES: usize = 256 << 10;
/// Bytes of a page that holds one row, of which there is one at a time. A longer one ends its replication.
pub const ROW_BYTES: usize = 4 << 20;

/// Bytes of a document's JSON whose attachments stream that need no share: they are the stream's own.
pub const STREAMED_JSON_BYTES: usize = 64 << 10;

/// Bytes that a page counts: its rows, and the questions and answers that are made of them.
const PAGE_COST: usize = 2 * PAGE_BYTES;
/// Bytes that a stream of attachments counts.
const STREAM_COST: usize = 256 << 10;
/// A document of so many bytes costs so many more.
const COPIES: usize = 2;
/// The semaphores count KiB, so that 32 bits are enough.
const UNIT: usize = 1024;

/// What documents of so many bytes count.
pub fn cost(bytes: usize) -> usize {
    bytes.saturating_mul(COPIES)
}

/// The memory of a server's replications. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    bytes: usize,
    common: Arc<Semaphore>,
    common_units: u32,
    large: Arc<Semaphore>,
    large_bytes: usize,
    pages: Arc<Semaphore>,
    rows: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let common_units = units(bytes / 8 * 3).max(1);
        let places = |cost| Arc::new(Semaphore::new(places_of(bytes, cost)));
        let parts = Parts {
            bytes,
            common: Arc::new(Semaphore::new((common_units as usize).min(Semaphore::MAX_PERMITS))),
            common_units,
            large: Arc::new(Semaphore::new(1)),
            large_bytes: bytes / 2,
            pages: places(PAGE_COST),
            rows: Arc::new(Semaphore::new(1)),
            streams: places(STREAM_COST),
        };
        Self { parts: Arc::new(parts) }
    }

    /// Bytes of the largest document that is held.
    pub fn max_document(&self) -> usize {
        self.parts.large_bytes / COPIES
    }

    /// Bytes that it has.
    pub fn bytes(&self) -> usize {
        self.parts.bytes
    }

    /// Bytes of it that are taken now.
    pub fn in_use(&self) -> usize {
        let parts = &self.parts;
        let common = (parts.common_units as usize).saturating_sub(parts.common.available_permits()) * UNIT;
        let large = if parts.large.available_permits() == 0 { parts.large_bytes } else { 0 };
        let places =
            |places: &Semaphore, cost| places_of(parts.bytes, cost).saturating_sub(places.available_permits()) * cost;
        common + large + places(&parts.pages, PAGE_COST) + places(&parts.streams, STREAM_COST)
    }

    /// Waits for a share of so many bytes; more than the common part counts as all of it. First come, first served.
    pub async fn share(&self, bytes: usize, pulse: &Pulse) -> Share {
        let units = units(bytes).min(self.parts.common_units);
        let _rest = pulse.rest();
        let common = self.parts.common.clone().acquire_many_owned(units).await.ok();
        Share { common, ..self.nothing(pulse) }
    }

    /// A share that holds nothing yet.
    pub fn nothing(&self, pulse: &Pulse) -> Share {
        Share { budget: self.clone(), pulse: pulse.clone(), common: None, large: None }
    }

    /// The places of the job that has this pulse.
    pub fn places(&self, pulse: &Pulse) -> JobBudget {
        let own = || Arc::new(Semaphore::new(1));
        JobBudget { own_page: own(), own_stream: own(), budget: self.clone(), pulse: pulse.clone() }
    }
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    /// Of the job that it is for.
    pulse: Pulse,
    common: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let large = if self.large.is_some() { self.budget.parts.large_bytes } else { 0 };
        self.common_units() as usize * UNIT + large
    }

    /// Bytes of the largest document that may be held.
    pub fn max_document(&self) -> usize {
        self.budget.max_document()
    }

    /// Takes what is lacking to so many bytes in all, if it is there at once.
    pub fn try_hold(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes() {
            return true;
        }
        let more = units(bytes).saturating_sub(self.common_units());
        match self.budget.parts.common.clone().try_acquire_many_owned(more) {
            Ok(more) if self.large.is_none() => {
                self.add(more);
                true
            }
            _ => false,
        }
    }

    /// Waits for so many bytes in all, or `wished`, if that is more: for the common part or the large place.
    ///
    /// To be called only by who holds nothing, or one unfinished document and nothing else.
    pub async fn hold(&mut self, bytes: usize, wished: usize) {
        if self.try_hold(bytes) || self.large.is_some() {
            return;
        }
        let parts = &self.budget.parts;
        let all = units(bytes).max(units(wished).min(parts.common_units));
        let more = all.saturating_sub(self.common_units());
        let ever = all <= parts.common_units;
        let _rest = self.pulse.rest();
        // Neither is ever closed.
        tokio::select! {
            biased;
            more = parts.common.clone().acquire_many_owned(more), if ever => {
                if let Ok(more) = more {
                    self.add(more);
                }
            }
            large = parts.large.clone().acquire_owned() => self.large = large.ok(),
        }
    }

    /// Gives back all but so many bytes.
    pub fn keep(&mut self, bytes: usize) {
        let (held, needed) = (self.common_units(), units(bytes));
        if held < needed {
            return;
        }
        self.large = None;
        if let Some(common) = &mut self.common {
            // The part that is split off is given back.
            drop(common.split((held - needed) as usize));
        }
    }

    /// Waits for a peer, for a moment with all that is held, then with so many bytes alone.
    pub async fn waiting<T>(&mut self, needed: usize, peer: impl Future<Output = T>) -> T {
        let mut peer = std::pin::pin!(peer);
        match tokio::time::timeout(PATIENCE, &mut peer).await {
            Ok(answered) => answered,
            Err(_) => {
                self.keep(needed);
                peer.await
            }
        }
    }

    /// The bytes, with the share that they are held by: it is given back with the last slice of them.
    pub fn around(self, bytes: Vec<u8>) -> Bytes {
        guarded(bytes, self)
    }

    fn common_units(&self) -> u32 {
        self.common.as_ref().map_or(0, |common| common.num_permits() as u32)
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.common {
            Some(common) => common.merge(more),
            None => self.common = Some(more),
        }
    }
}

/// Where one job's pages and streams find place. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobBudget {
    own_page: Arc<Semaphore>,
    own_stream: Arc<Semaphore>,
    budget: Budget,
    pulse: Pulse,
}

/// A place taken; given back when dropped.
#[derive(Debug)]
pub struct BudgetPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl JobBudget {
    /// Waits for a place for a page of the feed, the job's own or one of all.
    pub async fn page(&self) -> BudgetPermit {
        let _idle = self.pulse.idle();
        first(&self.own_page, &self.budget.parts.pages).await
    }

    /// Waits for the one place for a long row.
    pub async fn row(&self) -> BudgetPermit {
        let _idle = self.pulse.idle();
        BudgetPermit { _permit: self.budget.parts.rows.clone().acquire_owned().await.ok() }
    }

    /// Waits for a place for a document whose attachments stream, the job's own or one of all.
    pub async fn stream(&self) -> BudgetPermit {
        let _rest = self.pulse.rest();
        first(&self.own_stream, &self.budget.parts.streams).await
    }
}

async fn first(own: &Arc<Semaphore>, common: &Arc<Semaphore>) -> BudgetPermit {
    let permit = tokio::select! {
        biased;
        own = own.clone().acquire_owned() => own,
        common = common.clone().acquire_owned() => common,
    };
    BudgetPermit { _permit: permit.ok() }
}

/// How many places of this cost a part of a sixteenth has.
fn places_of(bytes: usize, cost: usize) -> usize {
    (bytes / 16 / cost).min(Semaphore::MAX_PERMITS)
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn what_is_held_is_missing_until_it_is_given_back() {
        let budget = Budget::new(16 * MIB);
        let first = budget.share(5 * MIB, &Pulse::default()).await;
        assert_eq!((budget.in_use(), budget.bytes()), (5 * MIB, 16 * MIB));
        assert!(budget.share(2 * MIB, &Pulse::default()).now_or_never().is_none());
        drop(first);
        assert_eq!(budget.in_use(), 0);
        assert!(budget.share(2 * MIB, &Pulse::default()).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_share_larger_than_the_common_part_takes_all_of_it_instead_of_waiting_for_ever() {
        let budget = Budget::new(16 * MIB);
        assert_eq!(budget.share(usize::MAX, &Pulse::default()).now_or_never().unwrap().bytes(), 6 * MIB);
    }

    #[tokio::test]
    async fn shares_that_all_need_more_than_there_is_get_it_one_behind_the_other() {
        let budget = Budget::new(16 * MIB);
        let mut shares = [
            budget.share(2 * MIB, &Pulse::default()).await,
            budget.share(2 * MIB, &Pulse::default()).await,
            budget.share(2 * MIB, &Pulse::default()).await,
        ];
        for share in &mut shares {
            assert!(!share.try_hold(4 * MIB));
        }
        let [mut first, mut second, mut third] = shares;
        assert!(first.hold(8 * MIB, 0).now_or_never().is_some(), "the large place");
        assert!(first.try_hold(cost(budget.max_document())));
        let mut waiting = Box::pin(async move {
            second.hold(8 * MIB, 0).await;
            second
        });
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(third.hold(5 * MIB, 0).now_or_never().is_none());
        drop(first);
        let second = waiting.now_or_never().expect("the large place again");
        drop(second);
        assert!(third.hold(5 * MIB, 0).now_or_never().is_some());
    }

    #[tokio::test]
    async fn the_large_place_is_given_back_as_soon_as_the_common_part_suffices() {
        let budget = Budget::new(16 * MIB);
        let mut first = budget.share(2 * MIB, &Pulse::default()).await;
        first.hold(8 * MIB, 0).await;
        first.keep(3 * MIB);
        assert!(first.bytes() > 8 * MIB, "it has but 2 MiB without");
        first.keep(MIB);
        assert_eq!(first.bytes(), MIB);
        let mut second = budget.nothing(&Pulse::default());
        assert!(second.hold(8 * MIB, 0).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_peer_that_keeps_a_share_waiting_takes_what_is_not_filled() {
        let budget = Budget::new(16 * MIB);
        let mut share = budget.share(6 * MIB, &Pulse::default()).await;
        share.waiting(MIB, async {}).await;
        assert_eq!(share.bytes(), 6 * MIB);
        let other = share.waiting(MIB, budget.share(5 * MIB, &Pulse::default())).await;
        assert_eq!((share.bytes(), other.bytes()), (MIB, 5 * MIB));
    }

    #[tokio::test]
    async fn a_job_has_a_place_of_its_own_whatever_the_others_hold() {
        let budget = Budget::new(16 * MIB);
        let (greedy, modest) = (budget.places(&Pulse::default()), budget.places(&Pulse::default()));
        let mut taken = Vec::new();
        while let Some(place) = greedy.page().now_or_never() {
            taken.push(place);
        }
        assert_eq!(taken.len(), 1 + MIB / PAGE_COST);
        assert_eq!(budget.in_use(), MIB, "a job's own place is outside of the budget");
        let own = modest.page().now_or_never();
        assert!(own.is_some() && modest.page().now_or_never().is_none());
    }
}
