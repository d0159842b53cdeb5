//! What errors of the rooms below mean to a client: a status, and CouchDB's `error` and `reason`.
//!
//! Each `match` names all errors of its room: a new one doesn't compile before it has its line.

use std::borrow::Cow;

use axum::http::StatusCode;

use crate::access::Denied;
use crate::accounts::Refused;
use crate::document::DocumentError;
use crate::javascript::ScriptError;
use crate::peer::PeerError;
use crate::replicate::ReplicateError;
use crate::settings::SettingRefused;
use crate::store::{FilterError, StoreError};
use crate::users::token::TokenError;

/// A status, `error` and `reason`.
pub type Shown<'a> = (StatusCode, &'static str, Cow<'a, str>);

/// Our own fault: the cause is in the log alone.
pub const INTERNAL: Shown<'static> = (
    StatusCode::INTERNAL_SERVER_ERROR,
    "internal_server_error",
    Cow::Borrowed("The server failed; its log says why, under this answer's X-Couch-Request-ID."),
);

/// It would be done later.
pub const BUSY: Shown<'static> = (
    StatusCode::SERVICE_UNAVAILABLE,
    "service_unavailable",
    Cow::Borrowed("The server has too many open requests, try again."),
);

const CLOSING: Shown<'static> =
    (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", Cow::Borrowed("The server is shutting down."));

/// Of settings that are read and put.
pub fn setting(refused: &SettingRefused) -> Shown<'static> {
    match refused {
        SettingRefused::NotSet => (StatusCode::NOT_FOUND, "not_found", "unknown_config_value".into()),
        SettingRefused::LastAdmin => {
            let reason = "The last admin can't be deleted: without any, everyone is admin.";
            (StatusCode::FORBIDDEN, "forbidden", reason.into())
        }
        SettingRefused::Unknown(_)
        | SettingRefused::Value { .. }
        | SettingRefused::Unreadable(_)
        | SettingRefused::JwtKey(_) => (StatusCode::BAD_REQUEST, "bad_request", refused.to_string().into()),
        SettingRefused::Denied(error) => denied(*error),
        SettingRefused::Failed(_) => INTERNAL,
    }
}

/// 401 tells a client to log in, 403 that it wouldn't help.
pub fn denied(error: Denied) -> Shown<'static> {
    let (status, name) = match error {
        Denied::NotAuthenticated
        | Denied::NotServerAdmin
        | Denied::MayNotWatch
        | Denied::NotMember
        | Denied::NotDatabaseAdmin
        | Denied::MayNotDesign { known: false } => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Denied::ForeignDatabase | Denied::UsersDesign | Denied::MayNotDesign { known: true } => {
            (StatusCode::FORBIDDEN, "forbidden")
        }
    };
    (status, name, error.to_string().into())
}

/// Of who asks.
pub fn login(refused: &Refused) -> Shown<'static> {
    let reason = refused.to_string().into();
    match refused {
        Refused::WrongPassword | Refused::Conflicts | Refused::Token(TokenError::Unauthorized(_)) => {
            (StatusCode::UNAUTHORIZED, "unauthorized", reason)
        }
        Refused::Cookie(_) | Refused::Token(TokenError::Bad(_)) => (StatusCode::BAD_REQUEST, "bad_request", reason),
        Refused::Busy => BUSY,
        Refused::Store(error) => store(error),
        Refused::Panicked(_) => INTERNAL,
    }
}

/// Of documents that nobody could take.
pub fn document(error: &DocumentError) -> Shown<'static> {
    let name = match error {
        DocumentError::IdNotAString
        | DocumentError::IdEmpty
        | DocumentError::IdReserved
        | DocumentError::IdIllegal(_) => "illegal_docid",
        DocumentError::BadRevisions | DocumentError::BadMember(_) => "doc_validation",
        DocumentError::InvalidJson
        | DocumentError::NotAnObject
        | DocumentError::BadRev
        | DocumentError::RevMissing
        | DocumentError::BadAttachment(_)
        | DocumentError::BadAttachmentName(_) => "bad_request",
    };
    (StatusCode::BAD_REQUEST, name, error.to_string().into())
}

/// Of databases.
pub fn store(error: &StoreError) -> Shown<'static> {
    match error {
        error if error.is_disk_full() => {
            (StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage", "There is no room left on the disk.".into())
        }
        StoreError::NoDatabase => (StatusCode::NOT_FOUND, "not_found", "Database does not exist.".into()),
        StoreError::AlreadyExists => {
            let reason = "The database could not be created, the file already exists.";
            (StatusCode::PRECONDITION_FAILED, "file_exists", reason.into())
        }
        StoreError::IllegalName(name) => {
            let reason = format!(
                "Name: '{name}'. Only lowercase characters (a-z), digits (0-9), and any of the characters _, $, (, ), \
                 +, -, and / are allowed. Must begin with a letter."
            );
            (StatusCode::BAD_REQUEST, "illegal_database_name", reason.into())
        }
        StoreError::Closing => {
            let reason = "The database is being closed, try again.";
            (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", reason.into())
        }
        StoreError::Document(error) => document(error),
        StoreError::Filter(error) => filter(error),
        StoreError::BadGzip(_) => (StatusCode::BAD_REQUEST, "bad_request", error.to_string().into()),
        StoreError::WriteFailed(cause) => store(cause),
        StoreError::TextGone
        | StoreError::Overtaken
        | StoreError::Unnamed(_)
        | StoreError::Damaged(_)
        | StoreError::Io(_)
        | StoreError::Engine(_)
        | StoreError::Panicked(_) => INTERNAL,
    }
}

fn filter(error: &FilterError) -> Shown<'static> {
    let reason = error.to_string().into();
    match error {
        FilterError::Invalid(_) => (StatusCode::BAD_REQUEST, "bad_request", reason),
        FilterError::Missing | FilterError::Deleted | FilterError::NoFunction(_) => {
            (StatusCode::NOT_FOUND, "not_found", reason)
        }
        FilterError::Script(error) => script(error),
    }
}

