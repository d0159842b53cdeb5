//! Every input that fuzzing has kept goes through the properties that it was kept for.

use std::path::Path;

#[path = "../fuzz/properties/all.rs"]
mod properties;

fn replay(target: &str, holds: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty());
    for input in inputs {
        println!("{}", input.display()); // shown if it fails
        holds(&std::fs::read(input).unwrap());
    }
}

#[test]
fn json_is_read_as_serde_json_reads_it() {
    replay("json", properties::json::holds);
}

#[test]
fn multipart_is_read_in_one_way_however_it_arrives() {
    replay("multipart", properties::multipart::holds);
}

#[test]
fn revision_trees_are_sets_of_revisions_and_edges() {
    replay("revtree", properties::revtree::holds);
}

#[test]
fn cookies_prove_nothing_unless_they_were_signed_as_they_stand() {
    replay("cookie", properties::cookie::holds);
}

#[test]
fn tokens_count_if_and_only_if_a_key_signed_them() {
    replay("token", properties::token::holds);
}
