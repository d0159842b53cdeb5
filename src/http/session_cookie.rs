//! The cookie `AuthSession` as a browser gets it.

use std::time::SystemTime;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::SET_COOKIE;
use axum::response::Response;

use crate::config::auth::{Auth, SameSite};
use crate::users::cookie::NAME;

/// Stands in the extensions of requests that came over TLS.
#[derive(Debug, Clone, Copy)]
pub struct Https;

/// Whether the client asks over TLS, as this server or the proxy in front of it sees it. A client that claims it does no
/// harm but to its own cookie.
pub fn is_https(request: &Request) -> bool {
    let says = |name: &str, word: &[u8]| request.headers().get(name).is_some_and(|value| value.as_bytes() == word);
    request.extensions().get::<Https>().is_some()
        || says("x-forwarded-proto", b"https")
        || says("x-forwarded-ssl", b"on")
}

/// Gives a browser a cookie; with an empty value, takes it away.
pub fn set(response: &mut Response, value: &str, settings: &Auth, https: bool) {
    if let Ok(mut cookie) = HeaderValue::from_str(&text(value, settings, https, SystemTime::now())) {
        cookie.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

/// In CouchDB's order.
fn text(value: &str, settings: &Auth, https: bool, now: SystemTime) -> String {
    let mut text = format!("{NAME}={value}; Version=1");
    if settings.allow_persistent_cookies {
        let expires = now.checked_add(settings.timeout).map(httpdate::fmt_http_date).unwrap_or_default();
        // `Fri, 27 Nov 2026`, with hyphens.
        let (weekday, rest) = expires.split_once(", ").unwrap_or_default();
        let expires = format!("{weekday}, {}", rest.replacen(' ', "-", 2));
        text += &format!("; Expires={expires}; Max-Age={}", settings.timeout.as_secs());
    }
    text += if https { "; Secure" } else { "" };
    if let Some(domain) = &settings.cookie_domain {
        text += &format!("; Domain={domain}");
    }
    text += "; Path=/; HttpOnly";
    text += match settings.same_site {
        None => "",
        Some(SameSite::None) => "; SameSite=None",
        Some(SameSite::Lax) => "; SameSite=Lax",
        Some(SameSite::Strict) => "; SameSite=Strict",
    };
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_cookie_looks_as_couchdbs_does() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_740_005);
        assert_eq!(
            text("abc", &Auth::default(), false, now),
            "AuthSession=abc; Version=1; Expires=Fri, 27-Nov-2026 00:50:05 GMT; Max-Age=600; Path=/; HttpOnly"
        );
        let settings = Auth {
            allow_persistent_cookies: false,
            cookie_domain: Some("example.com".into()),
            same_site: Some(SameSite::Strict),
            ..Auth::default()
        };
        assert_eq!(
            text("", &settings, true, now),
            "AuthSession=; Version=1; Secure; Domain=example.com; Path=/; HttpOnly; SameSite=Strict"
        );
    }
}
