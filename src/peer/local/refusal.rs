//! What the store refuses, in CouchDB's words.

use crate::access::Denied;
use crate::document::{DocId, DocumentError, Rev};
use crate::peer::error::Blame;
use crate::peer::failure::{Failure, Why};
use crate::store::Refusal;

pub(super) fn failure(id: DocId, rev: Rev, why: Why) -> Failure {
    Failure { id, rev: Some(rev), why }
}

pub(super) fn bad_document(error: &DocumentError) -> Why {
    Why::new("doc_validation", error.to_string())
}

/// Whose fault a refusal is. A validation that ran out of its time or memory has given no verdict: it may pass the same document
/// when the machine has less to do.
pub(super) fn blame(refusal: &Refusal) -> Blame {
    match refusal {
        // It says nothing of the document, however often it is met.
        Refusal::Script(error) if error.is_barred() => Blame::Passing,
        Refusal::Script(error) if !error.is_verdict() => Blame::Unclear { worded: true },
        _ => Blame::Document,
    }
}

pub(super) fn refused_by_store(refusal: &Refusal) -> Why {
    let error = match refusal {
        Refusal::Conflict => "conflict",
        Refusal::MissingStub { .. } => "missing_stub",
        Refusal::Script(error) => &error.error,
        Refusal::Denied(Denied::MayNotDesign { known: true }) => "forbidden",
        Refusal::Denied(_) => "unauthorized",
        Refusal::InvalidDesign(_) => "invalid_design_doc",
        Refusal::Compilation(_) => "compilation_error",
    };
    Why::new(error, refusal.to_string())
}
