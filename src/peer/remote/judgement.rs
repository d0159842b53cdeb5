//! What an answer means: the one place that tells a refused document from a peer in trouble and from a wrong request.
//!
//! Promises: **no status is a verdict on a document**, and nothing counts as done, absent or refused unless the database
//! itself says so, in CouchDB's words (`{"error","reason"}` in JSON). Whatever stands between, a gateway, a portal, a proxy,
//! answers in statuses and pages, and in JSON of its own; these tell of trouble on the way to the database. Words alone don't suffice for
//! `forbidden` and `unauthorized`: whoever was put out of a database is answered as if one document were refused. So
//! [`super::RemotePeer::let_in`] is asked before they count.
//!
//! One exception: whether there is a database at all, and whether we are let in. A bare 404, 401 or 403 that stays until all
//! tries are over ends the replication, so nothing is passed over for it.
//!
//! What could go wrong here: a word of trouble that isn't known to be one. So words are known *verdicts*, or known
//! *trouble*, or else [`Blame::Unclear`], which one answer never settles.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::shown::shorten;
use crate::json;
use crate::peer::{Blame, Why};

/// Bytes of a peer's word or reason that are kept: more are a stack trace, or meant to fill memory.
const KEPT_BYTES: usize = 1000;

/// CouchDB's words as they stand in an answer or in a row of one: as text, since a value can take many times its text.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Words<'a> {
    /// A word; PouchDB's `true` beside the word in `name`; or, in a row of `_bulk_get`, an object with all of this.
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
    /// PouchDB's word.
    #[serde(borrow)]
    pub name: Option<&'a RawValue>,
    /// More words.
    #[serde(borrow)]
    pub reason: Option<&'a RawValue>,
}

/// What stands beside the words in a row of `_bulk_get`.
#[derive(Default, Deserialize)]
struct RowRev<'a> {
    #[serde(borrow)]
    rev: Option<&'a RawValue>,
}

impl<'a> Words<'a> {
    /// What they say; `None` if they tell of no error.
    pub(super) fn why(&self) -> Option<Why> {
        let reason = |of: Option<&RawValue>| of.or(self.reason).map(text).unwrap_or_default();
        let name = |of: Option<&RawValue>| of.and_then(word).unwrap_or_else(|| "unknown_error".into());
        let error = self.error?;
        match error.get().as_bytes().first()? {
            b't' | b'f' => Some(Why::new(name(self.name), reason(None))),
            b'{' => {
                let row: Self = self.in_row();
                let word = row.error.and_then(word).unwrap_or_else(|| name(row.name));
                Some(Why::new(word, reason(row.reason)))
            }
            _ => Some(Why::new(text(error), reason(None))),
        }
    }

    /// The same of an answer as a whole: a gateway's own `{"error":"Forbidden"}` has no reason, and its `true` no name.
    pub(super) fn of_whole_answer(&self) -> Option<Why> {
        let worded = match self.error?.get() {
            "true" => self.name.is_some(),
            text => text.starts_with('"'),
        };
        self.why().filter(|_| worded && self.reason.is_some())
    }

    /// The revision that a row of `_bulk_get` names.
    pub(super) fn rev(&self) -> Option<Cow<'a, str>> {
        json::string(self.in_row::<RowRev<'_>>().rev?.get().as_bytes())
    }

    fn in_row<T: Default + Deserialize<'a>>(&self) -> T {
        let row = self.error.filter(|error| error.get().starts_with('{'));
        row.and_then(|row| serde_json::from_str(row.get()).ok()).unwrap_or_default()
    }
}

/// A text, or what else stands there, as JSON.
fn text(raw: &RawValue) -> String {
    word(raw).unwrap_or_else(|| kept(raw.get()))
}

/// A text; `None` if something else stands there.
fn word(raw: &RawValue) -> Option<String> {
    json::string(raw.get().as_bytes()).map(|text| kept(&text))
}

fn kept(text: &str) -> String {
    if text.len() > KEPT_BYTES { shorten(text.as_bytes(), KEPT_BYTES) } else { text.to_owned() }
}

/// What an answer means to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The request was done, if the body says so too.
    Done,
    /// There is no such database.
    NoDatabase,
    /// There is no such document, revision or attachment, or an older peer knows no such request.
    NotThere,
    /// The peer takes no such request at all.
    NotSupported,
    /// An older peer takes no such request, or something in our request was wrong.
    NotTaken,
    /// Our credentials don't do: for this database, or for this document.
    NotAllowed,
    /// A document, or a database, is there already.
    Conflict,
    /// A stub names an attachment that isn't there.
    MissingStub,
    /// The request is larger than the database, or whatever stands before it, takes: a smaller one may do.
    TooLarge,
    /// Anything else.
    Failed(Blame),
}

