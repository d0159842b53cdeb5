//! Who may write and read replicator documents, beside a CouchDB 3.5.0: `data/replicator-docs.txt` has its answers to
//! writers by writes and readers by ways to read. Answers are the same here, revisions and all, or the difference stands in
//! [`DIFFERENT`] with its reason.
//!
//! Answers were recorded by a script that sent these requests one after the other and wrote down what came back. To ask again:
//! start a CouchDB as the file's head says, and send it the lines.

mod secrecy;
mod rules;

use reqwest::header::{ACCEPT, CONTENT_TYPE, ETAG};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::support::{Server, client};

/// What is otherwise here.
enum Ours {
    /// The status, with words of ours.
    Status(u16),
    /// The words of a refusal, where CouchDB tells of its insides.
    Words,
    /// Words of ours where CouchDB's are readable too.
    Reason(&'static str),
    /// What a document shows.
    Shown,
    /// It is closed to all but server admins.
    Closed,
}

use Ours::{Closed, Reason, Shown, Status, Words};

/// By who asks, method and path, in which a `*` stands for any text: what is otherwise, and why.
const DIFFERENT: &[(&str, Ours, &str)] = &[
    ("root PUT /_replicator/bad-*", Words, "no answer is an Erlang term"),
    ("bob * /_replicator/change-bob-*", Status(403), "what is replaced is ann's, whatever takes its place"),
    ("bob * /_replicator/delete*-bob*", Status(403), "what is deleted is ann's"),
    ("bob PUT /_replicator/odd", Status(403), "what is replaced isn't bob's"),
    ("* PUT /_replicator/rep-*?new_edits=false", Status(403), "only admins bring conflicts"),
    (
        "dba PUT /_replicator/new-dba-*",
        Status(403),
        "a replication has its owner's rights, which a database's admin hasn't",
    ),
    ("dba PUT /_replicator/change-dba-hers", Status(403), "nor may he have others' replications do something else"),
    ("dba COPY /_replicator/copied-dba", Status(403), "nor have them once more"),
    ("* POST /_replicator/_bulk_docs", Status(201), "of many documents only those are refused that must be"),
    ("root PUT /_replicator/bad-6", Reason("Missing replicator database"), "an empty name is none"),
    ("root PUT /_replicator/bad-11", Status(201), "databases of this server have names"),
    ("root PUT /_replicator/bad-1*", Reason("no database can be called `"), "which not every text can be"),
    ("root PUT /_replicator/bad-13", Reason("endpoint has an invalid url"), "and a URL is none"),
    ("root PUT /_replicator/bad-15", Status(403), "a URL has a host"),
    ("root PUT /_replicator/bad-22", Status(403), "a name needs a password"),
    ("root PUT /_replicator/bad-29", Status(403), "`use_checkpoints` is a boolean"),
    ("root PUT /_replicator/bad-32", Status(403), "a document that only cancels is no replication"),
    ("root PUT /_replicator/bad-35", Status(201), "`id` means something to cancels only"),
    ("root PUT /_replicator/bad-51", Status(403), "a seq is no object"),
    ("root PUT /_replicator/bad-53", Status(403), "nothing would be done"),
    ("root PUT /_replicator/bad-56", Status(403), "nothing would be done"),
    ("root PUT /_replicator/bad-64", Reason("parameter `source_proxy` must be a string"), "it says which field"),
    ("root PUT /_replicator/bad-67", Status(201), "`user_ctx` means nothing: a replication has its owner's rights"),
    ("* PUT /_replicator/state-*", Status(403), "a person doesn't write what the replicator writes"),
    ("bob GET /_replicator/delete-*", Shown, "CouchDB gives a deletion a `source` and a `target` called `undefined`"),
    ("bob * /*/read-object-url", Shown, "CouchDB shows the password of a URL within an object"),
    ("bob * /*/read-proxy", Shown, "CouchDB shows the password of a proxy"),
    ("* GET /*/old?rev=*", Status(404), "bodies of leaves alone are stored"),
    ("* POST /_replicator/_purge", Closed, "couchrep asks for a server admin first, as everywhere"),
    ("* POST /_replicator/_compact", Closed, "couchrep asks for an admin of the database, as everywhere"),
    ("* PUT /*/_security", Status(403), "CouchDB refuses too, with the words `no_majority`"),
    ("* PUT /*/_revs_limit", Status(403), "CouchDB refuses too, with the words `badmatch`"),
    (
        "* /_replicator/_*",
        Closed,
        "all that lists documents is for server admins, not `_all_docs` and `_changes` alone",
    ),
    ("bob * /t%2F_replicator/_*", Status(401), "all that lists documents of a replicator database is for its admins"),
];

/// A server with the people and databases of the file's head.
async fn server() -> Server {
    let server = Server::with_admin_and("root", "hunter2", |config| {
        config.auth.iterations = std::num::NonZeroU32::MIN;
        // States would be written between.
        config.replicator.run_documents = false;
    });
    let server = server.await;
    for name in ["ann", "bob", "dba", "eve"] {
        let doc = json!({ "name": name, "password": "pw", "roles": [], "type": "user" });
        server.put(&format!("/_users/org.couchdb.user:{name}"), doc, 201).await;
    }
    let security =
        json!({ "admins": { "names": ["dba"], "roles": [] }, "members": { "names": ["ann", "bob"], "roles": [] } });
    for (name, is_there) in [("_replicator", true), ("t%2F_replicator", false), ("plain", false)] {
        server.put(&format!("/{name}"), Value::Null, if is_there { 412 } else { 201 }).await;
        server.put(&format!("/{name}/_security"), security.clone(), 200).await;
    }
    server
}

/// The URL of a path as somebody asks for it.
fn url(server: &Server, who: Option<&str>, path: &str) -> String {
    match who {
        None => server.anonymous_url(path),
        Some("root") => server.url(path),
        Some(name) => server.anonymous_url(path).replace("http://", &format!("http://{name}:pw@")),
    }
}

/// What was answered.
struct Answer {
    status: u16,
    etag: Option<String>,
    text: String,
}

/// Sends a line's request.
async fn ask(client: &Client, server: &Server, line: &Value) -> Answer {
    let path = line["path"].as_str().unwrap();
    let method = Method::from_bytes(line["method"].as_str().unwrap().as_bytes()).unwrap();
    let mut request = client.request(method, url(server, line["as"].as_str(), path));
    for (name, value) in line["headers"].as_object().into_iter().flatten() {
        request = request.header(name, value.as_str().unwrap());
    }
    if let Some(body) = line.get("body") {
        if line["headers"].get("Content-Type").is_none() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request = request.body(body.to_string());
    }
    if line.get("multipart").is_some() {
        let kind = if path.contains("open_revs") { "multipart/mixed" } else { "multipart/related" };
        request = request.header(ACCEPT, kind);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let etag = answer.headers().get(ETAG).map(|etag| etag.to_str().unwrap().to_owned());
    Answer { status, etag, text: answer.text().await.unwrap() }
}

/// The JSON texts between a multipart answer's boundaries.
fn parts(text: &str) -> Value {
    text.split("\r\n\r\n").filter_map(|part| serde_json::from_str::<Value>(part.split("\r\n").next()?).ok()).collect()
}

/// What is otherwise than CouchDB's answer in this line; `None` if nothing is.
fn difference(line: &Value, answer: &Answer) -> Option<String> {
    let theirs = line["status"].as_u64().unwrap() as u16;
    if theirs != answer.status {
        return Some(format!("{theirs}, here {} {}", answer.status, answer.text.trim()));
    }
    if line.get("etag").is_some_and(|theirs| theirs.as_str() != answer.etag.as_deref()) {
        return Some(format!("ETag {}, here {:?}", line["etag"], answer.etag));
    }
    if let Some(multipart) = line.get("multipart") {
        let found = parts(&answer.text);
        return (found != *multipart).then(|| format!("{multipart}, here {found}"));
    }
    let theirs = line.get("answer")?;
    let ours = serde_json::from_str(&answer.text).unwrap_or_else(|_| json!({ "text": answer.text }));
    (*theirs != ours).then(|| format!("{theirs}, here {ours}"))
}

#[tokio::test]
async fn writers_and_readers_are_answered_as_couchdb_answers_them() {
    let (server, client) = (server().await, client());
    let lines = include_str!("data/replicator-docs.txt").lines().filter(|line| !line.starts_with('#'));
    let (mut unexplained, mut needed, mut count) = (Vec::new(), vec![false; DIFFERENT.len()], 0);
    for line in lines.map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        count += 1;
        let answer = ask(&client, &server, &line).await;
        let Some(difference) = difference(&line, &answer) else { continue };
        let who = line["as"].as_str().unwrap_or("nobody");
        let asked = format!("{who} {} {}", line["method"].as_str().unwrap(), line["path"].as_str().unwrap());
        let explained = |(pattern, ours, _): &(&str, Ours, &str)| {
            matches(pattern, &asked)
                && match ours {
                    Status(status) => answer.status == *status,
                    Words => {
                        line["status"] == answer.status && line["answer"]["reason"].as_str().unwrap().starts_with('{')
                    }
                    Reason(words) => answer.status == 403 && answer.text.contains(words),
                    Shown => line["status"] == answer.status,
                    Closed => answer.status == 401 && who != "root",
                }
        };
        match DIFFERENT.iter().position(explained) {
            Some(place) => needed[place] = true,
            None => unexplained.push(format!("{asked} {}: CouchDB {difference}", line["body"])),
        }
    }
    assert!(unexplained.is_empty(), "{} of {count}: {unexplained:#?}", unexplained.len());
    let needless: Vec<_> = DIFFERENT.iter().zip(needed).filter(|(_, needed)| !needed).map(|(line, _)| line.0).collect();
    assert!(needless.is_empty(), "these are no longer different: {needless:?}");
    assert!(count > 800, "{count}");
}

/// Whether a text is what a pattern says, in which each `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text
            .strip_prefix(start)
            .is_some_and(|text| (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))),
    }
}
