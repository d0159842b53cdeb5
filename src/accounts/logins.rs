//! How logins went: every request that brings a name and a password, and every one that asks for a session by them.

use super::refused::Refused;
use crate::counters::Counter;
use crate::users::Account;

/// Counted since the start.
#[derive(Debug, Default)]
pub struct Logins {
    /// Name and password were right.
    pub accepted: Counter,
    /// They weren't, or the user's document has conflicts.
    pub refused: Counter,
    /// Too many were being checked: whoever came was told to come back.
    pub busy: Counter,
    /// Had to wait, because of wrong passwords before from where they came.
    pub held_up: Counter,
    /// Passwords that were hashed, which takes long.
    pub hashed: Counter,
    /// Passwords that were remembered.
    pub remembered: Counter,
}

impl Logins {
    /// A login came to its end.
    pub(super) fn ended(&self, login: &Result<Account, Refused>) {
        match login {
            Ok(_) => self.accepted.increment(),
            Err(Refused::Busy) => self.busy.increment(),
            Err(Refused::WrongPassword | Refused::Conflicts) => self.refused.increment(),
            // Whether they were right, nobody could find out; cookies and tokens come another way.
            Err(Refused::Store(_) | Refused::Panicked(_) | Refused::Cookie(_) | Refused::Token(_)) => {}
        }
    }
}