impl Meaning {
    /// Whose fault it is, for a request that has no use for this answer.
    pub(super) fn blame(self) -> Blame {
        match self {
            Self::Failed(blame) => blame,
            Self::Done | Self::NotThere | Self::NotTaken | Self::Conflict | Self::MissingStub => {
                Blame::Unclear { worded: true }
            }
            Self::TooLarge => Blame::Unclear { worded: false },
            Self::NoDatabase | Self::NotAllowed | Self::NotSupported => Blame::Lasting,
        }
    }

    /// Whether an older peer may mean that it knows no such request.
    pub(super) fn is_unknown_request(self) -> bool {
        matches!(self, Self::NotThere | Self::NotTaken | Self::NotSupported)
    }
}

/// Judges an answer by its status and, if there are any, its words.
pub(super) fn meaning(status: u16, said: Option<&Why>) -> Meaning {
    let Some(why) = said else { return unworded(status) };
    match (status, why.error.as_str()) {
        (200..=299, _) => Meaning::Done,
        (404, "not_found") if NO_DATABASE.contains(&why.reason.as_str()) => Meaning::NoDatabase,
        (404, "not_found") => Meaning::NotThere,
        (401 | 403, "unauthorized" | "forbidden") => Meaning::NotAllowed,
        (409, "conflict") | (412, "file_exists") => Meaning::Conflict,
        (412, "missing_stub") => Meaning::MissingStub,
        (413, _) => Meaning::TooLarge,
        // CouchDB before 2 answers a request that it doesn't know as if it were a document's, with any of these.
        (405 | 415 | 501, _) => Meaning::NotSupported,
        (400, "bad_request" | "bad_content_type" | "invalid_json") => Meaning::NotTaken,
        (408 | 429 | 502..=504, _) => Meaning::Failed(Blame::Passing),
        (505 | 507 | 511, _) => Meaning::Failed(Blame::Lasting),
        _ => Meaning::Failed(of_document(why)),
    }
}

/// An answer that isn't in the database's words: its status says how the way there is, and nothing of any document.
fn unworded(status: u16) -> Meaning {
    match status {
        200..=299 => Meaning::Done,
        413 => Meaning::TooLarge,
        408 | 429 | 502..=504 | 520..=530 => Meaning::Failed(Blame::Passing),
        // Not implemented, no such HTTP version, disk full, captive portal: none passes within a minute.
        501 | 505 | 507 | 511 => Meaning::Failed(Blame::Lasting),
        _ => Meaning::Failed(Blame::Unclear { worded: false }),
    }
}

/// What a bare status, that stayed until all tries were over, says of the database as a whole.
pub(super) fn of_whole_database(status: u16) -> Option<Meaning> {
    match status {
        404 => Some(Meaning::NoDatabase),
        401 | 403 => Some(Meaning::NotAllowed),
        _ => None,
    }
}

/// Judges what a peer says of one document, in a row of an answer or as the answer to a request about it alone.
pub(super) fn of_document(why: &Why) -> Blame {
    let error = why.error.as_str();
    if error == "not_found" {
        Blame::Missing
    } else if VERDICTS.contains(&error) {
        Blame::Document
    } else if TROUBLE.contains(&error) || TROUBLED_REASONS.iter().any(|part| why.reason.contains(part)) {
        Blame::Passing
    } else {
        Blame::Unclear { worded: true }
    }
}

/// Judges what a target says of one document that it was sent: that something isn't there says nothing of a revision.
pub(super) fn of_written(why: &Why) -> Blame {
    match of_document(why) {
        Blame::Missing => Blame::Unclear { worded: true },
        blame => blame,
    }
}

/// Whether a peer's word says that we may not read or write one document.
pub(super) fn is_about_rights(why: &Why) -> bool {
    matches!(why.error.as_str(), "forbidden" | "unauthorized")
}

/// How CouchDB and PouchDB say that there is no such database.
const NO_DATABASE: [&str; 2] = ["no_db_file", "Database does not exist."];

/// Words that settle it for one document, whatever else is going on. `bad_request` isn't among them: it is what a request
/// gets that arrived broken.
const VERDICTS: [&str; 7] = [
    "too_large",
    "document_too_large",
    "attachment_too_large",
    "doc_validation",
    "illegal_docid",
    "content_md5_mismatch",
    "invalid_attachment",
];

/// What a cluster says of a document when a part of it fails, and what a busy or stopping server says.
const TROUBLE: [&str; 15] = [
    "timeout",
    "error",
    "internal_error",
    "internal_server_error",
    "internal_fabric_error",
    "service_unavailable",
    "all_workers_died",
    "nodedown",
    "read_failure",
    "write_failure",
    "no_majority",
    "no_ring",
    "rev_quorum",
    "maintenance_mode",
    "too_many_requests",
];

/// Parts of reasons that tell of a node that is gone or late, whatever the error beside them.
const TROUBLED_REASONS: [&str; 7] =
    ["nodedown", "rexi_DOWN", "progress not possible", "noproc", "noconnection", "timeout", "shutdown"];

#[cfg(test)]
mod tests {
    use super::*;

