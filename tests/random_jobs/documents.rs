//! Documents of jobs as people have left them: what they wrote, and what was promised to them.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

/// The databases that they are in.
pub const DATABASES: [&str; 2] = ["_replicator", "t/_replicator"];

/// What people write: all members but `_id`, `_rev`, `owner`, and what the replicator writes.
pub type Members = Map<String, Value>;

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub database: &'static str,
    pub id: String,
}

/// A document.
#[derive(Debug, Clone)]
pub struct Document {
    pub members: Members,
    /// It may say that it has been completed.
    pub may_complete: bool,
    /// It makes no sense, and says of itself that it failed, as it did where it came from.
    pub is_brought: bool,
    /// What a one-shot's target must have once it is completed.
    pub promise: Option<Promise>,
}

/// What stood in a source when a one-shot was asked for.
#[derive(Debug, Clone)]
pub struct Promise {
    /// The databases' places in the world, and how often they had been made.
    pub source: (usize, u32),
    pub target: (usize, u32),
    /// How much of what the source's editors know of.
    pub kept: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Documents {
    pub all: BTreeMap<Place, Document>,
    /// What documents may be instead: whoever changed them never got an answer.
    pub doubts: Vec<(Place, Option<Document>)>,
    /// Documents that may have been made of requests for replications, under ids that nobody was told.
    pub unnamed: Vec<Document>,
    /// Replications without a document that this process may have.
    pub asked: BTreeSet<String>,
}

impl Place {
    pub fn path(&self) -> String {
        format!("/{}/{}", encode(self.database), encode(&self.id))
    }

    /// What the scheduler tells of it.
    pub fn entry_path(&self) -> String {
        format!("/_scheduler/docs{}", self.path())
    }
}

impl Documents {
    /// Those whose replications have the same base id as this one's, itself among them.
    pub fn alike(&self, members: &Members) -> Vec<Place> {
        let key = base_key(members);
        self.all.iter().filter(|(_, other)| base_key(&other.members) == key).map(|(place, _)| place.clone()).collect()
    }
}

/// As a URL has it.
pub fn encode(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// The same for documents that have the same replication id.
pub fn key(members: &Members) -> String {
    let extension = ["continuous", "create_target"].map(|name| members.get(name) == Some(&Value::Bool(true)));
    format!("{} {extension:?}", base_key(members))
}

/// The same for those that have the same base id.
fn base_key(members: &Members) -> String {
    let url = |name: &str| members.get(name).map(|endpoint| endpoint.get("url").unwrap_or(endpoint));
    json!([url("source"), url("target"), members.get("selector"), members.get("filter")]).to_string()
}

pub fn is_continuous(members: &Members) -> bool {
    members.get("continuous") == Some(&Value::Bool(true))
}

pub fn is_paused(members: &Members) -> bool {
    members.get("paused") == Some(&Value::Bool(true))
}

/// What people wrote of what stands in a database.
pub fn members_of(document: &Value) -> Members {
    let own = |name: &&String| !name.starts_with('_') && name.as_str() != "owner";
    document
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| own(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Whether a job of these wants a document whose `token` is this.
pub fn passes(members: &Members, token: Option<&str>) -> bool {
    let is_low = || token.is_some_and(|token| token < "8");
    let is_high = || token.is_some_and(|token| token >= "8");
    match members.get("selector").map(|selector| selector["token"].get("$lt").is_some()) {
        Some(true) => is_low(),
        Some(false) => is_high(),
        None => !members.contains_key("filter") || is_low(),
    }
}

/// What stands in a document as the reason why it has no job, if another one has it: that one's database and id, and the job's id.
pub fn named_first(document: &Value) -> Option<(String, String, String)> {
    let parts: Vec<_> = document["_replication_state_reason"].as_str()?.split('`').collect();
    let [
        _,
        job,
        " specified by document ",
        _,
        " already started, triggered by document ",
        first,
        " from db ",
        database,
        "",
    ] = parts[..]
    else {
        return None;
    };
    Some((database.to_owned(), first.to_owned(), job.to_owned()))
}
