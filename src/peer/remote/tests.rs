//! The remote peer against small servers that answer as the protocol, old servers or bad networks do.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::response::Response;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::*;
use crate::multipart::{self, Framing, Reader};
use crate::tasks::Tasks;

mod attached;
mod credentials;

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

fn peer(url: &str) -> RemotePeer {
    peer_of(Endpoint::parse(url, Vec::new()).unwrap())
}

/// The same, with a password.
fn peer_as(user: &str, url: &str) -> RemotePeer {
    let mut endpoint = Endpoint::parse(url, Vec::new()).unwrap();
    endpoint.basic = Some((user.into(), SECRET.into()));
    peer_of(endpoint)
}

fn peer_of(endpoint: Endpoint) -> RemotePeer {
    let settings = config::Replicator {
        connection_timeout: Duration::from_secs(2),
        heartbeat: Duration::from_millis(50),
        retries_per_request: 4,
        ..config::Replicator::default()
    };
    let clients = Clients::new(&settings).unwrap();
    RemotePeer::new(&clients, endpoint, Arc::new(settings), Pulse::default()).unwrap()
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

async fn all(mut answer: RemoteBulkGet) -> Result<(Vec<String>, Fetched), PeerError> {
    let (mut texts, mut rest) = (Vec::new(), Fetched::default());
    while let Some(fetched) = answer.next(100).await? {
        let docs = &fetched.docs;
        texts.extend(docs.docs().iter().map(|doc| String::from_utf8(docs.text(doc).to_vec()).unwrap()));
        rest.attached.extend(fetched.attached);
        rest.unavailable.extend(fetched.unavailable);
    }
    Ok((texts, rest))
}

#[tokio::test]
async fn a_request_is_tried_again_until_it_succeeds() {
    let tries = Arc::new(AtomicUsize::new(0));
    let url = serve({
        let tries = tries.clone();
        move |_| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => answer(503, "busy"),
            1 => {
                let pieces = [Ok(Bytes::from_static(b"{\"update")), Err(std::io::Error::other("cut"))];
                answer(200, Body::from_stream(stream::iter(pieces)))
            }
            _ => info(),
        }
    });
    let info = peer(&format!("{}/db", url.await)).info().await.unwrap();
    assert_eq!((info.instance_start_time.as_str(), info.update_seq.as_json()), ("7", "\"5-x\""));
    assert_eq!(tries.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let tries = Arc::new(AtomicUsize::new(0));
    let url = serve(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => {
            let mut response = answer(429, "");
            response.headers_mut().insert("retry-after", "1".parse().unwrap());
            response
        }
        _ => info(),
    });
    let peer = peer(&url.await);
    let start = std::time::Instant::now();
    peer.info().await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_peer_that_stays_away_is_told_soon_and_without_credentials() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = peer_as("user", &format!("http://{address}/db?key={SECRET}")).info().await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(matches!(error, PeerError::Unreachable { tries: 4, .. }), "{text}");
    assert!(text.contains(&format!("http://{address}/")) && !text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn a_name_without_address_is_told_as_such() {
    let error = peer("http://couchrep.invalid/db").info().await.unwrap_err();
    assert!(matches!(error, PeerError::Unresolved { .. }), "{error:?}");
}

#[tokio::test]
async fn opening_tells_missing_from_forbidden() {
    let url = serve(|seen| match seen.path.as_str() {
        "/missing/" => answer(404, r#"{"error":"not_found","reason":"no_db_file"}"#),
        "/Bad/" => answer(400, r#"{"error":"illegal_database_name"}"#),
        "/there/" => answer(412, r#"{"error":"file_exists"}"#),
        _ => answer(401, ""),
    });
    let url = url.await;
    let at = |path: &str| peer(&format!("{url}/{path}"));
    assert!(
        matches!(at("missing").info().await, Err(PeerError::DatabaseMissing { database }) if database.ends_with("/missing/"))
    );
    assert!(matches!(at("Bad").create(&[]).await, Err(PeerError::DatabaseMissing { .. })));
    assert!(at("there").create(&[]).await.is_ok());
    assert!(matches!(at("secret").info().await, Err(PeerError::Unauthorized { .. })));
    assert!(matches!(at("secret").create(&[]).await, Err(PeerError::Unauthorized { .. })));
}

#[tokio::test]
async fn credentials_follow_a_redirect_within_the_host_only() {
    let tells = |seen: Seen| {
        ok(json!({"update_seq": 1, "instance_start_time": seen.headers.contains_key(AUTHORIZATION).to_string()}))
    };
    let other = serve(tells).await;
    let url = serve(move |seen| match seen.path.as_str() {
        "/near/" => moved(307, "/here/"),
        "/far/" => moved(301, &format!("{other}/here/")),
        "/round/" => moved(302, "/round/"),
        _ => tells(seen),
    });
    let url = url.await;
    let told =
        async |path: &str| peer_as("user", &format!("{url}{path}")).info().await.map(|info| info.instance_start_time);
    assert_eq!(told("/near/").await.unwrap(), "true");
    assert_eq!(told("/far/").await.unwrap(), "false");
    assert!(matches!(told("/round/").await, Err(PeerError::Malformed { .. })));
}

#[tokio::test]
async fn a_redirected_post_keeps_its_body_and_a_moved_database_is_remembered() {
    let asked = Arc::new(AtomicUsize::new(0));
    let url = serve({
        let asked = asked.clone();
        move |seen| match seen.path.strip_prefix("/old/") {
            Some(rest) => {
                asked.fetch_add(1, Ordering::Relaxed);
                moved(301, &format!("/new/{rest}"))
            }
            None => answer(200, seen.body),
        }
    });
    let peer = peer(&format!("{}/old", url.await));
    let change = Change { seq: Seq::from(1), id: DocId::from("a"), revs: vec![rev("1-a")] };
    // The body comes back as the answer, which has the wrong shape: what it was stands in the error.
    for _ in 0..2 {
        let error = peer.revs_diff(std::slice::from_ref(&change)).await.unwrap_err().to_string();
        assert!(error.contains(r#"{"a":["1-a"]}"#), "{error}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn answers_of_another_shape_are_named_with_the_request() {
    let url = serve(|seen| match seen.path.as_str() {
        "/html/" => answer(200, "<html>\n<body>Welcome</body></html>"),
        "/cut/" => answer(200, r#"{"update_seq":"5-"#),
        _ => answer(200, r#"{"couchdb":"Welcome"}"#),
    });
    let url = url.await;
    for (path, found) in [("html", "<html> <body>Welcome"), ("cut", "EOF while parsing"), ("root", "missing field")] {
        let error = peer(&format!("{url}/{path}")).info().await.unwrap_err();
        assert!(matches!(error, PeerError::Malformed { .. }));
        let error = error.to_string();
        assert!(error.starts_with(&format!("GET {url}/{path}/ was answered")) && error.contains(found), "{error}");
    }
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
        ("POST", "/db/_ensure_full_commit") => answer(405, ""),
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
        "/db/_changes?feed=longpoll&style=all_docs&heartbeat=50&limit=2&since=0&filter=d%2Ff&k=a%20b" => {
            assert_eq!(seen.headers["accept-encoding"], "identity");
            let beats =
                stream::iter(["\n", "\n", "\n", "\n", "\n", "{\"results\":[],", "\"last_seq\":9,\"pending\":0}"]);
            let beats = beats.then(|beat| async move {
                tokio::time::sleep(Duration::from_millis(40)).await;
                Ok::<_, std::io::Error>(beat)
            });
            answer(200, Body::from_stream(beats))
        }
        "/db/_changes?feed=longpoll&style=all_docs&heartbeat=50&limit=2&since=0" => {
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
    let query =
        ChangesQuery { since: seq("\"5-x=\""), limit: 2, wait: false, filter: Filter::None, winners_only: false };
    let page = peer.changes(&query).await.unwrap();
    let change = Change { seq: seq("[7,\"o\"]"), id: DocId::from("a"), revs: vec![rev("2-b"), rev("1-a")] };
    assert_eq!((page.changes, page.last_seq, page.pending), (vec![change], seq("[7,\"o\"]"), None));

    let query = ChangesQuery { since: Seq::zero(), ..query };
    let ids = Filter::DocIds(vec![DocId::from("a"), DocId::from("b")]);
    assert!(peer.changes(&ChangesQuery { filter: ids, ..query.clone() }).await.unwrap().changes.is_empty());

    let named = Filter::Named { name: "d/f".into(), query: vec![("k".into(), "a b".into())] };
    let page = peer.changes(&ChangesQuery { wait: true, filter: named, ..query.clone() }).await.unwrap();
    assert_eq!((page.last_seq.as_json(), page.pending), ("9", Some(0)));

    let silent = peer.changes(&ChangesQuery { wait: true, ..query }).await;
    assert!(matches!(silent, Err(PeerError::Broken { .. })), "{silent:?}");
}

#[tokio::test]
async fn missing_revisions_are_asked_of_old_servers_too() {
    let url = serve(|seen| match seen.path.as_str() {
        "/new/_revs_diff" => ok(json!({"b": {"missing": ["2-b"], "possible_ancestors": ["1-b"]}})),
        "/old/_missing_revs" => ok(json!({"missing_revs": {"b": ["2-b"]}})),
        _ => answer(405, r#"{"error":"method_not_allowed"}"#),
    });
    let url = url.await;
    let change = |id: &str, text: &str| Change { seq: Seq::zero(), id: DocId::from(id), revs: vec![rev(text)] };
    let changes = [change("a", "1-a"), change("b", "2-b")];
    let wanted = |atts_since| vec![Wanted { id: DocId::from("b"), revs: vec![rev("2-b")], atts_since }];
    assert_eq!(peer(&format!("{url}/new")).revs_diff(&changes).await.unwrap(), wanted(vec![rev("1-b")]));
    assert_eq!(peer(&format!("{url}/old")).revs_diff(&changes).await.unwrap(), wanted(vec![]));
}

const BULK: &str = r#"{"results": [
    {"id":"a","docs":[{"ok":{"_id":"a","_rev":"1-a","n":1.0,"s":"]}\"ë,","_revisions":{"start":1,"ids":["a"]}}}]},
    {"id":"a","docs":[{"ok":{"_id":"a","_rev":"1-a","n":1.0}}]},
    {"id":"b","docs":[{"ok":{"_rev":"2-b","_id":"b","_revisions":{"start":2,"ids":["b","a"]},"_attachments":{"x":{"stub":true}}}}]},
    {"id":"c","docs":[{"error":{"id":"c","rev":"1-a","error":"not_found","reason":"missing"}}]},
    {"id":"d","docs":[{"error":"forbidden","reason":"no"}]} ]}"#;

#[tokio::test]
async fn bulk_get_is_read_however_it_is_split() {
    let url = serve(|seen| {
        let step: usize = seen.path.split('/').nth(1).unwrap().parse().unwrap();
        let pieces: Vec<_> =
            BULK.as_bytes().chunks(step).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        answer(200, Body::from_stream(stream::iter(pieces)))
    });
    let url = url.await;
    for step in [1, 2, 3, 7, 50, 61, 1000] {
        let peer = peer(&format!("{url}/{step}"));
        let answer = peer.bulk_get(wanted(&["a", "b", "c", "d", "_design/d"])).await.unwrap();
        let (texts, rest) = all(answer).await.unwrap();
        assert_eq!(texts, [r#"{"_id":"a","_rev":"1-a","n":1.0,"s":"]}\"ë,","_revisions":{"start":1,"ids":["a"]}}"#]);
        assert_eq!(rest.attached, [(DocId::from("_design/d"), rev("1-a")), (DocId::from("b"), rev("2-b"))]);
        let reason = |id: &str, reason: &str| (DocId::from(id), rev("1-a"), reason.to_owned());
        assert_eq!(rest.unavailable, [reason("c", "not_found: missing"), reason("d", "forbidden: no")]);
    }
}

#[tokio::test]
async fn what_came_before_a_bulk_get_broke_off_is_given() {
    let url = serve(|_| {
        let cut = BULK.find("{\"id\":\"b\"").unwrap();
        let pieces = [Ok(&BULK.as_bytes()[..cut]), Err(std::io::Error::other("cut"))];
        answer(
            200,
            Body::from_stream(stream::iter(pieces).then(|piece| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                piece
            })),
        )
    });
    let mut answer = peer(&url.await).bulk_get(wanted(&["a", "b"])).await.unwrap();
    assert_eq!(answer.next(1 << 20).await.unwrap().unwrap().docs.docs().len(), 1);
    assert!(matches!(answer.next(1 << 20).await, Err(PeerError::Broken { .. })));
}

#[tokio::test]
async fn a_bulk_get_that_is_cut_or_leaves_something_out_is_malformed() {
    let url = serve(|seen| match seen.path.starts_with("/cut/") {
        true => answer(200, &BULK[..BULK.len() - 3]),
        false => answer(200, r#"{"results":[{"id":"b","docs":[]}]}"#),
    });
    let url = url.await;
    for path in ["cut", "short"] {
        let answer = peer(&format!("{url}/{path}")).bulk_get(wanted(&["a", "b"])).await.unwrap();
        assert!(matches!(all(answer).await, Err(PeerError::Malformed { .. })), "{path}");
    }
}

#[tokio::test]
async fn a_revision_that_an_answer_leaves_out_is_never_taken_for_done() {
    let given = r#"{"ok":{"_id":"a","_rev":"2-b","_revisions":{"start":2,"ids":["b","a"]}}}"#;
    let url = serve(move |seen| match seen.path.as_str() {
        "/bulk/_bulk_get?latest=true&revs=true&attachments=false" => {
            answer(200, format!(r#"{{"results":[{{"id":"a","docs":[{given}]}}]}}"#))
        }
        path if path.starts_with("/single/a?") => answer(200, format!("[{given}]")),
        _ => answer(404, r#"{"error":"not_found","reason":"missing"}"#),
    });
    let url = url.await;
    for path in ["bulk", "single"] {
        let asked = |revs: &[&str]| {
            let revs = revs.iter().map(|text| rev(text)).collect();
            vec![Wanted { id: DocId::from("a"), revs, atts_since: vec![] }]
        };
        let peer = peer(&format!("{url}/{path}"));
        let (texts, _) = all(peer.bulk_get(asked(&["1-a"])).await.unwrap()).await.unwrap();
        assert_eq!(texts.len(), 1, "its descendant came");
        let answer = peer.bulk_get(asked(&["1-a", "1-x"])).await.unwrap();
        assert!(matches!(all(answer).await, Err(PeerError::Malformed { .. })), "{path}");
    }
}

#[tokio::test]
async fn all_leaves_come_where_no_revision_is_named_even_of_design_documents() {
    let doc = r#"{"ok":{"_id":"_design/d","_rev":"1-a"}}"#;
    let url = serve(move |seen| match seen.path.as_str() {
        "/bulk/_bulk_get?latest=true&revs=true&attachments=false" => {
            let missing = r#"{"error":{"id":"no","rev":"undefined","error":"not_found","reason":"missing"}}"#;
            let results = format!(r#"{{"id":"_design/d","docs":[{doc}]}},{{"id":"no","docs":[{missing}]}}"#);
            answer(200, format!(r#"{{"results":[{results}]}}"#))
        }
        "/single/_design/d?revs=true&open_revs=all&latest=true" => answer(200, format!("[{doc}]")),
        _ => answer(404, r#"{"error":"not_found","reason":"missing"}"#),
    });
    let url = url.await;
    for path in ["bulk", "single"] {
        let wanted = |id: &str| Wanted { id: DocId::from(id), revs: vec![], atts_since: vec![] };
        let answer = peer(&format!("{url}/{path}")).bulk_get(vec![wanted("_design/d"), wanted("no")]).await.unwrap();
        let (texts, rest) = all(answer).await.unwrap();
        assert_eq!((texts.len(), rest.unavailable.len()), (0, 0), "{path}");
        assert_eq!(rest.attached, [(DocId::from("_design/d"), rev("1-a"))], "{path}");
    }
}

#[tokio::test]
async fn a_document_that_met_a_clusters_trouble_is_not_refused() {
    let url = serve(|seen| match seen.path.starts_with("/trouble/") {
        true => answer(201, r#"[{"id":"b","rev":"1-a","error":"timeout","reason":"one node"}]"#),
        false => answer(201, r#"[{"id":"b","error":"forbidden","reason":"no"}]"#),
    });
    let url = url.await;
    let troubled = peer(&format!("{url}/trouble")).bulk_docs(batch(&["a", "b"])).await;
    assert!(matches!(troubled, Err(PeerError::Broken { .. })), "{troubled:?}");
    let refused = peer(&format!("{url}/refusing")).bulk_docs(batch(&["a", "b"])).await.unwrap();
    assert_eq!(refused[0].rev, Some(rev("1-a")), "only one revision of it was sent");
}

#[tokio::test]
async fn without_bulk_get_documents_are_fetched_one_by_one() {
    let asked = Arc::new(AtomicUsize::new(0));
    let url = serve({
        let asked = asked.clone();
        move |seen| match seen.path.as_str() {
            "/db/a%2Fb?revs=true&open_revs=%5B%221-a%22%5D&latest=true" => {
                ok(json!([{"ok": {"_id": "a/b", "_rev": "1-a"}}]))
            }
            "/db/c?revs=true&open_revs=%5B%221-a%22%5D&latest=true" => ok(json!([{"missing": "1-a"}])),
            _ => {
                asked.fetch_add(1, Ordering::Relaxed);
                answer(404, r#"{"error":"not_found","reason":"missing"}"#)
            }
        }
    });
    let peer = peer(&format!("{}/db", url.await));
    for _ in 0..2 {
        let (texts, rest) = all(peer.bulk_get(wanted(&["a/b", "c"])).await.unwrap()).await.unwrap();
        assert_eq!(texts, [r#"{"_id":"a/b","_rev":"1-a"}"#]);
        assert_eq!(rest.unavailable, [(DocId::from("c"), rev("1-a"), "missing".into())]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the absence is remembered");
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_and_failures_are_told() {
    let url = serve(|seen| {
        assert!(seen.is("POST /db/_bulk_docs") && seen.headers["x-couch-full-commit"] == "false");
        let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        let ids: Vec<_> = body["docs"].as_array().unwrap().iter().map(|doc| doc["_id"].as_str().unwrap()).collect();
        match ids.as_slice() {
            ids if ids.contains(&"huge") || ids.len() > 2 => answer(413, r#"{"error":"too_large","reason":"huge"}"#),
            ids => ok(ids
                .iter()
                .map(|id| match *id {
                    "bad" => json!({"id": "bad", "rev": "1-a", "error": "forbidden", "reason": "no"}),
                    "pouch" => json!({"id": "pouch", "error": true, "name": "conflict", "reason": {}}),
                    id => json!({"ok": true, "id": id, "rev": "1-a"}),
                })
                .collect()),
        }
    });
    let peer = peer(&format!("{}/db", url.await));
    let refused = peer.bulk_docs(batch(&["a", "b", "bad", "huge", "pouch"])).await.unwrap();
    let told: Vec<_> = refused.iter().map(|refused| (refused.id.as_str(), refused.error.as_str())).collect();
    assert_eq!(told, [("bad", "forbidden"), ("huge", "too_large"), ("pouch", "conflict")]);
    assert!(peer.bulk_docs(DocBatch::default()).await.unwrap().is_empty());
}

#[test]
fn all_operations_may_run_in_tasks() {
    fn sendable<T: Send>(_: impl FnOnce(RemotePeer) -> T) {}
    sendable(|peer| async move { peer.info().await });
    sendable(|peer| async move { peer.bulk_docs(batch(&[])).await });
    sendable(|peer| async move { all(peer.bulk_get(wanted(&[])).await?).await });
    sendable(|peer| async move {
        match peer.open_rev(&DocId::from("a"), &rev("1-a"), &[]).await? {
            Some(doc) => peer.put_doc(doc).await,
            None => Ok(None),
        }
    });
}
