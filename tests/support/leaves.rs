//! The leaves of a database, read over HTTP: two databases with equal leaves are replicas of each other.

use futures::{StreamExt, stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::{client, json as ask};

/// Everything that a replication must carry over of one leaf.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// The document's id.
    pub id: String,
    /// The leaf's revision.
    pub rev: String,
    /// Whether it is a deletion.
    pub deleted: bool,
    /// Its ancestors' hashes, newest first, itself included.
    pub path: Vec<String>,
    /// Its members without the underscore fields, as the text that the server sent.
    pub body: String,
    /// Name, media type and base64 data of its attachments, sorted.
    pub attachments: Vec<(String, String, String)>,
}

/// Reads every leaf of the database at `url`, sorted.
pub async fn leaves(url: &str) -> Vec<Leaf> {
    let (client, url) = (client(), url.trim_end_matches('/').to_owned());
    let feed = ask(&client, Method::GET, format!("{url}/_changes?style=all_docs"), None, 200).await;
    let rows = feed["results"].as_array().unwrap().clone();
    let requests = rows.into_iter().map(|row| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let id = row["id"].as_str().unwrap();
            let revs: Vec<_> = row["changes"].as_array().unwrap().iter().map(|change| &change["rev"]).collect();
            let revs = utf8_percent_encode(&serde_json::to_string(&revs).unwrap(), NON_ALPHANUMERIC).to_string();
            let path = path_of(id);
            let query = format!("open_revs={revs}&revs=true&attachments=true");
            let answer = ask(&client, Method::GET, format!("{url}/{path}?{query}"), None, 200).await;
            answer.as_array().unwrap().iter().map(leaf).collect::<Vec<_>>()
        }
    });
    let mut leaves: Vec<_> = stream::iter(requests).buffered(8).concat().await;
    leaves.sort();
    leaves
}

/// The same, read with few requests: for databases where each request costs much, and for the ids `.` and `..`, whose
/// paths a client's URL resolves.
pub async fn leaves_in_bulk(url: &str) -> Vec<Leaf> {
    let leaves = leaves_for_now(&client(), url).await;
    leaves.unwrap_or_else(|answer| panic!("an announced revision is missing: {answer}"))
}

/// The same of a database that others may write to. An error is what was answered of a leaf that is none any more.
pub async fn leaves_for_now(client: &Client, url: &str) -> Result<Vec<Leaf>, Value> {
    let url = url.trim_end_matches('/').to_owned();
    let feed = ask(client, Method::GET, format!("{url}/_changes?style=all_docs"), None, 200).await;
    let rows = feed["results"].as_array().unwrap();
    let changes = |row: &Value| row["changes"].as_array().unwrap().clone();
    let wanted = rows.iter().flat_map(|row| {
        changes(row).into_iter().map(|change| json!({ "id": row["id"], "rev": change["rev"] })).collect::<Vec<_>>()
    });
    let mut leaves = Vec::new();
    for docs in wanted.collect::<Vec<_>>().chunks(200) {
        let url = format!("{url}/_bulk_get?revs=true&attachments=true");
        let answer = ask(client, Method::POST, url, Some(&json!({ "docs": docs })), 200).await;
        let results = answer["results"].as_array().unwrap();
        for found in results.iter().flat_map(|result| result["docs"].as_array().unwrap()) {
            leaves.push(if found["ok"].is_object() { leaf(found) } else { return Err(found.clone()) });
        }
    }
    leaves.sort();
    Ok(leaves)
}

/// An id as a URL has it. CouchDB redirects who encodes the slash after `_design`.
pub fn path_of(id: &str) -> String {
    let encoded = utf8_percent_encode(id, NON_ALPHANUMERIC).to_string();
    encoded.strip_prefix("%5Fdesign%2F").map_or_else(|| encoded.clone(), |name| format!("_design/{name}"))
}

fn leaf(answer: &Value) -> Leaf {
    let doc = answer["ok"].as_object().unwrap_or_else(|| panic!("an announced revision is missing: {answer}"));
    let text = |name: &str| doc[name].as_str().unwrap().to_owned();
    let hashes = doc["_revisions"]["ids"].as_array().unwrap();
    let body: serde_json::Map<_, _> = doc.clone().into_iter().filter(|(name, _)| !name.starts_with('_')).collect();
    let attachments = doc.get("_attachments").and_then(Value::as_object).into_iter().flatten();
    let attachment = |(name, attachment): (&String, &Value)| {
        let text =
            |member: &str| attachment[member].as_str().unwrap_or_else(|| panic!("{member} in {doc:?}")).to_owned();
        (name.clone(), text("content_type"), text("data"))
    };
    let mut attachments: Vec<_> = attachments.map(attachment).collect();
    attachments.sort();
    Leaf {
        id: text("_id"),
        rev: text("_rev"),
        deleted: doc.get("_deleted") == Some(&Value::Bool(true)),
        path: hashes.iter().map(|hash| hash.as_str().unwrap().to_owned()).collect(),
        body: Value::Object(body).to_string(),
        attachments,
    }
}
