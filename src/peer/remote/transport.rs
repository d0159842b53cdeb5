//! What the HTTP client's errors mean, without the URLs that stand in them.

use std::error::Error;
use std::io;

use super::retry::Trouble;

/// A name stands for no address: by its type it is told from other failures to connect.
#[derive(Debug, thiserror::Error)]
#[error("no address found")]
pub(super) struct NoAddress(#[source] pub io::Error);

/// What went wrong before an answer came.
pub(super) fn failure(error: &reqwest::Error) -> Trouble {
    let has = |wanted: fn(&(dyn Error + 'static)) -> bool| causes(error).any(wanted);
    if has(|cause| cause.is::<NoAddress>()) {
        Trouble::Unresolved
    } else if has(|cause| cause.is::<rustls::Error>()) {
        Trouble::Tls
    } else if error.is_connect() {
        Trouble::NoConnection
    } else if error.is_builder() {
        Trouble::Unsendable
    } else {
        Trouble::Broke
    }
}

/// The innermost cause in words; the outer ones name the URL or say nothing.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let innermost = causes(error).last().map(ToString::to_string).unwrap_or_default();
    match error.is_timeout() {
        true => "timed out".into(),
        false if innermost.is_empty() => "the connection failed".into(),
        false => innermost,
    }
}

/// Every cause below the error itself, whose own text has the URL in it.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| below(*cause))
}

/// What an I/O error wraps is the error itself, not its cause, as far as `source` is concerned.
fn below<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => cause.source(),
    }
}
