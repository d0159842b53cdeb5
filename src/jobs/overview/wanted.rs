//! Which jobs somebody wants to see.

use crate::jobs::replication::State;

/// Which jobs are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Only those in these states; all if there is none.
    pub states: Vec<State>,
    /// Only those with this in their source, target, id, document or owner, in whatever case.
    pub search: String,
    /// After so many others.
    pub skip: usize,
    /// At most so many.
    pub limit: usize,
}
