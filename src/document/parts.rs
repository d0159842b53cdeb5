//! A document taken apart: what replication and the store look at, and the rest as the bytes that came.
//!
//! Rules from CouchDB: `couch_doc:transfer_fields/2` says which underscore members there are, and that any other, or one
//! of the wrong kind, is a bad one. Of members that come twice the last one counts.

use std::borrow::Cow;
use std::ops::Range;

use super::{DocumentError, Rev, Revisions};
use crate::json;

/// Members that the replicator writes into the documents of `_replicator`, and that are body all the same.
const REPLICATOR_MEMBERS: [&str; 5] = [
    "_replication_state",
    "_replication_state_time",
    "_replication_state_reason",
    "_replication_id",
    "_replication_stats",
];

/// A document taken apart: its underscore members, and the spans of everything else.
///
/// Borrowed from the document's text; nothing but the underscore members is copied or parsed.
#[derive(Debug, Default)]
pub struct DocParts<'a> {
    /// `_id`, unescaped.
    pub id: Option<Cow<'a, str>>,
    /// `_rev`.
    pub rev: Option<Rev>,
    /// `_revisions`.
    pub revisions: Option<Revisions>,
    /// `_deleted` is `true`.
    pub deleted: bool,
    /// The JSON text of `_attachments`, if it is there and isn't `{}`.
    pub attachments: Option<&'a [u8]>,
    /// It is JSON that CouchDB would refuse: it can be read, but isn't written.
    pub odd: bool,
    /// Runs of `"key":value` text between underscore members, in order, without the commas around them.
    fields: Vec<&'a [u8]>,
}

impl<'a> DocParts<'a> {
    /// Takes a document apart, after checking that the whole of it is JSON.
    ///
    /// # Errors
    /// [`DocumentError`] if the text is no JSON object, or an underscore member is unknown or of the wrong kind.
    pub fn parse(text: &'a [u8]) -> Result<Self, DocumentError> {
        let mut parts = Self::default();
        let mut run: Option<Range<usize>> = None;
        let members = json::members(text)?;
        parts.odd = members.odd;
        for member in members {
            if !member.key.starts_with('_') || REPLICATOR_MEMBERS.contains(&member.key.as_ref()) {
                run = Some(run.map_or(member.span.clone(), |run| run.start..member.span.end));
                continue;
            }
            parts.fields.extend(run.take().map(|run| &text[run]));
            parts.take_special(&member.key, member.value)?;
        }
        parts.fields.extend(run.map(|run| &text[run]));
        Ok(parts)
    }

    fn take_special(&mut self, key: &str, value: &'a [u8]) -> Result<(), DocumentError> {
        match key {
            "_id" => self.id = Some(json::string(value).ok_or(DocumentError::IdNotAString)?),
            "_rev" => {
                let rev = json::string(value).and_then(|rev| Rev::parse(&rev));
                self.rev = Some(rev.ok_or(DocumentError::BadRev)?);
            }
            "_revisions" if value.starts_with(b"{") => self.revisions = Some(Revisions::parse(value)?),
            "_deleted" if matches!(value, b"true" | b"false") => self.deleted = value == b"true",
            "_attachments" if value.starts_with(b"{") => {
                let empty = value[1..].trim_ascii_start().starts_with(b"}");
                self.attachments = (!empty).then_some(value);
            }
            "_conflicts" | "_deleted_conflicts" | "_revs_info" | "_local_seq" | "_access" => {}
            _ => return Err(DocumentError::BadMember(key.into())),
        }
        Ok(())
    }

    /// The document's own members, byte for byte, as a JSON object.
    pub fn body(&self) -> Vec<u8> {
        let length = self.fields.iter().map(|run| run.len() + 1).sum::<usize>() + 2;
        let mut body = Vec::with_capacity(length);
        body.push(b'{');
        for run in &self.fields {
            if body.len() > 1 {
                body.push(b',');
            }
            body.extend_from_slice(run);
        }
        body.push(b'}');
        body
    }

