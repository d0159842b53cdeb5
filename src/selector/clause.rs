//! Reading and normalising, in CouchDB's three steps, so that the outcome is CouchDB's.
//!
//! 1. Implicit operators are written out: a bare value is `$eq`, several members are an `$and` in the order written.
//! 2. Field names move down to the conditions, `{"a":{"b":…}}` becoming `a.b`. Combinations let them through; within
//!    `$elemMatch`, `$allMatch` and `$keyMapMatch` names start anew, and a condition without one has the empty name.
//! 3. Negations move down by De Morgan until they turn an operator into its opposite; those that have none stay under
//!    `$not`. Conditions on fields aren't entered, so negations within `$elemMatch` and its like stay where they are.

use std::collections::HashSet;

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::SelectorError;
use super::pattern::Patterns;

/// A condition, or a combination of them.
#[derive(Debug, Clone)]
pub enum Clause {
    And(Vec<Clause>),
    Or(Vec<Clause>),
    Nor(Vec<Clause>),
    Not(Box<Clause>),
    Field(Field, Box<Clause>),
    ElemMatch(Box<Clause>),
    AllMatch(Box<Clause>),
    KeyMapMatch(Box<Clause>),
    Compare(Comparison, Value),
    In(Vec<Value>),
    Nin(Vec<Value>),
    All(Vec<Value>),
    Exists(bool),
    Type(String),
    Size(u64),
    Mod { divisor: i64, remainder: i64 },
    Regex(Box<Regex>),
    BeginsWith(String),
}

/// A field's name and the path that it stands for.
#[derive(Debug, Clone, Default)]
pub struct Field {
    /// Dotted, dots within a part escaped by a backslash.
    pub name: String,
    /// Empty if the name is: the value itself.
    pub path: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

impl Comparison {
    const NAMES: [(&'static str, Self); 6] = [
        ("$lt", Self::Less),
        ("$lte", Self::LessOrEqual),
        ("$eq", Self::Equal),
        ("$ne", Self::NotEqual),
        ("$gte", Self::GreaterOrEqual),
        ("$gt", Self::Greater),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, comparison)| *comparison)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, comparison)| *comparison == self).map_or("$eq", |(name, _)| name)
    }

    fn opposite(self) -> Self {
        match self {
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::GreaterOrEqual => Self::Less,
            Self::Greater => Self::LessOrEqual,
        }
    }
}

impl Clause {
    /// Reads and normalises an object that isn't empty.
    pub fn normalised(selector: &Value) -> Result<Self, SelectorError> {
        let patterns = Patterns::of(selector).ok_or(SelectorError::TooManyPatterns)?;
        let clause = Self::read(selector, &patterns)?.located("")?.without_negations();
        match &clause {
            Self::Field(field, _) if field.name.is_empty() => Err(SelectorError::MissingField),
            _ => Ok(clause),
        }
    }

    /// Step 1.
    fn read(value: &Value, patterns: &Patterns) -> Result<Self, SelectorError> {
        let Value::Object(members) = value else { return Ok(Self::Compare(Comparison::Equal, value.clone())) };
        let mut each = members.iter().map(|(key, argument)| Self::read_member(key, argument, patterns));
        match members.len() {
            0 => Ok(Self::Compare(Comparison::Equal, value.clone())),
            1 => each.next().unwrap_or(Err(SelectorError::MissingField)),
            _ => each.collect::<Result<_, _>>().map(Self::And),
        }
    }

