//! What databases are filled with: each kind of content as it is written first, and an edit of it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use std::io::Write as _;

use super::rig::Db;

/// Ids that need care in URLs, in JSON or in the order of ids.
const ODD_IDS: [&str; 16] = [
    "with/slash",
    "with space",
    "plus+plus",
    "per%cent",
    "per%2Fcent",
    "question?mark#hash&and=is",
    "quote\"s'and\\backslash",
    "Zürich–東京–🦊",
    "e\u{301} and é",
    "colon:semi;comma,dot.",
    "-dash",
    "~tilde",
    "..",
    "tab\tand\nline",
    "del\u{7f}",
    "_design/odd name/with slash",
];

/// Numbers as CouchDB itself writes them, so that it keeps every digit of them.
const NUMBERS: &str = r#"[0,-1,1.0,0.1,1000.0,1e-7,1e+22,1e+300,3.141592653589793,9007199254740993,
    12345678901234567890123456789,-98765432109876543210]"#;

/// More documents than fit into one batch, with odd ids, numbers and texts.
pub async fn write_documents(db: &Db) {
    let plain =
        (0..700).map(|n| json!({ "_id": format!("doc-{n:04}"), "n": n, "nested": { "list": [n, null, true] } }));
    let odd = ODD_IDS.iter().map(|id| json!({ "_id": id, "name": id }));
    let numbers: Value = serde_json::from_str(NUMBERS).unwrap();
    let special = [
        json!({ "_id": "numbers", "numbers": numbers }),
        json!({ "_id": "texts", "": "no name", "nul": "\u{0}", "separators": "\u{2028}\u{2029}", "fox": "🦊", "é": "e\u{301}" }),
        json!({ "_id": "empty" }),
        json!({ "_id": "large", "text": "pepper ".repeat(150_000) }),
        json!({ "_id": "i".repeat(5000) }),
    ];
    db.write(plain.chain(odd).chain(special).collect()).await;
}

/// Edits some of them, and adds one.
pub async fn edit_documents(db: &Db) {
    for round in 0..3 {
        let ids = [&ODD_IDS[..], &["doc-0001", "doc-0677", "numbers", "texts"]].concat();
        let mut docs = db.docs(&ids).await;
        docs.iter_mut().for_each(|doc| doc["round"] = json!(round));
        docs.push(json!({ "_id": format!("new-{round}") }));
        db.write(docs).await;
    }
}

/// Trees with several leaves, live and deleted, deep and shallow, of one root and of two.
pub async fn write_conflicts(db: &Db) {
    let [a, b, c, d, e, f, g] = ["a", "b", "c", "d", "e", "f", "9"].map(|digit| digit.repeat(32));
    let branch = |id: &str, path: &[&String], rest: Value| {
        let mut doc = json!({ "_id": id, "_revisions": { "start": path.len(), "ids": path } });
        doc["_rev"] = json!(format!("{}-{}", path.len(), path[0]));
        doc.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        doc
    };
    let loser = json!({ "_attachments": { "loser.txt": text("still here") } });
    db.write_revisions(vec![
        branch("conflicted", &[&d, &b, &a], json!({ "winner": true })),
        branch("conflicted", &[&c, &a], loser),
        branch("conflicted", &[&e, &f, &a], json!({ "_deleted": true, "why": "merged" })),
        branch("conflicted", &[&g, &a], json!({ "also": "alive" })),
        branch("two roots", &[&a], json!({ "root": 1 })),
        branch("two roots", &[&b], json!({ "root": 2 })),
        branch("all deleted", &[&b, &a], json!({ "_deleted": true })),
        branch("all deleted", &[&c, &a], json!({ "_deleted": true })),
    ])
    .await;
    let many = (0..60).map(|n| branch("many", &[&format!("{n:032x}"), &a], json!({ "n": n })));
    db.write_revisions(many.collect()).await;
}

/// Resolves a conflict, goes on with a loser, and brings a deleted document back.
pub async fn edit_conflicts(db: &Db) {
    let [c, g] = ["c", "9"].map(|digit| digit.repeat(32));
    db.write(vec![
        json!({ "_id": "conflicted", "_rev": format!("2-{c}"), "_deleted": true }),
        json!({ "_id": "conflicted", "_rev": format!("2-{g}"), "edited": true }),
        json!({ "_id": "all deleted", "back": true }),
    ])
    .await;
}

