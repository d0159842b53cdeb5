//! Why a peer didn't do what it was asked for, and whose fault that is.

use crate::document::{DocId, DocumentError};
use crate::json::JsonError;
use crate::peer::failure::Why;
use crate::peer::remote::ClientError;
use crate::policy::Forbidden;
use crate::store::StoreError;

/// Why a peer didn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The database isn't there.
    #[error("could not open {database}")]
    DatabaseMissing {
        /// The peer's name for logs and answers: a URL ending in `/` without credentials, or a local name.
        database: String,
    },
    /// We may not open or create the database.
    #[error("unauthorized to access or create database {database}{}", said(.reason))]
    Unauthorized {
        /// As above.
        database: String,
        /// The peer's own words, if there are any.
        reason: Option<String>,
    },
    /// The peer doesn't take our credentials. Another try is another failed login, of which an account bears few.
    #[error("unauthorized to access or create database {database}{}", said(.reason))]
    WrongCredentials {
        /// As above.
        database: String,
        /// As above.
        reason: Option<String>,
    },
    /// The host's name stands for no address.
    #[error("could not resolve {database}")]
    Unresolved {
        /// As above.
        database: String,
    },
    /// No connection, or it broke before an answer came, on every try.
    #[error("{request} got no answer in {tries} tries: {reason}")]
    Unreachable {
        /// Method and URL without credentials: `POST http://host/db/_revs_diff`.
        request: String,
        /// How often it was tried.
        tries: u32,
        /// What happened the last time, readable and without credentials.
        reason: String,
    },
    /// An answer broke off while being read.
    #[error("the answer to {request} broke off: {reason}")]
    Broken {
        /// As above.
        request: String,
        /// What happened.
        reason: String,
    },
    /// Another answer than the expected one, after all tries.
    #[error("{request} was answered {}", answer(.status, .why))]
    Answered {
        /// As above; or the document that it is about.
        request: String,
        /// That of the whole answer, if it counts.
        status: Option<u16>,
        /// The peer's words, shortened; else the status's own and the answer's beginning.
        why: Why,
        /// Whose fault it is.
        blame: Blame,
    },
    /// A document of a batch didn't get to the target, and may not be given up.
    #[error("document {id} could not be copied: {why}")]
    NotCopied {
        /// The document.
        id: DocId,
        /// What it met last.
        why: Why,
        /// Whose fault that may be.
        blame: Blame,
    },
    /// A stub names an attachment that the target doesn't have: fetch it again with no `atts_since`.
    #[error("{database} lacks an attachment that was sent as a stub: {reason}")]
    MissingStub {
        /// The peer's name.
        database: String,
        /// Its words.
        reason: String,
    },
    /// An answer that isn't what the protocol says.
    #[error("{request} was answered with something else than {expected}: {found}")]
    Malformed {
        /// As above.
        request: String,
        /// What was expected, in words.
        expected: &'static str,
        /// What came instead, shortened.
        found: String,
    },
    /// An answer, or a document, that is longer than may be held.
    #[error("the answer to {request} is longer than {limit} bytes")]
    TooLong {
        /// As above.
        request: String,
        /// Bytes of the longest that may be.
        limit: usize,
    },
    /// There is no client to reach the peer with, as where a certificate file can't be used.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The settings forbid the connection.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A checkpoint document was changed by somebody else meanwhile.
    #[error("the document was changed meanwhile")]
    Conflict,
    /// A document that this side can't make sense of.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The embedded store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whose fault it is that a request wasn't done.
///
/// A verdict on a document takes the peer's own words, CouchDB's `{"error","reason"}`: a status or a page says nothing
/// of it, since whatever stands between may have made them. What is in doubt is settled by whoever sees more than one
/// request ([`crate::replicate::doubt`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The document's, by the peer's own verdict; one of them, if the request was about several.
    Document,
    /// The peer says that it has no such revision.
    Missing,
    /// Nobody's that one answer could tell: the document's, if it alone meets this again and again.
    Unclear {
        /// Whether the answer was in CouchDB's words, and so is the peer's own.
        worded: bool,
    },
    /// The peer's, which may pass.
    Passing,
    /// The peer's, or the request's as a whole, and it stays so.
    Lasting,
}

