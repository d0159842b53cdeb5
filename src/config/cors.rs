//! Which other sites' pages browsers may let talk to the server: CouchDB's `[cors]`, and `[chttpd] enable_cors`.

use std::time::Duration;

/// Settings of cross-origin requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Whether any may.
    pub enabled: bool,
    /// Origins as browsers write them, `https://app.example.com`; or `*`, which is all of them.
    pub origins: Vec<String>,
    /// Whether they may use their users' cookies and Basic credentials.
    pub credentials: bool,
    /// Request headers that they may send, in lower case.
    pub headers: Vec<String>,
    /// Methods that they may use.
    pub methods: Vec<String>,
    /// Headers of answers that their scripts may read beside those that any may.
    pub exposed_headers: Vec<String>,
    /// How long a browser remembers what it was told.
    pub max_age: Duration,
}

/// Those of CouchDB, and what its clients send besides.
const HEADERS: [&str; 21] = [
    "accept",
    "accept-language",
    "authorization",
    "content-length",
    "content-range",
    "content-type",
    "destination",
    "expires",
    "if-match",
    "if-none-match",
    "last-modified",
    "origin",
    "pragma",
    "range",
    "x-couch-full-commit",
    "x-couch-id",
    "x-couch-persist",
    "x-couchdb-www-authenticate",
    "x-http-method-override",
    "x-requested-with",
    "x-couchdb-vhost-path",
];
const METHODS: [&str; 7] = ["COPY", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"];
const EXPOSED_HEADERS: [&str; 6] =
    ["accept-ranges", "etag", "server", "x-couch-request-id", "x-couch-update-newrev", "x-couchdb-body-time"];

impl Default for Cors {
    fn default() -> Self {
        let all = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self {
            enabled: false,
            origins: Vec::new(),
            credentials: false,
            headers: all(&HEADERS),
            methods: all(&METHODS),
            exposed_headers: all(&EXPOSED_HEADERS),
            max_age: Duration::from_secs(600),
        }
    }
}

impl Cors {
    /// Whether pages of this origin may talk to the server.
    pub fn admits(&self, origin: &str) -> bool {
        self.enabled && (self.names("*") || self.names(origin))
    }

    /// Whether its pages may write with nothing but the cookie of whoever is logged in. Only an origin that is named: with `*`
    /// any page whatever could.
    pub fn trusts(&self, origin: &str) -> bool {
        self.enabled && self.credentials && self.names(origin)
    }

    fn names(&self, origin: &str) -> bool {
        self.origins.iter().any(|own| own.eq_ignore_ascii_case(origin))
    }
}

/// The elements of a list as CouchDB writes one: `a, b`.
pub fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|element| !element.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_admits_all_origins_and_trusts_none() {
        let cors = |origins| Cors { enabled: true, credentials: true, origins: list(origins), ..Cors::default() };
        assert!(cors("*").admits("https://a.example") && !cors("*").trusts("https://a.example"));
        assert!(cors("*, https://a.example").trusts("https://A.example") && !cors("*").trusts("null"));
        assert!(!Cors { enabled: false, ..cors("https://a.example") }.admits("https://a.example"));
    }
}