/// Documents that are deleted: at once, after edits, with a body, and written anew.
pub async fn write_deletions(db: &Db) {
    db.write((0..40).map(|n| json!({ "_id": format!("doc-{n:02}"), "n": n })).collect()).await;
    delete(db, 0..20, false).await;
    let again = (0..5).map(|n| json!({ "_id": format!("doc-{n:02}"), "again": true }));
    db.write(again.collect()).await;
    let root = "a".repeat(32);
    let born_dead = json!({ "_id": "born dead", "_rev": format!("1-{root}"), "_deleted": true, "why": "spam" });
    db.write_revisions(vec![born_dead]).await;
}

/// Deletes more, with a last word in the body.
pub async fn edit_deletions(db: &Db) {
    delete(db, 20..30, true).await;
    delete(db, 0..3, true).await;
}

async fn delete(db: &Db, numbers: std::ops::Range<usize>, with_body: bool) {
    let ids: Vec<_> = numbers.map(|n| format!("doc-{n:02}")).collect();
    let docs = db.docs(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let deleted = docs.into_iter().map(|doc| {
        let mut deleted = if with_body { doc.clone() } else { json!({ "_id": doc["_id"], "_rev": doc["_rev"] }) };
        deleted["_deleted"] = json!(true);
        deleted
    });
    db.write(deleted.collect()).await;
}

/// Attachments: small and large, text that CouchDB stores gzipped, and data that it doesn't.
pub async fn write_attachments(db: &Db) {
    db.write(vec![
        json!({ "_id": "several", "_attachments": {
            "note.txt": text(&"salt\n".repeat(3000)),
            "empty.txt": text(""),
            "empty.bin": data(b""),
            "picture.bin": data(&noise(70_000)),
            "page.html": attachment("text/html; charset=utf-8", "<p>soup</p>".repeat(40_000).as_bytes()),
        }}),
        json!({ "_id": "large one", "_attachments": { "large.bin": data(&noise(3_000_000)) } }),
        json!({ "_id": "_design/attached", "_attachments": { "style.css": attachment("text/css", b"body {}") } }),
    ])
    .await;
    let small = (0..60).map(|n| json!({ "_id": format!("small-{n}"), "_attachments": { "a": data(&noise(500 + n)) } }));
    db.write(small.collect()).await;
}

/// Edits documents and keeps their attachments as stubs; replaces, adds and removes some.
pub async fn edit_attachments(db: &Db) {
    let ids = ["several", "large one", "_design/attached", "small-7"];
    let mut docs = db.docs(&ids).await;
    docs.iter_mut().for_each(|doc| doc["edited"] = json!(true));
    docs[0]["_attachments"]["note.txt"] = text("replaced");
    docs[0]["_attachments"]["added.txt"] = text("added");
    docs[0]["_attachments"].as_object_mut().unwrap().remove("empty.bin");
    db.write(docs).await;
    // Two leaves that both have the attachments of their common ancestor.
    let [doc] = db.docs(&["several"]).await.try_into().unwrap();
    let path = db.get("/several?revs=true").await["_revisions"].clone();
    let (start, newest) = (path["start"].as_u64().unwrap() + 1, "c".repeat(32));
    let mut ids = path["ids"].as_array().unwrap().clone();
    ids.insert(0, json!(newest));
    let mut branch = doc.clone();
    branch["_rev"] = json!(format!("{start}-{newest}"));
    branch["_revisions"] = json!({ "start": start, "ids": ids });
    branch["branch"] = json!(true);
    db.write(vec![doc]).await;
    db.write_revisions(vec![branch]).await;
}

/// An attachment that its client gzipped: a CouchDB counts its length as it came.
pub async fn write_gzipped(db: &Db) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all("gzipped by the client ".repeat(500).as_bytes()).unwrap();
    let put = db.client.put(format!("{}/uploaded/page.txt", db.url)).header("Content-Type", "text/plain");
    let put = put.header("Content-Encoding", "gzip").body(gzip.finish().unwrap());
    assert_eq!(put.send().await.unwrap().status(), 201);
}

