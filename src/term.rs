//! Erlang terms, as far as replication ids and revision ids need them, in Erlang's external format.
//!
//! The bytes are those of `term_to_binary(Term, [{minor_version, 1}])` of OTP 25: a CouchDB and couchrep give one
//! replication the same id, and equal edits the same revision, only if every tag agrees. Nothing here reads terms.

mod json;

use serde_json::{Number, Value};

pub use self::json::Shape;

/// A term.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// An atom, ASCII.
    Atom(&'static str),
    /// An integer of any size, as its sign and its magnitude's bytes, the least significant first, without zeros after them.
    Integer {
        /// Whether it is below zero.
        negative: bool,
        /// The magnitude.
        magnitude: Vec<u8>,
    },
    /// A float.
    Float(f64),
    /// A binary.
    Binary(Vec<u8>),
    /// A proper list.
    List(Vec<Term>),
    /// A tuple of at most 255 terms.
    Tuple(Vec<Term>),
}

impl Term {
    /// A text as Erlang's strings are: the list of its code points.
    pub fn charlist(text: &str) -> Self {
        Self::List(text.chars().map(|c| Self::from(u64::from(u32::from(c)))).collect())
    }

    /// A text as a UTF-8 binary.
    pub fn binary(text: &str) -> Self {
        Self::Binary(text.as_bytes().to_vec())
    }

    /// A JSON object, as EJSON has it: a tuple of the list of its pairs.
    pub fn object<'a>(members: impl Iterator<Item = (&'a str, Term)>) -> Self {
        let pairs = members.map(|(key, value)| Self::Tuple(vec![Self::binary(key), value])).collect();
        Self::Tuple(vec![Self::List(pairs)])
    }

    /// `term_to_binary(Term, [{minor_version, 1}])`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        self.append(&mut out);
        out
    }

    fn append(&self, out: &mut Vec<u8>) {
        match self {
            Self::Atom(name) => {
                out.push(ATOM_EXT);
                out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
                out.extend_from_slice(name.as_bytes());
            }
            Self::Integer { negative, magnitude } => append_integer(*negative, magnitude, out),
            Self::Float(float) => {
                out.push(NEW_FLOAT_EXT);
                out.extend_from_slice(&float.to_be_bytes());
            }
            Self::Binary(bytes) => {
                out.push(BINARY_EXT);
                append_length(bytes.len(), out);
                out.extend_from_slice(bytes);
            }
            Self::List(items) => append_list(items, out),
            Self::Tuple(items) => {
                out.push(SMALL_TUPLE_EXT);
                out.push(u8::try_from(items.len()).unwrap_or(u8::MAX));
                items.iter().for_each(|item| item.append(out));
            }
        }
    }

    /// The value of an integer between 0 and 255.
    fn as_byte(&self) -> Option<u8> {
        match self {
            Self::Integer { negative: false, magnitude } if magnitude.len() <= 1 => {
                Some(magnitude.first().copied().unwrap_or(0))
            }
            _ => None,
        }
    }
}

impl From<u64> for Term {
    fn from(number: u64) -> Self {
        let mut magnitude = number.to_le_bytes().to_vec();
        magnitude.truncate(8 - number.leading_zeros() as usize / 8);
        Self::Integer { negative: false, magnitude }
    }
}

impl From<&Value> for Term {
    /// JSON as CouchDB's decoder makes it.
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Atom("null"),
            Value::Bool(true) => Self::Atom("true"),
            Value::Bool(false) => Self::Atom("false"),
            Value::Number(number) => Self::from(number),
            Value::String(text) => Self::binary(text),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(members) => Self::object(members.iter().map(|(key, value)| (key.as_str(), value.into()))),
        }
    }
}

impl From<&Number> for Term {
    fn from(value: &Number) -> Self {
        number(value.as_str())
    }
}

/// A number by its JSON text.
fn number(text: &str) -> Term {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Term::Float(text.parse().unwrap_or(f64::INFINITY));
    }
    if text.len() > LONGEST_INTEGER {
        return Term::binary(text);
    }
    let mut magnitude: Vec<u8> = Vec::new();
    for digit in digits.bytes() {
        let mut carry = u16::from(digit - b'0');
        for byte in &mut magnitude {
            let sum = u16::from(*byte) * 10 + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        magnitude.extend((carry > 0).then_some(carry as u8));
    }
    Term::Integer { negative: negative && !magnitude.is_empty(), magnitude }
}

