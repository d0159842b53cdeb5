//! Draws requests: what clients of CouchDB send, and what nobody should.
//!
//! Not drawn, since they aren't passed on or can't be compared:
//! - `_replicate`, `_active_tasks`, `_scheduler/jobs`, `_metrics`: they are ours.
//! - What isn't HTTP/1 (no method, no version, a header without a name, two lengths): hyper answers 400, as mochiweb does in its words.
//! - `Transfer-Encoding: Chunked`: how a body is framed is settled on each side, and CouchDB knows it in small letters only.
//! - `#` and what comes after it, which no client sends and we don't pass on.
//! - HTTP/1.0 without `Host`: CouchDB answers some of that with nothing; through us it has a `Host`.
//! - `PUT` of attachments: CouchDB draws the revision.
//! - Feeds that wait for long, and what changes by itself (`_stats`, `_system`, `_db_updates`, `_uuids`, a view's `_info` and `update=false`).
//! - What changes settings or users: they are one for both databases.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

/// One request or several, to be sent over one connection at once.
pub struct Drawn {
    requests: Vec<Vec<u8>>,
    /// Which of them are HEAD.
    pub heads: Vec<bool>,
    /// The client closes its half after them.
    pub ends: bool,
}

impl Drawn {
    /// As they are sent to a database.
    pub fn bytes(&self, db: &str) -> Vec<u8> {
        let whole = self.requests.concat();
        let mut bytes = Vec::new();
        let mut rest = whole.as_slice();
        while let Some(at) = rest.windows(DB.len()).position(|found| found == DB) {
            bytes.extend_from_slice(&rest[..at]);
            bytes.extend_from_slice(db.as_bytes());
            rest = &rest[at + DB.len()..];
        }
        bytes.extend_from_slice(rest);
        bytes
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.requests.concat()).chars().take(2000).collect()
    }
}

/// Stands for the database's name, which is as long as the other one's.
const DB: &[u8] = b"{db}";

/// A revision that a document of the content has.
fn first_rev(number: usize) -> String {
    format!("1-{:032x}", number + 1)
}

/// What both databases have: revisions are given, so that they are the same.
pub fn content() -> Value {
    let mut docs: Vec<Value> = (0..DOCS)
        .map(|number| {
            let text = "ü€😀\"<>\\ ".repeat(number);
            json!({ "_id": format!("doc{number}"), "_rev": first_rev(number), "n": number, "text": text, "big": 12345678901234567890_u64 })
        })
        .collect();
    docs.push(json!({ "_id": "a/b c+d", "_rev": first_rev(90), "odd": true }));
    docs.push(json!({ "_id": "gone", "_rev": first_rev(91), "_deleted": true }));
    for number in [92, 93] {
        docs.push(json!({ "_id": "conflict", "_rev": first_rev(number), "n": number }));
    }
    docs.push(json!({ "_id": "with", "_rev": first_rev(94), "_attachments": {
        "a b.txt": { "content_type": "text/plain", "data": "MDEyMzQ1Njc4OWFiY2RlZg==" },
        "raw.png": { "content_type": "image/png", "data": "iVBORw0KGgoAAAANSUhEUgAA" },
    } }));
    let map = "function (doc) { if (doc.n !== undefined) { emit(doc.n, doc.text) } }";
    docs.push(json!({ "_id": "_design/d", "_rev": first_rev(95),
        "views": { "v": { "map": map }, "r": { "map": map, "reduce": "_count" } },
        "filters": { "even": "function (doc, req) { return doc.n % 2 === 0 }" },
        "updates": { "u": "function (doc, req) { return [null, {body: req.method + '|' + req.raw_path.replace(/^\\/[^\\/?]*/, '') + '|' + JSON.stringify(req.query) + '|' + req.body}] }" },
    }));
    json!({ "new_edits": false, "docs": docs })
}

const DOCS: usize = 12;

