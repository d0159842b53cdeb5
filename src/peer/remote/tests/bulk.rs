//! Documents in bulk, there and back, and what is asked instead where a peer can't.

use super::*;
use crate::peer::Doubt;

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
        assert_eq!(rest.doubtful, [missing("c")]);
        let why = Why::new("forbidden", "no");
        assert_eq!(rest.refused, [Failure { id: DocId::from("d"), rev: Some(rev("1-a")), why }]);
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
    assert_eq!(answer.next(1 << 20, &mut share()).await.unwrap().unwrap().docs.docs().len(), 1);
    assert!(matches!(answer.next(1 << 20, &mut share()).await, Err(PeerError::Broken { .. })));
}

#[tokio::test]
async fn a_bulk_get_that_is_cut_broke_off_and_one_that_leaves_something_out_is_malformed() {
    let url = serve(|seen| match seen.path.starts_with("/cut/") {
        true => answer(200, &BULK[..BULK.len() - 3]),
        false => answer(200, r#"{"results":[{"id":"b","docs":[]}]}"#),
    });
    let url = url.await;
    let error = async |path: &str| {
        let answer = peer(&format!("{url}/{path}")).bulk_get(wanted(&["a", "b", "c", "d"])).await.unwrap();
        all(answer).await.unwrap_err()
    };
    assert!(matches!(error("cut").await, PeerError::Broken { .. }));
    assert!(matches!(error("short").await, PeerError::Malformed { .. }));
}

#[tokio::test]
async fn a_revision_that_an_answer_leaves_out_is_never_taken_for_done() {
    let given = r#"{"ok":{"_id":"a","_rev":"2-b","_revisions":{"start":2,"ids":["b","a"]}}}"#;
    let url = serve(move |seen| match seen.path.as_str() {
        "/bulk/_bulk_get?latest=true&revs=true&attachments=false&att_encoding_info=true" => {
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
        "/bulk/_bulk_get?latest=true&revs=true&attachments=false&att_encoding_info=true" => {
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
        assert_eq!((texts.len(), rest.doubtful.len()), (0, 0), "{path}");
        assert_eq!(rest.attached, [(DocId::from("_design/d"), rev("1-a"))], "{path}");
    }
}

/// What wasn't asked for was taken, and what was asked for any number of times: one answer filled the memory.
#[tokio::test]
async fn a_bulk_get_without_end_or_of_what_was_not_asked_for_is_malformed() {
    const UNASKED: [&str; 3] = [
        r#"{"id":"x","docs":[{"ok":{"_id":"x","_rev":"1-a"}}]}"#,
        r#"{"id":"a","docs":[{"ok":{"_id":"x","_rev":"1-a"}}]}"#,
        r#"{"id":"x","docs":[]}"#,
    ];
    const ENDLESS: [&str; 5] = [
        r#"{"id":"a","docs":[]}"#,
        r#"{"id":"a","docs":[{"missing":"1-a"}]}"#,
        r##"{"id":"a","docs":[{"error":{"rev":"#-a","error":"too_large","reason":"no"}}]}"##,
        r##"{"id":"a","docs":[{"ok":{"_id":"a","_rev":"#-a","_attachments":{"x":{"stub":true}}}}]}"##,
        r##"{"id":"a","docs":[{"ok":{"_id":"a","_rev":"#-a"}}]}"##,
    ];
    let url = serve(|seen| {
        let (kind, number) = seen.path[1..].split_once('/').unwrap();
        let number: usize = number.split('/').next().unwrap().parse().unwrap();
        if kind == "unasked" {
            return answer(200, format!(r#"{{"results":[{}]}}"#, UNASKED[number]));
        }
        let rows = (1_u64..).map(move |pos| {
            let row = ENDLESS[number].replace('#', &pos.to_string());
            Ok::<_, std::io::Error>(if pos == 1 { format!(r#"{{"results":[{row}"#) } else { format!(",{row}") })
        });
        answer(200, Body::from_stream(stream::iter(rows)))
    });
    let url = url.await;
    let cases = (0..UNASKED.len()).map(|number| ("unasked", number));
    for (kind, number) in cases.chain((0..ENDLESS.len()).map(|number| ("endless", number))) {
        let answer = peer(&format!("{url}/{kind}/{number}")).bulk_get(wanted(&["a"])).await.unwrap();
        let told = all(answer).await.map(drop);
        assert!(matches!(told, Err(PeerError::Malformed { .. })), "{kind} {number}: {told:?}");
    }
}

/// All that an answer told beside documents was gathered before any of it was handed on.
#[tokio::test]
async fn what_is_told_beside_documents_is_handed_on_before_the_end() {
    let ids: Vec<_> = (0..3000).map(|number| number.to_string()).collect();
    let rows = ids.iter().map(|id| format!(r#"{{"id":"{id}","docs":[{{"missing":"1-a"}}]}}"#));
    let results = format!(r#"{{"results":[{}]}}"#, rows.collect::<Vec<_>>().join(","));
    let url = serve(move |_| answer(200, results.clone())).await;
    let wanted = wanted(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let mut answer = peer(&url).bulk_get(wanted).await.unwrap();
    let (mut share, mut parts) = (share(), Vec::new());
    while let Some(fetched) = answer.next(1 << 20, &mut share).await.unwrap() {
        parts.push(fetched.doubtful.len());
    }
    assert_eq!(parts, [1000, 1000, 1000]);
}

/// With all leaves asked for there is no revision to be named as unavailable: such a document was passed over.
#[tokio::test]
async fn a_document_that_gives_no_leaves_is_passed_over_only_where_it_does_not_exist() {
    let url = serve(|seen| {
        if seen.is("GET /db/forbidden/") {
            return info();
        }
        let word = seen.path.split('/').rev().nth(1).unwrap();
        let error = json!({"id": "a", "rev": "undefined", "error": word, "reason": "why"});
        ok(json!({"results": [{"id": "a", "docs": [{"error": error}]}]}))
    });
    let url = url.await;
    let told = async |word: &str| {
        let wanted = Wanted { id: DocId::from("a"), revs: vec![], atts_since: vec![] };
        all(peer(&format!("{url}/{word}")).bulk_get(vec![wanted]).await.unwrap()).await
    };
    assert!(told("not_found").await.unwrap().1.is_empty());
    assert_eq!(told("timeout").await.unwrap().1.doubtful[0].blame, Blame::Passing);
    assert!(
        matches!(told("forbidden").await, Err(PeerError::Malformed { .. })),
        "nor does it let us read the database"
    );
    let (_, rest) = told("db/forbidden").await.unwrap();
    assert_eq!((rest.refused[0].rev.as_ref(), rest.refused[0].why.error.as_str()), (None, "forbidden"));
}

#[tokio::test]
async fn a_document_that_met_a_clusters_trouble_is_not_refused() {
    let url = serve(|seen| match seen.path.starts_with("/trouble/") {
        true => answer(201, r#"[{"id":"b","rev":"1-a","error":"timeout","reason":"one node"}]"#),
        false => answer(201, r#"[{"id":"b","error":"forbidden","reason":"no"}]"#),
    });
    let url = url.await;
    let troubled = peer(&format!("{url}/trouble")).bulk_docs(batch(&["a", "b"])).await;
    assert_eq!(troubled.unwrap().doubtful[0].blame, Blame::Passing);
    let refused = peer(&format!("{url}/refusing")).bulk_docs(batch(&["a", "b"])).await.unwrap().refused;
    assert_eq!(refused[0].rev, Some(rev("1-a")), "only one revision of it was sent");
}

/// Such a row tells which revision stands in the way. The one that was sent counted as written, and was asked for no more.
#[tokio::test]
async fn a_row_that_tells_a_revision_that_was_not_sent_is_about_the_one_that_was() {
    let url = serve(|_| answer(201, r#"[{"id":"b","rev":"3-theirs","error":"forbidden","reason":"no"}]"#)).await;
    let refused = peer(&format!("{url}/db")).bulk_docs(batch(&["a", "b"])).await.unwrap().refused;
    assert_eq!(refused[0].rev, Some(rev("1-a")));
}

/// A cluster whose nodes are down answers so, and its rows name no documents: that is its trouble, whatever the
/// status, and no document's.
#[tokio::test]
async fn a_cluster_that_fails_row_by_row_is_in_trouble_and_nothing_was_written() {
    let rows =
        r#"[{"error":"error","reason":"internal_server_error"},{"error":"error","reason":"internal_server_error"}]"#;
    let named =
        r#"[{"id":"a","rev":"1-a","error":"internal_server_error","reason":"nodes are down"},{"id":"b","ok":true}]"#;
    let url = serve(move |seen| match seen.path.split('/').nth(1).unwrap() {
        "500" => answer(500, rows),
        "201" => answer(201, rows),
        _ => answer(201, named),
    });
    let url = url.await;
    let told = async |path: &str| peer(&format!("{url}/{path}")).bulk_docs(batch(&["a", "b"])).await;
    assert_eq!(told("500").await.unwrap_err().blame(), Blame::Passing);
    assert!(matches!(told("201").await, Err(PeerError::Malformed { .. })), "nobody knows whose rows they are");
    let Written { refused, doubtful } = told("named").await.unwrap();
    let doubtful: Vec<_> = doubtful.iter().map(|doubt| (doubt.failure.id.as_str(), doubt.blame)).collect();
    assert_eq!((refused, doubtful), (Vec::new(), vec![("a", Blame::Passing)]));
}

/// What says neither that a document is there, nor why it isn't, says nothing of it.
#[tokio::test]
async fn rows_that_say_nothing_are_no_success() {
    let url = serve(|seen| match seen.path.split('/').nth(1).unwrap() {
        "row" => answer(201, "[{}]"),
        "null" => answer(201, r#"[{"id":null,"error":null}]"#),
        "rows" => answer(201, r#"[{"ok":true,"id":"a"},{"ok":false}]"#),
        "denied" => answer(201, r#"[{"id":"a","ok":false}]"#),
        "status" => answer(201, r#"[{"id":"a","status":409}]"#),
        "failed" => answer(500, "[{}]"),
        "object" => answer(201, "{}"),
        "results" => answer(200, r#"{"results":[{}]}"#),
        "result" => answer(200, r#"{"results":[{"id":"a"}]}"#),
        "docs" => answer(200, r#"{"results":[{"id":"a","docs":[{}]}]}"#),
        "ok" => answer(200, r#"{"results":[{"id":"a","docs":[{"ok":null}]}]}"#),
        "empty" => answer(200, r#"{"results":[{"id":"a","docs":[{"ok":{}}]}]}"#),
        "none" => answer(200, r#"{"results":[]}"#),
        _ => answer(200, "{}"),
    });
    let url = url.await;
    for path in ["row", "null", "rows", "denied", "status", "failed", "object"] {
        let written = peer(&format!("{url}/{path}")).bulk_docs(batch(&["a", "b"])).await;
        assert!(written.is_err(), "{path}: {written:?}");
    }
    for path in ["results", "result", "docs", "ok", "empty", "none", "nothing"] {
        let answer = peer(&format!("{url}/{path}")).bulk_get(wanted(&["a"])).await;
        let fetched = match answer {
            Ok(answer) => all(answer).await.map(drop),
            Err(error) => Err(error),
        };
        assert!(fetched.is_err(), "{path}: taken for an answer");
    }
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
        assert_eq!(rest.doubtful, [missing("c")]);
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
    let Written { refused, doubtful } = peer.bulk_docs(batch(&["a", "b", "bad", "huge", "pouch"])).await.unwrap();
    let told: Vec<_> = refused.iter().map(|refused| (refused.id.as_str(), refused.why.error.as_str())).collect();
    assert_eq!(told, [("bad", "forbidden"), ("huge", "too_large")]);
    // Nobody knows what a conflict means where no edit is checked.
    assert_eq!((doubtful[0].failure.id.as_str(), doubtful[0].blame), ("pouch", Blame::Unclear { worded: true }));
    assert_eq!(peer.bulk_docs(DocBatch::default()).await.unwrap(), Written::default());
}

fn missing(id: &str) -> Doubt {
    Doubt::missing(DocId::from(id), rev("1-a"))
}
