//! Whatever is asked for, clients that stand still hold no more than a stated bound of memory.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use rand::RngExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Process, StillReader, client, json, memory};

const MIB: usize = 1 << 20;

/// Clients that stand still at once.
const READERS: usize = 50;

/// The settings under which the bound holds.
const SETTINGS: [&str; 8] = [
    "--max-answers-bytes",
    "16MiB",
    "--cache-bytes",
    "16MiB",
    "--max-body-bytes",
    "16MiB",
    "--max-bodies-bytes",
    "32MiB",
];

/// Above an idle server: the three settings (64 MiB), 400 KiB a reader (20 MiB), four documents of 8 MiB that are loaded
/// at once (the engine rounds up to a power of two: 64 MiB), and as much as the allocator keeps of these.
const BOUND: usize = 180 * MIB;

struct Endpoint {
    request: &'static str,
    accept: &'static str,
    body: String,
    /// Bytes that its answer has at least.
    bytes: usize,
}

fn endpoints() -> Vec<Endpoint> {
    let get = |request, bytes| Endpoint { request, accept: "application/json", body: String::new(), bytes };
    let parts = |request, accept, bytes| Endpoint { accept, ..get(request, bytes) };
    let post = |request, body: Value, bytes| Endpoint { body: body.to_string(), ..get(request, bytes) };
    let docs: Vec<_> = (0..12).map(|n| json!({ "id": format!("doc{n:02}") })).collect();
    let keys: Vec<_> = (0..12).map(|n| format!("doc{n:02}")).collect();
    let attached: Vec<_> = (0..2).map(|n| json!({ "id": format!("att{n}") })).collect();
    let revs = (0..40_000).map(|n| (format!("unknown-document-{n}"), json!([format!("1-{n:032x}")])));
    let revs: Value = Value::Object(revs.collect());
    vec![
        get("GET /db/leaves?open_revs=all", 12 * MIB),
        parts("GET /db/leaves?open_revs=all", "multipart/mixed", 12 * MIB),
        get("GET /db/large", 7 * MIB),
        get("GET /db/large?open_revs=all", 7 * MIB),
        get("GET /db/_all_docs?include_docs=true", 32 * MIB),
        post("POST /db/_all_docs?include_docs=true", json!({ "keys": keys }), 12 * MIB),
        get("GET /db/_changes?include_docs=true", 32 * MIB),
        get("GET /db/_changes?include_docs=true&feed=continuous&timeout=60000", 32 * MIB),
        post("POST /db/_bulk_get", json!({ "docs": docs }), 12 * MIB),
        post("POST /db/_bulk_get", json!({ "docs": [{ "id": "leaves" }] }), 12 * MIB),
        get("GET /db/_local_docs?include_docs=true", 16 * MIB),
        get("GET /db/_local/large", 7 * MIB),
        post("POST /db/_revs_diff", revs.clone(), 2 * MIB),
        post("POST /db/_missing_revs", revs, 2 * MIB),
        get("GET /att/att0?attachments=true", 8 * MIB),
        parts("GET /att/att0?attachments=true", "multipart/related", 6 * MIB),
        get("GET /att/att0?open_revs=all&attachments=true", 8 * MIB),
        parts("GET /att/att0?open_revs=all", "multipart/mixed", 6 * MIB),
        get("GET /att/att0/data", 6 * MIB),
        get("GET /att/att0/text", 6 * MIB),
        get("GET /att/_all_docs?include_docs=true&attachments=true", 16 * MIB),
        get("GET /att/_changes?include_docs=true&attachments=true", 16 * MIB),
        post("POST /att/_bulk_get?attachments=true", json!({ "docs": attached }), 16 * MIB),
    ]
}

/// Large documents, many leaves, large attachments, large `_local` documents.
async fn fill(process: &Process) {
    let client = client();
    let write = async |method: Method, path: &str, body: Value| {
        json(&client, method, process.url(path), Some(&body), 201).await;
    };
    write(Method::PUT, "/db", Value::Null).await;
    write(Method::PUT, "/att", Value::Null).await;
    for n in 0..12 {
        write(Method::PUT, &format!("/db/doc{n:02}"), json!({ "text": "x".repeat(MIB + 10) })).await;
    }
    for n in 0..10 {
        write(Method::PUT, &format!("/db/_local/doc{n}"), json!({ "text": "x".repeat(MIB) })).await;
    }
    write(Method::PUT, "/db/large", json!({ "text": "x".repeat(7 * MIB) })).await;
    for n in 1..3 {
        write(Method::PUT, &format!("/db/large{n}"), json!({ "text": "x".repeat(7 * MIB) })).await;
    }
    write(Method::PUT, "/db/_local/large", json!({ "text": "x".repeat(7 * MIB) })).await;
    for first in (0..60).step_by(20) {
        let leaf = |n| json!({ "_id": "leaves", "_rev": format!("1-{n:032x}"), "text": "x".repeat(210_000) });
        let leaves: Vec<_> = (first..first + 20).map(leaf).collect();
        write(Method::POST, "/db/_bulk_docs", json!({ "docs": leaves, "new_edits": false })).await;
    }
    let mut random = vec![0; 6 * MIB];
    rand::rng().fill(&mut random[..]);
    let data = STANDARD.encode(&random);
    // Text is stored gzipped, and decoded for whoever doesn't take it so.
    let text = STANDARD.encode(hex::encode(&random[..3 * MIB]));
    for n in 0..2 {
        let attachments = match n {
            0 => json!({
                "data": { "content_type": "application/octet-stream", "data": data },
                "text": { "content_type": "text/plain", "data": text },
            }),
            _ => json!({ "data": { "content_type": "application/octet-stream", "data": data } }),
        };
        write(Method::PUT, &format!("/att/att{n}"), json!({ "_attachments": attachments })).await;
    }
}

