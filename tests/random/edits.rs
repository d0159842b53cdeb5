//! Random edits, and what of them a database has promised to keep.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::support::Leaf;

/// Few, so that both sides edit the same ones; and as odd as ids may be.
const IDS: [&str; 12] =
    ["a", "b", "c d", "e/f", "g+h", "i%20j", "ü", "日本", "k?l#m&n=o", "p\"q\\r", ".s", "_design/t"];
/// Names that break headers, paths and quotes.
const ODD_NAMES: [&str; 8] = ["a\"b", "c\\d", "e\r\nf", "\u{7f}", "g\n", " h ", "i%2Fj", "k;l=\"m\""];
const TYPES: [&str; 4] = ["text/plain", "application/json", "image/png", "application/octet-stream"];

/// A revision that a database took, and has answered so.
#[derive(Debug, Clone)]
pub struct Kept {
    pub id: String,
    pub rev: String,
    /// The member `token` of its body; `None` for a deletion without a body.
    pub token: Option<String>,
    /// Its attachments' names and base64, where all of them were sent with it.
    pub attachments: Option<Vec<(String, String)>>,
}

/// Somebody who edits one database.
pub struct Editor {
    pub rng: StdRng,
    pub client: Client,
    /// The database's, without a slash at the end.
    pub url: String,
    /// Whether the database's server is killed: then only what it was asked to sync is promised.
    pub mortal: bool,
    /// Whether there are any edits.
    pub edits: bool,
    /// Whether the edit in hand is to be synced.
    pub synced: bool,
    /// The same for all editors of a run: a revision written as it is has one content, wherever it is written.
    pub run: u64,
}

impl Editor {
    /// Does one thing, if the database can be reached; what it has taken.
    pub async fn edit(&mut self) -> Vec<Kept> {
        let id = (*IDS.choose(&mut self.rng).unwrap()).to_owned();
        self.synced = self.rng.random_bool(0.8);
        let taken = match self.rng.random_range(0..10) {
            0..=3 => self.put(id).await,
            4 => self.delete(id).await,
            5 | 6 => self.write_revision(id).await,
            7 => self.put_attachment(id).await,
            8 => self.put_several().await,
            _ => self.put_local().await,
        };
        if self.synced || !self.mortal { taken } else { Vec::new() }
    }

    /// Creates the document or goes on from its winner, its attachments kept, replaced or left out.
    async fn put(&mut self, id: String) -> Vec<Kept> {
        let (token, winner) = (self.token(), self.winner(&id).await);
        let mut doc = json!({"token": token, "body": self.value(4)});
        let mut attachments = Some(Vec::new());
        if let Some(winner) = winner {
            doc["_rev"] = winner["_rev"].clone();
            if self.rng.random_bool(0.7) && winner.get("_attachments").is_some() {
                doc["_attachments"] = winner["_attachments"].clone();
                attachments = None;
            }
        }
        let old_revpos = doc["_attachments"]["one.txt"]["revpos"].clone();
        let odd = *ODD_NAMES.choose(&mut self.rng).unwrap();
        for name in ["one.txt", "two/ä.png", odd] {
            let replaced = name == "one.txt" && !old_revpos.is_null();
            if self.rng.random_bool(if replaced { 0.6 } else { 0.2 }) {
                let data = STANDARD.encode(self.bytes());
                let content_type = *TYPES.choose(&mut self.rng).unwrap();
                doc["_attachments"][name] = json!({"content_type": content_type, "data": data});
                // As clients do that read a document, change an attachment's data, and send the rest as it was.
                if replaced {
                    doc["_attachments"][name]["revpos"] = old_revpos.clone();
                }
                attachments.iter_mut().for_each(|sent| sent.push((name.to_owned(), data.clone())));
            }
        }
        let answer = self.ask(Method::PUT, &path(&id), Some(doc.to_string().into())).await;
        kept(answer, id, Some(token), attachments)
    }

