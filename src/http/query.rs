//! Query parameters, read as CouchDB reads them: booleans are `true` and `false`, keys are JSON, revisions `N-hash`.
//!
//! The first of equal names counts. Unknown names are ignored. A value that makes no sense is a 400 that shows it.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::document::{DocumentError, Rev};
use crate::json::{self, Cursor};
use crate::store::{AttachmentsAs, DocOptions};

use super::error::ApiError;

/// Bytes of options in a body: as many as a URL takes.
const OPTIONS_BYTES: usize = 128 << 10;

/// A request's query parameters, in order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part of a URL after `?`.
    pub fn parse(text: &str) -> Self {
        Self(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// Adds the members of a JSON object, which win over what the URL says: how views take their options in a body. The
    /// member `apart`, which may be long, stays out.
    pub fn overlay(&mut self, object: &[u8], apart: &str) -> Result<(), ApiError> {
        json::check(object)?;
        if !object.trim_ascii_start().starts_with(b"{") {
            return Err(ApiError::bad_request("Request body must be a JSON object"));
        }
        let (mut cursor, mut options, mut bytes) = (Cursor::default(), Vec::new(), 0);
        while let Some(member) = cursor.member(object) {
            if member.key == apart {
                continue;
            }
            bytes += member.span.len();
            if bytes > OPTIONS_BYTES {
                return Err(ApiError::TooLarge);
            }
            options.push((member.key.into_owned(), String::from_utf8_lossy(member.value).into()));
        }
        self.0.splice(0..0, options);
        Ok(())
    }

    /// All parameters, in order.
    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// A parameter's text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A boolean, `false` if absent.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        self.flag_or(name, false)
    }

    /// A boolean.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(ApiError::QueryParse(format!("Invalid boolean parameter: {other:?}"))),
        }
    }

    /// A number that isn't negative.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let parse =
            |text: &str| text.parse().map_err(|_| ApiError::QueryParse(format!("Invalid value for integer: {text:?}")));
        self.get(name).map(parse).transpose()
    }

    /// A JSON value.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.get(name).map(|text| serde_json::from_str(text).map_err(|_| DocumentError::InvalidJson.into())).transpose()
    }

    /// The keys that a range of rows starts and ends with, under either of their names.
    pub fn range<T: DeserializeOwned>(&self) -> Result<(Option<T>, Option<T>), ApiError> {
        let key = |name: &str, alias: &str| match self.json(name)? {
            None => self.json(alias),
            some => Ok(some),
        };
        Ok((key("startkey", "start_key")?, key("endkey", "end_key")?))
    }

    /// A revision.
    pub fn rev(&self, name: &str) -> Result<Option<Rev>, ApiError> {
        self.get(name).map(|text| Rev::parse(text).ok_or(DocumentError::BadRev.into())).transpose()
    }

    /// A JSON array of revisions.
    pub fn revs(&self, name: &str) -> Result<Option<Vec<Rev>>, ApiError> {
        let texts = self.json::<Vec<String>>(name)?;
        texts
            .map(|texts| texts.iter().map(|text| Rev::parse(text).ok_or(DocumentError::BadRev.into())).collect())
            .transpose()
    }

    /// What a document is to show; attachments stand inline if they or `atts_since` are asked for.
    pub fn doc_options(&self) -> Result<DocOptions, ApiError> {
        let atts_since = self.revs("atts_since")?;
        let inline = self.flag("attachments")? || atts_since.is_some();
        Ok(DocOptions {
            revs: self.flag("revs")?,
            revs_info: self.flag("revs_info")?,
            conflicts: self.flag("conflicts")?,
            deleted_conflicts: self.flag("deleted_conflicts")?,
            local_seq: self.flag("local_seq")?,
            attachments: if inline { AttachmentsAs::Inline } else { AttachmentsAs::Stubs },
            atts_since,
            att_encoding_info: self.flag("att_encoding_info")?,
            members_apart: false,
            reader: None,
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason<T>(result: Result<T, ApiError>) -> String {
        result.err().map(|error| error.pair().1.into_owned()).unwrap_or_default()
    }

    #[test]
    fn values_are_decoded_and_typed() {
        let query = Query::parse("rev=1-a&atts_since=%5B%221-a%22%5D&limit=5&descending=true&startkey=%22a%20b%22");
        assert_eq!(query.rev("rev").unwrap(), Rev::parse("1-a"));
        assert_eq!(query.revs("atts_since").unwrap().unwrap(), [Rev::parse("1-a").unwrap()]);
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert!(query.flag("descending").unwrap());
        assert!(query.flag_or("inclusive_end", true).unwrap());
        assert_eq!(query.json::<String>("startkey").unwrap().as_deref(), Some("a b"));
        assert_eq!(query.get("absent"), None);
    }

    #[test]
    fn nonsense_is_shown_to_who_sent_it() {
        let query = Query::parse("limit=x&revs=yes&rev=1&startkey=a&open_revs=%5B1%5D");
        assert_eq!(reason(query.number("limit")), "Invalid value for integer: \"x\"");
        assert_eq!(reason(query.flag("revs")), "Invalid boolean parameter: \"yes\"");
        assert_eq!(reason(query.rev("rev")), "Invalid rev format");
        assert_eq!(reason(query.json::<String>("startkey")), "invalid UTF-8 JSON");
        assert_eq!(reason(query.revs("open_revs")), "invalid UTF-8 JSON");
    }

    #[test]
    fn a_body_wins_over_the_url() {
        let mut query = Query::parse("limit=1&skip=2");
        query.overlay(br#"{"limit":7,"keys":["b"],"startkey":"a"}"#, "keys").unwrap();
        assert_eq!((query.number("limit").unwrap(), query.number("skip").unwrap()), (Some(7), Some(2)));
        assert_eq!(query.json::<String>("startkey").unwrap().as_deref(), Some("a"));
        assert_eq!(query.get("keys"), None);
        assert_eq!(reason(query.overlay(b"[]", "keys")), "Request body must be a JSON object");
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(OPTIONS_BYTES));
        assert!(matches!(query.overlay(long.as_bytes(), "keys"), Err(ApiError::TooLarge)));
    }

    #[test]
    fn attachments_stand_inline_where_asked_for() {
        let options = |text: &str| Query::parse(text).doc_options().unwrap();
        assert_eq!(options("").attachments, AttachmentsAs::Stubs);
        assert_eq!(options("attachments=true").attachments, AttachmentsAs::Inline);
        assert_eq!(options("atts_since=[]").attachments, AttachmentsAs::Inline);
    }
}
