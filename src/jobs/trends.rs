//! How fast jobs copied of late and how much they had before them: the lines of couchrep's own page.
//!
//! Every [`STEP`] it is noted of all jobs. Only a job that did something within the time of a line has one, so ten thousand that
//! have nothing to do hold nothing here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::replication::Replication;
use super::schedule::Number;

/// Between two samples: the time that a rate is of, too (`replicate/rate.rs`).
pub const STEP: Duration = Duration::from_secs(10);
/// Values of a line: a quarter of an hour.
const VALUES: usize = 90;

/// The lines of all jobs. Cheap to clone.
#[derive(Clone, Default)]
pub struct Trends {
    lines: Arc<Mutex<Lines>>,
}

#[derive(Default)]
struct Lines {
    jobs: HashMap<Number, Line>,
    all: Line,
}

/// What one job did, the oldest value first.
#[derive(Default)]
struct Line {
    values: VecDeque<(f32, Option<u64>)>,
    /// Samples in a row that found nothing new.
    idle: usize,
}

/// The lines of a job, or of all of them, the oldest value first, one each [`STEP`].
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Trend {
    /// Documents written a second.
    docs_per_second: Vec<f32>,
    /// Changes that the source still had; `null` where it didn't tell.
    changes_pending: Vec<Option<u64>>,
}

/// What a job does now.
struct Measured {
    job: Number,
    docs_per_second: f64,
    changes_pending: Option<u64>,
    /// Something happened to it since the last sample.
    moved: bool,
}

impl Trends {
    /// Notes how fast all jobs are that there are.
    pub fn sample(&self, jobs: &[Arc<Replication>]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.lines().add(jobs.iter().map(|job| Measured::of(job, now)));
    }

    /// The lines of one job, if it did something.
    pub fn of(&self, job: Number) -> Option<Trend> {
        self.lines().jobs.get(&job).map(Line::trend)
    }

    /// Those of all jobs together.
    pub fn of_all(&self) -> Trend {
        self.lines().all.trend()
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Measured {
    fn of(job: &Replication, now: u64) -> Self {
        let moved = now.saturating_sub(job.progress.updated_on()) <= STEP.as_secs();
        Self {
            job: job.number,
            docs_per_second: if moved { job.progress.docs_per_second().unwrap_or(0.0) } else { 0.0 },
            changes_pending: job.progress.changes_pending(),
            moved,
        }
    }

    fn does_something(&self) -> bool {
        self.docs_per_second > 0.0 || self.moved && self.changes_pending.is_some_and(|pending| pending > 0)
    }
}

impl Lines {
    fn add(&mut self, jobs: impl Iterator<Item = Measured>) {
        let mut before = std::mem::take(&mut self.jobs);
        let (mut rate, mut pending) = (0.0, None);
        for one in jobs {
            rate += one.docs_per_second;
            pending = one.changes_pending.map(|more| pending.unwrap_or(0_u64).saturating_add(more)).or(pending);
            let does_something = one.does_something();
            let line = before.remove(&one.job).or_else(|| does_something.then(Line::default));
            if let Some(mut line) = line {
                line.add((one.docs_per_second, one.changes_pending), does_something);
                if line.idle < VALUES {
                    self.jobs.insert(one.job, line);
                }
            }
        }
        self.all.add((rate, pending), true);
    }
}

impl Line {
    fn add(&mut self, (rate, pending): (f64, Option<u64>), does_something: bool) {
        self.values.push_back((rounded(rate), pending));
        if self.values.len() > VALUES {
            self.values.pop_front();
        }
        self.idle = if does_something { 0 } else { self.idle + 1 };
    }

    fn trend(&self) -> Trend {
        Trend {
            docs_per_second: self.values.iter().map(|(rate, _)| *rate).collect(),
            changes_pending: self.values.iter().map(|(_, pending)| *pending).collect(),
        }
    }
}

/// To tenths: slow jobs have a rate, too.
pub fn rounded(rate: f64) -> f32 {
    (rate * 10.0).round() as f32 / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_job_that_did_something_has_lines_and_not_for_ever() {
        let trends = Trends::default();
        let look = |docs_per_second, changes_pending, moved| {
            let job = Measured { job: 7, docs_per_second, changes_pending, moved };
            trends.lines().add([job].into_iter());
        };
        look(0.0, Some(5), false);
        assert_eq!(trends.of(7), None);
        look(2.46, Some(3), true);
        let expected = Trend { docs_per_second: vec![2.5], changes_pending: vec![Some(3)] };
        assert_eq!(trends.of(7), Some(expected));
        assert_eq!(trends.of_all(), Trend { docs_per_second: vec![0.0, 2.5], changes_pending: vec![Some(5), Some(3)] });
        (1..VALUES).for_each(|_| look(0.0, Some(0), true));
        assert_eq!(trends.of(7).map(|trend| trend.docs_per_second.len()), Some(VALUES));
        look(0.0, Some(0), true);
        assert_eq!(trends.of(7), None);
        assert_eq!(trends.of_all().docs_per_second.len(), VALUES);
    }

    #[test]
    fn a_job_that_is_gone_has_no_line() {
        let trends = Trends::default();
        trends.lines().add([Measured { job: 7, docs_per_second: 1.0, changes_pending: None, moved: true }].into_iter());
        assert!(trends.of(7).is_some());
        trends.sample(&[]);
        assert_eq!(trends.of(7), None);
        assert_eq!(trends.of_all().changes_pending, [None, None]);
    }
}
