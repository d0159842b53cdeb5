//! What goes wrong, as CouchDB says it: the only place that knows the statuses of errors and their `error`/`reason`. Those of the rooms
//! below stand in [`words`].
//!
//! The pairs are those of CouchDB 3.5's `chttpd:error_info/1`; where couchrep differs, the line says so.
//! Failures of the server itself are logged with their cause where they become an answer, and answered without it.

mod words;

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;

use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use self::words::{BUSY, INTERNAL, Shown, denied, document, login, replicate, script, setting, store};
use crate::access::{Denied, SecurityError};
use crate::accounts::Refused;
use crate::document::DocumentError;
use crate::javascript::ScriptError;
use crate::json::JsonError;
use crate::multipart::MultipartError;
use crate::replicate::ReplicateError;
use crate::settings::SettingRefused;
use crate::store::{Refusal, StoreError};
use crate::tasks::Panicked;

/// Why a request isn't answered as it hoped; the table in [`ApiError::shown`] says what each means.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    BadRequest(Cow<'static, str>),
    #[error("{0}")]
    QueryParse(String),
    #[error("malformed since")]
    InvalidSince,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error("the users' security object")]
    UsersSecurity,
    #[error("no such node: {0}")]
    NoNode(String),
    #[error(transparent)]
    Setting(#[from] SettingRefused),
    #[error("another site's name")]
    ForeignHost,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0}")]
    NotLoggedIn(&'static str),
    #[error("another site's page sent this")]
    CrossOrigin,
    #[error("missing")]
    Missing,
    #[error("deleted")]
    Deleted,
    #[error("no such attachment")]
    MissingAttachment,
    #[error("no such session")]
    NoSessions,
    #[error("only {0} allowed")]
    MethodNotAllowed(String),
    #[error("couchrep has no {feature}")]
    Absent { name: &'static str, feature: &'static str },
    #[error("conflict")]
    Conflict,
    #[error("{0}")]
    MissingStub(String),
    #[error("no such range")]
    RangeNotSatisfiable,
    #[error("{0}")]
    InvalidDesign(String),
    #[error("{0}")]
    Compilation(String),
    #[error(transparent)]
    Script(ScriptError),
    #[error("too large")]
    TooLarge,
    #[error("the body came too slowly")]
    SlowBody,
    #[error("{0}")]
    BadContentType(Cow<'static, str>),
    #[error("too many requests at once")]
    Busy,
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Replicate(#[from] ReplicateError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
    #[error("an answer's writer crashed")]
    Crashed,
    #[error("a route gives out a database without asking for rights")]
    Unguarded,
    #[error("a route of the embedded store is served without one")]
    NotHere,
    #[error("{0}")]
    BadGateway(String),
}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> Self {
        Self::Document(error.into())
    }
}

impl ApiError {
    /// A request that is wrong in itself.
    pub fn bad_request(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::BadRequest(reason.into())
    }

    /// The `error` and `reason` that stand for this where it concerns one document of many.
    pub fn pair(&self) -> (&'static str, Cow<'_, str>) {
        let (_, error, reason) = self.shown();
        (error, reason)
    }

    fn shown(&self) -> Shown<'_> {
        match self {
            Self::BadRequest(reason) => (StatusCode::BAD_REQUEST, "bad_request", reason.as_ref().into()),
            Self::QueryParse(reason) => (StatusCode::BAD_REQUEST, "query_parse_error", reason.into()),
            Self::InvalidSince => {
                let reason = "Malformed sequence supplied in 'since' parameter.";
                (StatusCode::BAD_REQUEST, "invalid_since_seq", reason.into())
            }
            Self::Denied(error) => denied(*error),
            Self::Security(error) => (StatusCode::BAD_REQUEST, "bad_request", error.to_string().into()),
            Self::ForeignHost => {
                let reason = "Without admins only requests to an address or a name without a dot are answered.";
                (StatusCode::FORBIDDEN, "forbidden", reason.into())
            }
            Self::UsersSecurity => {
                let reason = "You can't edit the security object of the user database.";
                (StatusCode::FORBIDDEN, "forbidden", reason.into())
            }
            Self::NoNode(_) => (StatusCode::NOT_FOUND, "not_found", self.to_string().into()),
            Self::Setting(refused) => setting(refused),
            Self::Refused(refused) => login(refused),
            Self::NotLoggedIn(reason) => (StatusCode::UNAUTHORIZED, "unauthorized", (*reason).into()),
            Self::CrossOrigin => {
                let reason = "A page of another origin may not do this in your name.";
                (StatusCode::FORBIDDEN, "forbidden", reason.into())
            }
            Self::Missing => (StatusCode::NOT_FOUND, "not_found", "missing".into()),
            Self::Deleted => (StatusCode::NOT_FOUND, "not_found", "deleted".into()),
            Self::MissingAttachment => (StatusCode::NOT_FOUND, "not_found", "Document is missing attachment".into()),
            Self::NoSessions => {
                let reason = "There are no sessions where there are no admins.";
                (StatusCode::NOT_FOUND, "not_found", reason.into())
            }
            Self::MethodNotAllowed(allowed) => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("Only {allowed} allowed").into())
            }
            Self::Absent { name, feature } => {
                (StatusCode::NOT_IMPLEMENTED, "not_implemented", format!("couchrep has no {feature} ({name}).").into())
            }
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "Document update conflict.".into()),
            Self::MissingStub(reason) => (StatusCode::PRECONDITION_FAILED, "missing_stub", reason.into()),
            Self::RangeNotSatisfiable => {
                let reason = "Requested range not satisfiable";
                (StatusCode::RANGE_NOT_SATISFIABLE, "requested_range_not_satisfiable", reason.into())
            }
            Self::InvalidDesign(reason) => (StatusCode::BAD_REQUEST, "invalid_design_doc", reason.into()),
            Self::Compilation(reason) => (StatusCode::BAD_REQUEST, "compilation_error", reason.into()),
            Self::Script(error) => script(error),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request entity is too large".into()),
            Self::SlowBody => (StatusCode::REQUEST_TIMEOUT, "timeout", "The request's body came too slowly.".into()),
            Self::BadContentType(reason) => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_content_type", reason.as_ref().into())
            }
            Self::Busy => BUSY,
            Self::Document(error) => document(error),
            Self::Store(error) => store(error),
            Self::Replicate(error) => replicate(error),
            Self::BadGateway(reason) => (StatusCode::BAD_GATEWAY, "bad_gateway", reason.into()),
            Self::Panicked(_) | Self::Crashed | Self::Unguarded | Self::NotHere => INTERNAL,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Document(error) => Self::Document(error),
            error => Self::Store(error),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Conflict => Self::Conflict,
            stub @ Refusal::MissingStub { .. } => Self::MissingStub(stub.to_string()),
            Refusal::Script(error) => Self::Script(error),
            Refusal::Denied(denied) => denied.into(),
            Refusal::InvalidDesign(reason) => Self::InvalidDesign(reason),
            Refusal::Compilation(reason) => Self::Compilation(reason),
        }
    }
}

