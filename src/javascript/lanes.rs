//! Who may run: two lanes, so that functions which take long wait for each other and never keep a quick one waiting.
//!
//! A function starts in the quick lane, where one call may take [`QUICK`]. A call that takes longer is stopped, and asked
//! again in the slow lane, which has a quarter of the places and where a call has its whole time. The function then goes to
//! the slow lane at once for [`REMEMBERED`]. There, functions of one design document run one after the other, so that one
//! design document takes one place. Functions that ran out of their whole time [`TRIES`] times in a row share one place. They
//! aren't refused: it may be one caller's request that makes a function endless, and others' calls would end.
//!
//! So a function that nobody has seen yet waits at most [`QUICK`] for each other such function in front of it, divided by
//! the places of the lane. A function that needs more than [`QUICK`] for one document may wait long for endless ones of
//! other design documents, until those share a place; it isn't starved, since places are given in the order of asking.
//!
//! What a function did is remembered by a hash of its code, so an edited function starts anew.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::Code;
use super::calls::{Calls, Origin, Permits, RunningCall};

/// The time of a call in the quick lane. Filters take microseconds; compiling a large library takes some ten milliseconds.
const QUICK: Duration = Duration::from_millis(200);

/// How long the lanes remember that a function took long.
const REMEMBERED: Duration = Duration::from_secs(60);

/// After so many calls in a row that ran out of their whole time, a function shares a place with others like it.
const TRIES: u32 = 3;

/// Functions that are remembered at most; those that took long longest ago are forgotten first.
const MOST_REMEMBERED: usize = 1000;

/// How often whoever waits looks for calls that can't be stopped.
const OVERDUE_CHECK: Duration = Duration::from_secs(1);

/// The two lanes.
#[derive(Debug)]
pub struct Lanes {
    call_time: Duration,
    remembered: Duration,
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    /// Of the slow lane, for all functions that ran out of time too often: one.
    last: Arc<Semaphore>,
    /// Never held across an await.
    memory: Mutex<Memory>,
    calls: Calls,
}

#[derive(Debug, Default)]
struct Memory {
    /// By the function's hash.
    functions: HashMap<u64, Function>,
    /// Of the slow lane, by the design document's hash: whose turn it is.
    turns: HashMap<u64, Weak<Semaphore>>,
}

/// A function that took long.
#[derive(Debug, Clone, Copy)]
struct Function {
    last: Instant,
    /// How often in a row it ran out of its whole time.
    timeouts: u32,
}

/// A place in a lane, for one function.
#[derive(Debug)]
pub struct LanePermit {
    function: u64,
    /// For one call.
    pub time: Duration,
    /// Whether this is the slow lane.
    slow: bool,
    origin: Origin,
    /// The lane's, the design document's, and that of the functions that ran out of time too often.
    permits: Permits,
}

impl LanePermit {
    /// A call begins, and ends when this is dropped; `None` if none may ([`Calls::begin`]).
    pub fn call<'a>(&self, lanes: &'a Lanes) -> Option<RunningCall<'a>> {
        lanes.calls.begin(&self.origin, self.time, &self.permits)
    }

    /// Whether a call that runs out of time here gets more elsewhere.
    pub fn is_quick(&self) -> bool {
        !self.slow
    }
}

impl Lanes {
    /// Lanes with so many places together, at least one each.
    pub fn new(places: usize, call_time: Duration) -> Self {
        let slow = (places / 4).max(1);
        let quick = places.saturating_sub(slow).max(1);
        let lane = |places| Arc::new(Semaphore::new(places));
        let (quick, slow, last) = (lane(quick), lane(slow), lane(1));
        Self { call_time, remembered: REMEMBERED, quick, slow, last, memory: Mutex::default(), calls: Calls::new() }
    }

    /// The same, where calls that can't be stopped are given up after so long.
    #[cfg(test)]
    pub fn with_grace(self, grace: Duration) -> Self {
        Self { calls: Calls::with_grace(grace), ..self }
    }

    /// Waits for a place.
    pub async fn place(&self, code: &Code) -> LanePermit {
        let function = hash(code);
        let origin = Origin { database: code.database.as_str().into(), design: hash(&(&code.database, &code.design)) };
        let permit = |time, slow, permits: [Option<OwnedSemaphorePermit>; 3]| {
            let permits = Arc::new(Mutex::new(permits.into_iter().flatten().collect()));
            LanePermit { function, time, slow, origin: origin.clone(), permits }
        };
        self.calls.give_up_overdue();
        if self.timeouts(function).is_none() {
            let place = self.take(&self.quick).await;
            // Others may have found out meanwhile that it takes long.
            if self.timeouts(function).is_none() {
                return permit(QUICK.min(self.call_time), false, [place, None, None]);
            }
        }
        let design = self.turn(origin.design);
        let mut last = None;
        let turn = loop {
            if last.is_none() && self.runs_out(function) {
                last = self.take(&self.last).await;
            }
            let turn = self.take(&design).await;
            // Whoever waits for the last place keeps no turn: other functions of the design document may be good.
            if last.is_some() || !self.runs_out(function) {
                break turn;
            }
        };
        let place = self.take(&self.slow).await;
        permit(self.call_time, true, [place, turn, last])
    }

    /// Waits for a place, and has an eye on those who have one.
    async fn take(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let mut place = pin!(places.clone().acquire_owned());
        loop {
            match timeout(OVERDUE_CHECK, &mut place).await {
                // The semaphores are never closed.
                Ok(place) => return place.ok(),
                Err(_) => self.calls.give_up_overdue(),
            }
        }
    }

