//! What a peer does to requests at random: faults that pass, each for one request or for all of them for a while.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::trouble::is_about_documents;
use crate::support::{Fault, Gateway};

/// A server that answers one thing for a while, to all that is asked of it or to what is about documents.
struct Closed {
    until: Instant,
    documents_alone: bool,
    fault: Fault,
}

/// What the peer does to requests, drawn from this seed.
pub fn chance(seed: u64) -> impl FnMut(&str) -> Option<Fault> + Send + 'static {
    let mut rng = StdRng::seed_from_u64(seed);
    let (one_in, closed_one_in) = (rng.random_range(4..20), rng.random_range(40..400));
    let mut closed: Option<Closed> = None;
    move |request| {
        closed = closed.take().filter(|closed| Instant::now() < closed.until);
        if closed.is_none() && rng.random_range(0..closed_one_in) == 0 {
            let until = Instant::now() + Duration::from_millis(rng.random_range(20..300));
            // Where the logs' requests pass, a checkpoint passes over what was taken for a verdict. A database's own words
            // would be one.
            let documents_alone = rng.random_bool(0.5);
            let fault = if documents_alone { gateway(&mut rng) } else { closing(&mut rng) };
            closed = Some(Closed { until, documents_alone, fault });
        }
        match &closed {
            Some(closed) if !closed.documents_alone || is_about_documents(request) => Some(closed.fault.clone()),
            _ => (rng.random_range(0..one_in) == 0).then(|| fault(&mut rng)),
        }
    }
}

/// What a whole server answers for a while: something stands before it, or our rights have changed.
fn closing(rng: &mut StdRng) -> Fault {
    match rng.random_range(0..4) {
        0 => Fault::status(401),
        1 => Fault::status(403),
        _ => gateway(rng),
    }
}

fn gateway(rng: &mut StdRng) -> Fault {
    let status = *[200, 201, 400, 401, 403, 404, 413, 500, 502].choose(rng).unwrap();
    Fault::gateway(status, *Gateway::ALL.choose(rng).unwrap())
}

/// A fault that passes.
fn fault(rng: &mut StdRng) -> Fault {
    let retry_after = vec![("retry-after", "0".to_owned())];
    let page = vec![("content-type", "text/html".to_owned())];
    let bytes = rng.random_range(0..400);
    match rng.random_range(0..40) {
        0 => Fault::Hang,
        1 => Fault::Silence,
        2 | 3 => Fault::Down(Duration::from_millis(40)),
        4..=6 => Fault::Disconnect,
        7..=9 => Fault::Cut(bytes),
        10..=12 => Fault::ApplyThenDisconnect,
        13..=15 => Fault::ApplyThenFail(500),
        16 | 17 => Fault::status(500),
        18 | 19 => Fault::status(429),
        20 | 21 => Fault::Answer(503, retry_after, "busy".into()),
        22..=24 => Fault::Truncate(bytes),
        25 => Fault::WrongLength(5),
        26 => Fault::WrongLength(-2),
        27 => Fault::Answer(200, page, "<html>Please log in</html>".into()),
        28 => Fault::BreakOff,
        30..=37 => gateway(rng),
        29 => Fault::Drip(5, Duration::from_millis(20)),
        _ => Fault::Slow(Duration::from_millis(bytes as u64 / 4)),
    }
}
