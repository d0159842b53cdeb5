//! `[secrets.NAME]` in the file: secrets that replications may name. They stand nowhere else, since each takes several lines.

use std::path::PathBuf;

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{ConfigError, text, values};
use crate::config::secrets::{DeclaredSecret, SecretValue, is_name, server_url};

/// One secret. Its password or token may stand in a file of its own, as secrets of containers do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretOptions {
    username: Option<String>,
    #[serde(deserialize_with = "values::maybe_secret")]
    password: Option<SecretString>,
    password_file: Option<PathBuf>,
    #[serde(deserialize_with = "values::maybe_secret")]
    token: Option<SecretString>,
    token_file: Option<PathBuf>,
    /// URLs of servers, with the path that databases stand below, if there is one: `https://HOST:PORT/PATH`.
    #[serde(deserialize_with = "values::texts")]
    origins: Vec<String>,
    #[serde(deserialize_with = "values::texts")]
    users: Vec<String>,
}

impl SecretOptions {
    /// What it declares. The error never shows a value.
    pub(super) fn declared(self, name: &str) -> Result<DeclaredSecret, ConfigError> {
        let wrong = |problem| ConfigError::Secret { name: name.to_owned(), problem };
        if !is_name(name) {
            return Err(wrong("must be called by letters, digits, `-`, `_` and `.`, at most 64"));
        }
        let both = "has both a value and a file with it";
        let read = |value: Option<SecretString>, file: Option<PathBuf>| match (value, file) {
            (Some(_), Some(_)) => Err(wrong(both)),
            (value, None) => Ok(value),
            (None, Some(path)) => Ok(Some(text(&path)?.trim_end_matches(['\r', '\n']).into())),
        };
        let (password, token) = (read(self.password, self.password_file)?, read(self.token, self.token_file)?);
        let value = match (self.username, password, token) {
            (Some(username), Some(password), None) => {
                // What is sent ends the name with a colon.
                if username.is_empty() || username.contains(':') || password.expose_secret().is_empty() {
                    return Err(wrong("has a username or a password that can't be one"));
                }
                SecretValue::Password { username, password }
            }
            (None, None, Some(token)) => {
                if token.expose_secret().is_empty() || HeaderValue::from_str(token.expose_secret()).is_err() {
                    return Err(wrong("has a token that can't be one"));
                }
                SecretValue::Token(token)
            }
            _ => return Err(wrong("must have either a username and a password, or a token")),
        };
        let origins = self.origins.iter().map(|text| server_url(text)).collect::<Option<Vec<_>>>();
        let origins = origins.filter(|origins| !origins.is_empty());
        let origins = origins
            .ok_or_else(|| wrong("must have origins, each of them https://HOST:PORT or https://HOST:PORT/PATH"))?;
        Ok(DeclaredSecret { value, origins, users: self.users })
    }
}
