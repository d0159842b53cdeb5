//! Mango selectors, as CouchDB 3.5 understands them: which documents a replication or a feed lets through.
//!
//! A selector is read once: every operator and argument is checked, implicit ones are written out, field names move to
//! the conditions and negations too (`clause`). What comes out is also what enters replication ids, so it must be
//! CouchDB's `mango_selector:normalize/1` to the letter. Matching (`matching`) is pure and looks at one document at a
//! time; values of different types are ordered as views order them, texts by ICU's root collation, numbers by their
//! value however many digits they have (`collation`).
//!
//! A document without a field fails every condition on it but `{"$exists": false}`; so does `{"a": {"$ne": 1}}`.

mod pattern;
mod clause;
mod collation;
mod matching;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use self::clause::Clause;
use crate::json::{self, JsonError};

/// Levels of a document that are looked at: more than a selector has, since its own text is read to 128.
const SEEN_DEPTH: usize = 120;

/// Why a selector can't be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It is no JSON object.
    #[error("a selector must be a JSON object")]
    NotAnObject,
    /// There is no such operator.
    #[error("invalid operator: {0}")]
    InvalidOperator(String),
    /// CouchDB knows the operator, but not in filters.
    #[error("unsupported operator: {0}")]
    UnsupportedOperator(String),
    /// An operator's argument is of the wrong kind.
    #[error("bad argument for operator {operator}: it must be {expected}")]
    BadArgument {
        /// `$in`.
        operator: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// It has too many regular expressions.
    #[error("a selector may have 1,000 regular expressions")]
    TooManyPatterns,
    /// A condition stands on no field.
    #[error("a condition names no field")]
    MissingField,
    /// A field's name has an empty part, as in `a..b`.
    #[error("invalid field name: {0}")]
    InvalidField(String),
}

/// A selector that was read and found good. Cheap to clone.
#[derive(Clone)]
pub struct Selector(Arc<Inner>);

struct Inner {
    /// As it was written.
    written: Value,
    /// `None` lets everything through.
    root: Option<Clause>,
    /// The members of a document that conditions look at; `None`: at the document itself.
    members: Option<HashSet<String>>,
}

impl Selector {
    /// Reads a selector.
    pub fn parse(written: &Value) -> Result<Self, SelectorError> {
        let members = written.as_object().ok_or(SelectorError::NotAnObject)?;
        let root = if members.is_empty() { None } else { Some(Clause::normalised(written)?) };
        let mut members = Some(HashSet::new());
        if let Some(root) = &root {
            root.collect_members(&mut members);
        }
        Ok(Self(Arc::new(Inner { written: written.clone(), root, members })))
    }

    /// As it was written: what a peer is sent.
    pub fn written(&self) -> &Value {
        &self.0.written
    }

    /// Normalised, with keys sorted at every depth: what enters replication ids.
    pub fn normalised(&self) -> Value {
        self.0.root.as_ref().map_or_else(|| Value::Object(Map::new()), Clause::to_value)
    }

    /// Whether a document is let through.
    pub fn matches(&self, document: &Value) -> bool {
        self.0.root.as_ref().is_none_or(|root| root.matches(document, collation::collate))
    }

    /// The same for a document's text; only the members that conditions look at are parsed.
    pub fn matches_text(&self, text: &[u8]) -> Result<bool, JsonError> {
        // What is deeper than any selector doesn't decide whether it matches.
        let value = |text: &[u8]| {
            let value =
                serde_json::from_slice(text).or_else(|_| serde_json::from_slice(&json::pruned(text, SEEN_DEPTH)));
            value.map_err(|_| JsonError::Invalid)
        };
        let document = match &self.0.members {
            None => value(text)?,
            Some(looked_at) => {
                let mut document = Map::new();
                for member in json::members(text)? {
                    if looked_at.contains(member.key.as_ref()) {
                        document.insert(member.key.into_owned(), value(member.value)?);
                    }
                }
                Value::Object(document)
            }
        };
        Ok(self.matches(&document))
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.0.written == other.0.written
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.0.written)
    }
}
