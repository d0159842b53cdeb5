//! Runs that are drawn from seeds, several at once.
//!
//! `COUCHREP_SEED` is the seed of the only one, `COUCHREP_SEEDS` how many there are in all.

use std::ops::Range;

use couchrep::tasks::Tasks;
use futures::{StreamExt as _, stream};

/// Runs at once in one test: they mostly wait for pauses and silences.
///
/// A test has as many threads: a run blocks its own while it starts a process, and whoever waits for an answer meanwhile would find his
/// time over before he finds the answer.
pub const AT_ONCE: usize = 6;

/// Makes the runs with these seeds of `all`, more or fewer of them where the environment says so.
pub async fn make<R: Future<Output = ()> + Send + 'static>(seeds: Range<u64>, all: u64, run: impl Fn(u64) -> R) {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().expect(name));
    let seeds: Vec<u64> = match (number("COUCHREP_SEED"), number("COUCHREP_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(asked)) => (seeds.start * asked / all..seeds.end * asked / all).collect(),
        (None, None) => seeds.collect(),
    };
    let tasks = Tasks::default();
    let failed: Vec<_> = stream::iter(seeds)
        .map(|seed| {
            let running = tasks.spawn("random run", run(seed));
            async move { running.await.is_err().then_some(seed) }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}