const VERSION: u8 = 131;
const NEW_FLOAT_EXT: u8 = 70;
const SMALL_INTEGER_EXT: u8 = 97;
const INTEGER_EXT: u8 = 98;
const ATOM_EXT: u8 = 100;
const SMALL_TUPLE_EXT: u8 = 104;
const NIL_EXT: u8 = 106;
const STRING_EXT: u8 = 107;
const LIST_EXT: u8 = 108;
const BINARY_EXT: u8 = 109;
const SMALL_BIG_EXT: u8 = 110;
const LARGE_BIG_EXT: u8 = 111;

/// Integers of more digits count as their text: no CouchDB holds them, and the time they take grows with their square.
const LONGEST_INTEGER: usize = 400;

/// A list of bytes up to this length is a STRING_EXT.
const LONGEST_STRING: usize = 65_535;

fn append_list(items: &[Term], out: &mut Vec<u8>) {
    if items.is_empty() {
        return out.push(NIL_EXT);
    }
    if items.len() <= LONGEST_STRING
        && let Some(bytes) = items.iter().map(Term::as_byte).collect::<Option<Vec<u8>>>()
    {
        out.push(STRING_EXT);
        out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        return out.extend_from_slice(&bytes);
    }
    out.push(LIST_EXT);
    append_length(items.len(), out);
    items.iter().for_each(|item| item.append(out));
    out.push(NIL_EXT);
}

fn append_integer(negative: bool, magnitude: &[u8], out: &mut Vec<u8>) {
    let mut wide = [0; 8];
    let small = magnitude.len() <= 4;
    if small {
        wide[..magnitude.len()].copy_from_slice(magnitude);
    }
    let value = if negative { -i64::from_le_bytes(wide) } else { i64::from_le_bytes(wide) };
    match (u8::try_from(value), i32::try_from(value)) {
        (Ok(byte), _) if small => out.extend_from_slice(&[SMALL_INTEGER_EXT, byte]),
        (_, Ok(int)) if small => {
            out.push(INTEGER_EXT);
            out.extend_from_slice(&int.to_be_bytes());
        }
        _ => {
            match u8::try_from(magnitude.len()) {
                Ok(length) => out.extend_from_slice(&[SMALL_BIG_EXT, length]),
                Err(_) => {
                    out.push(LARGE_BIG_EXT);
                    append_length(magnitude.len(), out);
                }
            }
            out.push(u8::from(negative));
            out.extend_from_slice(magnitude);
        }
    }
}

