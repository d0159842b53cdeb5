//! Headers that concern one connection only, and so go no further (RFC 9110, 7.6.1).
//!
//! They are those that `Connection` names, and some that everybody knows. What a proxy before us tells of its client isn't a client's to take
//! away: CouchDB would count his wrong passwords as the proxy's. `Trailer` isn't among them: it announces fields that
//! are passed on. How a body is framed is settled anew on each side: `Transfer-Encoding` goes, `Content-Length` is the message's
//! own and stays. Whether a client takes trailers is asked of us, and we ask the same of CouchDB.

use axum::http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Those that are known.
const KNOWN: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes them out of a request.
pub fn of_request(headers: &mut HeaderMap) {
    let trailers = words(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    of_answer(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes them out of an answer.
pub fn of_answer(headers: &mut HeaderMap) {
    let named = words(headers, &CONNECTION).filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
    let named = named.filter(|name| !name.as_str().starts_with("x-forwarded-"));
    for name in named.collect::<Vec<_>>().iter().chain(&KNOWN) {
        headers.remove(name);
    }
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_concerns_one_connection_goes_no_further() {
        let mut found = headers(&[
            ("connection", "close, X-Mine, X-Forwarded-For"),
            ("x-mine", "1"),
            ("x-forwarded-for", "1.2.3.4"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, Trailers;q=1"),
            ("upgrade", "h2c"),
            ("trailer", "x-sum"),
            ("content-length", "3"),
            ("expect", "100-continue"),
        ]);
        of_answer(&mut found);
        let stays =
            [("x-forwarded-for", "1.2.3.4"), ("trailer", "x-sum"), ("content-length", "3"), ("expect", "100-continue")];
        assert_eq!(found, headers(&stays));
    }

    #[test]
    fn trailers_are_asked_for_if_the_client_takes_them() {
        for (te, asked) in [("trailers", Some("trailers")), ("gzip, TRAILERS", Some("trailers")), ("gzip", None)] {
            let mut found = headers(&[("connection", "te"), ("te", te)]);
            of_request(&mut found);
            assert_eq!(found.get(TE).map(|value| value.to_str().unwrap()), asked, "{te}");
        }
    }
}
