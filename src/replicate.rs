//! To be written.

pub mod retry;
