//! Single rules, and a world drawn from seeds in which servers go and come, databases change, and lives take their time: at
//! every moment the limits hold, and in the end every change has been read.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> Limits {
    Limits {
        lives_per_server: 3,
        lives: 5,
        pause: 5 * SECOND,
        max_pause: 600 * SECOND,
        gates: GatePauses {
            origin: 5 * SECOND,
            max_origin: 60 * SECOND,
            login: 120 * SECOND,
            max_login: 3600 * SECOND,
        },
    }
}

fn origin(name: &str) -> Gate {
    Gate::server(name, None)
}

fn started(schedule: &mut Schedule, now: Instant) -> Vec<Number> {
    std::iter::from_fn(|| schedule.start(now)).map(|start| start.job).collect()
}

#[test]
fn lives_are_shared_fairly_by_server() {
    let (mut schedule, now) = (Schedule::new(limits()), Instant::now());
    (0..100).for_each(|job| schedule.add(job, vec![origin("big")], (false, false)));
    schedule.add(100, vec![origin("small")], (false, false));
    assert_eq!(started(&mut schedule, now), [0, 100, 1, 2], "three at one server");
    schedule.add(101, vec![], (false, false));
    schedule.add(102, vec![], (false, false));
    assert_eq!(started(&mut schedule, now), [101], "five in all");
    schedule.reached(100, Stage::CaughtUp);
    schedule.caught_up(1, now);
    assert_eq!(started(&mut schedule, now), [3, 102]);
    schedule.add(200, vec![origin("big")], (true, false));
    assert_eq!(started(&mut schedule, now), [200], "somebody waits for it");
}

#[test]
fn whoever_is_waited_for_keeps_nobody_from_a_gate() {
    let (mut schedule, now) = (Schedule::new(limits()), Instant::now());
    let at = |gate| Failed { at: Some(gate), ..Failed::default() };
    schedule.add(1, vec![origin("down")], (false, false));
    assert_eq!(started(&mut schedule, now), [1]);
    schedule.failed(1, &at(origin("down")), now);
    let again = now + 60 * SECOND;
    // It may last for ever.
    schedule.add(2, vec![origin("down")], (true, false));
    assert_eq!(started(&mut schedule, again), [2, 1]);
    // And however often it fails, the others' next try is no later for it.
    schedule.failed(1, &at(origin("down")), again);
    let next = schedule.next_start();
    schedule.failed(2, &at(origin("down")), again + SECOND);
    assert!(schedule.next_start() <= next);
}

#[test]
fn a_change_that_is_told_while_a_job_lives_gives_it_another_life() {
    let (mut schedule, now) = (Schedule::new(limits()), Instant::now());
    schedule.add(1, vec![], (false, false));
    assert_eq!(started(&mut schedule, now), [1]);
    schedule.woken(1, now);
    schedule.caught_up(1, now);
    assert_eq!(schedule.start(now), Some(Start { job: 1, lingers: true }), "it is busy");
    schedule.caught_up(1, now);
    assert_eq!(schedule.start(now), None);
    schedule.woken(1, now + BUSY);
    assert_eq!(schedule.start(now + BUSY), Some(Start { job: 1, lingers: false }));
}

#[test]
fn a_paused_job_has_no_life_until_it_is_resumed() {
    let (mut schedule, now) = (Schedule::new(limits()), Instant::now());
    for job in 0..4 {
        schedule.add(job, vec![], (false, job == 3));
    }
    schedule.pause(0);
    assert_eq!(started(&mut schedule, now), [1, 2]);
    assert!(schedule.pause(1) && !schedule.pause(1));
    schedule.stopped(1);
    schedule.failed(2, &Failed::default(), now);
    schedule.pause(2);
    schedule.woken(1, now);
    assert_eq!(started(&mut schedule, now + 600 * SECOND), [0; 0]);
    for job in 0..4 {
        assert!(schedule.resume(job));
    }
    assert_eq!(started(&mut schedule, now).len(), 4);
}

#[test]
fn a_server_that_is_down_for_an_hour_sees_a_probe_a_while_and_then_everybody_soon() {
    let (mut schedule, begin) = (Schedule::new(limits()), Instant::now());
    let jobs = 1000;
    (0..jobs).for_each(|job| schedule.add(job, vec![origin("h")], (false, false)));
    let (mut now, up, mut tries, mut back) = (begin, begin + 3600 * SECOND, 0, 0);
    while back < jobs {
        for job in started(&mut schedule, now) {
            if now < up {
                tries += 1;
                schedule.failed(job, &Failed { at: Some(origin("h")), ..Failed::default() }, now);
            } else {
                back += 1;
                schedule.caught_up(job, now);
            }
        }
        now = schedule.next_start().unwrap_or(now).max(now);
    }
    assert!(tries < 100, "{tries} tries");
    assert!(now - up <= 120 * SECOND, "{:?} after its return", now - up);
    println!("1,000 jobs, a server down for an hour: {tries} tries, all run again {:?} after its return", now - up);
}

