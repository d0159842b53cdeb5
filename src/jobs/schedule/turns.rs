//! Turns: how many lives copy at once, at each server and in all.

use std::collections::HashMap;

use crate::jobs::gates::Gate;

/// Those that are taken.
#[derive(Debug)]
pub struct Turns {
    /// Never 0.
    at: HashMap<Gate, usize>,
    all: usize,
    most_at_one: usize,
    most: usize,
}

impl Turns {
    /// None is taken of so many at each server, and so many in all.
    pub fn new(most_at_one: usize, most: usize) -> Self {
        Self { at: HashMap::new(), all: 0, most_at_one, most }
    }

    /// Whether there are no more, wherever it is.
    pub fn are_gone(&self) -> bool {
        self.all >= self.most
    }

    /// Whether there are no more at one server.
    pub fn are_gone_at(&self, server: &Gate) -> bool {
        self.at.get(server).is_some_and(|taken| *taken >= self.most_at_one)
    }

    /// Whether there is one at each of these servers.
    pub fn are_left_at(&self, servers: &[Gate]) -> bool {
        !servers.iter().any(|server| self.are_gone_at(server))
    }

    /// Takes one at each server that is needed.
    pub fn take(&mut self, needs: &[Gate]) {
        self.all += 1;
        for server in needs.iter().filter(|gate| gate.has_turns()) {
            *self.at.entry(*server).or_default() += 1;
        }
    }

    /// Gives them back.
    pub fn give_back(&mut self, needs: &[Gate]) {
        self.all -= 1;
        for server in needs.iter().filter(|gate| gate.has_turns()) {
            if let Some(taken) = self.at.get_mut(server) {
                *taken -= 1;
                if *taken == 0 {
                    self.at.remove(server);
                }
            }
        }
    }
}