    fn read_member(key: &str, argument: &Value, patterns: &Patterns) -> Result<Self, SelectorError> {
        if let Some(comparison) = Comparison::named(key) {
            return Ok(Self::Compare(comparison, argument.clone()));
        }
        let bad = |operator, expected| SelectorError::BadArgument { operator, expected };
        let list = |operator| argument.as_array().ok_or(bad(operator, "an array"));
        let values = |operator| list(operator).cloned();
        let clauses =
            |operator| list(operator)?.iter().map(|clause| Self::read(clause, patterns)).collect::<Result<Vec<_>, _>>();
        let clause = |operator| match argument {
            Value::Object(_) => Self::read(argument, patterns).map(Box::new),
            _ => Err(bad(operator, "an object")),
        };
        let text = |operator| argument.as_str().map(str::to_owned).ok_or(bad(operator, "a string"));
        Ok(match key {
            "$and" => Self::And(clauses("$and")?),
            "$or" => Self::Or(clauses("$or")?),
            "$nor" => Self::Nor(clauses("$nor")?),
            "$not" => Self::Not(clause("$not")?),
            "$elemMatch" => Self::ElemMatch(clause("$elemMatch")?),
            "$allMatch" => Self::AllMatch(clause("$allMatch")?),
            "$keyMapMatch" => Self::KeyMapMatch(clause("$keyMapMatch")?),
            "$in" => Self::In(values("$in")?),
            "$nin" => Self::Nin(values("$nin")?),
            "$all" => Self::All(values("$all")?),
            "$exists" => Self::Exists(argument.as_bool().ok_or(bad("$exists", "true or false"))?),
            "$type" => Self::Type(text("$type")?),
            "$beginsWith" => Self::BeginsWith(text("$beginsWith")?),
            "$size" => Self::Size(argument.as_u64().ok_or(bad("$size", "an integer that isn't negative"))?),
            "$mod" => {
                let numbers: Option<Vec<_>> =
                    argument.as_array().and_then(|pair| pair.iter().map(Value::as_i64).collect());
                match numbers.as_deref() {
                    Some([divisor, remainder]) if *divisor != 0 => {
                        Self::Mod { divisor: *divisor, remainder: *remainder }
                    }
                    _ => return Err(bad("$mod", "an array of two integers, a divisor other than 0 and a remainder")),
                }
            }
            "$regex" => {
                let regex = patterns.compile(&text("$regex")?);
                Self::Regex(Box::new(regex.ok_or(bad("$regex", "a regular expression, and not too large a one"))?))
            }
            "$text" | "$where" | "$near" | "$nearSphere" | "$geoWithin" | "$geoIntersects" => {
                return Err(SelectorError::UnsupportedOperator(key.to_owned()));
            }
            operator if operator.starts_with('$') => return Err(SelectorError::InvalidOperator(operator.to_owned())),
            name => {
                let field = Field { name: name.to_owned(), path: Vec::new() };
                Self::Field(field, Box::new(Self::read(argument, patterns)?))
            }
        })
    }

    /// Step 2, below the field `path`.
    fn located(self, path: &str) -> Result<Self, SelectorError> {
        let all = |clauses: Vec<Self>| clauses.into_iter().map(|clause| clause.located(path)).collect::<Result<_, _>>();
        let anew = |clause: Box<Self>| clause.located("").map(Box::new);
        let leaf = match self {
            Self::And(clauses) => return Ok(Self::And(all(clauses)?)),
            Self::Or(clauses) => return Ok(Self::Or(all(clauses)?)),
            Self::Nor(clauses) => return Ok(Self::Nor(all(clauses)?)),
            Self::Not(clause) => return Ok(Self::Not(Box::new(clause.located(path)?))),
            Self::Field(field, clause) if path.is_empty() => return clause.located(&field.name),
            Self::Field(field, clause) => return clause.located(&format!("{path}.{}", field.name)),
            Self::ElemMatch(clause) => Self::ElemMatch(anew(clause)?),
            Self::AllMatch(clause) => Self::AllMatch(anew(clause)?),
            Self::KeyMapMatch(clause) => Self::KeyMapMatch(anew(clause)?),
            leaf => leaf,
        };
        Ok(Self::Field(Field::parse(path)?, Box::new(leaf)))
    }

    /// Step 3.
    fn without_negations(self) -> Self {
        let all = |clauses: Vec<Self>, change: fn(Self) -> Self| clauses.into_iter().map(change).collect();
        match self {
            Self::Not(clause) => clause.negated(),
            Self::Nor(clauses) => Self::And(all(clauses, Self::negated)),
            Self::And(clauses) => Self::And(all(clauses, Self::without_negations)),
            Self::Or(clauses) => Self::Or(all(clauses, Self::without_negations)),
            other => other,
        }
    }

