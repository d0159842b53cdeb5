//! How single values are written: spans of time, sizes, administrators.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use secrecy::{ExposeSecret, SecretString};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::ConfigError;
use crate::config::Admin;
use crate::config::couchdb::{CouchDbAdmin, TakeOver};
use crate::policy::{BadRule, Rule};

/// A span of time as people write it: `500ms`, `5s`, `10m`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(Duration);

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self).map_err(|_| "expected a span of time such as 500ms, 5s or 10m")
    }
}

impl TryFrom<String> for Span {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A number of bytes as people write it: `4096`, `64KiB`, `2MB`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(from = "ByteSize")]
pub struct Size(ByteSize);

impl From<ByteSize> for Size {
    fn from(size: ByteSize) -> Self {
        Self(size)
    }
}

impl From<Size> for usize {
    fn from(size: Size) -> Self {
        Self::try_from(size.0.as_u64()).unwrap_or(Self::MAX)
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "expected a size such as 4096, 64KiB or 2MB")
    }
}

/// Whether CouchDB's replications are taken over: `true`, `force` or `false`.
#[derive(Debug, Clone, Copy)]
pub struct TakeOverChoice(pub Option<TakeOver>);

impl FromStr for TakeOverChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "true" => Ok(Self(Some(TakeOver::UnlessSome))),
            "force" => Ok(Self(Some(TakeOver::Force))),
            "false" | "" => Ok(Self(None)),
            _ => Err("expected true, force or false"),
        }
    }
}

impl<'de> Deserialize<'de> for TakeOverChoice {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(value)? {
            toml::Value::Boolean(choice) => choice.to_string().parse(),
            toml::Value::String(text) => text.parse(),
            _ => Err("expected true, force or false"),
        }
        .map_err(D::Error::custom)
    }
}

/// Rules of where replications may connect to: a text with commas, in the file also a list.
#[derive(Debug, Clone)]
pub struct RuleList(pub Vec<Rule>);

impl FromStr for RuleList {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Rule::list(text).map(Self)
    }
}

impl<'de> Deserialize<'de> for RuleList {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            List(Vec<String>),
        }
        let rules = match Written::deserialize(value) {
            Ok(Written::Text(text)) => text.parse::<Self>().map_err(D::Error::custom)?.0,
            Ok(Written::List(texts)) => texts
                .iter()
                .map(|text| text.trim().parse())
                .collect::<Result<_, BadRule>>()
                .map_err(D::Error::custom)?,
            Err(_) => return Err(D::Error::custom("rules must be a text or a list of texts")),
        };
        // Does it mean nothing, or everything?
        if rules.is_empty() {
            return Err(D::Error::custom("rules must not be empty: leave them out, or deny `*`"));
        }
        Ok(Self(rules))
    }
}

/// Reads `NAME:PASSWORD`.
pub fn admin(text: &SecretString) -> Result<Admin, ConfigError> {
    let wrong = |problem| ConfigError::Value { option: "--admin", problem };
    match text.expose_secret().split_once(':') {
        Some((name, password)) if !name.is_empty() => Admin::new(name, password).map_err(wrong),
        _ => Err(wrong("must be NAME:PASSWORD, neither of them empty")),
    }
}

/// Reads the `NAME:PASSWORD` of a CouchDB's admin.
pub fn couchdb_admin(option: &'static str, text: &str) -> Result<CouchDbAdmin, ConfigError> {
    CouchDbAdmin::parse(text).map_err(|problem| ConfigError::Value { option, problem })
}

/// Reads a file of administrators: `NAME:PASSWORD` a line. Without one it is no such file, and nobody means everybody.
pub fn admins(path: &Path, text: &str) -> Result<Vec<Admin>, ConfigError> {
    let wrong = |line, problem: &str| ConfigError::File { path: path.to_owned(), line, problem: problem.to_owned() };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let admins = lines.map(|(number, line)| match line.split_once(':') {
        Some((name, password)) if !name.is_empty() => {
            Admin::new(name, password).map_err(|problem| wrong(number + 1, &format!("the admin {problem}")))
        }
        _ => Err(wrong(number + 1, NO_ADMIN)),
    });
    let admins = admins.collect::<Result<Vec<_>, _>>()?;
    if admins.is_empty() { Err(wrong(1, NO_ADMIN)) } else { Ok(admins) }
}

const NO_ADMIN: &str = "expected NAME:PASSWORD, neither of them empty";

/// Takes a text; serde's own message would print a value of the wrong type.
pub fn maybe_secret<'de, D: Deserializer<'de>>(value: D) -> Result<Option<SecretString>, D::Error> {
    match toml::Value::deserialize(value)? {
        toml::Value::String(text) => Ok(Some(text.into())),
        _ => Err(D::Error::custom("a secret must be a text")),
    }
}

/// Takes a list of texts; serde's own message would print what isn't one.
pub fn texts<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    let list = toml::Value::deserialize(value)?;
    Vec::deserialize(list).map_err(|_| D::Error::custom("must be a list of texts"))
}

/// Takes a text or a list of them; serde's own message would print a value of the wrong type.
pub fn secrets<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<SecretString>, D::Error> {
    let texts = match toml::Value::deserialize(value)? {
        toml::Value::Array(texts) => texts,
        one => vec![one],
    };
    let secret = |text| match text {
        toml::Value::String(text) => Ok(SecretString::from(text)),
        _ => Err(D::Error::custom("must be a list of texts: admins NAME:PASSWORD, keys KIND:KID=KEY")),
    };
    texts.into_iter().map(secret).collect()
}
