//! Random runs of jobs that documents describe: people write, edit, pause, delete and double documents of `_replicator` and of
//! `t/_replicator`, and others edit the databases on both sides, delete them and make them anew, while the server that runs the jobs is
//! killed, stopped or suspended, and the other one goes and comes. Then it is quiet, and what must hold is looked at
//! ([`verdict`]): each job's target has what its source has, each document says what is, and nobody's edit is lost.
//!
//! Drawn from seeds as the runs of [`super::random`] are: `COUCHREP_SEED=42 cargo nextest run -E 'test(random_jobs::)'` runs one alone,
//! `COUCHREP_SEEDS` is how many there are in all.
//!
//! # Clocks
//! Nobody but root sets a clock. What can be done: the server is suspended for a while and goes on (its own time leaps, and all waits of
//! others are over); states in documents are of the year 2099, as a clock that was set back leaves them. In `src/jobs/schedule/tests.rs`
//! time leaps by hours.

mod machine;
mod world;
mod documents;
mod people;
mod trouble;
mod verdict;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use self::documents::Documents;
use self::people::People;
use self::trouble::Trouble;
use self::world::World;
use crate::random::runs;

const RUNS: u64 = 100;
/// For a run's steps, whose requests all have limits of their own.
const STEPS_LIMIT: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn jobs_of_documents_hold_through_kills_and_edits() {
    runs(0..50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn jobs_of_documents_hold_while_the_other_server_goes_and_comes() {
    runs(50..RUNS).await;
}

async fn runs(seeds: std::ops::Range<u64>) {
    runs::make(seeds, RUNS, |seed| async move { Run::new(seed).await.run().await }).await;
}

/// One run.
struct Run {
    seed: u64,
    rng: StdRng,
    world: World,
    documents: Documents,
    /// How often the other server is in trouble.
    weather: f64,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = World::new(seed, &mut rng).await;
        // An even one is mostly about the server that runs the jobs.
        let weather = if seed.is_multiple_of(2) { 0.3 } else { 0.8 };
        Self { seed, rng, world, documents: Documents::default(), weather }
    }

    async fn run(mut self) {
        let steps = self.rng.random_range(3..6);
        let stepping = async {
            self.people().write_first().await;
            for _ in 0..steps {
                self.step().await;
            }
        };
        if tokio::time::timeout(STEPS_LIMIT, stepping).await.is_err() {
            self.fail("the steps don't come to an end");
        }
        self.heal().await;
        self.judge().await;
    }

    /// Edits of databases and documents, trouble for both servers meanwhile; then what only whole databases can be done to.
    async fn step(&mut self) {
        self.trouble_elsewhere().await;
        let trouble = Trouble::draw(&mut self.rng);
        let editors = self.world.editors(&mut self.rng);
        let mut people = People::new(&self.world, &mut self.documents, StdRng::seed_from_u64(self.rng.next_u64()));
        let acting = people.act_several_times();
        let (kept, (), ()) = futures::join!(world::edit(editors), acting, trouble.befall(&mut self.world.machine));
        self.world.keep(kept);
        if self.world.machine.start_again_if_dead() {
            self.documents.asked.clear();
        }
        self.people().resolve().await;
        if self.rng.random_bool(0.3) {
            self.world.remake(&mut self.rng).await;
        }
        if self.rng.random_bool(0.1) {
            self.people().remake_database().await;
        }
    }

    async fn trouble_elsewhere(&mut self) {
        if self.rng.random_bool(self.weather / 4.0) {
            self.world.restart_other().await;
        }
        let rng = StdRng::seed_from_u64(self.rng.next_u64());
        let is_in_trouble = self.rng.random_bool(self.weather);
        self.world.peer.fail_at_random(trouble::elsewhere(rng, is_in_trouble));
    }

    fn people(&mut self) -> People<'_> {
        let rng = StdRng::seed_from_u64(self.rng.next_u64());
        People::new(&self.world, &mut self.documents, rng)
    }

    /// Ends all trouble.
    async fn heal(&mut self) {
        self.world.peer.fail_at_random(|_| None);
        if self.rng.random_bool(0.3) {
            self.world.machine.kill();
            self.world.machine.start_again_if_dead();
            self.documents.asked.clear();
        }
        self.world.make_all().await;
        self.people().resolve().await;
    }

    fn fail(&self, problem: &str) -> ! {
        panic!("seed {}: {problem}\ndocuments: {:#?}", self.seed, self.documents);
    }
}