impl From<MultipartError<Self>> for ApiError {
    fn from(error: MultipartError<Self>) -> Self {
        match error {
            MultipartError::Stream(error) => error,
            MultipartError::Truncated | MultipartError::Headers => Self::bad_request(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, error, reason) = self.shown();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %causes(&self), "a request failed");
        }
        let body = format!("{}\n", json!({ "error": error, "reason": reason }));
        let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
        if let Self::MethodNotAllowed(allowed) = &self
            && let Ok(allowed) = HeaderValue::from_str(allowed)
        {
            response.headers_mut().insert(ALLOW, allowed);
        }
        response
    }
}

/// An error and what caused it, in one line.
pub fn causes(error: &dyn Error) -> String {
    std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A panic's answer; the panic itself was logged where it happened.
pub fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::Crashed.into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::peer::PeerError;

    #[test]
    fn internal_causes_are_kept_from_the_answer() {
        let error = ApiError::from(StoreError::Io(std::io::Error::other("/secret/path")));
        assert_eq!(error.pair(), (INTERNAL.1, INTERNAL.2));
        assert!(causes(&error).contains("/secret/path"));
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let full = StoreError::Io(std::io::ErrorKind::StorageFull.into());
        let error = ApiError::from(StoreError::WriteFailed(Arc::new(full)));
        assert_eq!(error.shown().0, StatusCode::INSUFFICIENT_STORAGE);
    }

    #[test]
    fn a_peer_that_cant_be_reached_is_a_bad_gateway() {
        let error = PeerError::Unreachable { request: "GET http://x/".into(), tries: 10, reason: "refused".into() };
        let error = ApiError::from(ReplicateError::Peer(Arc::new(error)));
        assert_eq!(error.shown().0, StatusCode::BAD_GATEWAY);
        assert_eq!(error.pair().0, "http_request_failed");
    }

    #[test]
    fn a_refused_method_names_the_allowed_ones() {
        let response = ApiError::MethodNotAllowed("POST".into()).into_response();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "POST");
    }
}
