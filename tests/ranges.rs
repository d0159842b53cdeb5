//! Parts of attachments, as CouchDB 3.5.0 answers them.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::asking::{Answer, get, request, send, with_db};
use crate::support::Server;

/// A document with twenty bytes as they came, the same as text, and the same uploaded gzipped.
async fn with_attachments() -> Server {
    let server = with_db().await;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(b"0123456789abcdefghij").unwrap();
    let gzipped = gzip.finish().unwrap();
    let mut path = "/db/a/b.bin".to_owned();
    for (next, content_type, coding, body) in [
        ("t.txt", "application/octet-stream", "identity", b"0123456789abcdefghij".to_vec()),
        ("g.bin", "text/plain", "identity", b"0123456789abcdefghij".to_vec()),
        ("large.bin", "application/octet-stream", "gzip", gzipped),
        ("", "application/octet-stream", "identity", (0..300_000_u32).map(|n| (n % 251) as u8).collect()),
    ] {
        let put =
            request(&server, "PUT", &path).header("Content-Type", content_type).header("Content-Encoding", coding);
        let put = send(put.body(body)).await;
        assert_eq!(put.status, 201, "{}", put.text());
        path = format!("/db/a/{next}?rev={}", put.rev());
    }
    server
}

async fn part(server: &Server, name: &str, range: &str) -> Answer {
    send(request(server, "GET", &format!("/db/a/{name}")).header("Range", range)).await
}

#[tokio::test]
async fn a_part_is_206_and_says_which_it_is() {
    let server = with_attachments().await;
    assert_eq!(get(&server, "/db/a/b.bin").await.header("accept-ranges"), "bytes");
    let answer = part(&server, "b.bin", "bytes=5-9").await;
    assert_eq!((answer.status, answer.text()), (206, "56789"));
    assert_eq!((answer.header("content-range"), answer.header("content-length")), ("bytes 5-9/20", "5"));
    assert_eq!(answer.header("etag"), get(&server, "/db/a/b.bin").await.header("etag"));
    assert_eq!(answer.header("content-security-policy"), "sandbox");
    for (range, text) in [("bytes=-3", "hij"), ("bytes=10-100", "abcdefghij"), ("bytes=0-19", "0123456789abcdefghij")] {
        let answer = part(&server, "b.bin", range).await;
        assert_eq!((answer.status, answer.text()), (206, text), "{range}");
    }
    for range in ["bytes=0-", "bytes=abc", "lines=1-2"] {
        let answer = part(&server, "b.bin", range).await;
        assert_eq!((answer.status, answer.header("content-length")), (200, "20"), "{range}");
    }
    let head = send(request(&server, "HEAD", "/db/a/b.bin").header("Range", "bytes=5-9")).await;
    assert_eq!((head.status, head.header("content-range"), head.header("content-length")), (206, "bytes 5-9/20", "5"));
}

#[tokio::test]
async fn a_part_that_isnt_there_is_416() {
    let server = with_attachments().await;
    for range in ["bytes=20-", "bytes=4-2", "bytes=0-4,30-40"] {
        let answer = part(&server, "b.bin", range).await;
        let error = "{\"error\":\"requested_range_not_satisfiable\",\"reason\":\"Requested range not satisfiable\"}\n";
        assert_eq!((answer.status, answer.text()), (416, error), "{range}");
        assert_eq!(answer.header("content-range"), "bytes */20");
    }
}

#[tokio::test]
async fn several_parts_are_multipart() {
    let server = with_attachments().await;
    let answer = part(&server, "b.bin", "bytes=0-0,-2").await;
    let content_type = answer.header("content-type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=\"").unwrap().trim_end_matches('"');
    let head = |range| format!("\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {range}/20\r\n\r\n");
    let parts = [
        format!("--{boundary}"),
        head("0-0") + "0",
        format!("\r\n--{boundary}"),
        head("18-19") + "ij",
        format!("\r\n--{boundary}--"),
    ];
    assert_eq!((answer.status, answer.text()), (206, parts.concat().as_str()));
}

/// Of what is stored gzipped nobody knows where a byte of the text stands.
#[tokio::test]
async fn gzipped_attachments_have_no_parts() {
    let server = with_attachments().await;
    for name in ["t.txt", "g.bin"] {
        let answer = part(&server, name, "bytes=0-4").await;
        assert_eq!((answer.status, answer.text()), (200, "0123456789abcdefghij"), "{name}");
        assert_eq!(answer.header("accept-ranges"), "none");
    }
}

/// A download is resumed in pieces that aren't chunks of the store.
#[tokio::test]
async fn parts_of_a_large_attachment_make_the_whole() {
    let server = with_attachments().await;
    let whole = get(&server, "/db/a/large.bin").await.bytes;
    assert_eq!(whole.len(), 300_000);
    let mut parts = Vec::new();
    for first in (0..300_000).step_by(70_001) {
        parts.extend(part(&server, "large.bin", &format!("bytes={first}-{}", first + 70_000)).await.bytes);
    }
    assert!(parts == whole);
    let tag = "\"of another one\"";
    let other =
        send(request(&server, "GET", "/db/a/large.bin").header("Range", "bytes=5-").header("If-Range", tag)).await;
    assert_eq!((other.status, other.bytes.len()), (200, 300_000));
}
