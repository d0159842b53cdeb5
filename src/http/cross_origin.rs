//! What a browser sends for another site's page, with this server's cookie.
//!
//! A browser adds its cookies by itself, so any page could write here in the name of whoever is logged in; and where there are no admins,
//! everybody who reaches this server is one, a page in a browser of this machine too. The rule: what may change something (all but
//! GET, HEAD and OPTIONS) and is proven by a cookie alone, or by nothing where nothing has to be proven, is refused with 403 if it
//! comes from another origin, unless that one is trusted (`[cors]`; with a cookie, by its name and with credentials). It holds for
//! forms, which browsers send without asking first, and for logins, which a cookie is the answer to.
//!
//! Where it comes from, browsers say: `Sec-Fetch-Site` if the server's address is one that they trust (TLS, or this
//! machine), `Origin` with everything but GET. A request with neither comes from no page. A page's origin is the server's
//! own if it is the one that the request was sent to: `Host`, or what a proxy says that it was. Credentials that a page gives
//! itself need no such rule: browsers ask before they send them elsewhere.

use axum::http::header::{HOST, ORIGIN, REFERER};
use axum::http::{HeaderMap, Method};

use super::error::ApiError;

/// Whether a request that its page needn't prove may be answered, since it comes from this server's own page, from no page, or from an
/// origin that is trusted.
pub fn check(method: &Method, headers: &HeaderMap, trusts: impl FnOnce(&str) -> bool) -> Result<(), ApiError> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let origin = text(ORIGIN.as_str());
    let own = match text("sec-fetch-site") {
        // `none`: typed by its user.
        Some(site) => site == "same-origin" || site == "none",
        None => origin.is_none_or(|origin| is_own(origin, headers)),
    };
    if own || origin.is_some_and(trusts) { Ok(()) } else { Err(ApiError::CrossOrigin) }
}

/// Whether a form comes from a page of this server, as its `Referer` says (`chttpd:validate_referer/1`). For forms that may change something
/// where nobody has to prove who he is.
pub fn check_referer(headers: &HeaderMap) -> Result<(), ApiError> {
    let page = headers.get(REFERER).ok_or_else(|| ApiError::bad_request("Referer header required."))?;
    let page = page.to_str().unwrap_or_default();
    let authority = page.find("://").map_or(0, |at| at + 3);
    let path = page[authority..].find(['/', '?', '#']).map_or(page.len(), |at| authority + at);
    if is_own(&page[..path], headers) { Ok(()) } else { Err(ApiError::bad_request("Referer header must match host.")) }
}

fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    // A proxy may name the port that the scheme has anyway, and each of several proxies its own client's word.
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let is = |host: &str| {
        let host = host.trim();
        host.eq_ignore_ascii_case(authority)
            || host.strip_suffix(port).is_some_and(|host| host.eq_ignore_ascii_case(authority))
    };
    let names = |name: &str, first: fn(&str) -> &str| {
        headers.get(name).and_then(|host| host.to_str().ok()).is_some_and(|host| is(first(host)))
    };
    names(HOST.as_str(), |host| host) || names("x-forwarded-host", |hosts| hosts.split(',').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cors::Cors;

    fn passes(method: Method, headers: &[(&'static str, &str)]) -> bool {
        let own = [("host", "db.example.com:5984")];
        let headers = own
            .iter()
            .chain(headers)
            .map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().unwrap()));
        let cors = Cors {
            enabled: true,
            credentials: true,
            origins: vec!["https://app.example.com".into()],
            ..Cors::default()
        };
        check(&method, &headers.collect(), |origin| cors.trusts(origin)).is_ok()
    }

    #[test]
    fn what_another_sites_page_sends_is_refused() {
        for headers in [
            &[("origin", "https://evil.example.com")][..],
            &[("origin", "null")],
            &[("origin", "http://db.example.com")],
            &[("origin", "http://db.example.com:5984.evil.example.com")],
            &[("origin", "http://evil.example.com"), ("x-forwarded-host", "db.example.com, evil.example.com")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site"), ("origin", "http://db.example.com:5985")],
            &[("sec-fetch-site", "cross-site"), ("origin", "http://db.example.com:5984")],
        ] {
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::from_bytes(b"COPY").unwrap()] {
                assert!(!passes(method, headers), "{headers:?}");
            }
            assert!(passes(Method::GET, headers) && passes(Method::OPTIONS, headers), "{headers:?}");
        }
    }

    #[test]
    fn a_form_must_come_from_a_page_of_this_server() {
        let passes = |referer: Option<&'static str>| {
            let headers = [(HOST, "db.example.com:5984")].into_iter().chain(referer.map(|page| (REFERER, page)));
            check_referer(&headers.map(|(name, value)| (name, value.parse().unwrap())).collect()).is_ok()
        };
        for own in [
            "http://db.example.com:5984/_utils/document.html?db/x",
            "https://DB.example.com:5984",
            "http://db.example.com:5984?x",
        ] {
            assert!(passes(Some(own)), "{own}");
        }
        for foreign in [
            "",
            "/_utils/",
            "http://db.example.com/_utils/",
            "http://evil.example.com/http://db.example.com:5984/",
            "http://db.example.com:5984@evil.example.com/",
            "http://evil.example.com?://db.example.com:5984/",
        ] {
            assert!(!passes(Some(foreign)), "{foreign}");
        }
        assert!(!passes(None));
    }

    #[test]
    fn what_ones_own_page_or_no_page_sends_is_answered() {
        for headers in [
            &[][..],
            &[("origin", "http://db.example.com:5984")],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://outside.example.com")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://app.example.com")],
            &[("origin", "https://outside.example.com"), ("x-forwarded-host", "outside.example.com")],
            &[("origin", "https://outside.example.com"), ("x-forwarded-host", "outside.example.com:443, inside")],
        ] {
            assert!(passes(Method::POST, headers), "{headers:?}");
        }
    }
}
