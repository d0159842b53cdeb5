//! Who asks for a feed, for the filter function that wants to know.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, Uri};
use percent_encoding::percent_decode_str;

use crate::access::Caller;
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::store::FilterRequest;

/// Headers that hold credentials, or may: a function that somebody wrote sees none of them.
const SECRET: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-auth-couchdb-token",
    "x-auth-couchdb-username",
    "x-auth-couchdb-roles",
    "x-api-key",
];

/// A feed's request.
pub struct RawRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    caller: Option<Arc<Caller>>,
    peer: Option<SocketAddr>,
}

impl FromRequestParts<AppState> for RawRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Arc<Caller>>().cloned();
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
        Ok(Self { method: parts.method.clone(), uri: parts.uri.clone(), headers: parts.headers.clone(), caller, peer })
    }
}

impl RawRequest {
    /// What of it a function sees.
    pub fn by(self, query: Query, body: Option<&[u8]>) -> FilterRequest {
        let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let shown = |name: &&HeaderName| !SECRET.contains(&name.as_str());
        let value = |name: &HeaderName| Some((name.to_string(), self.headers.get(name)?.to_str().ok()?.to_owned()));
        FilterRequest {
            method: self.method.to_string(),
            raw_path: self.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            path: self.uri.path().split('/').filter(|segment| !segment.is_empty()).map(decoded).collect(),
            query: query.into_pairs(),
            headers: self.headers.keys().filter(shown).filter_map(value).collect(),
            body: body.map(|body| String::from_utf8_lossy(body).into_owned()),
            peer: self.peer.map(|peer| peer.ip().to_string()).unwrap_or_default(),
            name: self.caller.as_ref().and_then(|caller| caller.name.clone()),
            roles: self.caller.as_ref().map(|caller| caller.roles.clone()).unwrap_or_default(),
        }
    }
}
