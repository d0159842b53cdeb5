//! What jobs share: the servers that they talk to, and the logins that they use there.
//!
//! A server that is down, or a login that is refused, is met by one job and meant for all. So its *gate* is shut, and one job
//! after the other tries it, after growing pauses, while the others wait. The first that gets through opens it for everybody.
//! CouchDB locks an account after five refused logins in five minutes; a gate's pauses keep below that.
//!
//! Does no I/O and reads no clock.

use std::collections::HashMap;
use std::time::Duration;

use md5::{Digest as _, Md5};
use tokio::time::Instant;

/// Something that several jobs need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gate {
    /// The embedded store, for jobs that copy within it; never shut.
    Store,
    /// A server.
    Server(Hash),
    /// A user's login at a server.
    Login(Hash),
}

/// Of what jobs have in common. What they name may be long, and stays here for a while.
pub type Hash = [u8; 16];

impl Gate {
    /// A server by its origin, and by the way to it if that is some jobs' own: what they meet there others needn't meet.
    pub fn server(origin: &str, way: Option<&str>) -> Self {
        Self::Server(hash(&[Some(origin), way]))
    }

    /// A user's login at a server, for the jobs of one owner: another one may have a better password.
    pub fn login(origin: &str, way: Option<&str>, user: &str, owner: Option<&str>) -> Self {
        Self::Login(hash(&[Some(origin), way, Some(user), owner]))
    }

    /// Whether lives take turns there.
    pub fn has_turns(&self) -> bool {
        !matches!(self, Self::Login(..))
    }
}

fn hash(parts: &[Option<&str>]) -> Hash {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}

/// After a refused login, whoever hasn't tried it yet (a new job, one with another password) may try it once. After the first refusal
/// soon: somebody who has mended a password waits to see it run.
const FIRST_FRESH_PAUSE: Duration = Duration::from_secs(2);
/// After a later one; so, whoever mends it how often, five minutes have four tries.
const FRESH_PAUSE: Duration = Duration::from_secs(100);

/// Gates that are remembered before it is looked which ones nobody needs.
const MANY: usize = 1000;
/// A gate that nobody has tried for so long after its pause belongs to no job any more.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Pauses at shut gates.
#[derive(Debug, Clone, Copy)]
pub struct GatePauses {
    /// The first one at a server that is down.
    pub origin: Duration,
    /// The longest one there.
    pub max_origin: Duration,
    /// The first one after a refused login.
    pub login: Duration,
    /// The longest one there.
    pub max_login: Duration,
}

/// The gates that are shut; all others are open.
#[derive(Debug)]
pub struct Gates {
    shut: HashMap<Gate, Shut>,
    pauses: GatePauses,
    /// When there are so many, it is looked for those that nobody tries any more.
    looked_at: usize,
}

#[derive(Debug)]
struct Shut {
    since: Instant,
    pause: Duration,
    /// The pause for whoever hasn't tried it.
    fresh_pause: Duration,
    /// Somebody tries it now.
    tried: bool,
}

impl Gates {
    /// All are open.
    pub fn new(pauses: GatePauses) -> Self {
        Self { shut: HashMap::new(), pauses, looked_at: MANY }
    }

    /// Whether a job that needs these gates may start; then, those of them that it tries for all. `fresh`: it hasn't been tried.
    pub fn passable(&self, needs: &[Gate], fresh: bool, now: Instant) -> Option<Vec<Gate>> {
        let shut = needs.iter().filter_map(|gate| Some((gate, self.shut.get(gate)?)));
        let mut tried = Vec::new();
        for (gate, shut) in shut {
            if shut.tried || now < shut.next_try(gate, fresh) {
                return None;
            }
            tried.push(*gate);
        }
        Some(tried)
    }

    /// Somebody tries these.
    pub fn try_these(&mut self, gates: &[Gate]) {
        self.set_tried(gates, true);
    }

    /// Whoever tried these ended without learning anything of them.
    pub fn leave(&mut self, gates: &[Gate]) {
        self.set_tried(gates, false);
    }

    fn set_tried(&mut self, gates: &[Gate], tried: bool) {
        for gate in gates {
            if let Some(shut) = self.shut.get_mut(gate) {
                shut.tried = tried;
            }
        }
    }

    /// Somebody got through; tells whether that is news.
    pub fn open(&mut self, gates: &[Gate]) -> bool {
        gates.iter().filter(|gate| self.shut.remove(*gate).is_some()).count() > 0
    }

    /// Somebody didn't get through. Only who tried a shut gate makes its pause longer: others began before it was shut.
    /// The pause is no shorter than `at_least`.
    pub fn shut(&mut self, gate: &Gate, tried: bool, at_least: Duration, now: Instant) {
        let (first, longest) = match gate {
            Gate::Store | Gate::Server(_) => (self.pauses.origin, self.pauses.max_origin),
            Gate::Login(_) => (self.pauses.login, self.pauses.max_login),
        };
        match self.shut.get_mut(gate) {
            None => {
                self.forget_old(now);
                let pause = first.max(at_least);
                self.shut.insert(*gate, Shut { since: now, pause, fresh_pause: FIRST_FRESH_PAUSE, tried: false });
            }
            Some(shut) if tried => {
                let pause = (shut.pause * 2).min(longest.max(first)).max(at_least);
                *shut = Shut { since: now, pause, fresh_pause: FRESH_PAUSE, tried: false };
            }
            Some(_) => {}
        }
    }

