//! The JSON scanner reads what `serde_json` reads, and cuts the same elements however a text arrives.

use std::borrow::Cow;

use couchrep::document::{DocParts, DocumentError, Rev};
use couchrep::json::{self, Cursor, Elements, JsonError};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Texts up to this length are cut at every place.
const SHORT: usize = 160;

pub fn holds(text: &[u8]) {
    let is_json = std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let is_object = text.trim_ascii_start().first() == Some(&b'{');
    let odd = is_json && is_odd(text);
    assert_eq!(json::check(text).is_ok(), is_json && !odd);
    let refused = match (is_json, is_object) {
        (false, _) => Some(JsonError::Invalid),
        (true, false) => Some(JsonError::NotAnObject),
        (true, true) => None,
    };
    assert_eq!(json::members(text).err(), refused);
    assert_eq!(json::member(text, "_id").err(), refused);
    strings(text);
    cuts(text);
    if !is_json {
        let _ = json::pruned(text, 1);
        let (mut elements, mut members) = (Cursor::default(), Cursor::default());
        while elements.element(text).is_some() {}
        while members.member(text).is_some() {}
        assert!(DocParts::parse(text).is_err());
        return;
    }
    pruning(text);
    match text.trim_ascii_start().first() {
        Some(b'{') => object(text, odd),
        Some(b'[') => array(text),
        _ => {}
    }
}

/// Whether JSON has half a surrogate pair or a number beyond floats.
fn is_odd(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        let token = &text[at..];
        let length = match token[0] {
            b'"' => string_length(token),
            b'-' | b'0'..=b'9' => token.iter().take_while(|b| b"+-.eE0123456789".contains(b)).count(),
            _ => 1,
        };
        let token = &token[..length];
        let odd = match token[0] {
            b'"' => serde_json::from_slice::<String>(token).is_err(),
            b'-' | b'0'..=b'9' if token.iter().any(|b| b".eE".contains(b)) => {
                !std::str::from_utf8(token).unwrap().parse().is_ok_and(f64::is_finite)
            }
            _ => false,
        };
        if odd {
            return true;
        }
        at += length;
    }
    false
}

fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The members as `serde_json` sees them, keys as they are written.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
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

/// The text of a key; as it is written where that is no text.
fn unescaped(key: &RawValue) -> Cow<'_, str> {
    let written = || key.get()[1..key.get().len() - 1].into();
    serde_json::from_str::<String>(key.get()).map_or_else(|_| written(), Cow::Owned)
}

fn object(text: &[u8], odd: bool) {
    let pairs = serde_json::from_slice::<Pairs<'_>>(text).unwrap().0;
    let members = json::members(text).unwrap();
    assert_eq!(members.odd, odd);
    let members: Vec<_> = members.collect();
    assert_eq!(members.len(), pairs.len());
    let mut cursor = Cursor::default();
    for (member, (key, value)) in members.iter().zip(&pairs) {
        assert_eq!(member.key, unescaped(key));
        assert_eq!(member.value, value.get().as_bytes());
        let colon = text[member.span.clone()].strip_prefix(key.get().as_bytes());
        let colon = colon.and_then(|rest| rest.strip_suffix(value.get().as_bytes()));
        assert_eq!(colon.map(<[u8]>::trim_ascii), Some(&b":"[..]));
        let walked = cursor.member(text).unwrap();
        assert_eq!((walked.key, walked.value, walked.span), (member.key.clone(), member.value, member.span.clone()));
    }
    assert!(cursor.member(text).is_none());
    for name in pairs.iter().map(|pair| pair.0).filter_map(|key| serde_json::from_str::<String>(key.get()).ok()) {
        let last =
            pairs.iter().rfind(|(key, _)| serde_json::from_str::<String>(key.get()).is_ok_and(|key| key == name));
        assert_eq!(json::member(text, &name).unwrap(), last.map(|(_, value)| value.get().as_bytes()));
    }
    let first = pairs.iter().find(|(_, value)| value.get().starts_with('['));
    let elements = first.map(|(_, value)| elements(value.get().as_bytes()));
    assert_eq!(
        cut(text, Elements::default(), &[text.len()], true),
        (elements.clone().unwrap_or_default(), elements.is_some())
    );
    document(text, &pairs, odd);
}

