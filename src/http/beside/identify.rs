//! Finds out who asks for something of ours: CouchDB says it.
//!
//! What may prove who somebody is (`Authorization`, cookies, a proxy's headers) is sent to CouchDB's `/_session`, and a refusal is the
//! answer, in CouchDB's words. Handlers find an `Arc<Caller>`, [`Proofs`] and the [`Upstream`](crate::beside::Upstream)
//! in the request's extensions. Which page may read our answer, or ask for something with its user's cookie ([`cross_origin`]), is CouchDB's
//! to say too, so the page's `Origin` goes with the question.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, COOKIE, ORIGIN,
};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::Response;

use crate::beside::{Answered, Authentication, Callers, KnownCaller};
use crate::config::auth::Auth;
use crate::http::error::ApiError;
use crate::http::pass_through::{forwarded, hop_by_hop};
use crate::http::{AppState, cross_origin};

/// The headers of a request that may prove who asks.
#[derive(Debug, Clone)]
pub struct Proofs(pub HeaderMap);

/// Asks CouchDB.
pub async fn identify(
    State((state, callers)): State<(AppState, Callers)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let proofs = proofs(request.headers(), &state.settings.current().auth);
    let told = forwarded::told(request.headers(), request.extensions());
    let KnownCaller { caller, headers } = match callers.ask(&proofs, told).await? {
        Authentication::Known(known) => known,
        Authentication::Refused(answered) => return Ok(as_it_came(answered)),
    };
    // What passes through CouchDB judges itself.
    if proofs.contains_key(COOKIE) && !proofs.contains_key(AUTHORIZATION) {
        cross_origin::check(request.method(), request.headers(), |origin| trusts(&headers, origin))?;
    }
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(Proofs(proofs));
    request.extensions_mut().insert(callers.upstream().clone());
    let mut response = next.run(request).await;
    for (name, value) in &headers {
        response.headers_mut().append(name, value.clone());
    }
    Ok(response)
}

/// Whether CouchDB lets pages of this origin do with a cookie what its user may, as its answer to that origin says.
fn trusts(answered: &HeaderMap, origin: &str) -> bool {
    let is = |name: HeaderName, value: &str| answered.get(name).is_some_and(|own| own == value);
    is(ACCESS_CONTROL_ALLOW_ORIGIN, origin) && is(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")
}

fn proofs(headers: &HeaderMap, settings: &Auth) -> HeaderMap {
    let proxy = &settings.proxy;
    let of_proxy = [&proxy.x_auth_username, &proxy.x_auth_roles, &proxy.x_auth_token];
    let of_proxy = of_proxy.into_iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
    let mut proofs = HeaderMap::new();
    for name in [AUTHORIZATION, COOKIE, ORIGIN].into_iter().chain(of_proxy) {
        for value in headers.get_all(&name) {
            let mut value = value.clone();
            value.set_sensitive(true);
            proofs.append(name.clone(), value);
        }
    }
    proofs
}

/// CouchDB's answer, but for what concerns its connection.
pub fn as_it_came(Answered { status, mut headers, body }: Answered) -> Response {
    hop_by_hop::of_answer(&mut headers);
    let mut response = Response::new(Body::from(body));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}