    /// The path that the document brings: `_revisions`, else its `_rev` alone.
    pub fn path(&self) -> Option<Revisions> {
        self.revisions.clone().or_else(|| self.rev.clone().map(Revisions::single))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const OWN: &[&str] = &[
        r#""n":1.0"#,
        r#""big" : 12345678901234567890123"#,
        "\"spaced\"\n:\t{ \"_id\" : [ 1 ,2 ] }",
        r#""n":-0e-7"#,
        r#""Zoë":"\u00e9\/é""#,
        r#""":null"#,
        r#""a\u005fb":"_id""#,
        r#""_replication_state":"triggered""#,
    ];
    const SPECIAL: &[&str] = &[
        r#""_id":"a""#,
        r#""\u005fid":"b""#,
        r#""_rev":"3-c""#,
        r#""_revisions":{"start":3,"ids":["c","b"]}"#,
        r#""_deleted":false"#,
        r#""_attachments":{ }"#,
        r#""_attachments":{"x":{"stub":true}}"#,
        r#""_conflicts":["2-x"]"#,
        r#""_local_seq" : 7"#,
        r#""_revs_info":[]"#,
    ];

    fn error(text: &str) -> DocumentError {
        DocParts::parse(text.as_bytes()).unwrap_err()
    }

    proptest! {
        #[test]
        fn a_body_is_the_other_members_byte_for_byte(
            members in vec(prop_oneof![select(OWN), select(SPECIAL)], 0..12), comma in select(&[",", " ,\n"][..]),
        ) {
            let text = format!(" {{ {} }} ", members.join(comma));
            let body = DocParts::parse(text.as_bytes()).unwrap().body();
            let own = |text: &[u8]| -> Vec<Vec<u8>> {
                json::members(text).unwrap().map(|member| text[member.span].to_vec()).collect()
            };
            let expected: Vec<_> = members.iter().filter(|member| OWN.contains(member)).map(|member| member.as_bytes().to_vec()).collect();
            prop_assert_eq!(own(&body), expected);
            // What is stored once is stored the same again.
            prop_assert_eq!(DocParts::parse(&body).unwrap().body(), body);
        }

        #[test]
        fn documents_that_are_no_json_are_refused(text in r#"\{?"?_?[a-z]{0,3}"?:?[{}\[\]",0-9]{0,6}\}?"#) {
            if let Ok(parts) = DocParts::parse(text.as_bytes()) {
                prop_assert!(json::members(text.as_bytes()).is_ok() && json::members(&parts.body()).is_ok());
            }
        }
    }

    #[test]
    fn underscore_members_are_found_wherever_they_stand() {
        let text = br#"{"a":1,"_id":"x\u0079","b":2,"_rev":"2-b","_deleted":true,"_attachments":{"f":{}},"c":3}"#;
        let parts = DocParts::parse(text).unwrap();
        assert_eq!(parts.id.as_deref(), Some("xy"));
        assert_eq!(parts.rev, Rev::parse("2-b"));
        assert!(parts.deleted);
        assert_eq!(parts.attachments, Some(&br#"{"f":{}}"#[..]));
        assert_eq!(parts.body(), br#"{"a":1,"b":2,"c":3}"#);
    }

    #[test]
    fn the_path_is_revisions_or_else_rev_alone() {
        let path = |text: &str| DocParts::parse(text.as_bytes()).unwrap().path();
        assert_eq!(path("{}"), None);
        assert_eq!(path(r#"{"_rev":"2-b"}"#), Some(Revisions { start: 2, ids: vec!["b".into()] }));
        let both = path(r#"{"_revisions":{"start":2,"ids":["b","a"]},"_rev":"2-b"}"#);
        assert_eq!(both, Some(Revisions { start: 2, ids: vec!["b".into(), "a".into()] }));
    }

    #[test]
    fn of_members_that_come_twice_the_last_counts() {
        let parts = DocParts::parse(br#"{"_id":"a","_deleted":true,"_attachments":{"f":{}},"x":1,"_id":"b","_deleted":false,"_attachments":{},"x":2}"#);
        let parts = parts.unwrap();
        assert_eq!((parts.id.as_deref(), parts.deleted, parts.attachments), (Some("b"), false, None));
        assert_eq!(parts.body(), br#"{"x":1,"x":2}"#);
    }

    #[test]
    fn wrong_members_are_refused_with_couchdbs_words() {
        assert_eq!(error(r#"{"_foo":1}"#).to_string(), "Bad special document member: _foo");
        assert_eq!(error(r#"{"_replication_x":1}"#), DocumentError::BadMember("_replication_x".into()));
        assert_eq!(error(r#"{"\u005ffoo":1}"#), DocumentError::BadMember("_foo".into()));
        for member in ["_deleted", "_attachments", "_revisions"] {
            for value in ["1", "null", "\"true\"", "[]"] {
                assert_eq!(error(&format!(r#"{{"{member}":{value}}}"#)), DocumentError::BadMember(member.into()));
            }
        }
        assert_eq!(error(r#"{"_deleted":{}}"#), DocumentError::BadMember("_deleted".into()));
        assert_eq!(error(r#"{"_id":1}"#), DocumentError::IdNotAString);
        assert_eq!(error(r#"{"_id":"\udfff"}"#), DocumentError::IdNotAString);
        assert_eq!(error(r#"{"_rev":"x"}"#), DocumentError::BadRev);
        assert_eq!(error(r#"{"_rev":null}"#), DocumentError::BadRev);
        assert_eq!(error(r#"{"_revisions":{}}"#), DocumentError::BadRevisions);
        assert_eq!(error("[]"), DocumentError::NotAnObject);
        assert_eq!(error(r#"{"a":1"#), DocumentError::InvalidJson);
    }
}
