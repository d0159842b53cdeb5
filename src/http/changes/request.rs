//! What a feed is asked for.

use std::collections::HashSet;
use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::document::DocumentError;
use crate::json;
use crate::selector::{Selector, SelectorError};
use crate::store::{DocOptions, Filter, StoreError};

use crate::http::error::ApiError;
use crate::http::feed::{Feed, Waiting};
use crate::http::query::Query;
use crate::http::question::{List, QuestionMemory};

/// What a feed is asked for.
#[derive(Debug)]
pub struct Request {
    /// After which seq; `None`: after the newest.
    pub since: Option<u64>,
    /// Rows at most, at least one.
    pub limit: u64,
    /// All leaves, not the winner alone.
    pub all_leaves: bool,
    /// Newest first.
    pub descending: bool,
    /// Rows with documents.
    pub include_docs: bool,
    /// What those documents show.
    pub options: DocOptions,
    /// How long it goes on.
    pub feed: Feed,
    /// How it waits.
    pub waiting: Waiting,
    /// Which documents it shows.
    pub filter: Arc<Filter>,
    /// Memory that the filter takes beside its question's bytes.
    _held: Option<OwnedSemaphorePermit>,
}

/// Bytes that an id takes in memory beside its own.
const ID_COST: usize = 64;
/// A JSON value takes so many times the bytes of its text.
const VALUE_COST: usize = 32;
/// Copies of a question's body that a function gets to see, on the way to it.
const BODY_COPIES: usize = 4;

impl Request {
    /// Reads the query, and a POST's body.
    pub fn parse(
        query: &Query,
        headers: &HeaderMap,
        body: Option<&Bytes>,
        room: &QuestionMemory,
    ) -> Result<Self, ApiError> {
        let (filter, held) = filter(query, body, room)?;
        let feed = Feed::parse(query)?;
        Ok(Self {
            since: since(feed.since(query, headers))?,
            limit: query.number("limit")?.map_or(u64::MAX, |limit| limit.max(1)),
            all_leaves: match query.get("style") {
                None | Some("main_only") => false,
                Some("all_docs") => true,
                Some(_) => return Err(ApiError::bad_request("`style` must be main_only or all_docs.")),
            },
            descending: query.flag("descending")?,
            include_docs: query.flag("include_docs")?,
            options: query.doc_options()?,
            feed,
            waiting: Waiting::parse(query)?,
            filter: Arc::new(filter),
            _held: held,
        })
    }
}

/// `0`, `17`, `"17"`, `now`; `None` for `now`.
fn since(text: Option<&str>) -> Result<Option<u64>, ApiError> {
    match text.map(|text| text.trim_matches('"')) {
        None | Some("") => Ok(Some(0)),
        Some("now") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(|_| ApiError::InvalidSince),
    }
}

fn filter(
    query: &Query,
    body: Option<&Bytes>,
    room: &QuestionMemory,
) -> Result<(Filter, Option<OwnedSemaphorePermit>), ApiError> {
    let body = body.filter(|body| !body.is_empty());
    match query.get("filter").unwrap_or_default() {
        "_doc_ids" => doc_ids(query, body, room),
        "_selector" => selector(body, room),
        name => {
            let filter = Filter::named(name, query.get("view")).map_err(StoreError::from)?;
            let held = body.map(|body| room.take(BODY_COPIES * body.len())).transpose()?;
            Ok((filter, held))
        }
    }
}

type Counted<T> = Result<(T, Option<OwnedSemaphorePermit>), ApiError>;

fn selector(body: Option<&Bytes>, room: &QuestionMemory) -> Counted<Filter> {
    let body = body.ok_or_else(|| ApiError::bad_request("`_selector` filter requires a POST."))?;
    let text = json::member(body, "selector")?;
    let text = text.ok_or_else(|| ApiError::bad_request("Selector must be specified in POST payload"))?;
    let held = room.take(VALUE_COST * text.len())?;
    let selector = serde_json::from_slice(text).map_err(|_| DocumentError::InvalidJson)?;
    let selector = Selector::parse(&selector);
    let wrong = |error: SelectorError| ApiError::bad_request(format!("`selector`: {error}"));
    Ok((Filter::Selector(selector.map_err(wrong)?), Some(held)))
}

