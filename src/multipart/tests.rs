use std::convert::Infallible;

use futures::stream;
use proptest::prelude::*;

use super::*;
use crate::document::AttachmentHead;

type Parts = Vec<(Vec<(String, String)>, Vec<u8>)>;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The body in pieces cut at `cuts`.
fn pieces(body: &[u8], cuts: &[usize]) -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin + use<> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    let pieces: Vec<_> = cuts.windows(2).map(|cut| Ok(Bytes::copy_from_slice(&body[cut[0]..cut[1]]))).collect();
    stream::iter(pieces)
}

fn read<S, E>(mut reader: Reader<S>) -> Result<Parts, MultipartError<E>>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    block_on(async {
        let mut parts = Vec::new();
        while let Some(headers) = reader.next_part().await? {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
            let headers = headers.collect();
            let mut data = Vec::new();
            while let Some(chunk) = reader.next_chunk().await? {
                data.extend_from_slice(&chunk);
            }
            parts.push((headers, data));
        }
        Ok(parts)
    })
}

fn read_text(body: &str, boundary: &str) -> Result<Vec<(usize, String)>, MultipartError<Infallible>> {
    let parts = read(Reader::new(pieces(body.as_bytes(), &[]), boundary))?;
    Ok(parts.into_iter().map(|(headers, data)| (headers.len(), String::from_utf8_lossy(&data).into_owned())).collect())
}