/// Members with an underscore are read as `serde_json` reads them, and the others keep their bytes.
fn document(text: &[u8], pairs: &[(&RawValue, &RawValue)], odd: bool) {
    let last = |name: &str| pairs.iter().rfind(|(key, _)| unescaped(key) == name).map(|(_, value)| value.get());
    let parts = match DocParts::parse(text) {
        Ok(parts) => parts,
        Err(error) => {
            assert!(pairs.iter().any(|(key, _)| unescaped(key).starts_with('_')), "{error}");
            assert!(!matches!(error, DocumentError::InvalidJson | DocumentError::NotAnObject), "{error}");
            return;
        }
    };
    assert_eq!(parts.odd, odd);
    assert_eq!(parts.id.as_deref(), last("_id").map(|id| serde_json::from_str::<String>(id).unwrap()).as_deref());
    let rev = last("_rev").map(|rev| Rev::parse(&serde_json::from_str::<String>(rev).unwrap()).unwrap());
    assert_eq!(parts.rev, rev);
    assert_eq!(parts.deleted, last("_deleted") == Some("true"));
    assert_eq!(parts.revisions.is_some(), last("_revisions").is_some());
    if let Some(revisions) = &parts.revisions {
        #[derive(Deserialize)]
        struct Plain {
            start: u64,
            ids: Vec<String>,
        }
        let plain: Plain = serde_json::from_str(last("_revisions").unwrap()).unwrap();
        let ids = revisions.ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((revisions.start, ids), (plain.start, plain.ids));
        assert_eq!(revisions.revs().count(), revisions.ids.len());
        assert!(revisions.revs().all(|rev| revisions.contains(&rev) && Rev::parse(&rev.to_string()) == Some(rev)));
    }
    let attachments =
        last("_attachments").filter(|text| !serde_json::from_str::<Pairs<'_>>(text).unwrap().0.is_empty());
    assert_eq!(parts.attachments, attachments.map(str::as_bytes));
    let body = parts.body();
    let kept = serde_json::from_slice::<Pairs<'_>>(&body).unwrap().0;
    let written = |(key, value): &(&RawValue, &RawValue)| (key.get().to_owned(), value.get().to_owned());
    let own = pairs.iter().filter(|(key, _)| {
        let key = unescaped(key);
        !key.starts_with('_') || key.starts_with("_replication_")
    });
    assert_eq!(kept.iter().map(written).collect::<Vec<_>>(), own.map(written).collect::<Vec<_>>());
    assert_eq!(DocParts::parse(&body).unwrap().body(), body);
}

fn elements(text: &[u8]) -> Vec<String> {
    let elements: Vec<&RawValue> = serde_json::from_slice(text).unwrap();
    elements.iter().map(|element| element.get().to_owned()).collect()
}

fn array(text: &[u8]) {
    let elements = elements(text);
    let mut cursor = Cursor::default();
    for element in &elements {
        assert_eq!(cursor.element(text), Some(element.as_bytes()));
    }
    assert!(cursor.element(text).is_none());
    assert_eq!(cut(text, Elements::of_array(), &[text.len()], true), (elements.clone(), true));
    if text.len() <= SHORT {
        (0..text.len()).for_each(|place| skips(text, place, &elements));
    }
}

/// The element that `place` stands in is left out, and no other.
fn skips(text: &[u8], place: usize, elements: &[String]) {
    let mut cutter = Elements::of_array();
    let (mut found, mut expected) = (Vec::new(), elements.to_vec());
    while let Some(element) = cutter.next(&text[..place]) {
        found.push(String::from_utf8(text[element].to_vec()).unwrap());
    }
    if cutter.skip() {
        expected.remove(found.len());
    }
    let dropped = cutter.consumable();
    cutter.consume(dropped);
    while let Some(element) = cutter.next(&text[dropped..]) {
        found.push(String::from_utf8(text[dropped..][element].to_vec()).unwrap());
    }
    assert_eq!(found, expected, "skipped at {place}");
    assert!(cutter.finished());
}

/// The elements that are cut out of a text which arrives in pieces of these lengths, again and again, and whether its end
/// was found. What may be dropped is dropped, or all of it is kept.
fn cut(text: &[u8], mut elements: Elements, pieces: &[usize], drop: bool) -> (Vec<String>, bool) {
    let (mut start, mut end, mut found) = (0, 0, Vec::new());
    for piece in pieces.iter().cycle() {
        end = (end + piece).min(text.len());
        while let Some(element) = elements.next(&text[start..end]) {
            found.push(String::from_utf8_lossy(&text[start..end][element]).into_owned());
        }
        let done = elements.consumable();
        assert!(done <= end - start);
        if drop {
            elements.consume(done);
            start += done;
        }
        if end == text.len() {
            break;
        }
    }
    (found, elements.finished())
}

/// Whatever the text is, the cuts are the same however it arrives.
fn cuts(text: &[u8]) {
    let kinds: [fn() -> Elements; 2] = [Elements::default, Elements::of_array];
    for new in kinds {
        let whole = cut(text, new(), &[text.len()], false);
        for pieces in [&[1][..], &[2, 1, 3], &[7], &[8, 5], &[64, 1]] {
            assert_eq!(cut(text, new(), pieces, true), whole, "{pieces:?}");
        }
        assert_eq!(cut(text, new(), &[1], false), whole);
        if text.len() <= SHORT {
            (0..text.len())
                .for_each(|first| assert_eq!(cut(text, new(), &[first, text.len()], true), whole, "{first}"));
        }
    }
}

fn strings(text: &[u8]) {
    let quoted = text.len() > 1 && text[0] == b'"' && text[text.len() - 1] == b'"';
    let expected = quoted.then(|| serde_json::from_slice::<String>(text).ok()).flatten();
    assert_eq!(json::string(text).as_deref(), expected.as_deref());
    let (text, mut written) = (String::from_utf8_lossy(text), Vec::new());
    json::push_string(&mut written, &text);
    assert_eq!(json::check(&written), Ok(()));
    assert_eq!(json::string(&written), Some(text));
}

fn pruning(text: &[u8]) {
    for depth in 0..4 {
        let pruned = json::pruned(text, depth);
        assert!(serde_json::from_slice::<IgnoredAny>(&pruned).is_ok());
        assert_eq!(json::pruned(&pruned, depth), pruned);
        let brackets = pruned.iter().filter(|b| b"[{".contains(b)).count();
        assert!(depth < brackets || pruned == text);
    }
    assert_eq!(json::pruned(text, text.len()), text);
}