fn doc_ids(query: &Query, body: Option<&Bytes>, room: &QuestionMemory) -> Counted<Filter> {
    const NO_LIST: &str = "`doc_ids` filter parameter is not a list of doc ids.";
    let list = match body.map(|body| List::of(body, "doc_ids", NO_LIST)).transpose()?.flatten() {
        Some(list) => list,
        None => {
            let text = query.get("doc_ids").ok_or_else(|| ApiError::bad_request("`doc_ids` is missing."))?;
            List::parse(text)?.ok_or_else(|| ApiError::bad_request(NO_LIST))?
        }
    };
    let held = room.take(list.text().len() + ID_COST * list.count())?;
    let ids = serde_json::from_slice::<HashSet<String>>(list.text()).map_err(|_| ApiError::bad_request(NO_LIST))?;
    Ok((Filter::DocIds(ids), Some(held)))
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn parse(text: &str, body: Option<&'static [u8]>) -> Result<Request, ApiError> {
        let room = QuestionMemory::new(Arc::new(Semaphore::new(1000)), 1000);
        Request::parse(&Query::parse(text), &HeaderMap::new(), body.map(Bytes::from_static).as_ref(), &room)
    }

    fn request(text: &str) -> Request {
        parse(text, None).unwrap()
    }

    fn reason(text: &str, body: Option<&'static [u8]>) -> String {
        parse(text, body).unwrap_err().pair().1.into_owned()
    }

    #[test]
    fn since_is_a_number_bare_or_quoted_or_now() {
        assert_eq!(request("").since, Some(0));
        assert_eq!(request("since=17").since, Some(17));
        assert_eq!(request("since=%2217%22").since, Some(17));
        assert_eq!(request("since=now").since, None);
        assert_eq!(reason("since=x", None), "Malformed sequence supplied in 'since' parameter.");
    }

    #[test]
    fn a_limit_of_nothing_counts_as_one() {
        assert_eq!((request("limit=0").limit, request("limit=5").limit, request("").limit), (1, 5, u64::MAX));
    }

    #[test]
    fn documents_are_chosen_by_id_from_query_or_body() {
        let ids = Filter::DocIds(["a".to_owned()].into());
        assert_eq!(*request("filter=_doc_ids&doc_ids=[%22a%22]").filter, ids);
        let body = br#"{"doc_ids":["a"]}"#;
        assert_eq!(*parse("filter=_doc_ids", Some(body)).unwrap().filter, ids);
        assert_eq!(reason("filter=_doc_ids", Some(b"{}")), "`doc_ids` is missing.");
        assert!(reason("filter=_doc_ids&doc_ids=1", None).contains("not a list"));
    }

    #[test]
    fn what_a_filter_takes_in_memory_has_a_limit() {
        let body = br#"{"doc_ids":["a","b","c","d","e","f","g","h","i","j","k","l","m","n","o","p"]}"#;
        assert!(matches!(parse("filter=_doc_ids", Some(body)), Err(ApiError::TooLarge)));
        let body = br#"{"selector":{"a":{"$in":[1,2,3,4,5,6,7,8,9,10]}}}"#;
        assert!(matches!(parse("filter=_selector", Some(body)), Err(ApiError::TooLarge)));
    }

    #[test]
    fn a_selector_stands_in_the_body_of_a_post() {
        let body = br#"{"selector":{"a":1}}"#;
        let filter = parse("filter=_selector", Some(body)).unwrap().filter;
        assert_eq!(*filter, Filter::Selector(Selector::parse(&serde_json::json!({"a": 1})).unwrap()));
        assert_eq!(reason("filter=_selector", None), "`_selector` filter requires a POST.");
        assert_eq!(reason("filter=_selector", Some(b"{}")), "Selector must be specified in POST payload");
        let wrong = br#"{"selector":{"a":{"$nope":1}}}"#;
        assert_eq!(reason("filter=_selector", Some(wrong)), "`selector`: invalid operator: $nope");
    }

    #[test]
    fn filters_that_cant_be_are_refused() {
        assert_eq!(reason("filter=_nosuch", None), "unknown builtin filter name");
        assert_eq!(reason("filter=f", None), "`filter` must be of the form `designname/filtername`");
        assert_eq!(reason("filter=_view", None), "`view` filter parameter is not provided.");
        assert_eq!(reason("filter=_view&view=f", None), "`view` must be of the form `designname/viewname`");
        assert!(reason("feed=x", None).starts_with("Supported `feed` types"));
    }
}
