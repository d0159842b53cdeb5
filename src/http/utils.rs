//! `/_utils/` and `/favicon.ico`: the files of an admin UI, Fauxton or Futon, from the directory that `--utils-dir` names. Where none does,
//! `/_utils/` leads to couchrep's own page.
//!
//! They are for everybody, as CouchDB's are: what such a page shows and does it asks this server for, with the rights of whoever uses it. A
//! file is answered as it is, with its type, ranges and time ([`ServeDir`]); of a directory its `index.html`, never a list, and nothing
//! outside of the directory. An administrator has put the files there, so they may run scripts as they like, but what they load comes from here.

use std::io::ErrorKind;

use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, LOCATION};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tower_http::services::ServeDir;

use super::error::ApiError;
use super::{AppState, page};
use crate::store::StoreError;

/// Where they are.
pub const PATH: &str = "/_utils";

/// CouchDB's `[csp] utils_header_value`, and what Futon needs besides: its pages have scripts in them.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; child-src 'self' data: blob:; img-src 'self' data:; font-src 'self'; \
     script-src 'self' 'unsafe-eval' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; frame-ancestors 'self'",
);

/// `/favicon.ico`, which browsers ask for beside any page: Futon's.
pub async fn icon(state: State<AppState>, mut request: Request) -> Result<Response, ApiError> {
    if state.settings.current().utils_dir.is_none() {
        return Err(ApiError::Absent { name: "favicon.ico", feature: "icon" });
    }
    let icon = Uri::from_static("/_utils/favicon.ico");
    *request.uri_mut() = icon.clone();
    file(state, OriginalUri(icon), request).await
}

/// Any path at and below `/_utils`, which was made canonical on its way here; `asked` has its slash at the end, if it has one.
pub async fn file(
    State(state): State<AppState>,
    OriginalUri(asked): OriginalUri,
    mut request: Request,
) -> Result<Response, ApiError> {
    let settings = state.settings.current();
    let (below, ends) = (request.uri().path().strip_prefix(PATH), asked.path().ends_with('/'));
    let Some(dir) = &settings.utils_dir else {
        return match below {
            Some("" | "/") => Ok((StatusCode::FOUND, [(LOCATION, page::PATH)]).into_response()),
            _ => Err(ApiError::Missing),
        };
    };
    let below = match below.unwrap_or_default() {
        // What its files call theirs is looked for below the last slash.
        "" if !ends => return Ok((StatusCode::MOVED_PERMANENTLY, [(LOCATION, "/_utils/")]).into_response()),
        below if ends => format!("{below}/"),
        below => below.to_owned(),
    };
    *request.uri_mut() = Uri::try_from(below).map_err(|_| ApiError::Missing)?;
    let mut files = ServeDir::new(dir).redirect_path_prefix(PATH);
    let found = files.try_call(request).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput | ErrorKind::InvalidFilename => {
            ApiError::Missing
        }
        _ => StoreError::from(error).into(),
    })?;
    let mut response = found.map(Body::new);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    Ok(response)
}