fn append_length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a text stands for, with the version byte.
    fn document(text: impl AsRef<[u8]>) -> Vec<u8> {
        let (text, mut out) = (text.as_ref(), vec![VERSION]);
        Shape::of(text).write(text, |piece| out.extend_from_slice(piece));
        out
    }

    /// A value's text by both ways.
    fn json(text: &str) -> Vec<u8> {
        let encoded = Term::from(&serde_json::from_str::<Value>(text).unwrap()).encode();
        assert_eq!(document(text), encoded, "{text}");
        encoded
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..300).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((0..260).prop_map(Value::from), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_text_and_its_value_are_the_same_term(value in value()) {
            json(&value.to_string());
            json(&serde_json::to_string_pretty(&value).unwrap());
        }
    }

    proptest! {
        #[test]
        fn of_many_members_the_last_of_equal_ones_stay_where_they_stand(
            keys in prop::collection::vec(0..12_u8, 0..40), depth in 0..3_usize,
        ) {
            let member = |(place, key): (usize, &u8)| {
                format!(r#""{}":{}{place}{}"#, "k".repeat((*key).into()), r#"{"x":0,"x":"#.repeat(depth), "}".repeat(depth))
            };
            let object = |members: Vec<String>| document(format!("{{{}}}", members.join(",")));
            let last = |(place, key): &(usize, &u8)| !keys[place + 1..].contains(key);
            let all = object(keys.iter().enumerate().map(member).collect());
            prop_assert_eq!(all, object(keys.iter().enumerate().filter(last).map(member).collect()));
        }
    }

    #[test]
    fn the_last_of_equal_members_stays_where_it_stands() {
        let term = |text: &str| document(text);
        assert_eq!(term(r#"{"a":{"x":1,"x":[]},"b":2,"\u0061":3}"#), term(r#"{"b":2,"a":3}"#));
        assert_eq!(term(r#"[{"a":{"x":1,"x":[]}},{"a":1}]"#), term(r#"[{"a":{"x":[]}},{"a":1}]"#));
    }

    #[test]
    fn no_depth_and_no_length_is_too_much() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            document(format!("{}{}", open.repeat(1_000_000), close.repeat(1_000_000)));
        }
        document("1".repeat(10_000_000));
    }

    /// A `selector` with an integer of a million digits blocked a replication's request for minutes.
    #[test]
    fn an_integer_of_any_length_takes_no_long_time_in_a_value_either() {
        for sign in ["", "-"] {
            json(&format!("[{sign}{}]", "1".repeat(1_000_000)));
        }
        assert_eq!(json(&"1".repeat(400))[1], SMALL_BIG_EXT);
    }

    /// A megabyte of such levels took minutes: each end copied all that was within it.
    #[test]
    fn members_that_come_twice_on_every_level_take_no_long_time() {
        let depth = 100_000;
        let nested = |level: &str| format!("{}0{}", level.repeat(depth), "}".repeat(depth));
        let term = |text: String| document(text);
        assert!(term(nested(r#"{"a":0,"a":"#)) == term(nested(r#"{"a":"#)));
        let inner = format!("{}0{}", r#"{"a":0,"a":"#.repeat(1000), "}".repeat(1000));
        assert_eq!(term(format!(r#"{{"x":{inner},"y":[{inner}],"x":1}}"#)), {
            let inner = format!("{}0{}", r#"{"a":"#.repeat(1000), "}".repeat(1000));
            term(format!(r#"{{"y":[{inner}],"x":1}}"#))
        });
    }

    /// A body of empty members took more than five times its length: a term, and lists of where each member was.
    #[test]
    fn what_is_noted_of_a_text_is_less_than_the_text() {
        let many =
            |one: &str, open: &str, close: &str| format!("{open}{}{one}{close}", format!("{one},").repeat(100_000));
        for text in [
            many(r#""":[]"#, "{", "}"),
            many(r#""":0"#, "{", "}"),
            many("[]", "[", "]"),
            many("[0]", "[", "]"),
            many(r#"{"":0,"":0}"#, "[", "]"),
            many(&format!("[0{}]", ",0".repeat(200)), "[", "]"),
            format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
            format!("{}0{}", r#"{"":0,"":"#.repeat(100_000), "}".repeat(100_000)),
        ] {
            let bytes = Shape::of(text.as_bytes()).bytes();
            assert!(bytes < text.len(), "{bytes} of {}: {}", text.len(), &text[..20]);
        }
    }

    /// A list of many bytes, a long string, a long list, keys with escapes: each in pieces.
    #[test]
    fn a_term_in_pieces_is_the_term() {
        for text in [
            format!("[0{}]", ",255".repeat(LONGEST_STRING - 1)),
            format!("[0{}]", ",255".repeat(LONGEST_STRING)),
            format!("[{}[]]", "[7],".repeat(100_000)),
            format!(r#"{{"{}":"{}"}}"#, "k".repeat(100_000), "\\n".repeat(100_000)),
            r#"{"a\n":1,"\u00e9":2,"b":{"":[]," ":{}}}"#.into(),
        ] {
            json(&text);
        }
    }

    #[test]
    fn integers_take_the_smallest_form() {
        assert_eq!(json("0"), [131, 97, 0]);
        assert_eq!(json("-0"), [131, 97, 0]);
        assert_eq!(json("255"), [131, 97, 255]);
        assert_eq!(json("256"), [131, 98, 0, 0, 1, 0]);
        assert_eq!(json("-1"), [131, 98, 255, 255, 255, 255]);
        assert_eq!(json("-2147483648"), [131, 98, 128, 0, 0, 0]);
        assert_eq!(json("2147483648"), [131, 110, 4, 0, 0, 0, 0, 128]);
        assert_eq!(json("-18446744073709551616"), [131, 110, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn numbers_with_a_fraction_or_an_exponent_are_floats() {
        assert_eq!(json("1.0"), [131, 70, 63, 240, 0, 0, 0, 0, 0, 0]);
        assert_eq!(json("1e0"), json("1.0"));
    }

    #[test]
    fn lists_of_bytes_are_strings_and_others_are_closed_by_nil() {
        assert_eq!(Term::charlist("ab").encode(), [131, 107, 0, 2, 97, 98]);
        assert_eq!(Term::charlist("").encode(), [131, 106]);
        assert_eq!(Term::charlist("\u{100}").encode(), [131, 108, 0, 0, 0, 1, 98, 0, 0, 1, 0, 106]);
        assert_eq!(json(r#"["a"]"#), [131, 108, 0, 0, 0, 1, 109, 0, 0, 0, 1, 97, 106]);
        assert_eq!(Term::charlist(&"x".repeat(65_536)).encode()[..8], [131, 108, 0, 1, 0, 0, 97, 120]);
    }

    #[test]
    fn objects_are_tuples_of_pairs_in_order() {
        assert_eq!(json("{}"), [131, 104, 1, 106]);
        let pair = [104, 2, 109, 0, 0, 0, 1, 97, 100, 0, 4, b't', b'r', b'u', b'e'];
        assert_eq!(json(r#"{"a":true}"#), [&[131, 104, 1, 108, 0, 0, 0, 1], &pair[..], &[106]].concat());
    }
}
