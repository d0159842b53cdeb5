//! Secrets that replications may name instead of holding them (`"auth": {"secret": "NAME"}`): `[secrets.NAME]` in the file.
//!
//! Each says to which servers it may be sent, and who may name it. What isn't declared so can't be named. Whether somebody may
//! have one sent somewhere, `endpoint/secrets.rs` decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

/// Secrets by their names. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DeclaredSecrets(Arc<BTreeMap<String, DeclaredSecret>>);

/// A secret, and where and for whom it may be used.
#[derive(Debug, Clone)]
pub struct DeclaredSecret {
    /// What is sent.
    pub value: SecretValue,
    /// URLs of the servers that it may be sent to, ending in `/`: a database's URL is one of them and the database's name.
    pub origins: Vec<Url>,
    /// Names of those who may name it, server admins too. Nobody, if it is empty.
    pub users: Vec<String>,
}

/// What is sent to a server.
#[derive(Debug, Clone)]
pub enum SecretValue {
    /// Name and password, as those of `auth.basic`.
    Password {
        /// The name. It enters ids of replications.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// A token, as that of `auth.bearer`.
    Token(SecretString),
}

impl DeclaredSecrets {
    /// The secret of this name.
    pub fn get(&self, name: &str) -> Option<&DeclaredSecret> {
        self.0.get(name)
    }
}

impl FromIterator<(String, DeclaredSecret)> for DeclaredSecrets {
    fn from_iter<T: IntoIterator<Item = (String, DeclaredSecret)>>(secrets: T) -> Self {
        Self(Arc::new(secrets.into_iter().collect()))
    }
}

/// Bytes of a secret's name.
const MAX_NAME: usize = 64;

/// Whether a secret can be called so: names are logged and answered, and so they are short and plain.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(plain)
}

/// Reads `https://host:port` or `https://host:port/path`; `None` if it is anything else, or more. Ends in `/`.
pub fn server_url(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let has_more = url.query().is_some() || url.fragment().is_some();
    let has_login = !url.username().is_empty() || url.password().is_some();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    (!has_more && !has_login && !url.path().contains("//")).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_scheme_host_port_and_path_and_nothing_else() {
        let same = |one: &str, other: &str| server_url(one).unwrap() == server_url(other).unwrap();
        assert!(same("http://H", "http://h:80/") && same("https://h:443", "https://h"));
        assert!(same("http://h/couch", "http://h/x/../couch/"));
        assert!(!same("http://h", "https://h") && !same("http://h", "http://h:5984") && !same("http://h", "http://g"));
        assert!(!same("http://h", "http://h/couch"));
        for other in ["h:5984", "ftp://h", "http://", "http://h//", "http://h?x", "http://h#x", "http://u@h", "*"] {
            assert!(server_url(other).is_none(), "{other}");
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(is_name("hq.reader-1_a"));
        for other in ["", "a b", "a\nb", "ä", "p@ss", &"a".repeat(65)] {
            assert!(!is_name(other), "{other}");
        }
    }
}
