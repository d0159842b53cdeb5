//! How the password of a user document is hashed.
//!
//! `password_scheme` says it: `pbkdf2` (CouchDB 1.3 and later; `pbkdf2_prf` is `sha` if absent, `sha256` since 3.4),
//! `simple` (before; SHA-1 of password and salt), and `simple+pbkdf2`, PBKDF2 of what `simple` makes, which is how an old
//! `_users` database is made safe without asking anybody for his password. A hash that can't be checked is nobody's
//! password.

use ring::digest;
use serde_json::{Map, Value};

use crate::config::Password as Hash;

/// The hash of a user's password.
#[derive(Debug, Clone)]
pub struct Password {
    hash: Hash,
    /// It isn't the password that was hashed, but what `simple` makes of it.
    over_simple: bool,
}

/// Iterations of a `pbkdf2` that doesn't say how many.
const ITERATIONS: u64 = 10_000;

impl Password {
    /// Reads the hash of a user document; `None` if it has none that can be checked.
    pub fn of_document(document: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| document.get(key).and_then(Value::as_str);
        let salt = text("salt").unwrap_or_default();
        let pbkdf2 = || {
            let iterations = document.get("iterations").map_or(Some(ITERATIONS), Value::as_u64)?;
            let prf = document.get("pbkdf2_prf").map_or(Some("sha"), Value::as_str)?;
            Hash::pbkdf2(prf, text("derived_key")?, salt, iterations.try_into().ok()?).ok()
        };
        let scheme = document.get("password_scheme").map_or(Some("simple"), Value::as_str)?;
        let (hash, over_simple) = match scheme {
            "simple" => (Hash::simple(text("password_sha")?, salt).ok()?, false),
            "pbkdf2" => (pbkdf2()?, false),
            "simple+pbkdf2" => (pbkdf2()?, true),
            _ => return None,
        };
        Some(Self { hash, over_simple })
    }

    /// Whether this is the password. May take long; the time doesn't tell how much of it is right.
    pub fn is(&self, password: &str) -> bool {
        if !self.over_simple {
            return self.hash.is(password);
        }
        let salted = format!("{password}{}", self.salt());
        let simple = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, salted.as_bytes());
        self.hash.is(&hex::encode(simple))
    }

    /// What is hashed with it.
    pub fn salt(&self) -> &str {
        self.hash.salt().unwrap_or_default()
    }

    /// What came out: another one for every password and salt.
    pub fn key(&self) -> &[u8] {
        self.hash.key()
    }
}

impl From<Hash> for Password {
    fn from(hash: Hash) -> Self {
        Self { hash, over_simple: false }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn password(document: Value) -> Option<Password> {
        Password::of_document(document.as_object().unwrap())
    }

    /// As CouchDB 3.5.0 wrote them, or took them and let their owner in.
    #[test]
    fn every_scheme_of_a_couchdb_knows_its_password_and_no_other() {
        let documents = [
            json!({
                "password_scheme": "pbkdf2", "pbkdf2_prf": "sha256", "salt": "e488ff9fda28cf35ff19e543e3437bad",
                "iterations": 600000,
                "derived_key": "d7f6ceaca72a600464435c36b6babff9c6db53991921de61533c8442cda7d100",
            }),
            json!({
                "password_scheme": "pbkdf2", "salt": "921a12f74df0c1052b3e562a23cd227f", "iterations": 10,
                "derived_key": "96af052aaa3384add6895c65f483a9148b13c678",
            }),
            json!({
                "password_scheme": "simple", "salt": "s4lt", "password_sha": "1529357fa93ad14972810f90141874e28ed4beea",
            }),
            json!({ "salt": "s4lt", "password_sha": "1529357fa93ad14972810f90141874e28ed4beea" }),
            json!({
                "password_scheme": "simple+pbkdf2", "pbkdf2_prf": "sha256", "salt": "s4lt", "iterations": 5,
                "derived_key": "da47c6a13490c3e196a46f4de48d85a38c0a45710b9cedf3b6d27b966f2f8069",
            }),
        ];
        let right = ["wörd: 1", "pass wörd", "pass", "pass", "pass"];
        for (document, right) in documents.into_iter().zip(right) {
            let password = password(document.clone()).unwrap();
            assert!(password.is(right), "{document}");
            assert!(!password.is("") && !password.is("pas") && !password.is("passs4lt"), "{document}");
        }
    }

    #[test]
    fn a_hash_that_can_not_be_checked_is_nobodys_password() {
        for document in [
            json!({}),
            json!({ "password_scheme": "pbkdf2", "derived_key": "00", "iterations": 10 }),
            json!({ "password_scheme": "bcrypt", "password_sha": "1529357fa93ad14972810f90141874e28ed4beea" }),
            json!({ "password_scheme": 1, "password_sha": "1529357fa93ad14972810f90141874e28ed4beea" }),
            json!({
                "password_scheme": "pbkdf2", "iterations": 1_000_000_000, "salt": "a",
                "derived_key": "96af052aaa3384add6895c65f483a9148b13c678",
            }),
            json!({
                "password_scheme": "pbkdf2", "iterations": -1, "salt": "a",
                "derived_key": "96af052aaa3384add6895c65f483a9148b13c678",
            }),
            json!({ "password": "pass" }),
        ] {
            assert!(password(document.clone()).is_none(), "{document}");
        }
    }
}
