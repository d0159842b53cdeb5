//! Nobody but its owner and admins gets at the credentials of a replicator document, by no route: whatever others ask for, the
//! planted password stands in no answer, be it head or body, and in nothing that they could make of it.

use futures::StreamExt as _;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use serde_json::{Value, json};

use super::{client, server, url};
use crate::support::Server;

const PASSWORD: &str = "pl4nted";

/// The password in every place that couchrep reads one from. It isn't run, and describes what no other one does.
fn document(database: &str) -> Value {
    let object = |url: &str| json!({ "url": url, "headers": { "X-Token": PASSWORD }, "auth": { "bearer": PASSWORD } });
    json!({
        "paused": true,
        "source": object(&format!("http://u:{PASSWORD}@h.invalid/{database}?key={PASSWORD}")),
        "target": format!("http://{PASSWORD}:{PASSWORD}@h.invalid/b#@"),
        "source_proxy": format!("http://u:{PASSWORD}@p.invalid:1"),
        "target_proxy": format!("socks5://u:{PASSWORD}@p.invalid:1"),
        "_attachments": { "a.bin": { "content_type": "application/octet-stream", "data": "aGVsbG8=" } },
    })
}

/// Documents of ann's in one database, with the revisions that they have: one that was changed, one with a conflict, one that
/// was deleted with all that is in it.
async fn plant(server: &Server, db: &str) -> Vec<(String, Vec<String>)> {
    let put = async |path: String, body: Value| {
        let request = client().put(url(server, Some("ann"), &path)).header(CONTENT_TYPE, "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}");
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        answer["rev"].as_str().unwrap().to_owned()
    };
    let mut planted = Vec::new();
    for id in ["changed", "conflict", "deleted"] {
        let database = format!("{}-{id}", db.trim_start_matches('/'));
        let first = put(format!("{db}/{id}"), document(&database)).await;
        let mut next = document(&database);
        next["_rev"] = first.clone().into();
        let second = match id {
            "changed" => put(format!("{db}/{id}"), next).await,
            "deleted" => {
                next["_deleted"] = true.into();
                put(format!("{db}/{id}"), next).await
            }
            _ => {
                next["_rev"] = "1-abc".into();
                next["owner"] = "ann".into();
                server.put(&format!("{db}/{id}?new_edits=false"), next, 201).await["rev"].as_str().unwrap().to_owned()
            }
        };
        planted.push((id.to_owned(), vec![first, second]));
    }
    planted
}

/// Queries that change what a read shows.
fn queries(revs: &[String]) -> Vec<String> {
    let list = format!("[%22{}%22]", revs.join("%22,%22"));
    let mut queries: Vec<_> =
        ["", "revs=true", "revs_info=true", "conflicts=true", "deleted_conflicts=true", "meta=true"]
            .into_iter()
            .chain([
                "local_seq=true",
                "attachments=true",
                "att_encoding_info=true",
                "include_docs=true",
                "open_revs=all",
            ])
            .chain(["include_docs=true&conflicts=true", "style=all_docs&include_docs=true&filter=_design"])
            .map(str::to_owned)
            .collect();
    queries.extend(revs.iter().flat_map(|rev| [format!("rev={rev}"), format!("rev={rev}&latest=true&revs=true")]));
    queries.push(format!("open_revs={list}"));
    queries.push(format!("open_revs={list}&latest=true&attachments=true&revs=true"));
    queries.push(format!("atts_since={list}"));
    queries
}

/// The paths of the table of routes for a database and a document, as the source has them.
fn paths(db: &str, doc: &str) -> Vec<String> {
    let table = include_str!("../../src/http.rs").split("#[cfg(test)]").next().unwrap();
    let paths = table.split('"').skip(1).step_by(2).filter(|text| text.starts_with("/{db}"));
    let fill = |segment: &str| match segment {
        "{db}" => db.trim_start_matches('/').to_owned(),
        "{doc}" => doc.to_owned(),
        "{*attachment}" => "a.bin".to_owned(),
        segment if segment.starts_with('{') => "x".to_owned(),
        segment => segment.to_owned(),
    };
    paths.map(|path| path.split('/').map(fill).collect::<Vec<_>>().join("/")).collect()
}

/// Bodies that name the document, for whoever is asked by `POST` or `PUT`.
fn bodies(doc: &str, revs: &[String]) -> Vec<Value> {
    let rev = &revs[1];
    vec![
        json!({ "docs": [{ "id": doc }, { "id": doc, "rev": rev }], "keys": [doc], "doc_ids": [doc] }),
        json!({ "docs": [{ "_id": doc, "_rev": rev }, { "_id": doc, "_rev": rev, "_deleted": true }] }),
        json!({ "new_edits": false, "docs": [{ "_id": doc, "_rev": "9-abc", "owner": "bob" }] }),
        json!({ doc: revs }),
        json!({ "_id": doc, "_rev": rev, "source": "http://h.invalid/a", "target": "http://h.invalid/b" }),
        json!({ "selector": { "owner": "ann" } }),
    ]
}