    /// Forgets gates whose jobs are gone, if there are many.
    fn forget_old(&mut self, now: Instant) {
        if self.shut.len() >= self.looked_at {
            self.shut.retain(|_, shut| shut.tried || now < shut.since + shut.pause + FORGOTTEN);
            self.looked_at = MANY.max(self.shut.len() * 2);
        }
    }

    /// When the next of these that are shut may be tried; `None` if all are open, or somebody tries them.
    pub fn next_try(&self, needs: &[Gate], fresh: bool) -> Option<Instant> {
        let shut: Vec<_> = needs.iter().filter_map(|gate| Some((gate, self.shut.get(gate)?))).collect();
        if shut.iter().any(|(_, shut)| shut.tried) {
            return None;
        }
        shut.into_iter().map(|(gate, shut)| shut.next_try(gate, fresh)).max()
    }

    /// When one that is shut may be tried by somebody who was tried before; `None` if it is open.
    pub fn shut_until(&self, gate: &Gate) -> Option<Instant> {
        self.shut.get(gate).map(|shut| shut.next_try(gate, false))
    }

    /// Whether any of these is shut.
    pub fn is_shut(&self, needs: &[Gate]) -> bool {
        needs.iter().any(|gate| self.shut.contains_key(gate))
    }
}

impl Shut {
    fn next_try(&self, gate: &Gate, fresh: bool) -> Instant {
        let pause = match gate {
            Gate::Login(_) if fresh => self.pause.min(self.fresh_pause),
            _ => self.pause,
        };
        self.since + pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gates() -> Gates {
        Gates::new(GatePauses {
            origin: 5 * SECOND,
            max_origin: 60 * SECOND,
            login: 120 * SECOND,
            max_login: 3600 * SECOND,
        })
    }

    #[test]
    fn what_others_need_not_meet_shuts_no_gate_of_theirs() {
        let all = [
            Gate::server("http://h", None),
            Gate::server("http://h", Some("")),
            Gate::login("http://h", None, "ann", None),
            Gate::login("http://h", None, "ann", Some("bob")),
            Gate::login("http://h", Some("bob"), "ann", None),
            Gate::login("http://ha", None, "nn", None),
        ];
        for (index, gate) in all.iter().enumerate() {
            assert!(!all[..index].contains(gate), "{index}");
        }
    }

    #[test]
    fn gates_that_nobody_tries_any_more_are_forgotten() {
        let pauses = GatePauses { origin: SECOND, max_origin: SECOND, login: SECOND, max_login: SECOND };
        let (mut gates, begun) = (Gates::new(pauses), Instant::now());
        for second in 0..100 {
            for user in 0..100 {
                let gate = Gate::login("http://h", None, &format!("{second} {user}"), None);
                gates.shut(&gate, false, Duration::ZERO, begun + 10 * second * SECOND);
            }
        }
        assert!(gates.shut.len() <= 2 * 61 * 100, "{}", gates.shut.len());
    }

    #[test]
    fn one_tries_a_shut_gate_while_the_others_wait_and_opens_it_for_all() {
        let (mut gates, now) = (gates(), Instant::now());
        let needs = [Gate::server("http://h", None)];
        assert_eq!(gates.passable(&needs, false, now), Some(vec![]));
        gates.shut(&needs[0], false, Duration::ZERO, now);
        assert_eq!(gates.passable(&needs, false, now), None);
        let later = now + 5 * SECOND;
        assert_eq!(gates.passable(&needs, false, later), Some(needs.to_vec()));
        gates.try_these(&needs);
        assert_eq!(gates.passable(&needs, false, later), None, "somebody else tries it");
        // One that began before it was shut fails too.
        gates.shut(&needs[0], false, Duration::ZERO, later);
        gates.shut(&needs[0], true, Duration::ZERO, later);
        assert_eq!(gates.next_try(&needs, false), Some(later + 10 * SECOND));
        assert!(gates.open(&needs) && !gates.open(&needs));
        assert_eq!(gates.passable(&needs, false, later), Some(vec![]));
    }

    #[test]
    fn a_refused_login_is_tried_by_new_jobs_sooner_and_still_less_often_than_locks_an_account() {
        let (mut gates, now) = (gates(), Instant::now());
        let needs = [Gate::server("http://h", None), Gate::login("http://h", None, "ann", None)];
        gates.shut(&needs[1], false, Duration::ZERO, now);
        assert_eq!(gates.passable(&needs, false, now + 119 * SECOND), None);
        assert!(gates.passable(&needs[..1], false, now).is_some(), "others at the same server go on");
        let mut refused = vec![0];
        for second in 0..1000 {
            if gates.passable(&needs, true, now + second * SECOND).is_some() {
                gates.try_these(&needs[1..]);
                gates.shut(&needs[1], true, Duration::ZERO, now + second * SECOND);
                refused.push(second);
            }
        }
        assert_eq!(refused[..5], [0, 2, 102, 202, 302]);
        assert!(refused.windows(5).all(|tries| tries[4] - tries[0] >= 300), "{refused:?}");
    }
}
