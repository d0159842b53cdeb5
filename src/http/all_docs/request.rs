//! What is asked of `_all_docs`: a range of ids or some keys, and how much of them.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::http::answer::Answers;
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::question::{List, QuestionMemory};
use crate::store::{Database, DocOptions, Rank, Snapshot, StoreError};

/// Where a range of ids begins or ends. Keys that aren't strings sort before or after all ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    Before,
    At(String),
    After,
}

impl Bound {
    pub fn of(key: Value) -> Self {
        match key {
            Value::String(id) => Self::At(id),
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Before,
            Value::Array(_) | Value::Object(_) => Self::After,
        }
    }
}

/// Which documents a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Documents {
    All,
    /// Design documents alone (`_design_docs`).
    Design,
}

/// Where the ids of design documents begin, and what comes after all of them.
const DESIGN: (&str, &str) = ("_design/", "_design0");

impl Documents {
    /// Whether a document of this id, or a key that is none, may be in the list.
    pub fn may_have(self, id: Option<&str>) -> bool {
        self == Self::All || id.is_some_and(|id| id.starts_with(DESIGN.0))
    }
}

#[derive(Debug)]
pub struct Request {
    pub documents: Documents,
    pub keys: Option<List>,
    /// Where the keys stand, of a request that wants them backwards.
    pub backwards: Option<KeySpans>,
    pub start: Option<Bound>,
    pub end: Option<Bound>,
    pub inclusive_end: bool,
    pub descending: bool,
    pub skip: u64,
    pub limit: u64,
    pub update_seq: bool,
    pub include_docs: bool,
    pub options: DocOptions,
}

impl Request {
    pub fn parse(query: &Query, keys: Option<List>, room: &QuestionMemory) -> Result<Self, ApiError> {
        let (start, end) = match query.json::<Value>("key")? {
            Some(one) => (Some(one.clone()), Some(one)),
            None => query.range::<Value>()?,
        };
        let descending = query.flag("descending")?;
        let backwards = keys.as_ref().filter(|_| descending).map(|keys| KeySpans::of(keys, room)).transpose()?;
        Ok(Self {
            documents: Documents::All,
            keys,
            backwards,
            start: start.map(Bound::of),
            end: end.map(Bound::of),
            inclusive_end: query.flag_or("inclusive_end", true)?,
            descending,
            skip: query.number("skip")?.unwrap_or(0),
            limit: query.number("limit")?.unwrap_or(u64::MAX),
            update_seq: query.flag("update_seq")?,
            include_docs: query.flag("include_docs")?,
            options: query.doc_options()?,
        })
    }

    /// The same, of these documents alone: a range goes no further than they do.
    pub fn of(mut self, documents: Documents) -> Self {
        self.documents = documents;
        if documents == Documents::Design {
            let at = |id: &str| Bound::At(id.to_owned());
            let (low, high) = match self.descending {
                false => (&mut self.start, &mut self.end),
                true => (&mut self.end, &mut self.start),
            };
            *low = Some(low.take().map_or(at(DESIGN.0), |low| low.max(at(DESIGN.0))));
            *high = Some(high.take().map_or(at(DESIGN.1), |high| high.min(at(DESIGN.1))));
        }
        self
    }

    /// Whether an id is past the range's end, in the direction of reading.
    pub fn past_end(&self, id: &str) -> bool {
        match (&self.end, self.descending) {
            (None, _) => false,
            (Some(Bound::Before), descending) => !descending,
            (Some(Bound::After), descending) => descending,
            (Some(Bound::At(end)), _) if id == end => !self.inclusive_end,
            (Some(Bound::At(end)), false) => id > end.as_str(),
            (Some(Bound::At(end)), true) => id < end.as_str(),
        }
    }

    /// Whether no id comes after the range's start, in the direction of reading.
    pub fn starts_past_all(&self) -> bool {
        match self.start {
            Some(Bound::Before) => self.descending,
            Some(Bound::After) => !self.descending,
            _ => false,
        }
    }

    pub fn head(&self, snapshot: &Snapshot, rank: u64) -> Result<Vec<u8>, StoreError> {
        let total = match self.documents {
            Documents::All => snapshot.doc_count(),
            Documents::Design => design_docs(snapshot)?,
        };
        let update_seq = match self.update_seq {
            true => format!("\"update_seq\":{},", snapshot.update_seq()),
            false => String::new(),
        };
        let offset = match self.keys {
            None => json!(self.before(total, rank).saturating_add(self.skip).min(total)),
            Some(_) => Value::Null,
        };
        Ok(format!("{{\"total_rows\":{total},{update_seq}\"offset\":{offset},\"rows\":[\n").into_bytes())
    }

