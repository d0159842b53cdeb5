//! How peers are connected to: certificates and sockets, for one endpoint or as the server's default.
//!
//! The names are those of CouchDB's `[replicator]` section, in the settings as in an endpoint's `tls` object. Unlike
//! CouchDB, certificates are verified unless somebody says otherwise.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// What certificates are shown and trusted. What is `None` is left to the server's settings, then to the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Whether a peer must show a certificate that is trusted and its own; by default it must.
    pub verify_ssl_certificates: Option<bool>,
    /// A PEM file of the authorities that are trusted, in place of the system's.
    pub ssl_trusted_certificates_file: Option<PathBuf>,
    /// A PEM file with the certificate, and its chain, that is shown to peers.
    pub cert_file: Option<PathBuf>,
    /// A PEM file with that certificate's key, unencrypted; by default it stands in `cert_file`.
    pub key_file: Option<PathBuf>,
}

impl Tls {
    /// These settings, and the server's where they say nothing.
    ///
    /// A certificate and its key are one setting: an endpoint's own certificate is never paired with another's key.
    pub fn over(&self, server: &Self) -> Self {
        let own = if self.cert_file.is_some() { self } else { server };
        let trusted = self.ssl_trusted_certificates_file.as_ref().or(server.ssl_trusted_certificates_file.as_ref());
        Self {
            verify_ssl_certificates: self.verify_ssl_certificates.or(server.verify_ssl_certificates),
            ssl_trusted_certificates_file: trusted.cloned(),
            cert_file: own.cert_file.clone(),
            key_file: own.key_file.clone(),
        }
    }

    /// Whether they name files of this machine.
    pub fn names_files(&self) -> bool {
        let Self { verify_ssl_certificates: _, ssl_trusted_certificates_file, cert_file, key_file } = self;
        [ssl_trusted_certificates_file, cert_file, key_file].into_iter().any(Option::is_some)
    }

    /// What is wrong with these settings in themselves.
    pub fn problem(&self) -> Option<&'static str> {
        (self.key_file.is_some() && self.cert_file.is_none()).then_some("has a `key_file` without a `cert_file`")
    }
}

/// Options of the sockets to peers, written as an Erlang term: `[{keepalive, true}, {nodelay, false}]`.
///
/// `sndbuf` and `recbuf` are checked and otherwise without effect: the HTTP client (reqwest 0.13) doesn't let its sockets
/// be reached, and the system sizes buffers as they are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct SocketOptions {
    /// Whether the system probes connections that are silent.
    pub keepalive: bool,
    /// Whether small pieces leave at once.
    pub nodelay: bool,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { keepalive: true, nodelay: true }
    }
}

impl TryFrom<String> for SocketOptions {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for SocketOptions {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let list = text.trim().trim_end_matches('.').trim_end();
        let list = list.strip_prefix('[').and_then(|list| list.strip_suffix(']')).ok_or(FORM)?.trim();
        let mut options = Self::default();
        if list.is_empty() {
            return Ok(options);
        }
        let tuples = list.strip_prefix('{').and_then(|list| list.strip_suffix('}')).ok_or(FORM)?;
        for tuple in tuples.split('}') {
            let tuple = tuple.trim_start().trim_start_matches(',').trim_start();
            let (key, value) = tuple.trim_start_matches('{').split_once(',').ok_or(FORM)?;
            options.set(key.trim(), value.trim())?;
        }
        Ok(options)
    }
}

impl fmt::Display for SocketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{{keepalive, {}}}, {{nodelay, {}}}]", self.keepalive, self.nodelay)
    }
}

const FORM: &str = "must be a list of Erlang tuples such as [{keepalive, true}, {nodelay, false}]";

impl SocketOptions {
    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match (key, value, value.parse::<u32>()) {
            ("keepalive", "true" | "false", _) => self.keepalive = value == "true",
            ("nodelay", "true" | "false", _) => self.nodelay = value == "true",
            ("keepalive" | "nodelay", ..) => return Err("must have true or false for keepalive and nodelay"),
            ("sndbuf" | "recbuf", _, Ok(1..)) => {}
            ("sndbuf" | "recbuf", ..) => return Err("must have a positive integer for sndbuf and recbuf"),
            _ => return Err("may have keepalive, nodelay, sndbuf and recbuf only"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_options_are_erlang_terms_with_four_keys() {
        let parse = |text: &str| text.parse::<SocketOptions>();
        assert_eq!(parse(" [ ] "), Ok(SocketOptions::default()));
        let both = parse("[{keepalive, false} , {nodelay,false},{sndbuf, 65536}].");
        assert_eq!(both, Ok(SocketOptions { keepalive: false, nodelay: false }));
        for form in ["", "keepalive", "[keepalive]", "[{keepalive}]", "{keepalive, true}", "[{nodelay, true]"] {
            assert_eq!(parse(form), Err(FORM), "{form}");
        }
        assert!(parse("[{nodelay, 1}]").unwrap_err().contains("true or false"));
        assert!(parse("[{recbuf, 0}]").unwrap_err().contains("positive integer"));
        assert!(parse("[{reuseaddr, true}]").unwrap_err().contains("only"));
    }

    #[test]
    fn an_endpoints_certificate_is_never_paired_with_the_servers_key() {
        let server = Tls { cert_file: Some("a".into()), key_file: Some("a.key".into()), ..Tls::default() };
        let own = Tls { cert_file: Some("b".into()), verify_ssl_certificates: Some(false), ..Tls::default() };
        assert_eq!(own.over(&server), own);
        assert_eq!(Tls::default().over(&server), server);
    }
}
