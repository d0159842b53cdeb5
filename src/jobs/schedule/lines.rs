//! Ready jobs, in the lines in which they wait for a turn.
//!
//! Jobs that need the same stand in one line, and the lines of the same servers stand together. Servers are served in turn, and at each of
//! them its lines: ten thousand jobs at one server, or logins there, keep nobody else's waiting, and nobody looks at them while it
//! has no turn to give.

use std::collections::{HashMap, VecDeque};

use crate::jobs::gates::Gate;

/// A job of this process.
pub type Number = u64;

/// All lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// Servers at which somebody waits, in the order in which they are served.
    order: VecDeque<Vec<Gate>>,
    at: HashMap<Vec<Gate>, AtServers>,
}

/// The lines of the same servers; none is empty.
#[derive(Debug, Default)]
struct AtServers {
    /// What their jobs need, in the order in which they are served.
    order: VecDeque<Vec<Gate>>,
    lines: HashMap<Vec<Gate>, VecDeque<Number>>,
}

impl Lines {
    /// A job waits for a turn, before or after all others that need the same.
    pub fn join(&mut self, job: Number, needs: &[Gate], in_front: bool) {
        let servers = servers(needs);
        let at = self.at.entry(servers.clone()).or_default();
        if at.lines.is_empty() {
            self.order.push_back(servers);
        }
        let line = at.lines.entry(needs.to_vec()).or_default();
        if line.is_empty() {
            at.order.push_back(needs.to_vec());
        }
        if in_front { line.push_front(job) } else { line.push_back(job) }
    }

    /// A job doesn't wait any more, if it did.
    pub fn leave(&mut self, job: Number, needs: &[Gate]) {
        let servers = servers(needs);
        let Some(at) = self.at.get_mut(&servers) else { return };
        let Some(line) = at.lines.get_mut(needs) else { return };
        line.retain(|waiting| *waiting != job);
        if line.is_empty() {
            at.lines.remove(needs);
            at.order.retain(|line| line != needs);
        }
        if at.lines.is_empty() {
            self.at.remove(&servers);
            self.order.retain(|other| *other != servers);
        }
    }

    /// Takes out the next job that passes, of those that stand first at servers that have turns; what it needs, and what `passes` says of it.
    pub fn next<T>(
        &mut self,
        have_turns: impl Fn(&[Gate]) -> bool,
        passes: impl Fn(&[Gate], Number) -> Option<T>,
    ) -> Option<(Number, T)> {
        for _ in 0..self.order.len() {
            let servers = self.order.pop_front()?;
            let at = self.at.get_mut(&servers)?;
            let next = have_turns(&servers).then(|| at.next(&passes)).flatten();
            match at.lines.is_empty() {
                true => drop(self.at.remove(&servers)),
                false => self.order.push_back(servers),
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// Servers at which somebody waits.
    pub fn servers(&self) -> impl Iterator<Item = &[Gate]> {
        self.order.iter().map(Vec::as_slice)
    }

    /// Who stands first in each line of servers that have turns, and what he needs.
    pub fn fronts(&self, have_turns: impl Fn(&[Gate]) -> bool) -> impl Iterator<Item = (&[Gate], Number)> {
        let at = self.at.iter().filter(move |(servers, _)| have_turns(servers));
        let lines = at.flat_map(|(_, at)| &at.lines);
        lines.filter_map(|(needs, line)| Some((needs.as_slice(), *line.front()?)))
    }
}

impl AtServers {
    fn next<T>(&mut self, passes: impl Fn(&[Gate], Number) -> Option<T>) -> Option<(Number, T)> {
        for _ in 0..self.order.len() {
            let needs = self.order.pop_front()?;
            let line = self.lines.get_mut(&needs)?;
            let next = line.front().and_then(|job| Some((*job, passes(&needs, *job)?)));
            if next.is_some() {
                line.pop_front();
            }
            match line.is_empty() {
                true => drop(self.lines.remove(&needs)),
                false => self.order.push_back(needs),
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

/// Those where turns are taken.
fn servers(needs: &[Gate]) -> Vec<Gate> {
    needs.iter().filter(|gate| gate.has_turns()).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Each start looked at the lines of all servers: with ten thousand logins at a server a millisecond or two, each time.
    #[test]
    fn nobody_looks_at_lines_of_servers_that_have_no_turn() {
        let (busy, free) = (Gate::server("http://busy", None), Gate::server("http://free", None));
        let mut lines = Lines::default();
        for job in 0..100 {
            lines.join(job, &[busy, Gate::login("http://busy", None, &job.to_string(), None)], false);
        }
        lines.join(100, &[free], false);
        let asked = RefCell::new(Vec::new());
        let next = lines.next(
            |servers| servers == [free],
            |_, job| {
                asked.borrow_mut().push(job);
                Some(())
            },
        );
        assert_eq!((next, &asked.borrow()[..]), (Some((100, ())), &[100][..]));
        assert_eq!(lines.servers().collect::<Vec<_>>(), [[busy]]);
        assert_eq!(lines.fronts(|_| false).count(), 0);
    }

    #[test]
    fn lines_at_one_server_are_served_in_turn() {
        let login = |user: &str| [Gate::Store, Gate::login("http://h", None, user, None)];
        let mut lines = Lines::default();
        (0..3).for_each(|job| lines.join(job, &login("ann"), false));
        lines.join(3, &login("bob"), false);
        lines.join(4, &login("ann"), true);
        lines.leave(1, &login("ann"));
        lines.leave(9, &login("nobody"));
        let mut next = || lines.next(|_| true, |_, job| (job != 0).then_some(()));
        assert_eq!(
            [next(), next(), next()],
            [Some((4, ())), Some((3, ())), None],
            "0 doesn't pass, and 2 stands after it"
        );
        assert_eq!(lines.next(|_| true, |_, _| Some(())), Some((0, ())));
        assert_eq!(lines.next(|_| true, |_, _| Some(())), Some((2, ())));
        assert_eq!(lines.servers().count(), 0);
    }
}