/// Sixty clients that asked for all 500 leaves of a document, 200 KB each, ended a server with 6 GB of memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_readers_that_stand_still_hold_little_memory_whatever_they_asked_for() {
    let data_dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(data_dir.path());
    fill(&process).await;
    process.signal("TERM");
    process.ended_within(Duration::from_secs(60));
    let mut failed = Vec::new();
    for endpoint in endpoints() {
        // A fresh one, whose peak is this endpoint's.
        let process = Process::with_args(data_dir.path(), &SETTINGS);
        let addr = process.url("").trim_start_matches("http://").parse().unwrap();
        let idle = memory::peak_bytes(process.id());
        let still = || StillReader::of(addr, endpoint.request, endpoint.accept, &endpoint.body);
        let readers = join_all((0..READERS).map(|_| still())).await;
        // Questions that are too many to be in memory together are told to come again.
        let served = readers.iter().filter(|reader| reader.status() == 200).count();
        let told = readers.iter().filter(|reader| reader.status() == 503).count();
        assert!(served + told == READERS && served > 0, "{}: {served}, {told}", endpoint.request);
        memory::settled(process.id()).await;
        let another = read(&process, &endpoint).await;
        assert!(another >= endpoint.bytes, "{}: {another} bytes", endpoint.request);
        let peak = memory::peak_bytes(process.id()) - idle;
        eprintln!("{} ({}), {served} readers: {} MiB", endpoint.request, endpoint.accept, peak / MIB);
        if peak > BOUND {
            failed.push(format!("{} ({}): {} MiB", endpoint.request, endpoint.accept, peak / MIB));
        }
    }
    assert!(failed.is_empty(), "more than {} MiB: {failed:#?}", BOUND / MIB);
}

/// Asks for the same as those that stand still, reads it to its end, and tells its length.
async fn read(process: &Process, endpoint: &Endpoint) -> usize {
    let (method, path) = endpoint.request.split_once(' ').unwrap();
    let path = path.replace("timeout=60000", "timeout=1");
    let request = client().request(method.parse().unwrap(), process.url(&path)).header("accept", endpoint.accept);
    let request = request.header("content-type", "application/json").body(endpoint.body.clone());
    let reading = async {
        let mut answer = request.send().await.unwrap();
        // Questions may all be taken; then only a smaller one is answered.
        if answer.status() == 503 {
            let info = client().get(process.url("/db")).send().await.unwrap();
            assert_eq!(info.status(), 200);
            return usize::MAX;
        }
        assert_eq!(answer.status(), 200);
        let mut bytes = 0;
        while let Some(chunk) = answer.chunk().await.unwrap() {
            bytes += chunk.len();
        }
        bytes
    };
    tokio::time::timeout(Duration::from_secs(120), reading).await.expect("another client is kept waiting")
}

/// A question of millions of tiny elements was made into values, some hundred bytes each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_questions_take_little_more_than_their_bytes() {
    const QUESTION: usize = 4 * MIB;
    // Its bytes, twice while they grow, what is taken of it for a while, and the answer.
    const BOUND: usize = 40 * MIB;
    let many = |element: &str| vec![element; QUESTION / (element.len() + 1)].join(",");
    let docs = |element: &str| format!(r#"{{"docs":[{}]}}"#, many(element));
    let deep = format!("{}{}", "[".repeat(100_002), "]".repeat(100_002));
    let questions = [
        ("POST /db/_bulk_get", docs(r#"{"id":"x"}"#), 200),
        ("POST /db/_revs_diff", format!("{{{}}}", many(r#""x":[]"#)), 200),
        ("POST /db/_all_docs", format!(r#"{{"keys":[{}]}}"#, many("1")), 200),
        ("POST /db/_all_docs", format!("{{{}}}", many(r#""x":1"#)), 413),
        // These are made into more than they may take.
        ("POST /db/_bulk_docs", docs("{}"), 413),
        // What is wrong with these is told without making more of them.
        ("POST /db/_bulk_docs", format!(r#"{{"x":{deep},"docs":[{}]}}"#, many("{}")), 400),
        ("POST /db/_bulk_docs", format!(r#"{{"x":[{}]}}"#, many("{}")), 400),
        ("POST /db/_bulk_docs", format!(r#"{{"docs":[{}],"docs":[]}}"#, many("{}")), 201),
        ("POST /db/_changes?filter=_doc_ids", format!(r#"{{"doc_ids":[{}]}}"#, many(r#""""#)), 413),
        ("POST /db/_changes?filter=_selector", format!(r#"{{"selector":{{"x":{{"$in":[{}]}}}}}}"#, many("1")), 413),
    ];
    for (request, question, status) in questions {
        let data_dir = tempfile::tempdir().unwrap();
        let process =
            Process::with_args(data_dir.path(), &["--max-bodies-bytes", "64MiB", "--max-body-bytes", "16MiB"]);
        json(&client(), Method::PUT, process.url("/db"), None, 201).await;
        let addr = process.url("").trim_start_matches("http://").parse().unwrap();
        let idle = memory::peak_bytes(process.id());
        let reader = StillReader::of(addr, request, "application/json", &question).await;
        assert_eq!(reader.status(), status, "{request}: {}", reader.head);
        memory::settled(process.id()).await;
        let peak = memory::peak_bytes(process.id()) - idle;
        eprintln!("{request}: {} MiB", peak / MIB);
        assert!(peak < BOUND, "{request}: {} MiB", peak / MIB);
    }
}
