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
    /// When its replications are taken over.
    pub takeover: TakeoverTimes,
    /// How often it is looked whether users whose sessions are renewed here are still who they were.
    pub session_check: Duration,
}

/// What becomes of replications that can't be taken over: those that nobody described by a document, but asked for at CouchDB's own
/// `_replicate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOver {
    /// If there are any, nothing is taken over.
    UnlessSome,
    /// They stand still meanwhile.
    Force,
}

/// How a takeover's note in CouchDB is kept, and how others judge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeoverTimes {
    /// Between two signs of life in the note, and two looks at CouchDB's nodes.
    pub heartbeat: Duration,
    /// For what one node answers about itself. One that is silent, as after a power cut, is asked again at the next heartbeat.
    pub node_limit: Duration,
    /// Who couldn't write a sign of life for so long stops to run documents. Less than `dead_after`, so that he stops before another
    /// one begins.
    pub doubt_after: Duration,
    /// A note without a sign of life for so long is that of a dead process.
    pub dead_after: Duration,
    /// From the last look at the old note to the new one in its place, at most; who took longer does it again.
    pub claim_limit: Duration,
    /// How long CouchDB's jobs may take to stand still. Its scheduler looks at `max_jobs` every `[replicator] interval`, which is a minute.
    pub stand_still_patience: Duration,
}

impl Default for TakeoverTimes {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            heartbeat: secs(10),
            node_limit: secs(3),
            doubt_after: secs(30),
            dead_after: secs(40),
            claim_limit: secs(2),
            stand_still_patience: secs(300),
        }
    }
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
            takeover: TakeoverTimes::default(),
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
