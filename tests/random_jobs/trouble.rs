//! What befalls the two servers: that which runs the jobs is killed, stopped or suspended; the other one can't be reached, or answers what
//! it shouldn't.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _};

use super::machine::Machine;
use crate::random::faults;
use crate::support::{Fault, Gateway};

/// What befalls the server that runs the jobs.
pub enum Trouble {
    None,
    KilledAfter(Duration),
    StoppedAfter(Duration),
    /// After so long, for so long.
    Suspended(Duration, Duration),
}

impl Trouble {
    pub fn draw(rng: &mut StdRng) -> Self {
        let after = Duration::from_millis(rng.random_range(0..500));
        match rng.random_range(0..20) {
            0..8 => Self::KilledAfter(after),
            8..11 => Self::StoppedAfter(after),
            11..13 => Self::Suspended(after, Duration::from_millis(rng.random_range(100..2000))),
            _ => Self::None,
        }
    }

    pub async fn befall(self, machine: &mut Machine) {
        match self {
            Self::None => {}
            Self::KilledAfter(after) => {
                tokio::time::sleep(after).await;
                machine.kill();
            }
            Self::StoppedAfter(after) => {
                tokio::time::sleep(after).await;
                machine.stop().await;
            }
            Self::Suspended(after, pause) => {
                tokio::time::sleep(after).await;
                machine.suspend(pause).await;
            }
        }
    }
}

/// What happens to a request.
pub type Failing = Box<dyn FnMut(&str) -> Option<Fault> + Send>;

/// What requests to the other server meet.
pub fn elsewhere(mut rng: StdRng, is_in_trouble: bool) -> Failing {
    if !is_in_trouble {
        return Box::new(|_| None);
    }
    let until = Instant::now() + Duration::from_millis(rng.random_range(50..1500));
    let feed_alone = |request: &str| request.contains("/_db_updates") || request.contains("/_dbs_info");
    let all = |_: &str| true;
    let (meets, fault): (fn(&str) -> bool, _) = match rng.random_range(0..9) {
        0..3 => return Box::new(faults::chance(rng.next_u64())),
        3 => (all, Fault::Disconnect),
        4 => (all, Fault::gateway(*[404, 502, 503].choose(&mut rng).unwrap(), *Gateway::ALL.choose(&mut rng).unwrap())),
        5 => (all, Fault::Hang),
        // Absent for good, as far as the server that asks knows.
        6 => (feed_alone, Fault::status(404)),
        7 => (feed_alone, Fault::status(*[401, 500].choose(&mut rng).unwrap())),
        _ => (feed_alone, [Fault::Disconnect, Fault::Hang, Fault::Cut(30)].choose(&mut rng).unwrap().clone()),
    };
    Box::new(move |request| (meets(request) && Instant::now() < until).then(|| fault.clone()))
}
