//! What a feed lets through: one mechanism for `_changes` and for replications out of the store.
//!
//! A [`Filter`] is what was asked for. [`Database::ready`] finds its function in the design document as it is now, which
//! a feed then keeps; [`Database::run_filter`] reads the feed's rows through a [`FilterRun`], which tells which leaves of a row pass.
//! Functions are asked about each leaf that the row would show, deleted ones included, with the document as CouchDB hands
//! it over (`couch_changes:filter/3`: `_revisions`, `_conflicts`, attachments as stubs); a row none of whose leaves pass
//! isn't shown, and counts as progress all the same.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{ChangeRow, Database, DatabaseStats, DocOptions, Snapshot, StoreError};
use crate::access::Caller;
use crate::document::Rev;
use crate::javascript::{Admission, Code, Kind, Running, ScriptError, worth_another_try};
use crate::selector::Selector;
use crate::uuids;

/// How long a filter sifts one snapshot: a held one makes the file grow, and feeds want to give signs of life.
const SIFTING: Duration = Duration::from_millis(500);

/// What a feed is to let through.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Filter {
    /// Everything.
    #[default]
    All,
    /// These documents (`_doc_ids`).
    DocIds(HashSet<String>),
    /// Design documents (`_design`).
    Design,
    /// Leaves that a selector lets through (`_selector`).
    Selector(Selector),
    /// What a function of a design document says: `ddoc/name`, or `_view` with `view=ddoc/name`.
    Function {
        /// The design document's id without `_design/`.
        design: String,
        /// The function's name.
        name: String,
        /// A filter function, or a view's map function.
        kind: Kind,
    },
}

/// Why a filter can't be used, or failed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Its name is none, says why.
    #[error("{0}")]
    Invalid(&'static str),
    /// There is no such design document.
    #[error("missing")]
    Missing,
    /// The design document is deleted.
    #[error("deleted")]
    Deleted,
    /// The design document has no such member.
    #[error("missing json key: {0}")]
    NoFunction(String),
    /// The function failed.
    #[error(transparent)]
    Script(#[from] ScriptError),
}

impl Filter {
    /// A filter by its name; `view` is the query's parameter of that name. `_doc_ids` has its own way in.
    pub fn named(name: &str, view: Option<&str>) -> Result<Self, FilterError> {
        let (kind, path) = match (name, view) {
            ("", _) => return Ok(Self::All),
            ("_design", _) => return Ok(Self::Design),
            ("_view", None | Some("")) => {
                return Err(FilterError::Invalid("`view` filter parameter is not provided."));
            }
            ("_view", Some(view)) => (Kind::Map, view),
            (name, _) if name.starts_with('_') => return Err(FilterError::Invalid("unknown builtin filter name")),
            (name, _) => (Kind::Filter, name),
        };
        match path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>()[..] {
            [design, name] => Ok(Self::Function { design: design.into(), name: name.into(), kind }),
            _ if kind == Kind::Map => Err(FilterError::Invalid("`view` must be of the form `designname/viewname`")),
            _ => Err(FilterError::Invalid("`filter` must be of the form `designname/filtername`")),
        }
    }
}

/// Who asks for a feed, as a filter function sees it (`req`); never with credentials.
#[derive(Debug, Clone, Default)]
pub struct FilterRequest {
    /// `GET` or `POST`.
    pub method: String,
    /// The path with its query, as it came.
    pub raw_path: String,
    /// The path's decoded segments.
    pub path: Vec<String>,
    /// The query, the view's and filter's own parameters among it.
    pub query: Vec<(String, String)>,
    /// The headers that hold no credentials.
    pub headers: Vec<(String, String)>,
    /// A POST's body.
    pub body: Option<String>,
    /// Where the request comes from.
    pub peer: String,
    /// The user's name.
    pub name: Option<String>,
    /// The user's roles.
    pub roles: Vec<String>,
}

impl FilterRequest {
    /// A replication on this server, asking for the feed of its source as it would over HTTP.
    pub fn replication(database: &str, query: &[(String, String)], caller: &Caller) -> Self {
        Self {
            method: "GET".into(),
            raw_path: format!("/{database}/_changes"),
            path: vec![database.into(), "_changes".into()],
            query: query.to_vec(),
            peer: "127.0.0.1".into(),
            name: caller.name.clone(),
            roles: caller.roles.clone(),
            ..Self::default()
        }
    }

    /// `chttpd_external:json_req_obj/2`.
    fn request(&self, database: &str, stats: &DatabaseStats) -> Value {
        let object = |pairs: &[(String, String)]| {
            pairs.iter().cloned().map(|(key, value)| (key, Value::String(value))).collect::<Map<String, Value>>()
        };
        json!({
            "info": stats.info(database),
            "uuid": uuids::random(),
            "id": null,
            "method": self.method,
            "requested_path": self.path,
            "path": self.path,
            "raw_path": self.raw_path,
            "query": object(&self.query),
            "headers": object(&self.headers),
            "body": self.body.as_deref().unwrap_or("undefined"),
            "peer": self.peer,
            "form": {},
            "cookie": {},
            "userCtx": { "db": database, "name": self.name, "roles": self.roles },
            "secObj": {},
        })
    }
}

/// A filter whose function has been found. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReadyFilter {
    filter: Arc<Filter>,
    /// Each leaf is shown, and asked about; else the winner alone.
    all_leaves: bool,
    function: Option<(Arc<Code>, Arc<str>)>,
}