    fn negated(self) -> Self {
        let all = |clauses: Vec<Self>, change: fn(Self) -> Self| clauses.into_iter().map(change).collect();
        match self {
            Self::Not(clause) => clause.without_negations(),
            Self::Nor(clauses) => Self::Or(all(clauses, Self::without_negations)),
            Self::And(clauses) => Self::Or(all(clauses, Self::negated)),
            Self::Or(clauses) => Self::And(all(clauses, Self::negated)),
            Self::Field(field, clause) => Self::Field(field, Box::new(clause.negated())),
            Self::Compare(comparison, argument) => Self::Compare(comparison.opposite(), argument),
            Self::In(values) => Self::Nin(values),
            Self::Nin(values) => Self::In(values),
            Self::Exists(exists) => Self::Exists(!exists),
            other => Self::Not(Box::new(other)),
        }
    }

    /// The clause as JSON, its values' keys sorted at every depth.
    pub fn to_value(&self) -> Value {
        let list = |clauses: &[Self]| Value::Array(clauses.iter().map(Self::to_value).collect());
        let (key, argument) = match self {
            Self::And(clauses) => ("$and", list(clauses)),
            Self::Or(clauses) => ("$or", list(clauses)),
            Self::Nor(clauses) => ("$nor", list(clauses)),
            Self::Not(clause) => ("$not", clause.to_value()),
            Self::Field(field, clause) => (field.name.as_str(), clause.to_value()),
            Self::ElemMatch(clause) => ("$elemMatch", clause.to_value()),
            Self::AllMatch(clause) => ("$allMatch", clause.to_value()),
            Self::KeyMapMatch(clause) => ("$keyMapMatch", clause.to_value()),
            Self::Compare(comparison, argument) => (comparison.name(), sorted(argument)),
            Self::In(values) => ("$in", values.iter().map(sorted).collect()),
            Self::Nin(values) => ("$nin", values.iter().map(sorted).collect()),
            Self::All(values) => ("$all", values.iter().map(sorted).collect()),
            Self::Exists(exists) => ("$exists", Value::from(*exists)),
            Self::Type(name) => ("$type", Value::from(name.as_str())),
            Self::Size(size) => ("$size", Value::from(*size)),
            Self::Mod { divisor, remainder } => ("$mod", Value::from(vec![*divisor, *remainder])),
            Self::Regex(regex) => ("$regex", Value::from(regex.as_str())),
            Self::BeginsWith(prefix) => ("$beginsWith", Value::from(prefix.as_str())),
        };
        Value::Object(Map::from_iter([(key.to_owned(), argument)]))
    }

    /// Adds the members of a document that the clause looks at; `None` if it looks at the document itself.
    pub fn collect_members(&self, members: &mut Option<HashSet<String>>) {
        match self {
            Self::And(clauses) | Self::Or(clauses) | Self::Nor(clauses) => {
                clauses.iter().for_each(|clause| clause.collect_members(members));
            }
            Self::Not(clause) => clause.collect_members(members),
            Self::Field(Field { path, .. }, _) => match (path.first(), members.as_mut()) {
                (Some(name), Some(members)) => _ = members.insert(name.clone()),
                _ => *members = None,
            },
            _ => *members = None,
        }
    }
}

impl Field {
    /// Takes a name apart at its dots; `\.` is a dot within a part.
    fn parse(name: &str) -> Result<Self, SelectorError> {
        let mut path = Vec::new();
        if !name.is_empty() {
            let (mut part, mut before) = (String::new(), ' ');
            for c in name.chars() {
                match c {
                    '.' if before != '\\' => path.push(std::mem::take(&mut part)),
                    '\\' => {}
                    c => part.push(c),
                }
                before = c;
            }
            path.push(part);
        }
        match path.iter().any(String::is_empty) {
            true => Err(SelectorError::InvalidField(name.to_owned())),
            false => Ok(Self { name: name.to_owned(), path }),
        }
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(members.into_iter().collect())
        }
        other => other.clone(),
    }
}