    /// How many documents stand before the range's start, in the direction of reading.
    pub fn before(&self, total: u64, rank: u64) -> u64 {
        match &self.start {
            _ if self.starts_past_all() => total,
            Some(Bound::At(_)) if self.descending => total.saturating_sub(rank),
            Some(Bound::At(_)) => rank,
            _ => 0,
        }
    }

    /// How many documents have smaller ids than the range's start, and its own if the range goes down from there.
    pub async fn rank(&self, db: &Database, answers: &Answers) -> Result<u64, StoreError> {
        let (None, Some(Bound::At(start))) = (&self.keys, &self.start) else { return Ok(0) };
        let end: Arc<str> = if self.descending { format!("{start}\0").into() } else { start.as_str().into() };
        let (mut rank, mut counted) = (Rank::default(), false);
        while !counted {
            let end = end.clone();
            let counting = move |snapshot: &Snapshot| Ok((snapshot.count_before(&end, &mut rank)?, rank));
            (counted, rank) = answers.count(db, counting).await?;
        }
        Ok(rank.before)
    }
}

/// How many design documents there are: few, so that they are counted.
fn design_docs(snapshot: &Snapshot) -> Result<u64, StoreError> {
    let mut count = 0;
    snapshot.documents(Some(DESIGN.0), |id, record| {
        let is_one = id < DESIGN.1;
        count += u64::from(is_one && record.tree.winner().is_some_and(|winner| !winner.deleted));
        Ok(is_one)
    })?;
    Ok(count)
}

/// Where the keys of a list stand in its text.
#[derive(Debug)]
pub struct KeySpans {
    pub spans: Vec<Range<u32>>,
    _room: OwnedSemaphorePermit,
}

impl KeySpans {
    pub fn of(list: &List, room: &QuestionMemory) -> Result<Self, ApiError> {
        let (count, text) = (list.count(), list.text());
        let room = room.take(count * size_of::<Range<u32>>())?;
        let (mut spans, mut list) = (Vec::with_capacity(count), list.clone());
        while let Some(element) = list.element() {
            // A body's length fits.
            let start = (element.as_ptr() as usize - text.as_ptr() as usize) as u32;
            spans.push(start..start + element.len() as u32);
        }
        Ok(Self { spans, _room: room })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn room() -> QuestionMemory {
        QuestionMemory::new(Arc::new(Semaphore::new(100)), 100)
    }

    fn request(text: &str) -> Request {
        Request::parse(&Query::parse(text), None, &room()).unwrap()
    }

    #[test]
    fn ranges_end_where_they_are_told_to() {
        let ascending = request("startkey=%22a%22&endkey=%22m%22");
        assert_eq!(ascending.start, Some(Bound::At("a".into())));
        assert!(!ascending.past_end("m") && ascending.past_end("n"));
        assert!(request("end_key=%22m%22&inclusive_end=false").past_end("m"));
        let descending = request("endkey=%22m%22&descending=true");
        assert!(!descending.past_end("z") && descending.past_end("a"));
    }

    #[test]
    fn a_range_of_design_documents_ends_with_them() {
        let range = |text: &str| {
            let request = request(text).of(Documents::Design);
            (request.start.unwrap(), request.end.unwrap())
        };
        let at = |id: &str| Bound::At(id.to_owned());
        assert_eq!(range(""), (at("_design/"), at("_design0")));
        assert_eq!(range("descending=true"), (at("_design0"), at("_design/")));
        assert_eq!(range("startkey=%22_design/b%22&endkey={}"), (at("_design/b"), at("_design0")));
        assert_eq!(range("startkey=%22a%22"), (at("a"), at("_design0")));
        assert_eq!(range("startkey=1&endkey=%22_design/b%22&descending=true"), (Bound::Before, at("_design/b")));
    }

    #[test]
    fn one_key_is_a_range_of_one() {
        let one = request("key=%22b%22");
        assert_eq!((one.start.clone(), one.end.clone()), (Some(Bound::At("b".into())), Some(Bound::At("b".into()))));
        assert!(!one.past_end("b") && one.past_end("c"));
    }

    #[test]
    fn keys_that_are_no_strings_sort_around_all_ids() {
        assert!(request("endkey=1").past_end("a"));
        assert!(!request("endkey={}").past_end("a"));
        assert!(request("startkey={}").starts_past_all());
        assert!(!request("startkey={}&descending=true").starts_past_all());
        assert!(request("startkey=null&descending=true").starts_past_all());
    }

    #[test]
    fn keys_are_read_backwards_where_they_stand() {
        let keys = List::parse(r#"["a", 1,"b"]"#).unwrap().unwrap();
        let request = Request::parse(&Query::parse("descending=true"), Some(keys.clone()), &room()).unwrap();
        let spans = request.backwards.unwrap().spans;
        let texts: Vec<_> = spans.iter().rev().map(|at| &keys.text()[at.start as usize..at.end as usize]).collect();
        assert_eq!(texts, [&br#""b""#[..], b"1", br#""a""#]);
    }
}