impl From<JsonError> for PeerError {
    fn from(error: JsonError) -> Self {
        Self::Document(error.into())
    }
}

fn answer(status: &Option<u16>, words: impl std::fmt::Display) -> String {
    status.map_or_else(|| words.to_string(), |status| format!("{status} {words}"))
}

/// A peer's words, after ours.
fn said(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

impl PeerError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Answered { blame, .. } | Self::NotCopied { blame, .. } => *blame,
            // What a document brings down, the connection or the answer, looks so too.
            Self::Broken { .. }
            | Self::Malformed { .. }
            | Self::TooLong { .. }
            | Self::Document(_)
            | Self::MissingStub { .. } => Blame::Unclear { worded: false },
            Self::DatabaseMissing { .. }
            | Self::Unauthorized { .. }
            | Self::WrongCredentials { .. }
            | Self::Unresolved { .. }
            | Self::Unreachable { .. }
            | Self::Client(_)
            // Of a rule no document may be given up, whatever it redirected to.
            | Self::Forbidden(_)
            | Self::Conflict
            | Self::Store(_) => Blame::Lasting,
        }
    }

    /// What happened, and not where, nor what a stranger's answer held: a failure is kept in the source, whose readers needn't
    /// learn of the target's host, nor of what else this machine reaches.
    pub fn without_address(&self) -> String {
        match self {
            Self::DatabaseMissing { .. } => "the database could not be opened".into(),
            Self::Unauthorized { .. } | Self::WrongCredentials { .. } => "unauthorized to access the database".into(),
            Self::Unresolved { .. } => "the host could not be resolved".into(),
            Self::Unreachable { reason, .. } => format!("no answer: {reason}"),
            Self::Broken { reason, .. } => format!("the answer broke off: {reason}"),
            // What isn't in CouchDB's words may come from anywhere that a redirect led to: its status says enough.
            Self::Answered { status, why, blame: Blame::Unclear { worded: false }, .. } => answer(status, &why.error),
            Self::Answered { status, why, .. } => answer(status, why),
            Self::NotCopied { why, .. } => why.to_string(),
            Self::MissingStub { reason, .. } => format!("an attachment that was sent as a stub is missing: {reason}"),
            Self::Malformed { expected, .. } => format!("something else than {expected}"),
            Self::TooLong { limit, .. } => format!("the answer is longer than {limit} bytes"),
            Self::Forbidden(_) => "the connection is forbidden".into(),
            Self::Client(_) | Self::Conflict | Self::Document(_) | Self::Store(_) => self.to_string(),
        }
    }

    /// Whether there is no use in asking this peer for the same again: another place may do.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Unauthorized { .. } | Self::WrongCredentials { .. } | Self::Forbidden(_) => true,
            Self::Answered { blame, .. } => {
                matches!(blame, Blame::Document | Blame::Lasting)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of failures showed the beginning of whatever page a redirect had led to.
    #[test]
    fn a_failure_shows_the_status_of_an_answer_and_words_only_if_they_are_a_databases_own() {
        let answered = |worded| PeerError::Answered {
            request: "GET http://h/db/a".into(),
            status: Some(404),
            why: Why::new("Not Found", "the secret of another host"),
            blame: Blame::Unclear { worded },
        };
        assert_eq!(answered(false).without_address(), "404 Not Found");
        assert_eq!(answered(true).without_address(), "404 Not Found: the secret of another host");
        let shown = "GET http://h/db/a was answered 404 Not Found: the secret of another host";
        assert_eq!(answered(true).to_string(), shown);
    }
}
