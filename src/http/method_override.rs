//! `X-HTTP-Method-Override`: other methods for clients, and proxies before them, that only let GET and POST through.
//!
//! As in CouchDB: only a POST becomes another request, and only by a method's name in capitals; on other methods, and with
//! other values, the header means nothing. HEAD becomes GET, since the client waits for a POST's answer with its body.
//! Looked at before anything else, so that rights are those of the method that is meant.

use axum::extract::Request;
use axum::http::Method;

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "COPY"];

/// Gives a request the method that it means.
pub async fn meant(mut request: Request) -> Request {
    let named = request.headers().get("x-http-method-override").and_then(|value| value.to_str().ok());
    let method = named.filter(|name| METHODS.contains(name) && *request.method() == Method::POST);
    let method = method.map(|name| if name == "HEAD" { "GET" } else { name });
    if let Some(method) = method.and_then(|name| Method::from_bytes(name.as_bytes()).ok()) {
        *request.method_mut() = method;
    }
    request
}