/// Names that CouchDB's own errors have mean what they mean there, a thrown `forbidden` too, which CouchDB 3.5 answers
/// with 500 `unnamed_error` where a filter throws it. Names that a script makes up itself are named together.
pub fn script(error: &ScriptError) -> Shown<'static> {
    let (status, name) = match error.error.as_str() {
        "bad_request" => (StatusCode::BAD_REQUEST, "bad_request"),
        "unauthorized" => (StatusCode::UNAUTHORIZED, "unauthorized"),
        "forbidden" => (StatusCode::FORBIDDEN, "forbidden"),
        "not_found" => (StatusCode::NOT_FOUND, "not_found"),
        "document_too_large" => (StatusCode::PAYLOAD_TOO_LARGE, "document_too_large"),
        name => {
            let known = SCRIPT_ERRORS.iter().find(|known| **known == name);
            let Some(known) = known else {
                return (StatusCode::INTERNAL_SERVER_ERROR, "unnamed_error", error.to_string().into());
            };
            (StatusCode::INTERNAL_SERVER_ERROR, *known)
        }
    };
    (status, name, error.reason.clone().into())
}

/// What CouchDB's query server and the language themselves call errors.
const SCRIPT_ERRORS: [&str; 13] = [
    "compilation_error",
    "invalid_require_path",
    "os_process_error",
    "unknown_error",
    "unnamed_error",
    "Error",
    "EvalError",
    "InternalError",
    "RangeError",
    "ReferenceError",
    "SyntaxError",
    "TypeError",
    "URIError",
];

/// Missing databases are 404 and unreachable peers 502, which CouchDB 3.5 answers with 500.
pub fn replicate(error: &ReplicateError) -> Shown<'_> {
    let reason = || Cow::Owned(error.to_string());
    match error {
        ReplicateError::BadRequest(reason) => (StatusCode::BAD_REQUEST, "bad_request", reason.into()),
        ReplicateError::InvalidReplication(reason) => (StatusCode::BAD_REQUEST, "invalid_replication", reason.into()),
        ReplicateError::MissingDatabase(_) => (StatusCode::BAD_REQUEST, "bad_request", reason()),
        ReplicateError::DatabaseNotFound(_) => (StatusCode::NOT_FOUND, "db_not_found", reason()),
        ReplicateError::Unauthorized(reason) | ReplicateError::WrongCredentials { message: reason, .. } => {
            (StatusCode::UNAUTHORIZED, "unauthorized", reason.into())
        }
        ReplicateError::SessionOver(_) => (StatusCode::UNAUTHORIZED, "unauthorized", reason()),
        ReplicateError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", reason()),
        ReplicateError::NotFound(reason) => (StatusCode::NOT_FOUND, "not_found", reason.into()),
        ReplicateError::Unresolved(_) => (StatusCode::BAD_GATEWAY, "nxdomain", reason()),
        ReplicateError::Peer(error) => peer(error),
        ReplicateError::CouchDb(_) => (StatusCode::BAD_GATEWAY, "bad_gateway", reason()),
        ReplicateError::Cancelled => (StatusCode::INTERNAL_SERVER_ERROR, "replication_cancelled", reason()),
        ReplicateError::Paused => (StatusCode::CONFLICT, "replication_paused", reason()),
        ReplicateError::KeptOtherwise(reason) => (StatusCode::CONFLICT, "conflict", reason.into()),
        ReplicateError::NotRunNow(_) => (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", reason()),
        ReplicateError::Crashed => INTERNAL,
        ReplicateError::Stalled(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout", reason()),
        ReplicateError::ShuttingDown => CLOSING,
    }
}

fn peer(error: &PeerError) -> Shown<'static> {
    let reason = error.to_string().into();
    match error {
        PeerError::DatabaseMissing { .. } => (StatusCode::NOT_FOUND, "db_not_found", reason),
        PeerError::Unauthorized { .. } | PeerError::WrongCredentials { .. } => {
            (StatusCode::UNAUTHORIZED, "unauthorized", reason)
        }
        PeerError::Unresolved { .. } => (StatusCode::BAD_GATEWAY, "nxdomain", reason),
        PeerError::Unreachable { .. }
        | PeerError::Broken { .. }
        | PeerError::Answered { .. }
        | PeerError::NotCopied { .. }
        | PeerError::MissingStub { .. }
        | PeerError::Malformed { .. }
        | PeerError::TooLong { .. }
        | PeerError::Document(_) => (StatusCode::BAD_GATEWAY, "http_request_failed", reason),
        PeerError::Client(_) => (StatusCode::BAD_REQUEST, "bad_request", reason),
        PeerError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", reason),
        PeerError::Conflict => (StatusCode::CONFLICT, "conflict", reason),
        PeerError::Store(error) => store(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_refused_in_couchdbs_words() {
        let shown = |error: DocumentError| {
            let (status, error, reason) = document(&error);
            (status.as_u16(), error, reason.into_owned())
        };
        assert_eq!(
            shown(DocumentError::IdReserved),
            (400, "illegal_docid", "Only reserved document ids may start with underscore.".into())
        );
        assert_eq!(
            shown(DocumentError::BadMember("_x".into())),
            (400, "doc_validation", "Bad special document member: _x".into())
        );
        assert_eq!(shown(DocumentError::InvalidJson), (400, "bad_request", "invalid UTF-8 JSON".into()));
    }
}
