//! What every document costs before a database sees it: checking, taking apart, cutting it out of an answer; and its
//! revision tree. `cargo bench --bench json`.

use std::hint::black_box;

use couchrep::document::{DocParts, Revisions};
use couchrep::json::{self, Elements};
use couchrep::store::revtree::{NewLeaf, RevTree};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const HEAD: &str = r#"{"_id":"recipe-0001234","_rev":"2-917fa2381192822767f010b95b45325b","_revisions":{"start":2,"ids":["917fa2381192822767f010b95b45325b","aaaaa2381192822767f010b95b45325b"]},"#;
const LEAF: NewLeaf = NewLeaf { deleted: false, attached: false, body: 200_000 };
/// As many bytes as a socket gives at once.
const CHUNK: usize = 16 * 1024;

/// Documents of about 1 KB: long texts, and many small values.
fn documents() -> [(&'static str, String); 2] {
    let text = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt. ".repeat(8);
    let orders = (0..12).map(|i| format!(r#"{{"id":{i},"price":{i}.99,"name":"item {i}","ok":true}}"#));
    let orders = orders.collect::<Vec<_>>().join(",");
    [
        ("texts", format!(r#"{HEAD}"text":"{text}"}}"#)),
        ("values", format!(r#"{HEAD}"name":"Zoë \"Z\"","tags":["a","bb","ccc"],"orders":[{orders}]}}"#)),
    ]
}

fn scanning(criterion: &mut Criterion) {
    for (name, document) in documents() {
        let text = document.as_bytes();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("check", |b| b.iter(|| json::check(black_box(text))));
        group.bench_function("members", |b| b.iter(|| json::members(black_box(text)).map(Iterator::count)));
        group.bench_function("parts", |b| b.iter(|| DocParts::parse(black_box(text)).map(|parts| parts.body())));

        let result = format!(r#"{{"id":"recipe-0001234","docs":[{{"ok":{document}}}]}}"#);
        let answer = format!(r#"{{"results":[{}]}}"#, vec![result; 500].join(",\n"));
        group.throughput(Throughput::Bytes(answer.len() as u64));
        group.bench_function("elements", |b| b.iter(|| count_elements(black_box(answer.as_bytes()))));
        group.finish();
    }
}

fn count_elements(answer: &[u8]) -> usize {
    let (mut elements, mut count) = (Elements::default(), 0);
    for arrived in (CHUNK..answer.len()).step_by(CHUNK).chain([answer.len()]) {
        while elements.next(&answer[..arrived]).is_some() {
            count += 1;
        }
    }
    count
}

fn trees(criterion: &mut Criterion) {
    for length in [1, 3, 1000] {
        let path = |start: u64| Revisions { start, ids: (0..length).map(|back| hash(start - back)).collect() };
        let mut tree = RevTree::default();
        tree.merge(&path(2000), LEAF, 1000);
        let mut stored = Vec::new();
        tree.encode(&mut stored);
        let next = path(2001);
        criterion.bench_function(&format!("trees/edit of {length}"), |b| {
            b.iter(|| {
                let mut tree = RevTree::decode(black_box(&stored)).unwrap_or_default();
                tree.merge(black_box(&next), LEAF, 1000);
                let mut stored = Vec::new();
                tree.encode(&mut stored);
                stored
            });
        });
    }
}

fn hash(pos: u64) -> couchrep::document::RevHash {
    format!("{pos:032x}").as_str().into()
}

criterion_group!(benches, scanning, trees);
criterion_main!(benches);