    /// Remembers that a call ran out of its time.
    pub fn ran_out(&self, place: &LanePermit) {
        let mut memory = self.memory();
        let functions = &mut memory.functions;
        if functions.len() >= MOST_REMEMBERED
            && let Some(oldest) = functions.iter().min_by_key(|(_, function)| function.last).map(|(hash, _)| *hash)
        {
            functions.remove(&oldest);
        }
        let last = Instant::now();
        let function = functions.entry(place.function).or_insert(Function { last, timeouts: 0 });
        function.last = last;
        function.timeouts += u32::from(place.slow);
    }

    /// Remembers that all calls came to their end.
    pub fn ended(&self, place: &LanePermit) {
        if place.slow
            && let Some(function) = self.memory().functions.get_mut(&place.function)
        {
            function.timeouts = 0;
        }
    }

    /// How often in a row a function ran out of its whole time; `None`: it isn't known to take long.
    fn timeouts(&self, function: u64) -> Option<u32> {
        let mut memory = self.memory();
        let known = memory.functions.get(&function).copied()?;
        if known.last.elapsed() >= self.remembered {
            memory.functions.remove(&function);
            return None;
        }
        Some(known.timeouts)
    }

    fn runs_out(&self, function: u64) -> bool {
        self.timeouts(function).is_some_and(|timeouts| timeouts >= TRIES)
    }

    fn turn(&self, design: u64) -> Arc<Semaphore> {
        let mut memory = self.memory();
        if let Some(turn) = memory.turns.get(&design).and_then(Weak::upgrade) {
            return turn;
        }
        memory.turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Semaphore::new(1));
        memory.turns.insert(design, Arc::downgrade(&turn));
        turn
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::javascript::Kind;

    fn code(source: &str) -> Code {
        Code { database: "db".into(), design: b"{}".to_vec(), source: source.into(), kind: Kind::Filter }
    }

    /// A call that can't be stopped kept its place for ever, and six of them stopped all functions.
    #[tokio::test]
    async fn a_call_that_can_not_be_stopped_gives_its_place_to_others_and_bars_its_database() {
        let moment = Duration::from_millis(10);
        let lanes = Lanes::new(1, moment).with_grace(moment);
        let held = lanes.place(&code("endless")).await;
        let call = held.call(&lanes).unwrap();
        let of_others = Code { database: "other".into(), ..code("good") };
        let other = lanes.place(&of_others).await;
        assert!(other.call(&lanes).is_some());
        drop(other);
        let sibling = lanes.place(&code("good")).await;
        assert!(sibling.call(&lanes).is_none());
        drop(call);
        assert!(sibling.call(&lanes).is_some(), "it has ended");
        assert!(held.call(&lanes).is_none(), "its place is another one's");
        drop((held, sibling));
        assert_eq!(lanes.quick.available_permits(), 1, "no place was given back twice");
    }

    async fn run_out(lanes: &Lanes, code: &Code) {
        let place = lanes.place(code).await;
        lanes.ran_out(&place);
    }

    /// Functions that end keep their places beside any number that don't.
    #[tokio::test]
    async fn functions_that_keep_running_out_of_time_share_one_place() {
        let lanes = Lanes::new(16, Duration::from_secs(5));
        let of = |database: &str, source| Code { database: database.into(), ..code(source) };
        let (endless, other, long) = (of("a", "endless"), of("b", "endless"), of("c", "long"));
        for code in [&endless, &other] {
            for _ in 0..=TRIES {
                run_out(&lanes, code).await;
            }
        }
        run_out(&lanes, &long).await;
        let first = lanes.place(&endless).await;
        let mut second = Box::pin(lanes.place(&other));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(!lanes.place(&long).await.is_quick());
        // It waits without its design document's turn.
        let sibling = of("b", "long");
        run_out(&lanes, &sibling).await;
        assert!(!lanes.place(&sibling).await.is_quick());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(!second.await.is_quick());
    }

    /// Those that wait already when others find out share the place too.
    #[tokio::test]
    async fn a_call_that_waits_for_its_turn_meanwhile_shares_the_place() {
        let lanes = Lanes::new(16, Duration::from_secs(5));
        let endless = code("endless");
        run_out(&lanes, &endless).await;
        let first = lanes.place(&endless).await;
        let mut second = Box::pin(lanes.place(&endless));
        assert!(futures::poll!(&mut second).is_pending());
        for _ in 0..TRIES {
            lanes.ran_out(&first);
        }
        let last = lanes.take(&lanes.last).await;
        drop(first);
        assert!(futures::poll!(&mut second).is_pending());
        drop(last);
        assert!(!second.await.is_quick());
    }

    #[tokio::test]
    async fn what_a_function_did_is_forgotten_after_a_while() {
        let mut lanes = Lanes::new(4, Duration::from_secs(5));
        for _ in 0..=TRIES {
            run_out(&lanes, &code("a")).await;
        }
        assert!(!lanes.place(&code("a")).await.is_quick());
        assert!(lanes.place(&code("b")).await.is_quick());
        lanes.remembered = Duration::ZERO;
        assert!(lanes.place(&code("a")).await.is_quick());
    }

    #[tokio::test]
    async fn only_so_many_functions_are_remembered() {
        let lanes = Lanes::new(4, Duration::from_secs(5));
        for n in 0..=MOST_REMEMBERED {
            run_out(&lanes, &code(&n.to_string())).await;
        }
        assert_eq!(lanes.memory().functions.len(), MOST_REMEMBERED);
        assert!(lanes.place(&code("0")).await.is_quick(), "the oldest is forgotten");
        assert!(!lanes.place(&code("1")).await.is_quick());
    }
}