impl Database {
    /// Makes a filter ready for a feed. That the function compiles shows when it is first used.
    pub async fn ready(
        &self,
        filter: Arc<Filter>,
        all_leaves: bool,
        filter_request: &FilterRequest,
    ) -> Result<ReadyFilter, StoreError> {
        let Filter::Function { .. } = *filter else { return Ok(ReadyFilter { filter, all_leaves, function: None }) };
        let request = filter_request.request(self.name().as_str(), &self.stats().await?).to_string();
        let (sought, database) = (filter.clone(), self.name().to_string());
        let code = self.read(move |snapshot| code(snapshot, &sought, database)).await?;
        Ok(ReadyFilter { filter, all_leaves, function: code.map(|code| (Arc::new(code), request.into())) })
    }

    /// Reads a snapshot, or fresh ones, through a filter, on a thread that may block. A function stops if this is dropped.
    /// The work is done again from its start, from another fresh snapshot, where a function needs more time than a short try.
    pub async fn run_filter<T: Send + 'static>(
        &self,
        ready: &ReadyFilter,
        snapshot: Option<Arc<Snapshot>>,
        work: impl Fn(&Snapshot, &mut FilterRun) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let Some((code, request)) = &ready.function else {
            let mut filter_run = FilterRun::new(ready.clone(), None);
            return self.read_at(snapshot, move |snapshot| work(snapshot, &mut filter_run)).await;
        };
        let work = Arc::new(work);
        loop {
            let (admission, _stopped_when_dropped) = self.interpreters().admit(code.clone(), request.clone()).await;
            let short = admission.is_short();
            let (ready, work, snapshot) = (ready.clone(), work.clone(), snapshot.clone());
            let filtered = self.read_at(snapshot, move |snapshot| filtered(snapshot, ready, admission, &*work)).await;
            match filtered {
                Err(StoreError::Filter(FilterError::Script(error))) if short && worth_another_try(&error) => {}
                filtered => return filtered,
            }
        }
    }
}

fn filtered<T>(
    snapshot: &Snapshot,
    ready: ReadyFilter,
    admission: Admission,
    work: impl Fn(&Snapshot, &mut FilterRun) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut filter_run = FilterRun::new(ready, Some(admission.start().map_err(FilterError::from)?));
    let result = work(snapshot, &mut filter_run)?;
    if let Some(function) = filter_run.function {
        function.finish();
    }
    Ok(result)
}

fn code(snapshot: &Snapshot, filter: &Filter, database: String) -> Result<Option<Code>, StoreError> {
    let Filter::Function { design, name, kind } = filter else { return Ok(None) };
    let id = format!("_design/{design}");
    let record = snapshot.document(&id)?.ok_or(FilterError::Missing)?;
    let leaf = record.tree.winner().ok_or(FilterError::Missing)?;
    if leaf.deleted {
        return Err(FilterError::Deleted.into());
    }
    let mut text = Vec::new();
    snapshot.render(&id, &record, &leaf, &DocOptions::default(), &mut text)?;
    let document: Value = serde_json::from_slice(&text).map_err(|_| StoreError::Damaged("a design document"))?;
    let path: &[&str] = match kind {
        Kind::Filter => &["filters", name],
        Kind::Map => &["views", name, "map"],
        Kind::Validation => &["validate_doc_update"],
    };
    let mut member = &document;
    for key in path {
        member = member.get(key).ok_or_else(|| FilterError::NoFunction((*key).into()))?;
    }
    // Anything but a text is a text that is no function.
    let source = member.as_str().map_or_else(|| member.to_string(), str::to_owned);
    Ok(Some(Code { database, design: text, source, kind: *kind }))
}

/// Tells which rows of one snapshot pass.
pub struct FilterRun {
    ready: ReadyFilter,
    function: Option<Running>,
    started: Instant,
    /// The document asked about; kept for its room.
    doc: Vec<u8>,
}

impl FilterRun {
    fn new(ready: ReadyFilter, function: Option<Running>) -> Self {
        Self { ready, function, started: Instant::now(), doc: Vec::new() }
    }

    /// The leaves of a row that pass, of those that the feed shows; none: the row isn't shown.
    pub fn passing(&mut self, snapshot: &Snapshot, row: &ChangeRow) -> Result<Vec<Rev>, StoreError> {
        let shown = if self.ready.all_leaves { &row.leaves[..] } else { &row.leaves[..row.leaves.len().min(1)] };
        let passes = match &*self.ready.filter {
            Filter::All => true,
            Filter::DocIds(ids) => ids.contains(&row.id),
            Filter::Design => row.id.starts_with("_design/"),
            Filter::Selector(selector) => return snapshot.selected(&row.id, shown, selector),
            Filter::Function { .. } => return self.asked(snapshot, row, shown),
        };
        Ok(if passes { shown.to_vec() } else { Vec::new() })
    }

    /// Whether the rest is better read from a fresh snapshot.
    pub fn is_tired(&self) -> bool {
        self.started.elapsed() >= SIFTING
    }

    fn asked(&mut self, snapshot: &Snapshot, row: &ChangeRow, shown: &[Rev]) -> Result<Vec<Rev>, StoreError> {
        let Some(function) = &self.function else { return Ok(Vec::new()) };
        let Some(record) = snapshot.document(&row.id)? else { return Ok(Vec::new()) };
        let options = DocOptions { revs: true, conflicts: !self.ready.all_leaves, ..DocOptions::default() };
        let mut passing = Vec::new();
        for rev in shown {
            let Some(leaf) = record.tree.leaf(rev) else { continue };
            self.doc.clear();
            snapshot.render(&row.id, &record, &leaf, &options, &mut self.doc)?;
            if function.passes(&self.doc).map_err(FilterError::from)? {
                passing.push(rev.clone());
            }
        }
        Ok(passing)
    }
}
