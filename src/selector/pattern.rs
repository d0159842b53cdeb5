//! Regular expressions of selectors, held to a size.
//!
//! `\w{1000}` is eight bytes and, compiled, some 15 MB, and repetitions can be nested; who may read a database, or replicate, may send a
//! selector, and a document keeps it over restarts. So all expressions of a selector share [`ALL_BYTES`]: what is too large for its share is no
//! expression here. Those that the `regex` crate can do by itself have their share whole. One with look-around or references becomes a
//! small program of instructions, each of which may hold an expression of its own: its share is parted among as many as it may have.

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

/// About so many bytes, compiled, of all that a selector has.
const ALL_BYTES: usize = 4 << 20;
/// Instructions of one with look-around or references.
const MOST_INSTRUCTIONS: usize = 128;
/// More of them are more than anybody writes, and would have too small a share.
const MOST: usize = 1000;

/// How large each expression of a selector may be.
pub struct Patterns {
    each: usize,
}

impl Patterns {
    /// Those of this selector; `None` if it has too many.
    pub fn of(selector: &Value) -> Option<Self> {
        let count = count(selector);
        (count <= MOST).then(|| Self { each: ALL_BYTES / count.max(1) })
    }

    /// Compiles one; `None` if it isn't one, or too large.
    pub fn compile(&self, pattern: &str) -> Option<Regex> {
        let built = |bytes, instructions| {
            let mut builder = RegexBuilder::new(pattern);
            builder.delegate_size_limit(bytes).delegate_dfa_size_limit(bytes).max_prog_size(instructions);
            builder.build()
        };
        // A program of no instructions is none: what needs one fails, and has less room.
        built(self.each, 0).or_else(|_| built(self.each / MOST_INSTRUCTIONS, MOST_INSTRUCTIONS)).ok()
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Object(members) => members.iter().map(|(key, value)| usize::from(key == "$regex") + count(value)).sum(),
        Value::Array(values) => values.iter().map(count).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn alone(pattern: &str) -> Option<Regex> {
        Patterns::of(&json!({ "a": { "$regex": pattern } })).unwrap().compile(pattern)
    }

    /// Each of them ended the process, or took gigabytes.
    #[test]
    fn what_is_too_large_is_no_expression() {
        for pattern in [
            r"(?<=(?:\w{1000}){1,1000})x".to_owned(),
            r"(?<=\w{20,1000})x".to_owned(),
            r"(\w{1000}){1000}".to_owned(),
            r"(?:(?=\w{1000})\w){1000}".to_owned(),
            r"(?=\w{400})".repeat(1000),
            r"(a)\1".to_owned() + &r"(?=b)".repeat(200),
            format!("(a|{})", r"(?:\g<1>\g<1>)".repeat(60)),
        ] {
            assert!(alone(&pattern).is_none(), "{pattern:.40}");
        }
    }

    #[test]
    fn what_people_write_is_compiled() {
        for (pattern, matches, does_not) in [
            ("^a.*z$", "abcz", "abc"),
            (r"^\d{3}-\w+@[\w.]+$", "123-a@b.c", "12-a@b.c"),
            (r"^(?!.*foo)(?=.*\d).{8,}$", "abcdefg1", "foodefg1"),
            (r"(?<=ab)c", "abc", "bc"),
            (r"(\w)\1", "aa", "ab"),
            (r"(?i)straße", "STRASSE STRAßE", "strasse"),
            (r"\p{Lu}\p{Ll}+ [[:alpha:]]{2,20}", "Ärzte zwei", "ä z"),
        ] {
            let regex = alone(pattern).unwrap_or_else(|| panic!("{pattern}"));
            assert!(regex.is_match(matches).unwrap() && !regex.is_match(does_not).unwrap(), "{pattern}");
        }
        let many: Vec<_> = (0..500).map(|number| json!({ "a": { "$regex": format!("^prefix-{number}") } })).collect();
        assert!(Patterns::of(&json!({ "$or": many })).unwrap().compile("^prefix-499.*$").is_some());
    }

    #[test]
    fn a_thousand_are_enough() {
        let many = |count: usize| json!({ "$or": vec![json!({ "a": { "$regex": "a" } }); count] });
        assert!(Patterns::of(&many(1000)).is_some());
        assert!(Patterns::of(&many(1001)).is_none());
    }
}