    async fn delete(&mut self, id: String) -> Vec<Kept> {
        let Some(winner) = self.winner(&id).await else { return Vec::new() };
        let rev = winner["_rev"].as_str().unwrap();
        let answer = self.ask(Method::DELETE, &format!("{}?rev={rev}", path(&id)), None).await;
        kept(answer, id, None, Some(Vec::new()))
    }

    /// Writes a revision as it is, of a tree that all editors of the run grow: conflicts, deletions.
    async fn write_revision(&mut self, id: String) -> Vec<Kept> {
        let (mut hashes, mut way) = (Vec::new(), format!("{}/{id}", self.run));
        for _ in 0..self.rng.random_range(1..6) {
            way.push(if self.rng.random_bool(0.3) { '1' } else { '0' });
            hashes.insert(0, hex::encode(md5(&way)));
        }
        let (start, token) = (hashes.len(), hashes[0].clone());
        let sum: u32 = token.bytes().map(u32::from).sum();
        let mut doc = json!({"_id": id, "token": token, "_deleted": sum.is_multiple_of(4)});
        let mut attachments = Vec::new();
        if sum.is_multiple_of(3) {
            let data = STANDARD.encode(token.repeat(sum as usize % 90));
            let content_type = TYPES[sum as usize % TYPES.len()];
            doc["_attachments"] = json!({"tree.bin": {"content_type": content_type, "data": data, "revpos": start}});
            attachments.push(("tree.bin".to_owned(), data));
        }
        doc["_revisions"] = json!({"start": start, "ids": hashes});
        let body = json!({"new_edits": false, "docs": [doc]}).to_string();
        match self.ask(Method::POST, "_bulk_docs", Some(body.into())).await {
            Some(rows) if rows.as_array().is_some_and(Vec::is_empty) => {
                let rev = format!("{start}-{token}");
                vec![Kept { id, rev, token: Some(token), attachments: Some(attachments) }]
            }
            _ => Vec::new(),
        }
    }

    async fn put_attachment(&mut self, id: String) -> Vec<Kept> {
        let Some(winner) = self.winner(&id).await else { return Vec::new() };
        let path = format!("{}/three.txt?rev={}", path(&id), winner["_rev"].as_str().unwrap());
        let bytes = self.bytes();
        let answer = self.ask(Method::PUT, &path, Some(bytes)).await;
        kept(answer, id, winner["token"].as_str().map(str::to_owned), None)
    }

    async fn put_several(&mut self) -> Vec<Kept> {
        let tokens: Vec<_> = (0..self.rng.random_range(1..20)).map(|_| self.token()).collect();
        let docs: Vec<_> = tokens.iter().map(|token| json!({"_id": token, "token": token})).collect();
        let answer = self.ask(Method::POST, "_bulk_docs", Some(json!({ "docs": docs }).to_string().into())).await;
        let rows = answer.and_then(|rows| rows.as_array().cloned()).unwrap_or_default();
        let row = |(row, token): (Value, String)| kept(Some(row), token.clone(), Some(token), Some(Vec::new()));
        rows.into_iter().zip(tokens).flat_map(row).collect()
    }

    /// A document that stays where it is.
    async fn put_local(&mut self) -> Vec<Kept> {
        let body = json!({"token": self.token()}).to_string();
        self.ask(Method::PUT, "_local/own", Some(body.into())).await;
        Vec::new()
    }

    async fn winner(&self, id: &str) -> Option<Value> {
        self.ask(Method::GET, &path(id), None).await
    }

    /// The answer to a request that succeeded.
    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Option<Value> {
        let synced = if self.synced { "true" } else { "false" };
        let mut request = self.client.request(method, format!("{}/{path}", self.url));
        request = request.header("x-couch-full-commit", synced);
        if let Some(body) = body {
            let content_type = if path.contains("three.txt") { "text/plain" } else { "application/json" };
            request = request.header("content-type", content_type).body(body);
        }
        let unless_gone = |error: reqwest::Error| assert!(!error.is_timeout(), "no answer: {error}");
        let answer = request.send().await.map_err(unless_gone).ok()?;
        let success = answer.status().is_success();
        let text = answer.text().await.map_err(unless_gone).ok()?;
        success.then(|| serde_json::from_str(&text).unwrap())
    }