/// A database, its server, and when each of its changes was written.
struct Source {
    server: usize,
    changes: Vec<Instant>,
}

/// What of a life is to come.
struct Life {
    ends: Instant,
    reads: Instant,
    read: Option<usize>,
}

/// One world.
struct World {
    schedule: Schedule,
    rng: StdRng,
    now: Instant,
    sources: Vec<Source>,
    up: Vec<bool>,
    lives: BTreeMap<Number, Life>,
    /// What each job has read.
    read: Vec<usize>,
    /// Jobs that somebody wanted tried.
    tried: BTreeSet<Number>,
    /// Changes to be told, and when.
    told: Vec<(Instant, Number)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (servers, jobs) = (rng.random_range(1..4), rng.random_range(1..30));
        let now = Instant::now();
        let mut schedule = Schedule::new(limits());
        let sources: Vec<_> =
            (0..jobs).map(|_| Source { server: rng.random_range(0..servers), changes: Vec::new() }).collect();
        for (job, source) in (0..).zip(&sources) {
            schedule.add(job, vec![origin(&source.server.to_string())], (false, false));
        }
        let (up, read) = (vec![true; servers], vec![0; jobs]);
        Self { schedule, rng, now, sources, up, lives: BTreeMap::new(), read, tried: BTreeSet::new(), told: Vec::new() }
    }

    /// Starts lives, and lets those that are over end.
    fn settle(&mut self) {
        while let Some(Start { job, .. }) = self.schedule.start(self.now) {
            assert!(!self.lives.contains_key(&job), "two lives of one job");
            let reads = self.now + SECOND.mul_f64(self.rng.random_range(0.0..3.0));
            let ends = reads + SECOND.mul_f64(self.rng.random_range(0.0..2.0));
            self.lives.insert(job, Life { ends, reads, read: None });
        }
        let mut by_server = BTreeMap::<usize, usize>::new();
        let shared: Vec<_> = self.lives.keys().filter(|job| !self.tried.contains(*job)).collect();
        shared.iter().for_each(|job| *by_server.entry(self.sources[**job as usize].server).or_default() += 1);
        assert!(by_server.values().all(|lives| *lives <= 3) && shared.len() <= 5);
        let jobs: Vec<_> = self.lives.keys().copied().collect();
        for job in jobs {
            let (life, source) = (self.lives.get_mut(&job).unwrap(), &self.sources[job as usize]);
            if life.read.is_none() && life.reads <= self.now {
                life.read = Some(source.changes.len());
            }
            if life.ends > self.now {
                continue;
            }
            self.tried.remove(&job);
            let read = self.lives.remove(&job).unwrap().read;
            match (self.up[source.server], read) {
                (true, Some(read)) if self.rng.random_bool(0.9) => {
                    self.read[job as usize] = read;
                    self.schedule.caught_up(job, self.now);
                }
                (up, _) => {
                    let at = (!up).then(|| origin(&source.server.to_string()));
                    self.schedule.failed(job, &Failed { at, ..Failed::default() }, self.now);
                }
            }
        }
        let now = self.now;
        for (_, job) in self.told.extract_if(.., |(when, _)| *when <= now) {
            self.schedule.woken(job, now);
        }
    }

    fn something_happens(&mut self) {
        match self.rng.random_range(0..10) {
            0 => {
                let server = self.rng.random_range(0..self.up.len());
                self.up[server] = !self.up[server];
            }
            1..8 => {
                let job = self.rng.random_range(0..self.sources.len());
                self.sources[job].changes.push(self.now);
                // Feeds are late.
                self.told.push((self.now + SECOND.mul_f64(self.rng.random_range(0.0..1.0)), job as Number));
            }
            8 => {
                let job = self.rng.random_range(0..self.sources.len()) as Number;
                if self.schedule.pause(job) && self.lives.remove(&job).is_some() {
                    self.tried.remove(&job);
                    self.schedule.stopped(job);
                }
            }
            _ => {
                let job = self.rng.random_range(0..self.sources.len()) as Number;
                match self.rng.random_bool(0.5) {
                    true => _ = self.schedule.resume(job),
                    false => {
                        // Such a life takes part in no share.
                        self.tried.insert(job);
                        self.schedule.retry(job);
                    }
                }
            }
        }
    }
}

/// `COUCHREP_SEEDS` draws more.
#[test]
fn in_every_world_each_change_is_read_in_the_end() {
    let seeds = std::env::var("COUCHREP_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200);
    for seed in 0..seeds {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.now += SECOND.mul_f64(world.rng.random_range(0.0..1.0));
            world.something_happens();
            world.settle();
        }
        world.up.fill(true);
        (0..world.sources.len() as Number).for_each(|job| _ = world.schedule.resume(job));
        let end = world.now + 7200 * SECOND;
        let all =
            |world: &World| world.sources.iter().zip(&world.read).all(|(source, read)| source.changes.len() == *read);
        while !all(&world) {
            assert!(world.now < end, "seed {seed}: a change isn't read");
            world.now += SECOND / 2;
            world.settle();
        }
    }
}
