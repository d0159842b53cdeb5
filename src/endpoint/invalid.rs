//! Why something is no source or target.

use crate::json::fields::BadField;

/// Why something is no source or target. Never with a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// The field is absent.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Not a URL, or without a host, or of another scheme.
    #[error("endpoint has an invalid url")]
    Url,
    /// A header that HTTP doesn't allow, or that couchrep sets by itself.
    #[error("endpoint has an invalid header `{0}`")]
    Header(String),
    /// Longer than any that is meant.
    #[error("`{0}` is longer than {MAX_BYTES} bytes")]
    TooLong(&'static str),
    /// A name that no database can have.
    #[error("no database can be called `{0}`")]
    Name(String),
    /// Another field is wrong.
    #[error(transparent)]
    Field(#[from] BadField),
}

/// Bytes of an endpoint, headers and all: it is hashed, kept and sent over and over again.
pub(super) const MAX_BYTES: usize = 64 << 10;
