//! Fields of an object that somebody sent: read by their kind, refused by their name.

use serde_json::{Map, Value};

/// A field isn't what it must be. Says which; never its value, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadField(pub String);

/// A text; `None` if it is absent or null.
pub fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, BadField> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(BadField(format!("parameter `{key}` must be a string"))),
    }
}

/// True or false.
pub fn boolean(object: &Map<String, Value>, key: &str, default: bool) -> Result<bool, BadField> {
    match object.get(key) {
        None => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(BadField(format!("parameter `{key}` must be a boolean"))),
    }
}

/// A number above zero, or its digits in a string.
pub fn positive(object: &Map<String, Value>, key: &str) -> Result<Option<u64>, BadField> {
    let number = match object.get(key) {
        None => return Ok(None),
        Some(Value::Number(number)) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Some(Value::String(digits)) => digits.parse().ok(),
        Some(_) => None,
    };
    match number {
        Some(number) if number > 0 => Ok(Some(number)),
        _ => Err(BadField(format!("parameter `{key}` must be a positive integer"))),
    }
}

/// `3.0` is as good an integer as `3`.
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64)
}

/// The number, or the limit if it is larger.
pub fn at_most(number: u64, limit: usize) -> usize {
    usize::try_from(number).unwrap_or(limit).min(limit)
}
