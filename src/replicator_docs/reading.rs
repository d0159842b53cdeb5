//! What others than the owner see of a replicator document: no credentials.
//!
//! CouchDB strips `headers` and `auth` of `source` and `target` that are objects, and a name with a password of those that
//! are URLs. Here the URLs within objects and those of proxies lose theirs too, names without passwords go, and so do
//! queries, in which tokens stand. Where a URL's parts can be told in more than one way, rather too much is cut out than
//! too little.

use serde_json::{Map, Value};

use super::{MAX_READ_BYTES, OWNER};
use crate::access::Caller;

/// Somebody who reads, and who is no admin of the database.
#[derive(Debug, Clone)]
pub struct Reader {
    name: Option<String>,
}

/// Members of a document that say where something is, and how to get in.
const PLACES: [&str; 5] = ["source", "target", "proxy", "source_proxy", "target_proxy"];
/// Members of such an object that say how to get in.
const CREDENTIALS: [&str; 2] = ["headers", "auth"];

impl Reader {
    /// He.
    pub fn new(caller: &Caller) -> Self {
        Self { name: caller.name.clone() }
    }

    /// A body as he sees it, if he sees it otherwise than it is: it isn't his own.
    pub fn sees(&self, body: &[u8]) -> Option<Vec<u8>> {
        // What can't be read can't be cut, either.
        let read = if body.len() > MAX_READ_BYTES { None } else { serde_json::from_slice(body).ok() };
        let Some(mut body): Option<Map<String, Value>> = read else { return Some(b"{}".to_vec()) };
        if body.get(OWNER) == Some(&Value::from(self.name.clone())) {
            return None;
        }
        for place in PLACES {
            body.get_mut(place).into_iter().for_each(strip);
        }
        Some(Value::Object(body).to_string().into_bytes())
    }
}

fn strip(place: &mut Value) {
    match place {
        Value::String(url) => *url = without_credentials(url),
        Value::Array(places) => places.iter_mut().for_each(strip),
        Value::Object(members) => {
            members.retain(|name, _| !CREDENTIALS.contains(&name.as_str()));
            members.values_mut().for_each(strip);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A password may hold a `/`, `?` or `#` that should have been escaped.
fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |end| end + 3));
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let place = place.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sees(name: Option<&str>, body: &str) -> Option<String> {
        let reader = Reader { name: name.map(Into::into) };
        reader.sees(body.as_bytes()).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn his_own_document_is_shown_as_it_is() {
        assert_eq!(sees(Some("ann"), r#"{"owner":"ann","source":"http://u:p@h"}"#), None);
        assert_eq!(sees(None, r#"{"owner":null}"#), None);
        for (name, body) in [(Some("bob"), r#"{"owner":"ann"}"#), (Some("ann"), r#"{"owner":null}"#), (None, "{}")] {
            assert_eq!(sees(name, body).as_deref(), Some(body), "{name:?}");
        }
        // Of members that come twice the last one counts, here as where the owner is asked for.
        assert!(sees(Some("ann"), r#"{"owner":"ann","owner":"bob"}"#).is_some());
    }

    #[test]
    fn credentials_go_wherever_they_stand_and_nothing_else() {
        let body = r#"{"source":"http://u:s3cret@h/a","n":1.50,"t\u0061rget":{"url":"https://u:s3cret@h/b?key=s3cret",
            "headers":{"X":"s3cret"},"auth":{"bearer":"s3cret"},"more":["http://u:s3cret@h"],"tls":{"cert_file":"c"}},
            "proxy":"socks5://u:s3cret@p","owner":"ann"}"#;
        let seen = r#"{"source":"http://h/a","n":1.50,"target":{"url":"https://h/b","more":["http://h"],"tls":{"cert_file":"c"}},"proxy":"socks5://p","owner":"ann"}"#;
        assert_eq!(sees(Some("bob"), body).as_deref(), Some(seen));
        let twice = r#"{"source":"http://u:s3cret@h","source":"http://h","owner":"ann"}"#;
        assert_eq!(sees(None, twice).unwrap(), r#"{"source":"http://h","owner":"ann"}"#);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(500), "]".repeat(500));
        assert_eq!(sees(None, &deep).unwrap(), "{}");
        let large = format!(r#"{{"owner":null,"text":"{}"}}"#, "x".repeat(MAX_READ_BYTES));
        assert_eq!(sees(None, &large).unwrap(), "{}");
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_a_password() {
        for (url, shown) in [
            ("http://u:p@h:1/a", "http://h:1/a"),
            ("http://u@h/a", "http://h/a"),
            ("https://u:p@q@h/a", "https://h/a"),
            ("http://u:p/?#q@h/a", "http://h/a"),
            ("http://h/a?key=k#f", "http://h/a"),
            ("u:p@h/a", "h/a"),
            ("name", "name"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