/// A request: method, path, what is accepted, and a body, or, as a text, where a copy goes.
type Asked = (&'static str, String, &'static str, Option<Value>);

/// All that is asked of one path.
fn requests(path: &str, doc: &str, revs: &[String]) -> Vec<Asked> {
    let is_document = path.ends_with(doc);
    let mut asked = Vec::new();
    for query in queries(revs).into_iter().filter(|query| is_document || !query.contains("rev")) {
        let path = format!("{path}?{query}");
        asked.push(("GET", path.clone(), "application/json", None));
        if is_document {
            asked.push(("GET", path.clone(), "multipart/mixed", None));
            asked.push(("GET", path.clone(), "multipart/related", None));
            asked.push(("HEAD", path, "*/*", None));
        }
    }
    for (number, rev) in revs.iter().enumerate().filter(|_| is_document) {
        let path = format!("{path}?rev={rev}");
        asked.push(("COPY", path.clone(), "*/*", Some(json!(format!("copy{number}")))));
        asked.push(("COPY", path.clone(), "*/*", Some(json!(format!("_local/copy-{doc}{number}")))));
        asked.push(("DELETE", path, "*/*", None));
    }
    for body in bodies(doc, revs) {
        let query = "include_docs=true&revs=true&conflicts=true";
        asked.push(("POST", format!("{path}?{query}"), "*/*", Some(body.clone())));
        asked.push(("PUT", format!("{path}?rev={}", revs[1]), "*/*", Some(body)));
    }
    asked
}

#[tokio::test]
async fn no_route_shows_others_a_password() {
    let (server, client) = (server().await, client());
    let (server, client) = (&server, &client);
    let (mut count, mut good, mut shown) = (0, 0, Vec::new());
    for db in ["/_replicator", "/t%2F_replicator"] {
        let mut asked = Vec::new();
        for (doc, revs) in plant(server, db).await {
            let mut paths = paths(db, &doc);
            paths.retain(|path| doc == "conflict" || path.contains(&doc));
            asked.extend(paths.iter().flat_map(|path| requests(path, &doc, &revs)));
        }
        let callers = asked.iter().flat_map(|asked| [(asked, Some("bob")), (asked, None)]);
        let answers = callers.map(|((method, path, accept, body), who)| async move {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let mut request = client.request(method, url(server, who, path)).header(ACCEPT, *accept);
            request = match body {
                Some(Value::String(to)) => request.header(HeaderName::from_static("destination"), to),
                Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.to_string()),
                None => request,
            };
            let answer = request.send().await.unwrap();
            let (is_good, head) = (answer.status().is_success(), format!("{:?}", answer.headers()));
            let told = head + &String::from_utf8_lossy(&answer.bytes().await.unwrap());
            (is_good, told.contains(PASSWORD).then(|| format!("{who:?} {path} {accept} {body:?}")))
        });
        let answers = futures::stream::iter(answers).buffer_unordered(8).collect::<Vec<_>>().await;
        count += answers.len();
        good += answers.iter().filter(|(is_good, _)| *is_good).count();
        shown.extend(answers.into_iter().filter_map(|(_, shown)| shown));
        // What bob has made of them, the server admin reads: copies are among the `_local` documents.
        let kept = server.get(&format!("{db}/_local_docs?include_docs=true"), 200).await;
        assert!(kept.to_string().contains("_local/copy-conflict1"), "{kept}");
        shown.extend(Some(kept.to_string()).filter(|kept| kept.contains(PASSWORD)));
    }
    assert!(shown.is_empty(), "{shown:#?}");
    assert!(count > 2000 && good > 300, "{good} of {count}");
}

/// A replication reads for its caller what he may not read himself, and so does a filter function.
#[tokio::test]
async fn no_replication_carries_a_password_to_others() {
    let server = server().await;
    for db in ["_replicator", "t/_replicator"] {
        let path = format!("/{}", db.replace('/', "%2F"));
        plant(&server, &path).await;
        server.put("/bobs", Value::Null, if db == "_replicator" { 201 } else { 412 }).await;
        server.put("/bobs/_security", json!({ "members": { "names": ["bob"] } }), 200).await;
        let by_url = url(&server, Some("bob"), &path);
        for source in [json!(db), json!(by_url)] {
            for more in
                [json!({}), json!({ "doc_ids": ["changed"] }), json!({ "continuous": false, "use_bulk_get": false })]
            {
                let mut job = json!({ "source": source, "target": "bobs" });
                job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let request =
                    client().post(url(&server, Some("bob"), "/_replicate")).header(CONTENT_TYPE, "application/json");
                let answer = request.body(job.to_string()).send().await.unwrap();
                let status = answer.status().as_u16();
                let text = answer.text().await.unwrap();
                assert!(!text.contains(PASSWORD), "{text}");
                // By the ids of documents each is read as bob himself may read it.
                assert!(status == 401 || job.get("doc_ids").is_some(), "{job}: {status} {text}");
            }
        }
    }
    let copied = server.get("/bobs/_all_docs?include_docs=true", 200).await;
    assert!(!copied.to_string().contains(PASSWORD), "{copied}");
}