/// Whether it stays within one of the two databases, which is needed to the end, and writes no attachment.
fn may_be_sent(method: &str, path: &str) -> bool {
    let (method, path) = (method.to_uppercase(), path.split('?').next().unwrap_or_default());
    match (method.as_str(), path.strip_prefix("/{db}/")) {
        ("PUT", None) => path == "/{db}",
        ("DELETE", None) => false,
        ("PUT" | "DELETE", Some(rest)) => {
            let rest = rest.strip_prefix("_local/").or_else(|| rest.strip_prefix("_design/")).unwrap_or(rest);
            !rest.is_empty() && !rest.contains('/')
        }
        _ => true,
    }
}

/// Draws one after the other.
pub struct Drawing {
    rng: StdRng,
    authorization: String,
    cookie: String,
    count: usize,
}

impl Drawing {
    pub fn new(rng: StdRng, authorization: String, cookie: String) -> Self {
        Self { rng, authorization, cookie, count: 0 }
    }

    pub fn next(&mut self) -> Drawn {
        let several = match self.chance(0.1) {
            true => self.rng.random_range(2..5),
            false => 1,
        };
        let (mut requests, mut heads) = (Vec::new(), Vec::new());
        for left in (0..several).rev() {
            let (request, head) = if several > 1 { self.plain(left == 0) } else { self.request() };
            requests.push(request);
            heads.push(head);
        }
        let ends = self.chance(0.05);
        Drawn { requests, heads, ends }
    }

