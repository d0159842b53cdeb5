use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;

const SPACES: &[&str] = &["", "", "", " ", "\n\t", " \r\n "];
const STRINGS: &[&str] = &[
    r#""""#,
    r#""a""#,
    r#""_id""#,
    r#""\u005fid""#,
    r#""Zoë 😀 日本""#,
    r#""\"\\\/\b\f\n\r\t""#,
    r#""\u00e9\ud83d\ude00""#,
    r#""]}""#,
    r#""a,b:[{""#,
    r#""sixteen bytes long""#,
    r#""\\""#,
    r#""ends in \\\"""#,
    "\"\u{7f}\u{80}\"",
];
const SCALARS: &[&str] =
    &["true", "false", "null", "0", "-0", "12.50", "-1e9", "1E+300", "0.0e-0", "12345678901234567890123"];
const WRONG: &[&str] = &[
    "01",
    "+1",
    "1.",
    ".5",
    "1e",
    "-",
    "tru",
    "nul",
    "NaN",
    "\"",
    "\\",
    "\"\u{1}\"",
    "\"\\x\"",
    "\"\\u12g4\"",
    "\"a\nb\"",
    "'a'",
    "\u{feff}",
    "\u{a0}",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"\\ud800\"",
    "\"\\ud800\\u0041\"",
    "\"\\udc00x\"",
    "\"\\ude00\\ud83d\"",
    "1e999",
    "-1E+400",
];

/// JSON values in many spellings.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![select(STRINGS), select(SCALARS)].prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 6, |inner| {
        let array = vec(inner.clone(), 0..6).prop_map(|values| format!("[{}]", values.join(",")));
        let spaced = (vec(inner.clone(), 0..4), select(SPACES)).prop_map(|(values, space)| {
            let values: Vec<_> = values.iter().map(|value| format!("{space}{value}{space}")).collect();
            format!("[{space}{}]", values.join(","))
        });
        prop_oneof![array, spaced, object(inner)]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    vec((select(STRINGS), value, select(SPACES)), 0..6).prop_map(|members| {
        let spelled = members.iter().map(|(key, value, space)| format!("{space}{key}{space}:{space}{value}{space}"));
        format!("{{{}}}", spelled.collect::<Vec<_>>().join(","))
    })
}

/// Text that is nearly JSON, or not at all.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![select(STRINGS), select(SCALARS), select(SPACES), select(WRONG)];
    let soup = vec(pieces, 0..12).prop_map(|pieces| pieces.concat().into_bytes());
    let damaged = (value(), vec((any::<Index>(), any::<u8>(), 0..3), 0..3)).prop_map(|(text, damages)| {
        let mut text = text.into_bytes();
        for (place, byte, kind) in damages {
            let place = place.index(text.len() + 1);
            match kind {
                0 => text.insert(place, byte),
                1 => text.truncate(place),
                _ => drop(text.splice(place..(place + 1).min(text.len()), [])),
            }
        }
        text
    });
    prop_oneof![soup, damaged]
}

fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Whether CouchDB would take it.
fn is_taken(text: &[u8]) -> bool {
    fn is_finite(value: &Value) -> bool {
        match value {
            Value::Number(number) => {
                let float = number.as_str().contains(['.', 'e', 'E']);
                !float || number.as_str().parse().is_ok_and(f64::is_finite)
            }
            Value::Array(values) => values.iter().all(is_finite),
            Value::Object(members) => members.values().all(is_finite),
            _ => true,
        }
    }
    serde_json::from_slice(text).is_ok_and(|value| is_finite(&value))
}

/// The members as serde_json sees them.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// Feeds a text in pieces, as it would come from a socket, and drops what may be dropped.
fn feed(text: &str, cuts: &[Index]) -> (Vec<String>, bool) {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
    cuts.sort_unstable();
    let (mut elements, mut buffer, mut found) = (Elements::default(), Vec::new(), Vec::new());
    for (round, cut) in cuts.windows(2).enumerate() {
        buffer.extend_from_slice(&text.as_bytes()[cut[0]..cut[1]]);
        while let Some(element) = elements.next(&buffer) {
            found.push(String::from_utf8(buffer[element].to_vec()).unwrap());
        }
        if round % 3 < 2 {
            let done = elements.consumable();
            buffer.drain(..done);
            elements.consume(done);
        }
    }
    (found, elements.finished())
}

