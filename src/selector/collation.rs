//! How values are ordered: null, false, true, numbers, strings, arrays, objects, as in CouchDB's views.
//!
//! Strings are compared by ICU's root collation at its tertiary strength, which is CouchDB's. Objects are compared
//! member by member in the order in which they were written. Numbers are compared by their decimal digits, so that none
//! is too long or too precise.

use std::cmp::Ordering;
use std::sync::LazyLock;

use icu_collator::options::CollatorOptions;
use icu_collator::{Collator, CollatorBorrowed};
use serde_json::{Number, Value};

static ROOT: LazyLock<CollatorBorrowed<'static>> = LazyLock::new(|| {
    Collator::try_new(Default::default(), CollatorOptions::default()).expect("the root collation is compiled in")
});

/// Orders two values.
pub fn collate(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b),
        (Value::String(a), Value::String(b)) => strings(a, b),
        (Value::Array(a), Value::Array(b)) => {
            first_difference(a.iter().zip(b).map(|(a, b)| collate(a, b))).then(a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let members =
                a.iter().zip(b).map(|((key_a, a), (key_b, b))| strings(key_a, key_b).then_with(|| collate(a, b)));
            first_difference(members).then(a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Orders a document's id and another value: by bytes, and ids after everything that is no string.
pub fn collate_id(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::String(_), _) => Ordering::Greater,
        (_, Value::String(_)) => Ordering::Less,
        _ => collate(a, b),
    }
}

/// Whether two values are the same: strings byte for byte, and an integer isn't a number with a fraction or an exponent.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => is_integer(a) == is_integer(b) && numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((key_a, a), (key_b, b))| key_a == key_b && same(a, b))
        }
        _ => a == b,
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(false) => 1,
        Value::Bool(true) => 2,
        Value::Number(_) => 3,
        Value::String(_) => 4,
        Value::Array(_) => 5,
        Value::Object(_) => 6,
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn strings(a: &str, b: &str) -> Ordering {
    if a == b { Ordering::Equal } else { ROOT.compare(a, b) }
}

fn is_integer(number: &Number) -> bool {
    !number.as_str().contains(['.', 'e', 'E'])
}

fn numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => Decimal::parse(a.as_str()).compare(&Decimal::parse(b.as_str())),
    }
}

/// A number as `0.digits × 10^exponent`, its digits without zeros at either end; zero has none.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    fn parse(text: &str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        // An exponent beyond 64 bits is as far as one can be.
        let furthest = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
        let exponent: i64 = exponent.parse().unwrap_or(furthest);
        let digits = [whole, fraction].concat().into_bytes();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        let end = digits.iter().rposition(|digit| *digit != b'0').map_or(zeros, |last| last + 1);
        Self {
            negative: negative && zeros < end,
            exponent: exponent.saturating_add(whole.len() as i64).saturating_sub(zeros as i64),
            digits: digits[zeros..end].to_vec(),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let magnitude = match (self.digits.is_empty(), other.digits.is_empty()) {
            (false, false) => self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits)),
            (empty, other_empty) => other_empty.cmp(&empty),
        };
        match (self.negative, other.negative) {
            (false, false) => magnitude,
            (true, true) => magnitude.reverse(),
            (negative, other_negative) => other_negative.cmp(&negative),
        }
    }
}