/// Heads that came byte by byte were joined and searched anew for each: gigabytes were copied for a few hundred kilobytes.
#[test]
fn long_heads_that_come_byte_by_byte_take_time_with_their_length() {
    let part = format!("\r\n--b\r\nA: {}\r\n\r\ndata", "\r\n ".repeat(80_000));
    let body = format!("{}\r\n--b--", part.repeat(8));
    let bytes = Bytes::from(body);
    let chunks = (0..bytes.len()).map(|at| Ok::<_, Infallible>(bytes.slice(at..=at)));
    let started = std::time::Instant::now();
    assert_eq!(read(Reader::new(stream::iter(chunks), "b")).unwrap().len(), 8);
    // It took minutes; now it is a second where nothing is optimised.
    assert!(started.elapsed() < std::time::Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn preamble_epilogue_padding_and_missing_headers_are_understood() {
    let body =
        "ignore me\r\n--b  \r\n\r\none\r\n--b\r\nA: 1\r\nB: 2\r\n\r\ntwo\r\n\r\n--b\r\n\r\n\r\n--b--\r\nignore me";
    assert_eq!(read_text(body, "b").unwrap(), [(0, "one".into()), (2, "two\r\n".into()), (0, String::new())]);
}

#[test]
fn the_final_line_end_may_be_missing_but_not_the_closing_boundary() {
    assert_eq!(read_text("--b\r\n\r\none\r\n--b--", "b").unwrap(), [(0, "one".into())]);
    assert_eq!(read_text("--b--", "b").unwrap(), []);
    for body in ["", "--b", "--b\r\n", "--b\r\n\r\none", "--b\r\n\r\none\r\n--b", "--b\r\n\r\none\r\n--b-"] {
        assert!(matches!(read_text(body, "b"), Err(MultipartError::Truncated)), "{body:?}");
    }
}

#[test]
fn what_only_looks_like_a_boundary_is_data() {
    let body = "--b\r\n\r\n\r\n--bc\r\n--B--\r\n --b\r\r\n--b-x\r\n--b--";
    assert_eq!(read_text(body, "b").unwrap(), [(0, "\r\n--bc\r\n--B--\r\n --b\r\r\n--b-x".into())]);
}

#[test]
fn hostile_headers_are_refused() {
    let long = format!("--b\r\nA: {}\r\n\r\nx\r\n--b--", "x".repeat(MAX_HEADER_BYTES));
    let endless = format!("--b\r\n{}", "A: 1\r\n".repeat(MAX_HEADER_BYTES));
    for body in [&long, &endless] {
        assert!(matches!(read_text(body, "b"), Err(MultipartError::Headers)), "{}", &body[..20]);
    }
}

#[test]
fn lines_that_are_no_headers_are_passed_over() {
    let many = "A: 1\r\n".repeat(MAX_HEADERS + 1);
    for (lines, count) in
        [("no colon\r\nA: 1\r\n", 1), (": x\r\n", 0), ("A: \x7f\r\nB: 1\r\n", 1), (&*many, MAX_HEADERS)]
    {
        assert_eq!(
            read_text(&format!("--b\r\n{lines}\r\nx\r\n--b--"), "b").unwrap(),
            [(count, "x".into())],
            "{lines:?}"
        );
    }
}

#[test]
fn a_part_is_the_attachment_that_it_names_however_that_is_written_else_the_next() {
    let place = |disposition: &str, coming: &[&str]| {
        super::place(Some(&HeaderValue::from_str(disposition).unwrap()), coming.iter().copied())
    };
    for (disposition, coming, expected) in [
        ("attachment; filename=\"b\"", &["a", "b"][..], 1),
        ("attachment; filename=b", &["a", "b"], 1),
        ("attachment; FileName=\"b\"; size=1", &["a", "b"], 1),
        ("attachment; filename=\"a\"b\"", &["a", "x", "a\"b"], 2),
        ("attachment; filename=\"a\\\"b\"", &["a", "x", "a\"b"], 2),
        ("attachment; filename=\"a\\b\"", &["ab", "a\\b"], 1),
        ("attachment; filename=\"a\\\\b\"", &["ab", "a\\b"], 1),
        // Both readings name one: in order, it is the one that is next.
        ("attachment; filename=\"a\\\"b\"", &["a\"b", "a\\\"b"], 0),
        ("attachment; filename=\"a\\\"b\"", &["a\\\"b", "a\"b"], 0),
        ("attachment; filename=\"unknown\"", &["a", "b"], 0),
        ("attachment; filename=\"", &["a", "b"], 0),
        ("attachment", &["a", "b"], 0),
    ] {
        assert_eq!(place(disposition, coming), expected, "{disposition} {coming:?}");
    }
    assert_eq!(super::place(None, ["a"].into_iter()), 0);
}

#[test]
fn boundaries_are_unquoted() {
    assert_eq!(boundary("multipart/mixed; boundary=\"a b\""), Some("a b".into()));
    assert_eq!(boundary("Multipart/Related; type=\"application/json; x=1\"; Boundary=abc ; y=z"), Some("abc".into()));
    assert_eq!(boundary("multipart/mixed"), None);
    assert_eq!(boundary("multipart/mixed; boundary=\"open"), None);
    assert_eq!(boundary("application/json; boundary=x"), None);
}

#[test]
fn data_is_handed_on_without_a_copy() {
    let data = Bytes::from(vec![b'x'; 1000]);
    let body = [Bytes::from_static(b"--b\r\n\r\n"), data.clone(), Bytes::from_static(b"\r\n--b--")];
    let mut reader = Reader::new(stream::iter(body.map(Ok::<_, Infallible>)), "b");
    block_on(async {
        reader.next_part().await.unwrap().unwrap();
        assert_eq!(reader.next_chunk().await.unwrap().unwrap().as_ptr(), data.as_ptr());
    });
}

fn attachment() -> impl Strategy<Value = (AttachmentHead, Vec<u8>)> {
    // Data made of a boundary's own letters meets the reader's corners sooner than random bytes would.
    let data = prop::collection::vec(prop::sample::select(b"\r\n-bx \0".to_vec()), 0..60);
    ("[a-zë\"\\\\/ ]{1,8}", data, any::<bool>()).prop_map(|(name, data, gzip)| {
        let head = AttachmentHead { name, content_type: "text/plain".into(), length: data.len() as u64, gzip };
        (head, data)
    })
}

proptest! {
    #[test]
    fn what_was_framed_is_read_however_it_is_split(
        json in "[{}a-z\r\n-]{0,30}",
        attachments in prop::collection::vec(attachment(), 0..4),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let mut framing = Framing::new();
        let length = framing.related_length(json.len(), attachments.iter().map(|(head, _)| head));
        let content_type = framing.content_type("related");
        let mut body = framing.part("application/json").to_vec();
        body.extend_from_slice(json.as_bytes());
        for (head, data) in &attachments {
            body.extend_from_slice(&framing.attachment(head));
            body.extend_from_slice(data);
        }
        body.extend_from_slice(&framing.close());
        prop_assert_eq!(body.len() as u64, length);

        let parts = read(Reader::new(pieces(&body, &cuts), &boundary(&content_type).unwrap())).unwrap();
        prop_assert_eq!(parts.len(), attachments.len() + 1);
        prop_assert_eq!(&parts[0].1, json.as_bytes());
        for ((head, data), (headers, read)) in attachments.iter().zip(&parts[1..]) {
            prop_assert_eq!(data, read);
            let name = headers.iter().find(|(name, _)| name == "content-disposition").map(|(_, value)| value);
            let others = ["", "other", &head.name, "more"];
            let name = HeaderValue::from_str(name.unwrap()).unwrap();
            prop_assert_eq!(place(Some(&name), others.into_iter()), 2);
            prop_assert_eq!(headers.len(), 3 + usize::from(head.gzip));
        }
    }

    #[test]
    fn nested_bodies_are_read_however_they_are_split(
        data in prop::collection::vec(prop::sample::select(b"\r\n-bx ".to_vec()), 0..60),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let mut body = b"--b\r\nContent-Type: multipart/related; boundary=\"bxx\"\r\n\r\n--bxx\r\n\r\n".to_vec();
        let held = String::from_utf8_lossy(&data).replace("--b", "--c");
        body.extend_from_slice(held.as_bytes());
        body.extend_from_slice(b"\r\n--bxx--\r\n--b--");
        let outer = Reader::new(pieces(&body, &cuts), "b");
        let inner = block_on(async {
            let mut outer = outer;
            outer.next_part().await.unwrap().unwrap();
            Reader::new(Box::pin(outer.into_part()), "bxx")
        });
        let parts = read(inner).unwrap();
        prop_assert_eq!(parts.len(), 1);
        prop_assert_eq!(String::from_utf8_lossy(&parts[0].1), held);
    }
}
