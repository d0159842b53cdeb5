//! Which job gets a life, and when. Does no I/O and reads no clock; [`super::scheduler`] does what is decided here.
//!
//! ```text
//!              ┌────────── pause is over ◄── BackingOff ◄── failed ──┐
//!              ▼                                                     │
//!  added ──► Ready ──► a turn, and all gates open ──► Living ────────┤
//!              ▲                                                     │
//!              └──────────── woken ◄────────── Parked ◄── caught up ─┘
//!
//!  Paused: by a person, from any of them, until he resumes it: Ready
//! ```
//!
//! # Shares
//! A life that copies holds a *turn* at both of its servers until it has caught up (at the embedded store only if both sides are
//! in it); turns are bounded by server and in all. So
//! ten thousand jobs with a backlog don't stampede a server, and memory is bounded. Ready jobs stand in line by what they need
//! ([`Gate`]), and servers are served in turn ([`lines`]): a server with ten thousand jobs keeps nobody else's waiting. Lives that have
//! caught up and wait for changes hold no turn. What somebody waits for starts at once, and takes part in none of this.
//!
//! # No wake is lost
//! A change at the source is told ([`Schedule::woken`]) some time after it was written. A job that is parked becomes ready. Of one
//! that lives it is noted, and when its life ends as caught up, it gets another one at once. The note is taken off only where a
//! life begins, before it reads anything. So if a change was written after the last read of a life, it is told after that read:
//! while the life still lasts (then the note stands) or later (then the job is parked, or ready already). If it was written
//! before, the life has read it. That a wake is told at all is [`super::wakes`]' promise.

mod lines;
mod turns;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use self::lines::Lines;
pub use self::lines::Number;
use self::turns::Turns;
use super::gates::{Gate, GatePauses, Gates};
use crate::effort::pauses::jittered;
use crate::replicate::Stage;

/// What limits lives.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Lives that copy at once at one server.
    pub lives_per_server: usize,
    /// Lives that copy at once.
    pub lives: usize,
    /// A job's first pause after a failure.
    pub pause: Duration,
    /// Its longest.
    pub max_pause: Duration,
    /// Those of what jobs share.
    pub gates: GatePauses,
}

/// A job whose source was still for less before it was woken is busy: its next life waits for more changes instead of ending.
const BUSY: Duration = Duration::from_secs(2);

/// Which job gets a life, and when.
#[derive(Debug)]
pub struct Schedule {
    jobs: HashMap<Number, Slot>,
    /// Ready jobs.
    lines: Lines,
    /// Ready jobs that wait for nothing.
    at_once: VecDeque<Number>,
    backing_off: BTreeSet<(Instant, Number)>,
    gates: Gates,
    turns: Turns,
    limits: Limits,
}

#[derive(Debug)]
struct Slot {
    needs: Vec<Gate>,
    phase: Phase,
    /// Failures in a row.
    failures: u32,
    /// A change was told since the last life began.
    woken: bool,
    /// It hasn't had a life since it was added, or somebody wants it tried.
    fresh: bool,
    /// Somebody has paused it.
    paused: bool,
    /// It was parked for so short a time.
    busy: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Ready,
    Living { turn: bool, tried: Vec<Gate> },
    BackingOff(Instant),
    Parked(Instant),
    Paused,
}

impl Slot {
    fn lives(&self) -> bool {
        matches!(self.phase, Phase::Living { .. })
    }
}

/// A life to begin.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// Whose.
    pub job: Number,
    /// It is to wait for changes when it has caught up.
    pub lingers: bool,
}

/// Why a life failed.
#[derive(Debug, Clone, Default)]
pub struct Failed {
    /// What it didn't get through; `None`: something else failed.
    pub at: Option<Gate>,
    /// It lasted, or got somewhere: earlier failures don't count any more.
    pub healthy: bool,
    /// The pause is no shorter.
    pub at_least: Duration,
}

