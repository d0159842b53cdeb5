//! Bodies of any size pass in constant memory, both ways.

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use bytes::Bytes;
use couchrep::tasks::Tasks;
use futures::{StreamExt as _, stream};
use tokio::net::TcpListener;

use crate::support::memory::peak_bytes;
use crate::support::{Process, client};

const MIB: usize = 1 << 20;
/// Sent at once, each way.
const BODIES: usize = 8;
const BODY: usize = 64 * MIB;

/// `length` bytes in pieces.
fn body(length: usize) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    stream::iter((0..length / MIB).map(|_| Ok(Bytes::from(vec![b'x'; MIB]))))
}

async fn length(body: Body) -> String {
    let mut pieces = body.into_data_stream();
    let mut length = 0;
    while let Some(piece) = pieces.next().await {
        length += piece.unwrap().len();
    }
    length.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_gigabyte_each_way_takes_a_few_megabytes() {
    let tasks = Tasks::default();
    let routes = Router::new().route("/db/att", get(async || Body::from_stream(body(BODY))).put(length));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = routes.layer(DefaultBodyLimit::disable());
    tasks.spawn("a test's CouchDB", async move { axum::serve(listener, routes).await });
    let data_dir = tempfile::tempdir().unwrap();
    let uuid = "0123456789abcdef0123456789abcdef";
    let process = Process::with_args(data_dir.path(), &["--couchdb", &url, "--uuid", uuid]);
    let idle = peak_bytes(process.id());
    let exchange = async |number: usize| {
        let url = process.url("/db/att");
        if number.is_multiple_of(2) {
            let sent = client().put(url).body(reqwest::Body::wrap_stream(body(BODY))).send().await.unwrap();
            assert_eq!(sent.text().await.unwrap(), BODY.to_string());
        } else {
            let mut pieces = client().get(url).send().await.unwrap().bytes_stream();
            let mut length = 0;
            while let Some(piece) = pieces.next().await {
                length += piece.unwrap().len();
            }
            assert_eq!(length, BODY);
        }
    };
    futures::future::join_all((0..2 * BODIES).map(exchange)).await;
    let peak = peak_bytes(process.id()) - idle;
    // Buffers of two connections each, 400 KiB at most, and what the allocator keeps.
    assert!(peak < 48 * MIB, "{} MiB more than idle", peak / MIB);
    tasks.stop();
}
