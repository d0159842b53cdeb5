//! Paths made canonical before routes are matched.
//!
//! CouchDB takes a path apart at its slashes and forgets empty segments (`string:tokens/2`), so `/db/` is `/db`; the
//! slash after `_design` may come bare or as `%2F`. Routes know one form: no empty segments, a design document's id
//! one segment (`/db/_design%2Fx`), a local document's two (`/db/_local/x`), and a function of a design document, which is no
//! attachment of it, segments of its own (`/db/_design/x/_view/y`).

use std::borrow::Cow;

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// What stands below a design document and is no attachment of it.
pub const DESIGN_FUNCTIONS: [&str; 11] = [
    "_view",
    "_list",
    "_show",
    "_update",
    "_rewrite",
    "_info",
    "_search",
    "_search_info",
    "_search_disk_size",
    "_nouveau",
    "_nouveau_info",
];

/// Gives a request the canonical form of its path.
pub async fn canonical(mut request: Request) -> Request {
    if let Cow::Owned(path) = canonical_path(request.uri().path()) {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = PathAndQuery::try_from(path + &query).ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

fn canonical_path(path: &str) -> Cow<'_, str> {
    let segments = path.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>();
    let canonical = match segments.as_slice() {
        [db, design, name, function, rest @ ..] if is(design, "_design") && is_function(function) => {
            join([*db, "_design", name, function].into_iter().chain(rest.iter().copied()))
        }
        [db, design, function, rest @ ..] if prefixed(design, "_design").is_some() && is_function(function) => {
            let name = prefixed(design, "_design").unwrap_or_default();
            join([*db, "_design", name, function].into_iter().chain(rest.iter().copied()))
        }
        [db, design, name, rest @ ..] if is(design, "_design") => {
            let name = format!("_design%2F{name}");
            join([*db, &name].into_iter().chain(rest.iter().copied()))
        }
        [db, local, rest @ ..] if prefixed(local, "_local").is_some() => {
            let id = prefixed(local, "_local").unwrap_or_default();
            join([*db, "_local", id].into_iter().chain(rest.iter().copied()))
        }
        [db, local, rest @ ..] if is(local, "_local") && !rest.is_empty() => {
            join([*db, "_local"].into_iter().chain(rest.iter().copied()))
        }
        segments => join(segments.iter().copied()),
    };
    if canonical == path { Cow::Borrowed(path) } else { Cow::Owned(canonical) }
}

fn join<'a>(segments: impl Iterator<Item = &'a str>) -> String {
    let path: String = segments.flat_map(|segment| ["/", segment]).collect();
    if path.is_empty() { "/".into() } else { path }
}

fn is_function(segment: &str) -> bool {
    DESIGN_FUNCTIONS.contains(&segment)
}

/// Whether a segment is this word, its underscore encoded or not.
fn is(segment: &str, word: &str) -> bool {
    segment == word || segment.strip_prefix("%5F").or(segment.strip_prefix("%5f")) == word.strip_prefix('_')
}

/// What follows `word` and an encoded slash in a segment.
fn prefixed<'a>(segment: &'a str, word: &str) -> Option<&'a str> {
    let rest = match segment.strip_prefix("%5F").or(segment.strip_prefix("%5f")) {
        Some(encoded) => encoded.strip_prefix(word.strip_prefix('_')?)?,
        None => segment.strip_prefix(word)?,
    };
    rest.strip_prefix("%2F").or(rest.strip_prefix("%2f")).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_segments_are_forgotten() {
        for (path, canonical) in [("/", "/"), ("/db/", "/db"), ("//db//doc/", "/db/doc"), ("/a%2Fb/", "/a%2Fb")] {
            assert_eq!(canonical_path(path), canonical);
        }
        assert!(matches!(canonical_path("/db/doc"), Cow::Borrowed(_)));
    }

    #[test]
    fn design_documents_are_one_segment() {
        for path in ["/db/_design/d", "/db/_design%2Fd", "/db/%5Fdesign/d/"] {
            assert_eq!(canonical_path(path), "/db/_design%2Fd");
        }
        assert_eq!(canonical_path("/db/_design/d/a/b.txt"), "/db/_design%2Fd/a/b.txt");
        for path in ["/db/_design/d/_view/v", "/db/_design%2Fd/_view/v/", "/db/%5Fdesign/d/_view/v"] {
            assert_eq!(canonical_path(path), "/db/_design/d/_view/v");
        }
    }

    #[test]
    fn local_documents_are_two_segments() {
        for path in ["/db/_local/x", "/db/_local%2Fx", "/db/_local%2fx/", "/db/%5flocal%2Fx"] {
            assert_eq!(canonical_path(path), "/db/_local/x");
        }
        assert_eq!(canonical_path("/db/_local/a%2Fb"), "/db/_local/a%2Fb");
        for path in ["/db/_local/a/b/c", "/db/%5Flocal/a/b/c", "/db/_local%2Fa/b/c"] {
            assert_eq!(canonical_path(path), "/db/_local/a/b/c");
        }
        assert_eq!(canonical_path("/db/_local_docs"), "/db/_local_docs");
    }
}