impl Schedule {
    /// No job yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            jobs: HashMap::new(),
            lines: Lines::default(),
            at_once: VecDeque::new(),
            backing_off: BTreeSet::new(),
            gates: Gates::new(limits.gates),
            turns: Turns::new(limits.lives_per_server, limits.lives),
            limits,
        }
    }

    /// A job that is to live. `at_once`: somebody waits for it. `paused`: not before it is resumed.
    pub fn add(&mut self, job: Number, needs: Vec<Gate>, (at_once, paused): (bool, bool)) {
        let phase = if paused { Phase::Paused } else { Phase::Ready };
        let slot = Slot { needs, phase, failures: 0, woken: false, fresh: true, paused, busy: false };
        self.jobs.insert(job, slot);
        match (paused, at_once) {
            (true, _) => {}
            (false, true) => self.at_once.push_back(job),
            (false, false) => self.stand_in_line(job),
        }
    }

    /// A job that is gone. Its life, if it has one, ends without being told of.
    pub fn remove(&mut self, job: Number) {
        let Some(slot) = self.jobs.remove(&job) else { return };
        match slot.phase {
            Phase::Living { turn, tried } => {
                self.gates.leave(&tried);
                self.give_back(turn, &slot.needs);
            }
            Phase::BackingOff(until) => drop(self.backing_off.remove(&(until, job))),
            Phase::Ready => self.leave_line(job, &slot.needs),
            Phase::Parked(_) | Phase::Paused => {}
        }
    }

    /// A life has come so far.
    pub fn reached(&mut self, job: Number, stage: Stage) {
        let Some(slot) = self.jobs.get_mut(&job) else { return };
        let Phase::Living { turn, tried } = &mut slot.phase else { return };
        if stage >= Stage::Copying {
            tried.clear();
            self.gates.open(&slot.needs);
        }
        if stage == Stage::CaughtUp {
            slot.failures = 0;
            let had = std::mem::take(turn);
            let needs = slot.needs.clone();
            self.give_back(had, &needs);
        }
    }

    /// A life has ended, and the job has caught up. If it found nothing new, it hasn't asked its target, and opens no gate.
    pub fn caught_up(&mut self, job: Number, now: Instant) {
        let Some(slot) = self.jobs.get_mut(&job).filter(|slot| slot.lives()) else { return };
        slot.failures = 0;
        let Phase::Living { turn, tried } = &mut slot.phase else { return };
        let (turn, tried, needs) = (std::mem::take(turn), std::mem::take(tried), slot.needs.clone());
        self.gates.leave(&tried);
        self.give_back(turn, &needs);
        let Some(slot) = self.jobs.get_mut(&job).filter(|slot| slot.lives()) else { return };
        slot.phase = if slot.paused { Phase::Paused } else { Phase::Parked(now) };
        if slot.woken {
            self.wake(job, now);
        }
    }

    /// A life was ended before it had caught up: its job was paused, its turn was wanted, or its owner's rights have changed.
    pub fn stopped(&mut self, job: Number) {
        let Some(slot) = self.jobs.get_mut(&job).filter(|slot| slot.lives()) else { return };
        let Phase::Living { turn, tried } = std::mem::replace(&mut slot.phase, Phase::Paused) else { return };
        let (paused, needs) = (slot.paused, slot.needs.clone());
        self.gates.leave(&tried);
        self.give_back(turn, &needs);
        // It may have been resumed meanwhile.
        if !paused && let Some(slot) = self.jobs.get_mut(&job) {
            slot.phase = Phase::Ready;
            self.stand_in_line(job);
        }
    }

    /// A life has failed; tells until when the job pauses, if it is by itself.
    pub fn failed(&mut self, job: Number, failed: &Failed, now: Instant) -> Option<Instant> {
        let slot = self.jobs.get_mut(&job).filter(|slot| slot.lives())?;
        let Phase::Living { turn, tried } = std::mem::replace(&mut slot.phase, Phase::Paused) else { return None };
        slot.failures = if failed.healthy { 1 } else { slot.failures.saturating_add(1) };
        let growing = self.limits.pause * 2u32.saturating_pow(slot.failures.min(16) - 1);
        let longest = if failed.at.is_some() { self.limits.gates.max_origin } else { self.limits.max_pause };
        let until = now + jittered(growing.min(longest)).max(failed.at_least);
        let (paused, needs) = (slot.paused, slot.needs.clone());
        if !paused {
            slot.phase = Phase::BackingOff(until);
            self.backing_off.insert((until, job));
        }
        self.gates.leave(&tried);
        self.give_back(turn, &needs);
        if let Some(gate) = &failed.at {
            self.gates.shut(gate, tried.contains(gate), failed.at_least, now);
        }
        (!paused).then_some(until)
    }

    /// There is, or may be, a change at the job's source.
    pub fn woken(&mut self, job: Number, now: Instant) {
        let Some(slot) = self.jobs.get_mut(&job) else { return };
        slot.woken = true;
        self.wake(job, now);
    }

    fn wake(&mut self, job: Number, now: Instant) {
        let Some(slot) = self.jobs.get_mut(&job) else { return };
        let Phase::Parked(since) = slot.phase else { return };
        slot.busy = now - since < BUSY;
        slot.phase = Phase::Ready;
        self.stand_in_line(job);
    }

    /// Somebody pauses a job; its life, if it has one, is to be ended. Tells whether that is news.
    pub fn pause(&mut self, job: Number) -> bool {
        let Some(slot) = self.jobs.get_mut(&job).filter(|slot| !slot.paused) else { return false };
        slot.paused = true;
        let needs = slot.needs.clone();
        match slot.phase {
            Phase::Living { .. } | Phase::Paused => {}
            Phase::Ready => {
                slot.phase = Phase::Paused;
                self.leave_line(job, &needs);
            }
            Phase::BackingOff(until) => {
                slot.phase = Phase::Paused;
                self.backing_off.remove(&(until, job));
            }
            Phase::Parked(_) => slot.phase = Phase::Paused,
        }
        true
    }

    /// Somebody wants a paused job to go on; tells whether that is news.
    pub fn resume(&mut self, job: Number) -> bool {
        let Some(slot) = self.jobs.get_mut(&job).filter(|slot| slot.paused) else { return false };
        (slot.paused, slot.fresh, slot.woken) = (false, true, true);
        if slot.phase == Phase::Paused {
            slot.phase = Phase::Ready;
            self.stand_in_line(job);
        }
        true
    }

    /// Somebody wants a job tried now: its own pause is over, and it doesn't wait for its server.
    pub fn retry(&mut self, job: Number) {
        let Some(slot) = self.jobs.get_mut(&job).filter(|slot| !slot.paused) else { return };
        slot.fresh = true;
        let needs = slot.needs.clone();
        match slot.phase {
            Phase::Living { .. } | Phase::Paused => return,
            Phase::Ready => self.leave_line(job, &needs),
            Phase::BackingOff(until) => drop(self.backing_off.remove(&(until, job))),
            Phase::Parked(_) => {}
        }
        let Some(slot) = self.jobs.get_mut(&job) else { return };
        slot.phase = Phase::Ready;
        // A login isn't hammered for anybody.
        match needs.iter().any(|gate| matches!(gate, Gate::Login(_)) && self.gates.is_shut(std::slice::from_ref(gate)))
        {
            true => self.stand_in_line(job),
            false => self.at_once.push_back(job),
        }
    }

    /// The next life to begin now, if there is one.
    pub fn start(&mut self, now: Instant) -> Option<Start> {
        while let Some((_, job)) = self.backing_off.first().copied().filter(|(until, _)| *until <= now) {
            self.backing_off.pop_first();
            if let Some(slot) = self.jobs.get_mut(&job) {
                slot.phase = Phase::Ready;
                self.stand_in_line(job);
            }
        }
        if let Some(job) = self.at_once.pop_front() {
            // It tries nothing for others: who asked for it may have done so for any reason, and for any time.
            self.jobs.get_mut(&job)?.phase = Phase::Living { turn: false, tried: Vec::new() };
            return Some(self.begin(job));
        }
        if self.turns.are_gone() {
            return None;
        }
        let (jobs, gates, turns) = (&self.jobs, &self.gates, &self.turns);
        let have_turns = |servers: &[Gate]| turns.are_left_at(servers) && gates.passable(servers, false, now).is_some();
        let passes = |needs: &[Gate], job| {
            let slot = jobs.get(&job)?;
            Some((needs.to_vec(), gates.passable(needs, slot.fresh, now)?))
        };
        let (job, (needs, tried)) = self.lines.next(have_turns, passes)?;
        self.gates.try_these(&tried);
        self.turns.take(&needs);
        self.jobs.get_mut(&job)?.phase = Phase::Living { turn: true, tried };
        Some(self.begin(job))
    }

    /// When there may be a life to begin if nothing happens until then.
    pub fn next_start(&self) -> Option<Instant> {
        let pause = self.backing_off.first().map(|(until, _)| *until);
        let fronts = self.lines.fronts(|servers| !self.turns.are_gone() && self.turns.are_left_at(servers));
        let at_gates = fronts.filter_map(|(needs, job)| self.gates.next_try(needs, self.jobs.get(&job)?.fresh));
        pause.into_iter().chain(at_gates).min()
    }

    /// Whether somebody who isn't a job may try these gates; then, those that he tries for all. Else, when he may.
    pub fn enter(&mut self, needs: &[Gate], now: Instant) -> Result<Vec<Gate>, Option<Instant>> {
        let tried = self.gates.passable(needs, true, now).ok_or_else(|| self.gates.next_try(needs, true))?;
        self.gates.try_these(&tried);
        Ok(tried)
    }

    /// He has come back. `Ok`: he got through all of them; `Err(Some)`: not through this one; `Err(None)`: he learnt nothing of them.
    pub fn leave(&mut self, (needs, tried): (&[Gate], &[Gate]), failed: Result<(), Option<&Gate>>, now: Instant) {
        self.gates.leave(tried);
        match failed {
            Ok(()) => _ = self.gates.open(needs),
            Err(Some(gate)) => self.gates.shut(gate, tried.contains(gate), Duration::ZERO, now),
            Err(None) => {}
        }
    }

    /// Whether somebody waits for the turn that a job's life holds, and could use it.
    pub fn is_wanted(&self, job: Number, now: Instant) -> bool {
        let Some(Slot { phase: Phase::Living { turn: true, .. }, needs, .. }) = self.jobs.get(&job) else {
            return false;
        };
        let gone: Vec<_> = needs.iter().filter(|server| self.turns.are_gone_at(server)).collect();
        let all = self.turns.are_gone();
        let mut waiting = self.lines.servers().filter(|servers| self.gates.passable(servers, false, now).is_some());
        waiting.any(|servers| all || servers.iter().any(|server| gone.contains(&server)))
    }

    /// Whether a job has a life.
    pub fn lives(&self, job: Number) -> bool {
        self.jobs.get(&job).is_some_and(Slot::lives)
    }

    /// Whether a job waits because of what it shares with others.
    pub fn waits_at_gate(&self, job: Number) -> bool {
        self.jobs.get(&job).is_some_and(|slot| slot.phase == Phase::Ready && self.gates.is_shut(&slot.needs))
    }

    /// When a gate that is shut may be tried; `None` if it is open.
    pub fn shut_until(&self, gate: &Gate) -> Option<Instant> {
        self.gates.shut_until(gate)
    }

    /// When a ready or pausing job is tried next, as far as that is known.
    pub fn next_try(&self, job: Number) -> Option<Instant> {
        let slot = self.jobs.get(&job)?;
        match slot.phase {
            Phase::BackingOff(until) => Some(until),
            Phase::Ready => self.gates.next_try(&slot.needs, slot.fresh),
            Phase::Living { .. } | Phase::Parked(_) | Phase::Paused => None,
        }
    }

    fn begin(&mut self, job: Number) -> Start {
        let slot = self.jobs.get_mut(&job);
        let lingers = slot.is_some_and(|slot| {
            (slot.woken, slot.fresh) = (false, false);
            slot.busy
        });
        Start { job, lingers }
    }

    fn give_back(&mut self, turn: bool, needs: &[Gate]) {
        if turn {
            self.turns.give_back(needs);
        }
    }

    fn stand_in_line(&mut self, job: Number) {
        let Some(slot) = self.jobs.get(&job) else { return };
        // Whoever hasn't been tried has the better chance.
        let in_front = slot.fresh && self.gates.is_shut(&slot.needs);
        self.lines.join(job, &slot.needs, in_front);
    }

    fn leave_line(&mut self, job: Number, needs: &[Gate]) {
        self.at_once.retain(|waiting| *waiting != job);
        self.lines.leave(job, needs);
    }
}

#[cfg(test)]
mod tests;
