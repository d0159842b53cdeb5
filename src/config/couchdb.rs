//! The CouchDB beside which the server stands.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

/// Where it is, and how long it is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouchDb {
    /// Its root, without credentials, query and fragment. The path ends in `/`.
    pub url: Url,
    /// To connect, TLS included. Short, since somebody waits for an answer that says it isn't there.
    pub connect_timeout: Duration,
    /// For an answer of its own to a question of ours: who somebody is, what its tasks are.
    pub answer_timeout: Duration,
    /// How long a start waits for it: whatever starts both of them may start us first.
    pub start_patience: Duration,
    /// How often it is looked whether users whose sessions are renewed here are still who they were.
    pub session_check: Duration,
}

/// A server admin there, by name and password, neither of them empty.
#[derive(Debug, Clone)]
pub struct CouchDbAdmin {
    /// The name, without a colon.
    pub name: String,
    /// As it is: a hash proves nothing to another server.
    pub password: SecretString,
}

impl CouchDbAdmin {
    /// Reads `NAME:PASSWORD`. The error never shows it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let parts = text.trim_end_matches(['\r', '\n']).split_once(':');
        match parts.filter(|(name, password)| !name.is_empty() && !password.is_empty()) {
            Some((_, password)) if password.contains('\n') => Err("must be one NAME:PASSWORD alone"),
            Some((name, password)) => Ok(Self { name: name.to_owned(), password: password.into() }),
            None => Err("must be NAME:PASSWORD, neither of them empty"),
        }
    }
}

/// Everybody on a machine may read its command lines, and environments are printed and inherited.
const CREDENTIALS: &str = "must hold no name and no password: everybody proves to CouchDB itself who he is";
const FORM: &str = "must be the URL of a CouchDB's root: http://127.0.0.1:5984";

impl CouchDb {
    /// Reads its URL. The error never shows it, since there may be a password in it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut url = Url::parse(text.trim()).map_err(|_| FORM)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(CREDENTIALS);
        }
        let is_root = url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !is_root {
            return Err(FORM);
        }
        let path = format!("{}/", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let secs = Duration::from_secs;
        Ok(Self {
            url,
            connect_timeout: secs(10),
            answer_timeout: secs(30),
            start_patience: secs(60),
            session_check: secs(20),
        })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.url.host_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_couchdb_is_named_by_its_root_alone() {
        let read = |text: &str| CouchDb::parse(text).map(|couchdb| (couchdb.url.to_string(), couchdb.address()));
        for (text, url, address) in [
            ("http://127.0.0.1:5984", "http://127.0.0.1:5984/", "127.0.0.1:5984"),
            ("https://couch.example/db//", "https://couch.example/db/", "couch.example:443"),
            ("http://[::1]:5984/", "http://[::1]:5984/", "[::1]:5984"),
        ] {
            assert_eq!(read(text), Ok((url.into(), address.into())));
        }
        for text in ["", "127.0.0.1:5984", "ftp://h/", "http://h/?q=1", "http://h/#x"] {
            assert_eq!(read(text), Err(FORM), "{text}");
        }
        for text in ["http://admin:s3cret@h:5984", "http://admin@h", "http://:s3cret@h"] {
            assert_eq!(read(text), Err(CREDENTIALS), "{text}");
        }
    }

    #[test]
    fn its_admin_is_one_name_with_one_password() {
        let read = |text: &str| CouchDbAdmin::parse(text).map(|admin| admin.name);
        assert_eq!(read("root:s3cret:with:colons\n"), Ok("root".into()));
        for text in ["", "root", "root:", ":s3cret", "root:s3cret\nc:d\n"] {
            assert!(read(text).is_err_and(|told| !told.contains("s3cret")), "{text}");
        }
    }
}