    fn token(&mut self) -> String {
        format!("{:016x}", self.rng.next_u64())
    }

    /// Any JSON value, at most so many levels deep.
    fn value(&mut self, depth: u32) -> Value {
        let atoms = [
            "null",
            "true",
            "\"\"",
            "\"\\u0000😀\\\"\"",
            "-0",
            "1.0",
            "1E+300",
            "123456789012345678901234567890",
            "{}",
        ];
        match self.rng.random_range(0..4) {
            0 if depth > 0 => (0..3).map(|_| self.value(depth - 1)).collect(),
            1 if depth > 0 => ["", "a b", "Ω"].map(|key| (key.to_owned(), self.value(depth - 1))).into_iter().collect(),
            _ => serde_json::from_str(atoms.choose(&mut self.rng).unwrap()).unwrap(),
        }
    }

    /// Some bytes, rarely many; half of them go well through a compressor.
    fn bytes(&mut self) -> Vec<u8> {
        let length = if self.rng.random_bool(0.2) { 40_000 } else { 400 };
        let mut bytes = vec![b'x'; self.rng.random_range(0..length)];
        if self.rng.random_bool(0.5) {
            self.rng.fill_bytes(&mut bytes);
        }
        bytes
    }
}

fn kept(
    answer: Option<Value>,
    id: String,
    token: Option<String>,
    attachments: Option<Vec<(String, String)>>,
) -> Vec<Kept> {
    let rev = answer.as_ref().and_then(|answer| answer.get("rev")).and_then(Value::as_str).map(str::to_owned);
    rev.map(|rev| Kept { id, rev, token, attachments }).into_iter().collect()
}

fn path(id: &str) -> String {
    match id.strip_prefix("_design/") {
        Some(name) => format!("_design/{name}"),
        None => utf8_percent_encode(id, NON_ALPHANUMERIC).to_string(),
    }
}

fn md5(text: &str) -> [u8; 16] {
    use md5::Digest as _;
    md5::Md5::digest(text).into()
}

/// Checks that a revision that was acknowledged is there: as a leaf with its content, or as a leaf's ancestor.
pub fn check(kept: &Kept, leaves: &[Leaf]) -> Result<(), String> {
    let of_document: Vec<_> = leaves.iter().filter(|leaf| leaf.id == kept.id).collect();
    let (start, hash) = kept.rev.split_once('-').unwrap();
    if let Some(leaf) = of_document.iter().find(|leaf| leaf.rev == kept.rev) {
        let body: Value = serde_json::from_str(&leaf.body).unwrap();
        if body["token"].as_str() != kept.token.as_deref() {
            return Err(format!("another body: {leaf:?}"));
        }
        let sent = kept.attachments.as_ref().map(|sent| sent.iter().cloned().collect::<BTreeMap<_, _>>());
        let found: BTreeMap<_, _> =
            leaf.attachments.iter().map(|(name, _, data)| (name.clone(), data.clone())).collect();
        return if sent.is_none_or(|sent| sent == found) {
            Ok(())
        } else {
            Err(format!("other attachments: {leaf:?}"))
        };
    }
    let known: BTreeSet<_> = of_document.iter().flat_map(|leaf| ancestors(leaf)).collect();
    match known.contains(&(start.parse().unwrap(), hash)) {
        true => Ok(()),
        false => Err(format!("a revision is lost, there are {of_document:?}")),
    }
}

/// A leaf's revisions: generation and hash.
pub fn ancestors(leaf: &Leaf) -> impl Iterator<Item = (usize, &str)> {
    let start: usize = leaf.rev.split_once('-').unwrap().0.parse().unwrap();
    leaf.path.iter().enumerate().map(move |(back, hash)| (start - back, hash.as_str()))
}
