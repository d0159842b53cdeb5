//! What must hold whatever bytes come: one function for each target, which panics where it doesn't.
//!
//! libFuzzer calls them with inputs of its making (`make fuzz`), and `tests/fuzzed.rs` with every input that is kept in
//! `fuzz/corpus`. Each compares what the crate does with what is done plainly, slowly or by another library.

mod choices;
pub mod json;
pub mod multipart;
pub mod revtree;
pub mod cookie;
pub mod token;
