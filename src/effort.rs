//! What work may cost, whoever does it: memory, time without progress, pauses.
//!
//! On the ground floor, since everyone above takes from here: stages hold documents within a budget, peers say that they
//! are alive, whatever fails is tried again after a pause. Nothing here knows what the work is.

pub mod budget;
pub mod pulse;
pub mod pauses;
pub mod guarded;