    fn chance(&mut self, chance: f64) -> bool {
        self.rng.random_bool(chance)
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.rng).unwrap()
    }

    /// One of several on a connection, of which the last closes it.
    fn plain(&mut self, last: bool) -> (Vec<u8>, bool) {
        // CouchDB ends such a feed twice, and what it sends after the first end would be the next answer.
        let path = self.path_to_read().replace("feed=eventsource", "feed=normal");
        let method = self.one(&["GET", "GET", "HEAD"]);
        let closing = if last { "Connection: close\r\n" } else { "" };
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: h:1\r\nAuthorization: {}\r\n{closing}\r\n", self.authorization);
        (head.into_bytes(), method == "HEAD")
    }

    fn request(&mut self) -> (Vec<u8>, bool) {
        let (method, path, body) = match self.rng.random_range(0..100) {
            0..45 => (self.one(&["GET", "GET", "GET", "HEAD"]).to_owned(), self.path_to_read(), None),
            45..60 => self.writing(),
            60..75 => self.asking(),
            75..80 => {
                let method = self.one(&["COPY", "MOVE", "PATCH", "OPTIONS", "PROPFIND", "DELETE", "PUT", "TRACE"]);
                (method.to_owned(), self.path_to_read(), None)
            }
            _ => self.odd(),
        };
        let method = if may_be_sent(&method, &path) { method } else { "GET".into() };
        let head = method == "HEAD";
        (self.framed(&method, &path, body), head)
    }

    fn doc(&mut self) -> String {
        let number = self.rng.random_range(0..DOCS + 2);
        let odd = [
            "a%2Fb%20c%2Bd",
            "a%2fb c",
            "gone",
            "conflict",
            "with",
            "_design/d",
            "_design%2Fd",
            "_local/x",
            "none",
            "%64oc1",
            "doc1%00",
            "_odd",
            "ü",
            "%C3%BC",
            "%zz",
            "a+b",
        ];
        if self.chance(0.7) { format!("doc{number}") } else { self.one(&odd).replace(' ', "%20") }
    }

    fn query(&mut self) -> String {
        let known = [
            "rev=1-00000000000000000000000000000002",
            "rev=9-x",
            "revs=true",
            "revs_info=true",
            "conflicts=true",
            "meta=true",
            "open_revs=all",
            "open_revs=[\"1-00000000000000000000000000000001\"]",
            "open_revs=%5B%22x%22%5D",
            "attachments=true",
            "att_encoding_info=true",
            "latest=true",
            "local_seq=false",
            "deleted_conflicts=true",
            "attachments=maybe",
            "open_revs=[",
            "include_docs=true",
            "key=\"doc1\"",
            "key=%22doc1%22",
            "startkey=\"doc2\"&endkey=\"doc4\"",
            "keys=[\"doc1\",\"none\"]",
            "descending=true",
            "limit=2",
            "skip=1",
            "limit=-1",
            "limit=x",
            "inclusive_end=false",
            "key=1",
            "key=<a>",
            "key=`",
            "reduce=false",
            "group=true",
            "style=all_docs",
            "filter=_design",
            "filter=d/even",
            "filter=none/x",
            "feed=normal",
            "feed=longpoll&timeout=1",
            "feed=continuous&timeout=1",
            "feed=eventsource&timeout=1",
            "feed=nonsense",
            "a=b",
            "a",
            "=",
            "&&",
            "a=%",
            "a=%2",
            "ü=ö",
            "a=b;c=d",
            "x[]=1",
            "a=|^{}\\",
            "a=b?c=d",
            "key=\"a+b\"",
            "key=\"a b\"",
        ];
        let mut query = String::new();
        for number in 0..[0, 0, 1, 1, 1, 2, 3].choose(&mut self.rng).copied().unwrap() {
            query.push(if number == 0 { '?' } else { '&' });
            query.push_str(&self.one(&known).replace(' ', "%20"));
        }
        query
    }

    fn path_to_read(&mut self) -> String {
        let doc = self.doc();
        let path = match self.rng.random_range(0..30) {
            0..9 => format!("/{{db}}/{doc}"),
            9 | 10 => "/{db}/_all_docs".into(),
            11 | 12 => "/{db}/_changes".into(),
            13 => "/{db}/_design/d/_view/v".into(),
            14 => "/{db}/_design/d/_view/r".into(),
            15 => self
                .one(&["/{db}/with/a%20b.txt", "/{db}/with/raw.png", "/{db}/with/none", "/{db}/with/a+b.txt"])
                .into(),
            16 => "/{db}".into(),
            17 => "/".into(),
            18 => self
                .one(&["/_up", "/_session", "/_membership", "/_utils", "/_utils/", "/favicon.ico", "/_all_dbs"])
                .into(),
            19 => self
                .one(&[
                    "/{db}/_security",
                    "/{db}/_revs_limit",
                    "/{db}/_design_docs",
                    "/{db}/_local_docs",
                    "/{db}/_index",
                ])
                .into(),
            20 => self
                .one(&["/_nothing", "/none", "/UPPER", "/none/doc", "/_users/none", "/_node/_local/_config/log/level"])
                .into(),
            21 => self
                .one(&[
                    "/{db}/",
                    "//{db}",
                    "/{db}//doc1",
                    "/{db}/doc1/",
                    "/./{db}/doc1",
                    "/{db}/../{db}/doc1",
                    "/{db}%2Fdoc1",
                ])
                .into(),
            22 => format!("/{{db}}/_design/d/_update/u/{doc}"),
            23 => self.one(&["/{db}/_design/d/_nothing", "/{db}/_design/none/_view/v", "/{db}/_shards"]).into(),
            _ => format!("/{{db}}/{doc}"),
        };
        path + &self.query()
    }

    /// What changes a document: its revision follows from its content.
    fn writing(&mut self) -> (String, String, Option<String>) {
        self.count += 1;
        let (doc, number) = (self.doc(), self.rng.random_range(0..DOCS));
        let rev = self.one(&[
            "",
            "?rev=1-00000000000000000000000000000003",
            "?rev=x",
            "?new_edits=false",
            "?batch=nonsense",
            "?w=1",
        ]);
        let bodies = [
            json!({ "_id": format!("new{}", self.count), "n": self.count }).to_string(),
            json!({ "_rev": first_rev(number), "n": 1, "changed": true }).to_string(),
            json!({ "_rev": first_rev(number), "_deleted": true }).to_string(),
            "{\"a\":1.0e400,\"b\":1e3,\"c\":-0}".into(),
            "{\"a\":1,\"a\":2}".into(),
            "{\"_unknown\":1}".into(),
            "{".into(),
            "[]".into(),
            "\u{feff}{}".into(),
            "{\"a\":\"\\ud800\"}".into(),
            String::new(),
        ];
        let body = bodies.choose(&mut self.rng).cloned();
        match self.rng.random_range(0..6) {
            0 => {
                ("PUT".into(), format!("/{{db}}/new{}{rev}", self.count), Some(json!({ "n": self.count }).to_string()))
            }
            1 => ("PUT".into(), format!("/{{db}}/doc{number}{rev}"), body),
            2 => ("DELETE".into(), format!("/{{db}}/doc{number}?rev={}", first_rev(number)), None),
            3 => {
                let docs = json!({ "docs": [{ "_id": format!("bulk{}", self.count) }, { "_id": "doc1", "x": 1 }, { "_id": "_odd" }] });
                ("POST".into(), "/{db}/_bulk_docs".into(), Some(docs.to_string()))
            }
            4 => ("PUT".into(), format!("/{{db}}/_local/x{}", self.rng.random_range(0..3)), body),
            _ => ("PUT".into(), format!("/{{db}}/{doc}{rev}"), body),
        }
    }

    /// Questions that are posted.
    fn asking(&mut self) -> (String, String, Option<String>) {
        let ids: Vec<_> = (0..self.rng.random_range(0..400)).map(|number| format!("doc{number}")).collect();
        let revs = json!({ "doc1": [first_rev(1), "9-x"], "none": ["1-a"] });
        let (path, body) = match self.rng.random_range(0..9) {
            0 => ("_all_docs", json!({ "keys": ids })),
            1 => ("_revs_diff", revs),
            2 => ("_missing_revs", revs),
            3 => ("_bulk_get", json!({ "docs": [{ "id": "doc1" }, { "id": "none" }, { "id": "doc2", "rev": "9-x" }] })),
            4 => ("_design/d/_view/v", json!({ "keys": [1, 2, "x"] })),
            5 => ("_changes?filter=_doc_ids", json!({ "doc_ids": ["doc1", "doc2"] })),
            6 => ("_changes?filter=_selector", json!({ "selector": { "n": { "$gt": 3 } } })),
            7 => ("_design/d/_update/u?a=%22b%22&c=d+e", json!({ "x": "y" })),
            _ => ("_ensure_full_commit", json!(null)),
        };
        let mut body = body.to_string();
        if self.chance(0.1) {
            body.truncate(self.rng.random_range(0..body.len()));
        }
        ("POST".into(), format!("/{{db}}/{path}"), Some(body))
    }

    fn odd(&mut self) -> (String, String, Option<String>) {
        let path = self.path_to_read();
        match self.rng.random_range(0..7) {
            0 => ("GET".into(), path, Some("{\"a\":1}".into())),
            1 => ("DELETE".into(), path, Some("x".repeat(self.rng.random_range(0..3000)))),
            2 => ("PUT".into(), "/{db}".into(), None),
            3 => (
                "POST".into(),
                self.one(&["/{db}/doc1", "/_session", "/", "/_all_dbs", "/{db}/_all_docs"]).into(),
                Some(String::new()),
            ),
            4 => (
                "GET".into(),
                format!(
                    "{path}{}a={}",
                    if path.contains('?') { '&' } else { '?' },
                    "x".repeat(self.rng.random_range(1..4000))
                ),
                None,
            ),
            5 => {
                let length = self.rng.random_range(1..200_000);
                (
                    "PUT".into(),
                    format!("/{{db}}/large{}", self.count),
                    Some(format!("{{\"t\":\"{}\"}}", "y".repeat(length))),
                )
            }
            _ => ("GET".into(), format!("http://h:1{path}"), None),
        }
    }

    /// With headers, and a body in one of its forms.
    fn framed(&mut self, method: &str, path: &str, body: Option<String>) -> Vec<u8> {
        let old = body.is_none() && self.chance(0.05);
        let mut head = format!("{method} {path} HTTP/1.{}\r\n", u8::from(!old));
        head += self.one(&["Host: h:1\r\n", "Host: couch.example\r\n", "host: h:1\r\n", "HOST:h:1\r\n"]);
        head += &match self.rng.random_range(0..20) {
            0..13 => format!("Authorization: {}\r\n", self.authorization),
            13..16 => format!("Cookie: {}\r\n", self.cookie),
            // No passwords: wrong ones are counted, and answered after growing pauses.
            16 => format!("Authorization: Basic {}\r\n", self.one(&["!!", "", "bm9ib2R5"])),
            17 => self
                .one(&["Cookie: AuthSession=\r\n", "Cookie: a=b; AuthSession=x; c\r\n", "Authorization: Bearer x\r\n"])
                .into(),
            _ => String::new(),
        };
        let odd = [
            "Accept: application/json\r\n",
            "Accept: text/plain\r\n",
            "Accept: */*\r\n",
            "Accept: multipart/mixed\r\n",
            "Accept: multipart/related\r\n",
            "Accept: nonsense\r\n",
            "Accept-Encoding: gzip\r\n",
            "Accept-Encoding: gzip;q=0, identity;q=0\r\n",
            "If-None-Match: \"1-00000000000000000000000000000002\"\r\n",
            "If-None-Match: *\r\n",
            "If-Match: x\r\n",
            "If-Match: 1-00000000000000000000000000000004\r\n",
            "Range: bytes=1-3\r\n",
            "Range: bytes=-2\r\n",
            "Range: bytes=99-\r\n",
            "Range: x\r\n",
            "X-HTTP-Method-Override: PUT\r\n",
            "Destination: copied\r\n",
            "Destination: doc1?rev=1-00000000000000000000000000000002\r\n",
            "Destination: http://h/x\r\n",
            "Origin: https://app.example\r\n",
            "Access-Control-Request-Method: PUT\r\n",
            "Referer: http://h:1/\r\n",
            "X-Couch-Full-Commit: true\r\n",
            "User-Agent: \r\n",
            "X-Odd:\r\n",
            "x-ODD: \t a  b \t\r\nX-Odd: c\r\n",
            "X-Bytes: \u{fc}\u{df}\r\n",
            "Via: 1.1 x\r\n",
            "X-Forwarded-Host: other.example\r\n",
            "X-Forwarded-Proto: https\r\n",
            "If-Modified-Since: Fri, 27 Nov 2026 00:00:00 GMT\r\n",
            "Cache-Control: no-cache\r\n",
            "Content-MD5: x\r\n",
            "Pragma: \r\n",
        ];
        for _ in 0..self.rng.random_range(0..4) {
            head += self.one(&odd);
        }
        if self.chance(0.02) {
            head.extend((0..self.rng.random_range(100..400)).map(|number| format!("X-Many-{number}: {number}\r\n")));
        }
        head += "Connection: close\r\n";
        let Some(body) = body else {
            if self.chance(0.2) {
                head += "Content-Length: 0\r\n";
            }
            return (head + "\r\n").into_bytes();
        };
        head += self.one(&[
            "Content-Type: application/json\r\n",
            "Content-Type: application/json\r\n",
            "Content-Type: application/json; charset=utf-8\r\n",
            "Content-Type: text/plain\r\n",
            "",
        ]);
        if self.chance(0.7) {
            return format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
        }
        let mut bytes =
            format!("{head}{}\r\n", self.one(&["Transfer-Encoding: chunked\r\n", "transfer-encoding: chunked\r\n"]))
                .into_bytes();
        let mut rest = body.as_bytes();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(self.rng.random_range(1..=rest.len()));
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
            rest = after;
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    }
}
