//! Whether a value meets a condition: CouchDB's `mango_selector:match/3`.
//!
//! Empty lists are CouchDB's: `$and`, `$or` and `$nin` of nothing let everything through, `$in` and `$all` nothing.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::clause::{Clause, Comparison};
use super::collation::{collate_id, same};

/// How two values are compared.
pub type Collate = fn(&Value, &Value) -> Ordering;

impl Clause {
    /// Whether `value` meets the condition.
    pub fn matches(&self, value: &Value, collate: Collate) -> bool {
        let equals = |a: &Value, b: &Value| collate(a, b).is_eq();
        match self {
            Self::And(clauses) => clauses.iter().all(|clause| clause.matches(value, collate)),
            Self::Or(clauses) => clauses.is_empty() || clauses.iter().any(|clause| clause.matches(value, collate)),
            Self::Nor(clauses) => !clauses.iter().any(|clause| clause.matches(value, collate)),
            Self::Not(clause) => !clause.matches(value, collate),
            Self::Field(field, clause) => match find(value, &field.path) {
                // Ids are compared by their bytes.
                Found::Value(found) if field.name == "_id" => clause.matches(found, collate_id),
                Found::Value(found) => clause.matches(found, collate),
                Found::Absent => matches!(**clause, Self::Exists(false)),
                Found::NoSuchPath => false,
            },
            Self::ElemMatch(clause) => items(value).iter().any(|item| clause.matches(item, collate)),
            Self::AllMatch(clause) => {
                let items = items(value);
                !items.is_empty() && items.iter().all(|item| clause.matches(item, collate))
            }
            Self::KeyMapMatch(clause) => value
                .as_object()
                .is_some_and(|members| members.keys().any(|key| clause.matches(&Value::from(key.as_str()), collate))),
            Self::Compare(comparison, argument) => comparison.holds(collate(value, argument)),
            Self::In(arguments) => is_in(value, arguments, equals),
            Self::Nin(arguments) => !is_in(value, arguments, equals),
            Self::All(arguments) => match (value, arguments.as_slice()) {
                (_, []) => false,
                (Value::Array(_), [only @ Value::Array(_)]) if same(only, value) => true,
                (Value::Array(items), arguments) => {
                    arguments.iter().all(|argument| items.iter().any(|item| same(item, argument)))
                }
                _ => false,
            },
            Self::Exists(exists) => *exists,
            Self::Type(name) => name == type_name(value),
            Self::Size(size) => value.as_array().is_some_and(|items| items.len() as u64 == *size),
            Self::Mod { divisor, remainder } => match value {
                Value::Number(number) => rest(number, *divisor) == Some(i128::from(*remainder)),
                _ => false,
            },
            // A search that gives up has found nothing.
            Self::Regex(regex) => value.as_str().is_some_and(|text| regex.is_match(text).unwrap_or(false)),
            Self::BeginsWith(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix.as_str())),
        }
    }
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Greater => order.is_gt(),
        }
    }
}

enum Found<'a> {
    Value(&'a Value),
    /// An object lacks the member: the only absence that `{"$exists": false}` sees.
    Absent,
    /// The path leads through something that has no members.
    NoSuchPath,
}

/// Follows a path: through objects by key, through arrays by index.
fn find<'a>(mut value: &'a Value, path: &[String]) -> Found<'a> {
    for name in path {
        value = match value {
            Value::Object(members) => match members.get(name) {
                Some(member) => member,
                None => return Found::Absent,
            },
            Value::Array(items) => match name.parse().ok().and_then(|index: usize| items.get(index)) {
                Some(item) => item,
                None => return Found::NoSuchPath,
            },
            _ => return Found::NoSuchPath,
        };
    }
    Found::Value(value)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// An array is in a list where one of its items is, anything else where it is itself.
fn is_in(value: &Value, arguments: &[Value], equals: impl Fn(&Value, &Value) -> bool) -> bool {
    match value {
        Value::Array(items) => arguments.iter().any(|argument| items.iter().any(|item| equals(item, argument))),
        value => arguments.iter().any(|argument| equals(value, argument)),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// An integer's remainder, with the integer's sign; `None` for other numbers.
fn rest(number: &Number, divisor: i64) -> Option<i128> {
    let text = number.as_str();
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let divisor = i128::from(divisor).abs();
    let digit = |byte: u8| byte.is_ascii_digit().then(|| i128::from(byte - b'0'));
    let rest = digits.bytes().try_fold(0, |rest: i128, byte| Some((rest * 10 + digit(byte)?) % divisor))?;
    Some(sign * rest)
}
