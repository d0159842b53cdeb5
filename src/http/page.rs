//! `/_couchrep/`: couchrep's own page, out of the binary, and what it asks ([`requests`]).
//!
//! The files are for everybody: they hold nothing of anybody. What they show comes from the routes below and from CouchDB's own, with the
//! rights of who uses the page. Nothing that isn't in these files runs in it, it asks nobody but this server, and no other site may frame
//! it. A browser asks each time whether its copy is still right, so a new release shows at once.

pub mod requests;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::extract::{OriginalUri, Path};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::answer;
use super::error::ApiError;

/// Where it is.
pub const PATH: &str = "/_couchrep/";

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

macro_rules! files {
    ($($name:literal,)+) => {
        /// Each file's name and text.
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("page/files/", $name)))),+];
    };
}

files! {
    "index.html",
    "acts.js",
    "details.js",
    "dialog.js",
    "draft.js",
    "ended.js",
    "form.js",
    "form_end.js",
    "form_options.js",
    "glyphs.js",
    "header.js",
    "icon.svg",
    "jobs.js",
    "lines.js",
    "login.js",
    "main.js",
    "notices.js",
    "overview.js",
    "place.js",
    "poll.js",
    "refused.js",
    "row.js",
    "server.js",
    "start.js",
    "style.css",
    "time.js",
    "vendor/preact-htm.js",
    "verify.js",
    "words.js",
}

/// `GET /_couchrep/`.
pub async fn index(OriginalUri(asked): OriginalUri, headers: HeaderMap) -> Result<Response, ApiError> {
    // What the page calls its own is looked for below the last slash.
    if !asked.path().ends_with('/') {
        return Ok((StatusCode::MOVED_PERMANENTLY, [(LOCATION, PATH)]).into_response());
    }
    answered("index.html", &headers)
}

/// `GET /_couchrep/{file}`.
pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    answered(&name, &headers)
}

fn answered(name: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let (_, text) = FILES.iter().find(|(own, _)| *own == name).ok_or(ApiError::Missing)?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let tag = format!("{:016x}", hasher.finish());
    let mut response = match answer::has_already(headers, &tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(CONTENT_TYPE, kind(name))], *text).into_response(),
    };
    let own = response.headers_mut();
    own.extend(answer::etag(tag));
    own.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    own.insert(CONTENT_SECURITY_POLICY, POLICY);
    own.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    own.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

fn kind(name: &str) -> HeaderValue {
    HeaderValue::from_static(match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Else a page would ask for a file that isn't in the binary.
    #[test]
    fn every_file_of_the_page_is_in_the_binary() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page/files");
        let mut found = BTreeSet::new();
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in directory.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
                match entry.extension().and_then(|ending| ending.to_str()) {
                    None if entry.is_dir() => directories.push(entry),
                    Some("html" | "css" | "js" | "svg") => {
                        found.insert(entry.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(found, FILES.iter().map(|(name, _)| (*name).to_owned()).collect());
    }
}
