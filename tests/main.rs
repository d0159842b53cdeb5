//! All integration tests, in one binary so that it links once.

#![expect(clippy::unwrap_used, reason = "a helper's panic fails the test that called it, as it should")]

mod support;

mod cli;
mod shutdown;
mod crash;
mod peer_contract;