proptest! {
    #[test]
    fn check_accepts_exactly_what_couchdb_does(text in text()) {
        prop_assert_eq!(check(&text).is_ok(), is_taken(&text), "{}", String::from_utf8_lossy(&text));
        if let Ok(members) = members(&text) {
            prop_assert_eq!(members.odd, !is_taken(&text));
        }
    }

    #[test]
    fn check_accepts_json_in_any_spelling(text in value()) {
        prop_assert!(check(text.as_bytes()).is_ok());
    }

    #[test]
    fn members_are_refused_where_the_text_is_no_object(text in text()) {
        let expected = match (is_json(&text), text.trim_ascii_start().first()) {
            (false, _) => Some(JsonError::Invalid),
            (true, Some(b'{')) => None,
            (true, _) => Some(JsonError::NotAnObject),
        };
        prop_assert_eq!(members(&text).err(), expected);
    }

    #[test]
    fn members_are_those_that_serde_json_sees(text in object(value())) {
        let expected = serde_json::from_str::<Pairs>(&text).unwrap().0;
        let found: Vec<_> = members(text.as_bytes()).unwrap().collect();
        prop_assert_eq!(found.len(), expected.len());
        for (member, (key, value)) in found.iter().zip(&expected) {
            prop_assert_eq!(&member.key, key);
            prop_assert_eq!(member.value, value.get().as_bytes());
            let spelled = &text[member.span.clone()];
            prop_assert!(spelled.starts_with('"') && spelled.ends_with(value.get()));
        }
    }

    #[test]
    fn elements_are_the_same_however_the_text_is_cut(
        before in object(value()), elements in vec(value(), 0..6), after in value(), space in select(SPACES), cuts in vec(any::<Index>(), 0..30),
    ) {
        let listed: Vec<_> = elements.iter().map(|element| format!("{space}{element}{space}")).collect();
        let text = format!(r#"{space}{{"x":{before},"y":"[",{space}"results":[{}]{space},"after":{after}}}{space}"#, listed.join(","));
        prop_assert_eq!(feed(&text, &cuts), (elements, true));
    }

    #[test]
    fn elements_survive_anything(text in text(), cuts in vec(any::<Index>(), 0..10)) {
        let text = String::from_utf8_lossy(&text);
        prop_assert_eq!(feed(&text, &cuts), feed(&text, &[]));
    }

    #[test]
    fn strings_come_back(text in any::<String>(), plain in "[a-zé]{0,20}") {
        for text in [text, plain] {
            let mut out = Vec::new();
            push_string(&mut out, &text);
            prop_assert!(check(&out).is_ok());
            prop_assert_eq!(string(&out).unwrap(), text);
        }
    }

    #[test]
    fn plain_runs_end_at_the_first_special_byte(text in vec(prop_oneof![any::<u8>(), 0x18..0x28_u8, Just(b'a'), Just(b'a'), Just(b'a')], 0..40)) {
        let expected = text.iter().take_while(|&&b| b >= 0x20 && b != b'"' && b != b'\\').count();
        prop_assert_eq!(plain_run(&text), expected);
    }
}

#[test]
fn text_is_accepted_up_to_the_greatest_depth() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        assert_eq!(check(nested(MAX_DEPTH).as_bytes()), Ok(()));
        assert_eq!(check(nested(MAX_DEPTH + 1).as_bytes()), Err(JsonError::Invalid));
        assert_eq!(check(nested(1_000_000).as_bytes()), Err(JsonError::Invalid));
        assert_eq!(members(nested(MAX_DEPTH + 1).as_bytes()).err(), Some(JsonError::Invalid));
    }
    assert!(members(r#"{"a":"#.repeat(MAX_DEPTH).as_bytes()).is_err());
}

#[test]
fn text_that_is_no_utf8_is_refused() {
    for bytes in [&b"\"\xff\""[..], b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"{\"a\xc0\xaf\":1}"] {
        assert_eq!(check(bytes), Err(JsonError::Invalid));
        assert_eq!(members(bytes).err(), Some(JsonError::Invalid));
    }
}

/// CouchDB 3.5.0 refuses and takes these.
#[test]
fn half_a_surrogate_pair_and_a_number_beyond_floats_are_refused() {
    for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\u0041""#, r#"{"\ud800":1}"#, "1e999", "-1e400"] {
        assert_eq!(check(text.as_bytes()), Err(JsonError::Invalid), "{text}");
    }
    let digits = "1".repeat(400);
    assert_eq!(check(format!("{digits}.0").as_bytes()), Err(JsonError::Invalid));
    assert!(members(br#"{"a":"\ud800"}"#).unwrap().odd && !members(br#"{"a":1e308}"#).unwrap().odd);
    let mut odd = members(br#"{"_\ud800":1}"#).unwrap();
    assert!(odd.odd && odd.next().unwrap().key == r"_\ud800");
    for text in [r#""\ud83d\ude00""#, "1e308", "1e-999", &digits] {
        assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
    }
}

#[test]
fn what_is_deeper_than_asked_for_is_left_out() {
    let text = br#" {"a":[1,{"b":"]}"},[[]]],"c":{"d":"e"}} "#;
    let pruned = |depth| String::from_utf8(pruned(text, depth)).unwrap();
    assert_eq!(pruned(0), " {} ");
    assert_eq!(pruned(1), r#" {"a":[],"c":{}} "#);
    assert_eq!(pruned(2), r#" {"a":[1,{},[]],"c":{"d":"e"}} "#);
    assert_eq!(pruned(4).as_bytes(), text);
}

#[test]
fn only_strings_are_strings() {
    assert_eq!(string(br#""a""#).as_deref(), Some("a"));
    assert_eq!(string(br#""\u0041""#).as_deref(), Some("A"));
    for other in [&b"1"[..], b"null", b"\"", b"", b"\"a\"b\"", b"\"a\\\"", b"[\"a\"]"] {
        assert_eq!(string(other), None);
    }
}

#[test]
fn the_elements_of_an_array_come_too_and_a_skipped_one_does_not() {
    let (text, mut found) = (br#"[{"a":[1]},"two",{"b":"#, Vec::new());
    let mut elements = Elements::of_array();
    while let Some(element) = elements.next(text) {
        found.push(String::from_utf8(text[element].to_vec()).unwrap());
    }
    assert_eq!(found, [r#"{"a":[1]}"#, r#""two""#]);
    assert!(elements.skip() && !elements.skip());
    assert_eq!(elements.consumable(), text.len());
    elements.consume(text.len());
    let rest = br#"[2,{}]},3]"#;
    assert_eq!(elements.next(rest).map(|element| &rest[element]), Some(&b"3"[..]));
    assert!(elements.next(rest).is_none() && elements.finished());
}

/// The compiler made it leave out the next element, where it optimised (`cargo test --release`) and the caller branched.
#[test]
fn skipping_with_nothing_in_hand_leaves_nothing_out() {
    let (text, mut elements) = (b"[1,2]", Elements::of_array());
    assert_eq!(elements.next(&text[..1]), None);
    if elements.skip() {
        panic!("nothing was in hand");
    }
    assert_eq!(elements.next(text), Some(1..2));
}

#[test]
fn a_text_without_its_end_is_cut_and_one_that_is_something_else_is_not() {
    for (text, cut) in [(r#"{"results":[1"#, true), ("", true), ("<html>", false), (r#"{"results":7}"#, false)] {
        let mut elements = Elements::default();
        while elements.next(text.as_bytes()).is_some() {}
        assert_eq!(elements.is_cut(), cut, "{text}");
    }
}

#[test]
fn an_answer_without_its_array_or_without_its_end_is_not_finished() {
    for text in [
        r#"{"error":"x","reason":"y"}"#,
        r#"{"results":[1,2],"#,
        r#"{"results":[1,2]"#,
        r#"{"results":[1,{"a":2"#,
        "<html>",
        "",
    ] {
        assert!(!feed(text, &[]).1, "{text}");
    }
    assert_eq!(feed("{\"results\":[\n\n]}\n", &[]), (vec![], true));
}

/// The elements of an array and the members of an object, as a walk finds them.
fn walked(text: &str) -> (Vec<String>, Vec<(String, String)>) {
    let owned = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut elements, mut members) = (Cursor::default(), Cursor::default());
    let elements = std::iter::from_fn(|| elements.element(text.as_bytes()).map(owned)).collect();
    let members = std::iter::from_fn(|| members.member(text.as_bytes()).map(|m| (m.key.into_owned(), owned(m.value))));
    (elements, members.collect())
}

#[test]
fn a_walk_finds_what_stands_in_an_array_or_an_object() {
    assert_eq!(walked(r#" [ 1 , {"a":[2]},"]" ] "#).0, ["1", r#"{"a":[2]}"#, r#""]""#]);
    let member = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(walked(r#" { "\u0061" : 1,"b":{"c":"}"} } "#).1, [member("a", "1"), member("b", r#"{"c":"}"}"#)]);
    for text in ["[]", "{ }", "7", "", "[", "[1"] {
        assert_eq!(walked(text).1, [], "{text}");
    }
}

#[test]
fn a_member_is_found_by_its_name_the_last_of_equal_ones() {
    let text = br#" {"a":1,"docs":[2],"b":{"docs":3},"d\u006fcs":[4]}"#;
    assert_eq!(member(text, "docs").unwrap(), Some(&b"[4]"[..]));
    assert_eq!(member(text, "none").unwrap(), None);
    assert_eq!(member(b"[1]", "a"), Err(JsonError::NotAnObject));
    assert_eq!(member(br#"{"a":1,}"#, "a"), Err(JsonError::Invalid));
}

/// The places of all were kept: 48 bytes for each five of a hostile object.
#[test]
fn of_millions_of_members_only_the_first_places_are_kept_and_all_are_told() {
    for count in [0, 1, MAX_PLACES - 1, MAX_PLACES, MAX_PLACES + 1, 3 * MAX_PLACES] {
        let each: Vec<_> = (0..count).map(|number| format!(r#""\u006d{number}" : [{number}]"#)).collect();
        let text = format!(" {{ {} }} ", each.join(" , "));
        let members = members(text.as_bytes()).unwrap();
        assert!(members.places.len() <= MAX_PLACES);
        let told: Vec<_> = members.map(|m| (m.key.into_owned(), m.value.to_vec(), text[m.span].to_owned())).collect();
        let expected = (0..count).map(|number| (format!("m{number}"), format!("[{number}]").into_bytes()));
        let expected: Vec<_> = expected.zip(each).map(|((key, value), span)| (key, value, span)).collect();
        assert!(told == expected, "{count}");
    }
}