/// Keeps it as a stub.
pub async fn edit_gzipped(db: &Db) {
    let mut docs = db.docs(&["uploaded"]).await;
    docs[0]["edited"] = json!(true);
    db.write(docs).await;
}

/// Attachment names that need care in headers, in URLs or in JSON. CouchDB's own replicator dies at one with CR LF.
pub fn odd_names(with_line_ends: bool) -> Vec<String> {
    let names = [
        "quote\"s",
        "back\\slash",
        "\\\"",
        "\"",
        "del\u{7f}",
        "line\nfeed",
        "nul\u{0}",
        "tab\t",
        "dir/slash",
        "..",
        "Menü für 東京 🦊.txt",
        "e\u{301}",
        " lead",
        "trail ",
        "semi;colon=\"x\"",
        "per%41cent",
        "plus+plus",
        "",
        "question?#",
    ];
    let line_end = Some("carriage\r\nreturn").filter(|_| with_line_ends);
    names.into_iter().chain(line_end).map(str::to_owned).chain(["n".repeat(20_000)]).collect()
}

/// A document for each name, text and data in turns, and one that has all of them, large enough to travel on its own.
pub async fn write_odd_names(db: &Db, names: &[String]) {
    let kinds = |n: usize, data_bytes: usize| match n % 2 {
        0 => text(&format!("text {n} ").repeat(30)),
        _ => data(&noise(data_bytes + n)),
    };
    let single = names
        .iter()
        .enumerate()
        .map(|(n, name)| json!({ "_id": format!("name-{n}"), "_attachments": { name: kinds(n, 300) } }));
    let all: Map<_, _> = names.iter().enumerate().map(|(n, name)| (name.clone(), kinds(n, 50_000))).collect();
    let all = json!({ "_id": "all", "_attachments": all });
    db.write(single.chain([all]).collect()).await;
}

/// Keeps all of them as stubs.
pub async fn edit_odd_names(db: &Db) {
    let mut docs = db.docs(&["all", "name-0", "name-1"]).await;
    docs.iter_mut().for_each(|doc| doc["edited"] = json!(true));
    db.write(docs).await;
}

/// A document as deep as this, as text: test clients don't parse so deep.
pub async fn write_deep(db: &Db, depth: usize) {
    let body = format!("{{\"_id\":\"deep-{depth}\",\"deep\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let post = db.client.post(&db.url).header("Content-Type", "application/json").body(body);
    assert_eq!(post.send().await.unwrap().status(), 201);
}

/// Design documents of all kinds, and many plain documents beside them.
pub async fn write_design_documents(db: &Db) {
    db.write(vec![
        json!({ "_id": "_design/recipes", "language": "javascript",
            "views": { "all": { "map": "function (doc) { emit(doc._id); }", "reduce": "_count" } },
            "filters": { "mine": "function (doc, req) { return doc.owner === req.query.owner; }" },
            "validate_doc_update": "function (doc) { if (doc.bad) throw({ forbidden: 'bad' }); }" }),
        json!({ "_id": "_design/with attachment", "_attachments": { "app.js": attachment("text/javascript", &noise(90_000)) } }),
        json!({ "_id": "_design/bare" }),
    ])
    .await;
    db.write((0..50).map(|n| json!({ "_id": format!("beside-{n}") })).collect()).await;
}

/// Edits one, deletes one.
pub async fn edit_design_documents(db: &Db) {
    let mut docs = db.docs(&["_design/recipes", "_design/with attachment", "_design/bare"]).await;
    docs[0]["views"]["owners"] = json!({ "map": "function (doc) { emit(doc.owner); }" });
    docs[1]["edited"] = json!(true);
    docs[2]["_deleted"] = json!(true);
    db.write(docs).await;
}

/// An attachment of a type that CouchDB stores gzipped.
fn text(text: &str) -> Value {
    attachment("text/plain", text.as_bytes())
}

/// An attachment of a type that it stores as it is.
pub fn data(data: &[u8]) -> Value {
    attachment("application/octet-stream", data)
}

fn attachment(content_type: &str, data: &[u8]) -> Value {
    json!({ "content_type": content_type, "data": BASE64_STANDARD.encode(data) })
}

/// Bytes that don't compress well, other ones for each length.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u32 | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
