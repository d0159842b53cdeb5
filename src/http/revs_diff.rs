//! `POST /{db}/_revs_diff` and `_missing_revs`: which of these revisions the database lacks.
//!
//! Documents that lack nothing are absent from the answer. `possible_ancestors` are leaves whose attachments the
//! source needn't send again.

use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;

use crate::document::{DocumentError, Rev};
use crate::json;
use crate::store::{Snapshot, StoreError};

use super::answer;
use super::error::ApiError;
use super::request::{Db, Payload};

/// A document and the revisions that somebody has of it.
type Asked = (String, Vec<Rev>);

/// `POST /{db}/_revs_diff`.
pub async fn revs_diff(Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    let asked = parse(&payload.json().await?)?;
    let out = db.read(move |snapshot| diff(snapshot, &asked, true)).await?;
    Ok(answer::text(StatusCode::OK, out))
}

/// `POST /{db}/_missing_revs`, the older form of the same.
pub async fn missing_revs(Db(db): Db, payload: Payload) -> Result<Response, ApiError> {
    let asked = parse(&payload.json().await?)?;
    let out = db.read(move |snapshot| diff(snapshot, &asked, false)).await?;
    Ok(answer::text(StatusCode::OK, [b"{\"missing_revs\":", out.as_slice(), b"}"].concat()))
}

fn parse(body: &Bytes) -> Result<Vec<Asked>, ApiError> {
    let members = json::members(body).map_err(|error| match error {
        DocumentError::NotAnObject => ApiError::bad_request("Request body must be a JSON object"),
        error => error.into(),
    })?;
    let asked = members.map(|member| {
        let revs = serde_json::from_slice::<Vec<Rev>>(member.value).map_err(|_| DocumentError::BadRev)?;
        Ok((member.key.into_owned(), revs))
    });
    asked.collect()
}

fn diff(snapshot: &Snapshot, asked: &[Asked], with_ancestors: bool) -> Result<Vec<u8>, StoreError> {
    let mut out = b"{".to_vec();
    for (id, revs) in asked {
        let record = snapshot.document(id)?;
        let known = |rev: &Rev| record.as_ref().is_some_and(|record| record.tree.contains(rev));
        let missing = revs.iter().filter(|rev| !known(rev)).cloned().collect::<Vec<_>>();
        if missing.is_empty() {
            continue;
        }
        let ancestors = match &record {
            Some(record) if with_ancestors => record.tree.possible_ancestors(&missing),
            _ => Vec::new(),
        };
        if out.len() > 1 {
            out.push(b',');
        }
        push_lacking(&mut out, id, &missing, &ancestors, with_ancestors);
    }
    out.push(b'}');
    Ok(out)
}

fn push_lacking(out: &mut Vec<u8>, id: &str, missing: &[Rev], ancestors: &[Rev], named: bool) {
    json::push_string(out, id);
    out.push(b':');
    if named {
        out.extend_from_slice(br#"{"missing":"#);
    }
    push_revs(out, missing);
    if !ancestors.is_empty() {
        out.extend_from_slice(br#","possible_ancestors":"#);
        push_revs(out, ancestors);
    }
    if named {
        out.push(b'}');
    }
}

fn push_revs(out: &mut Vec<u8>, revs: &[Rev]) {
    out.push(b'[');
    for (index, rev) in revs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::push_string(out, &rev.to_string());
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revs(texts: &[&str]) -> Vec<Rev> {
        texts.iter().map(|text| Rev::parse(text).unwrap()).collect()
    }

    #[test]
    fn what_is_asked_is_read_in_order() {
        let asked = parse(&Bytes::from_static(br#"{"b":["1-a","2-b"],"a":[]}"#)).unwrap();
        assert_eq!(asked, [("b".into(), revs(&["1-a", "2-b"])), ("a".into(), vec![])]);
        let reason = |body: &'static [u8]| parse(&Bytes::from_static(body)).unwrap_err().pair().1.into_owned();
        assert_eq!(reason(br#"{"a":["x"]}"#), "Invalid rev format");
        assert_eq!(reason(b"[]"), "Request body must be a JSON object");
        assert_eq!(reason(b"{"), "invalid UTF-8 JSON");
    }

    #[test]
    fn what_is_lacking_is_named_as_couchdb_does() {
        let lacking = |ancestors: &[&str], named| {
            let mut out = Vec::new();
            push_lacking(&mut out, "a", &revs(&["2-b", "3-c"]), &revs(ancestors), named);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(lacking(&[], true), r#""a":{"missing":["2-b","3-c"]}"#);
        assert_eq!(lacking(&["1-a"], true), r#""a":{"missing":["2-b","3-c"],"possible_ancestors":["1-a"]}"#);
        assert_eq!(lacking(&[], false), r#""a":["2-b","3-c"]"#);
    }
}
