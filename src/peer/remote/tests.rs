//! The remote peer against small servers that answer as the protocol, old servers or bad networks do.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::response::Response;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::*;
use crate::effort::budget::{Budget, PAGE_BYTES, ROW_BYTES};
use crate::endpoint::Endpoint;
use crate::multipart::{self, Framing, Reader};
use crate::tasks::Tasks;

mod requests;
mod bulk;
mod attached;
mod credentials;
mod guarded;

/// A request as a server saw it.
#[derive(Debug)]
struct Seen {
    method: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn is(&self, request: &str) -> bool {
        format!("{} {}", self.method, self.path) == request
    }
}

/// Serves on a free port; answers the URL of its root.
async fn serve(respond: impl Fn(Seen) -> Response + Clone + Send + Sync + 'static) -> String {
    let handler = move |request: Request| {
        let respond = respond.clone();
        async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
            respond(Seen { method: head.method.to_string(), path, headers: head.headers, body })
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(handler);
    Tasks::default().spawn("test server", async move { axum::serve(listener, app).await });
    url
}

const SECRET: &str = "s3cret";

/// An endpoint as a request names it.
fn endpoint(source: serde_json::Value) -> RemoteEndpoint {
    match Endpoint::parse("source", Some(&source)).unwrap() {
        Endpoint::Remote(remote) => *remote,
        Endpoint::Local(name) => panic!("{name} is local"),
    }
}

fn peer(url: &str) -> RemotePeer {
    peer_of(endpoint(json!(url)))
}

/// The same, with a password.
fn peer_as(user: &str, url: &str) -> RemotePeer {
    peer_of(endpoint(json!({"url": url, "auth": {"basic": {"username": user, "password": SECRET}}})))
}

/// The same, of an endpoint that needs no client of its own.
fn peer_of(endpoint: RemoteEndpoint) -> RemotePeer {
    opened(endpoint).now_or_never().expect("the client is there")
}

async fn opened(endpoint: RemoteEndpoint) -> RemotePeer {
    let settings = config::Replicator {
        connection_timeout: Duration::from_secs(2),
        heartbeat: Duration::from_secs(1),
        retries_per_request: 4,
        ..config::Replicator::default()
    };
    let clients = Clients::new(&settings).unwrap();
    let policy = Policy::new(&settings.endpoints, true);
    RemotePeer::new(&clients, endpoint, &policy, Arc::new(settings), Pulse::default()).await.unwrap()
}

fn answer(status: u16, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
    response
}

fn ok(value: serde_json::Value) -> Response {
    answer(200, value.to_string())
}

fn moved(status: u16, to: &str) -> Response {
    let mut response = answer(status, "");
    response.headers_mut().insert(LOCATION, to.parse().unwrap());
    response
}

fn info() -> Response {
    ok(json!({"db_name": "db", "update_seq": "5-x", "instance_start_time": "7"}))
}

fn wanted(ids: &[&str]) -> Vec<Wanted> {
    let wanted = |id: &&str| Wanted { id: DocId::from(*id), revs: vec![rev("1-a")], atts_since: vec![] };
    ids.iter().map(wanted).collect()
}

fn rev(text: &str) -> Rev {
    Rev::parse(text).unwrap()
}

fn batch(ids: &[&str]) -> DocBatch {
    let mut batch = DocBatch::default();
    for id in ids {
        batch.push(DocId::from(*id), rev("1-a"), json!({"_id": id, "_rev": "1-a"}).to_string().as_bytes());
    }
    batch
}

fn share() -> Share {
    Budget::new(64 << 20).nothing(&Pulse::default())
}

async fn all(mut answer: RemoteBulkGet) -> Result<(Vec<String>, Fetched), PeerError> {
    let mut share = share();
    let (mut texts, mut rest) = (Vec::new(), Fetched::default());
    while let Some(fetched) = answer.next(100, &mut share).await? {
        let docs = &fetched.docs;
        texts.extend(docs.docs().iter().map(|doc| String::from_utf8(docs.text(doc).to_vec()).unwrap()));
        rest.attached.extend(fetched.attached);
        rest.small.extend(fetched.small);
        rest.doubtful.extend(fetched.doubtful);
        rest.refused.extend(fetched.refused);
    }
    Ok((texts, rest))
}

#[tokio::test]
async fn answers_of_another_shape_are_named_with_the_request() {
    let url = serve(|seen| match seen.path.as_str() {
        "/html/" => answer(200, "<html>\n<body>Welcome</body></html>"),
        "/cut/" => answer(200, r#"{"update_seq":"5-"#),
        _ => answer(200, r#"{"couchdb":"Welcome"}"#),
    });
    let url = url.await;
    for (path, found) in [("html", "<html> <body>Welcome"), ("root", "missing field")] {
        let error = peer(&format!("{url}/{path}")).info().await.unwrap_err();
        assert!(matches!(error, PeerError::Malformed { .. }));
        let error = error.to_string();
        assert!(error.starts_with(&format!("GET {url}/{path}/ was answered")) && error.contains(found), "{error}");
    }
    let error = peer(&format!("{url}/cut")).info().await.unwrap_err();
    assert_eq!(error.to_string(), format!("the answer to GET {url}/cut/ broke off: the JSON ends early"));
}

#[tokio::test]
async fn checkpoints_are_read_written_and_refused() {
    let url = serve(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/db/_local/there") => answer(200, r#"{"_id":"_local/there","_rev":"0-3","n":1.0}"#),
        ("PUT", "/db/_local/there") if seen.headers["x-couch-full-commit"] == "false" => {
            assert_eq!(seen.body, r#"{"_id":"_local/there","_rev":"0-3","n":1.0}"#);
            answer(201, r#"{"ok":true,"id":"_local/there","rev":"0-4"}"#)
        }
        ("PUT", _) => answer(409, r#"{"error":"conflict","reason":"Document update conflict."}"#),
        ("POST", "/db/_ensure_full_commit") => answer(405, r#"{"error":"method_not_allowed","reason":"no"}"#),
        _ => answer(404, r#"{"error":"not_found","reason":"missing"}"#),
    });
    let peer = peer(&format!("{}/db", url.await));
    let body = RawValue::from_string(r#"{"n":1.0}"#.into()).unwrap();
    assert_eq!(peer.local_doc("there").await.unwrap().unwrap().rev, "0-3");
    assert!(peer.local_doc("elsewhere").await.unwrap().is_none());
    assert_eq!(peer.put_local_doc("there", Some("0-3"), &body).await.unwrap(), "0-4");
    assert!(matches!(peer.put_local_doc("other", None, &body).await, Err(PeerError::Conflict)));
    assert_eq!(peer.ensure_full_commit().await.unwrap(), "0");
}

#[tokio::test]
async fn the_feed_is_read_in_pages_and_waited_on() {
    let url = serve(|seen| match seen.path.as_str() {
        "/db/_changes?feed=normal&style=all_docs&limit=2&since=5-x%3D" => ok(json!({
            "results": [{"seq": [7, "o"], "id": "a", "changes": [{"rev": "2-b"}, {"rev": "1-a"}], "deleted": true}],
            "last_seq": [7, "o"],
        })),
        "/db/_changes?feed=longpoll&style=all_docs&heartbeat=1000&limit=1&since=0&filter=d%2Ff&k=a%20b" => {
            assert_eq!(seen.headers["accept-encoding"], "identity");
            let beats =
                stream::iter(["\n", "\n", "\n", "\n", "\n", "{\"results\":[],", "\"last_seq\":9,\"pending\":0}"]);
            let beats = beats.then(|beat| async move {
                // All of them together take longer than the silence that is allowed, two heartbeats.
                tokio::time::sleep(Duration::from_millis(400)).await;
                Ok::<_, std::io::Error>(beat)
            });
            answer(200, Body::from_stream(beats))
        }
        "/db/_changes?feed=longpoll&style=all_docs&heartbeat=1000&limit=1&since=0" => {
            let silent = stream::iter([Ok("\n")]).chain(stream::pending::<Result<_, std::io::Error>>());
            answer(200, Body::from_stream(silent))
        }
        "/db/_changes?feed=normal&style=all_docs&limit=2&since=0&filter=_doc_ids" => {
            assert_eq!((seen.method.as_str(), seen.body.as_ref()), ("POST", br#"{"doc_ids":["a","b"]}"#.as_slice()));
            ok(json!({"results": [], "last_seq": 1}))
        }
        path => panic!("{path}"),
    });
    let peer = peer(&format!("{}/db", url.await));
    let seq = |json: &str| serde_json::from_str::<Seq>(json).unwrap();
    let query = ChangesQuery {
        since: seq("\"5-x=\""),
        limit: 2,
        max_bytes: PAGE_BYTES,
        filter: Filter::None,
        winners_only: false,
    };
    let page = peer.changes(&query).await.unwrap();
    let change = Change { seq: seq("[7,\"o\"]"), id: DocId::from("a"), revs: vec![rev("2-b"), rev("1-a")] };
    assert_eq!((page.changes, page.last_seq, page.pending), (vec![change], seq("[7,\"o\"]"), Pending::Untold));

    let query = ChangesQuery { since: Seq::zero(), ..query };
    let ids = Filter::DocIds(vec![DocId::from("a"), DocId::from("b")]);
    assert!(peer.changes(&ChangesQuery { filter: ids, ..query.clone() }).await.unwrap().changes.is_empty());

    let named = Filter::Named { name: "d/f".into(), query: vec![("k".into(), "a b".into())] };
    peer.changed(&ChangesQuery { filter: named, ..query.clone() }).await.unwrap();

    let silent = peer.changed(&query).await;
    assert!(matches!(silent, Err(PeerError::Broken { .. })), "{silent:?}");
}

/// Rows that stand after an array of something else were passed over, and a checkpoint with them.
#[tokio::test]
async fn rows_are_never_passed_over_for_another_array() {
    let page = r#"{"warnings":[],"results":[{"seq":1,"id":"a","changes":[{"rev":"1-a"}]}],"last_seq":1,"pending":0}"#;
    let peer = peer(&format!("{}/db", serve(move |_| answer(200, page)).await));
    let (since, filter) = (Seq::zero(), Filter::None);
    let read =
        peer.changes(&ChangesQuery { since, limit: 3, max_bytes: PAGE_BYTES, filter, winners_only: false }).await;
    assert!(read.as_ref().map_or(true, |page| page.changes.len() == 1), "{read:?}");
}

/// Pages are cut where they are full; the seq that counts is the last one told.
#[tokio::test]
async fn an_answer_of_the_feed_is_cut_into_pages() {
    let url = serve(|seen| match seen.path.as_str() {
        "/db/_changes?feed=normal&style=all_docs&limit=5&since=0&seq_interval=3" => {
            let row = |(id, seq)| json!({"seq": seq, "id": id, "changes": [{"rev": "1-a"}]});
            let rows =
                [("a", json!(null)), ("b", json!(null)), ("c", json!("3-x")), ("d", json!(null)), ("e", json!(null))];
            ok(json!({"results": rows.map(row), "last_seq": "5-x", "pending": 2}))
        }
        path => panic!("{path}"),
    });
    let peer = peer(&format!("{}/db", url.await));
    let (since, filter) = (Seq::zero(), Filter::None);
    let query = ChangesQuery { since, limit: 3, max_bytes: PAGE_BYTES, filter, winners_only: false };
    let one_row = ChangesQuery { max_bytes: 47, ..query.clone() };
    let told = [("3-x", 3, Extent::Part), ("5-x", 2, Extent::Limited)];
    let row_by_row = ["0", "0", "3-x", "3-x"].map(|seq| (seq, 1, Extent::Part));
    for (query, expected) in
        [(query, &told[..]), (one_row, &[&row_by_row[..], &[("5-x", 1, Extent::Limited)]].concat())]
    {
        let mut answer = peer.changes_answer(&query, Some(5)).await.unwrap();
        for (seq, rows, extent) in expected {
            let page = answer.next().await.unwrap();
            assert_eq!((&*page.last_seq.as_query(), page.changes.len(), page.extent), (*seq, *rows, *extent));
            assert_eq!(page.pending, if *extent == Extent::Part { Pending::Unknown } else { Pending::Rows(2) });
        }
    }
}

#[tokio::test]
async fn missing_revisions_are_asked_of_old_servers_too() {
    let url = serve(|seen| match seen.path.as_str() {
        "/new/_revs_diff" => {
            let (probe, revs) = probe(&seen);
            ok(json!({"b": {"missing": ["2-b"], "possible_ancestors": ["1-b"]}, probe: {"missing": revs}}))
        }
        "/old/_missing_revs" => {
            let (probe, revs) = probe(&seen);
            ok(json!({"missing_revs": {"b": ["2-b"], probe: revs}}))
        }
        _ => answer(405, r#"{"error":"method_not_allowed","reason":"no"}"#),
    });
    let url = url.await;
    let change = |id: &str, text: &str| Change { seq: Seq::zero(), id: DocId::from(id), revs: vec![rev(text)] };
    let changes = [change("a", "1-a"), change("b", "2-b")];
    let wanted = |atts_since| vec![Wanted { id: DocId::from("b"), revs: vec![rev("2-b")], atts_since }];
    assert_eq!(peer(&format!("{url}/new")).revs_diff(&changes).await.unwrap(), wanted(vec![rev("1-b")]));
    assert_eq!(peer(&format!("{url}/old")).revs_diff(&changes).await.unwrap(), wanted(vec![]));
}

/// A source that doesn't know of `limit`, or overlooks it, sent rows for ever: no one-shot came to its end.
#[tokio::test]
async fn an_answer_of_the_feed_that_passes_its_limit_is_ended() {
    let url = serve(|_| {
        let rows = (1..).map(|seq| {
            let row = json!({"seq": seq, "id": "a", "changes": [{"rev": "1-a"}]});
            Ok::<_, std::io::Error>(if seq == 1 { format!(r#"{{"results":[{row}"#) } else { format!(",{row}") })
        });
        answer(200, Body::from_stream(stream::iter(rows)))
    });
    let (since, filter) = (Seq::zero(), Filter::None);
    let query = ChangesQuery { since, limit: 3, max_bytes: PAGE_BYTES, filter, winners_only: false };
    let mut answer = peer(&url.await).changes_answer(&query, Some(5)).await.unwrap();
    let mut extents = Vec::new();
    while extents.last() != Some(&Extent::Limited) {
        extents.push(answer.next().await.unwrap().extent);
    }
    assert_eq!(extents, [Extent::Part, Extent::Part, Extent::Limited]);
}

/// An id of megabytes went into every request for its revisions.
#[tokio::test]
async fn a_row_of_the_feed_with_an_absurd_id_is_malformed() {
    let url = serve(|_| {
        let row = json!({"seq": 1, "id": "i".repeat(2 << 20), "changes": [{"rev": "1-a"}]});
        ok(json!({"results": [row], "last_seq": 1, "pending": 0}))
    });
    let (since, filter) = (Seq::zero(), Filter::None);
    // As rows that are too long for a page are read.
    let query = ChangesQuery { since, limit: 1, max_bytes: ROW_BYTES, filter, winners_only: false };
    let mut answer = peer(&url.await).changes_answer(&query, Some(5)).await.unwrap();
    assert!(matches!(answer.next().await, Err(PeerError::Malformed { .. })));
}

/// Line ends are a waiting feed's signs of life, and gzipped ones cost its sender a thousandth of what they cost us.
#[tokio::test]
async fn a_waiting_feed_of_nothing_but_line_ends_at_full_speed_is_malformed() {
    let url =
        serve(|_| answer(200, Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>("\n".repeat(4096))))));
    let (since, filter) = (Seq::zero(), Filter::None);
    let query = ChangesQuery { since, limit: 3, max_bytes: PAGE_BYTES, filter, winners_only: false };
    let waited = peer(&url.await).changed(&query).await;
    assert!(matches!(waited, Err(PeerError::Malformed { .. })), "{waited:?}");
}

/// What wasn't asked for is none of what is lacking, and an answer is kept no longer than its question.
#[tokio::test]
async fn only_revisions_that_were_asked_for_are_missing() {
    let url = serve(|seen| {
        let (probe, revs) = probe(&seen);
        ok(json!({"a": {"missing": ["1-x", "2-a", "2-a", "3-x"]}, "b": {"missing": ["1-x"]}, "c": {"missing": ["1-c"]},
            probe: {"missing": revs}}))
    });
    let change = |id: &str, text: &str| Change { seq: Seq::zero(), id: DocId::from(id), revs: vec![rev(text)] };
    let missing = peer(&url.await).revs_diff(&[change("a", "2-a"), change("b", "2-b")]).await.unwrap();
    assert_eq!(missing, [Wanted { id: DocId::from("a"), revs: vec![rev("2-a")], atts_since: vec![] }]);
}

/// The id and the revisions of what nobody has, as they were asked for.
fn probe(seen: &Seen) -> (String, serde_json::Value) {
    let asked: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&seen.body).unwrap();
    asked.into_iter().find(|(id, _)| id.starts_with("couchrep-asks-")).unwrap()
}

/// `{}`, as gateways answer, read as "nothing is missing": all of a batch was passed over.
#[tokio::test]
async fn an_answer_that_was_not_made_for_the_question_never_says_that_nothing_is_missing() {
    let answers = ["{}", "", "[]", "<html>", r#"{"message":"ok"}"#, r#"{"a":{"missing":["1-b"]}}"#, r#"{"ok":true}"#];
    let url = serve(move |seen| {
        let number: usize = seen.path.split('/').nth(1).unwrap().parse().unwrap();
        answer(200, answers[number])
    });
    let url = url.await;
    let change = Change { seq: Seq::zero(), id: DocId::from("a"), revs: vec![rev("1-a")] };
    for (number, answer) in answers.iter().enumerate() {
        let told = peer(&format!("{url}/{number}")).revs_diff(std::slice::from_ref(&change)).await;
        assert_eq!(told.unwrap_err().blame(), Blame::Unclear { worded: false }, "{answer}");
    }
}

#[tokio::test]
async fn missing_revisions_are_asked_for_in_halves_where_the_answer_is_too_long() {
    let url = serve(|seen| {
        let asked: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&seen.body).unwrap();
        let padding = " ".repeat(if asked.len() > 2 { super::answer::MAX_ANSWER_BYTES } else { 0 });
        let diff = asked.into_iter().map(|(id, revs)| (id, json!({"missing": revs})));
        answer(200, format!("{}{padding}", json!(diff.collect::<serde_json::Map<_, _>>())))
    });
    let change = |id: &str| Change { seq: Seq::zero(), id: DocId::from(id), revs: vec![rev("2-b")] };
    let wanted = peer(&url.await).revs_diff(&[change("a"), change("b"), change("c")]).await.unwrap();
    let ids: Vec<_> = wanted.iter().map(|wanted| wanted.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[test]
fn all_operations_may_run_in_tasks() {
    fn sendable<T: Send>(_: impl FnOnce(RemotePeer) -> T) {}
    sendable(|peer| async move { peer.info().await });
    sendable(|peer| async move { peer.bulk_docs(batch(&[])).await });
    sendable(|peer| async move { all(peer.bulk_get(wanted(&[])).await?).await });
    sendable(|peer| async move {
        match peer.open_rev(&DocId::from("a"), &rev("1-a"), &[], share()).await? {
            Opened::Doc(doc) => peer.put_doc(doc).await,
            Opened::Missing | Opened::Forbidden(_) => Ok(Put::Written),
        }
    });
}