    /// A gateway's page, whatever its status, was once a verdict: 4xx on documents, 404 on what isn't there.
    #[test]
    fn no_status_is_a_verdict_on_anything() {
        for status in 300..=599 {
            let judged = Meaning::Failed(meaning(status, None).blame());
            let harmless = Meaning::Failed(Blame::Unclear { worded: false });
            assert!(
                matches!(judged, Meaning::Failed(Blame::Passing | Blame::Lasting)) || judged == harmless,
                "{status}: {judged:?}"
            );
        }
    }

    #[test]
    fn a_clusters_words_of_trouble_are_no_verdict_on_a_document() {
        for (error, reason) in [
            ("internal_fabric_error", "{error,{nodedown,<<\"progress not possible\">>}}"),
            ("error", "internal_server_error"),
            ("nodedown", "progress not possible"),
            ("timeout", ""),
            ("unknown_error", "{timeout,{gen_server,call,[…]}}"),
        ] {
            assert_eq!(of_document(&Why::new(error, reason)), Blame::Passing, "{error}");
        }
    }

    #[test]
    fn unknown_words_settle_nothing_and_known_ones_do() {
        assert_eq!(of_document(&Why::new("unknown_error", "badarith")), Blame::Unclear { worded: true });
        assert_eq!(of_document(&Why::new("forbidden", "")), Blame::Unclear { worded: true });
        assert_eq!(of_document(&Why::new("doc_validation", "")), Blame::Document);
        assert_eq!(of_document(&Why::new("not_found", "missing")), Blame::Missing);
    }

    /// Words were read in three places, each in its own way.
    #[test]
    fn words_are_read_alike_wherever_they_stand() {
        let why = |json: &str| serde_json::from_str::<Words<'_>>(json).unwrap().why();
        let whole = |json: &str| serde_json::from_str::<Words<'_>>(json).unwrap().of_whole_answer();
        let missing = || Some(Why::new("not_found", "missing"));
        let forbidden = r#"{"error":"Forbidden"}"#;
        for told in [
            r#"{"error":"not_found","reason":"missing"}"#,
            r#"{"error":true,"status":404,"name":"not_found","message":"missing","reason":"missing"}"#,
        ] {
            assert_eq!((why(told), whole(told)), (missing(), missing()), "{told}");
        }
        for row in [
            r#"{"error":{"id":"a","rev":"1-a","error":"not_found","reason":"missing"}}"#,
            r#"{"error":{"status":404,"name":"not_found","error":true,"reason":"missing"}}"#,
        ] {
            assert_eq!((why(row), whole(row)), (missing(), None), "{row}");
        }
        assert_eq!((why(forbidden), whole(forbidden)), (Some(Why::new("Forbidden", "")), None));
        assert_eq!(whole(r#"{"error":true,"reason":"x"}"#), None);
        assert_eq!((why(r#"{"ok":true}"#), why(r#"{"error":null}"#)), (None, None));
    }

    /// A word of megabytes was kept whole, and an array in place of one took twenty times its text.
    #[test]
    fn hostile_words_are_kept_short_whatever_they_are() {
        let (text, array) = ("x".repeat(1 << 20), "[0],".repeat(1 << 18));
        for words in [
            format!(r#"{{"error":"{text}","reason":"{text}"}}"#),
            format!(r#"{{"error":[{array}0],"reason":[{array}0]}}"#),
            format!(r#"{{"error":{{"rev":"1-a","error":"{text}","reason":[{array}0]}}}}"#),
        ] {
            let why = serde_json::from_str::<Words<'_>>(&words).unwrap().why().unwrap();
            assert!(why.error.len() + why.reason.len() < 3 * KEPT_BYTES);
        }
    }

    #[test]
    fn a_database_is_gone_and_a_document_absent_only_in_the_databases_words() {
        let said = |status, error: &str, reason: &str| meaning(status, Some(&Why::new(error, reason)));
        assert_eq!(said(404, "not_found", "Database does not exist."), Meaning::NoDatabase);
        assert_eq!(said(404, "not_found", "no_db_file"), Meaning::NoDatabase);
        assert_eq!(said(404, "not_found", "missing"), Meaning::NotThere);
        assert_eq!(said(403, "forbidden", ""), Meaning::NotAllowed);
        assert_eq!(said(409, "conflict", ""), Meaning::Conflict);
        assert_eq!(said(412, "file_exists", ""), Meaning::Conflict);
        assert_eq!(said(412, "missing_stub", ""), Meaning::MissingStub);
        assert_eq!(said(400, "doc_validation", ""), Meaning::Failed(Blame::Document));
        assert_eq!(said(413, "document_too_large", "a"), Meaning::TooLarge);
        assert_eq!(said(500, "unknown_error", "badarith"), Meaning::Failed(Blame::Unclear { worded: true }));
        assert_eq!(said(500, "nodedown", "progress not possible"), Meaning::Failed(Blame::Passing));
    }
}
