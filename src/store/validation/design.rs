//! What a design document must look like to be written: CouchDB's `couch_mrview:validate/2`, in its words.
//!
//! Members that mean something to CouchDB have the types that they must have; map and reduce functions of JavaScript
//! compile. That a validation, a filter or anything else compiles isn't asked: it shows when it is used. A function
//! that has a name counts as one here, which CouchDB 3.5 with QuickJS refuses.

use std::borrow::Cow;

use crate::json;
use crate::store::StoreError;
use crate::store::work::Refusal;

/// Types of members, as CouchDB calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Object,
    Text,
    Boolean,
    ObjectOrText,
    ArrayOrText,
}

/// Members of a design document and their types; `*` is each member of an object.
const MEMBERS: [(&[&str], Type); 16] = [
    (&["filters"], Type::Object),
    (&["filters", "*"], Type::ObjectOrText),
    (&["language"], Type::Text),
    (&["lists"], Type::Object),
    (&["lists", "*"], Type::ObjectOrText),
    (&["options"], Type::Object),
    (&["options", "include_design"], Type::Boolean),
    (&["options", "local_seq"], Type::Boolean),
    (&["options", "partitioned"], Type::Boolean),
    (&["rewrites"], Type::ArrayOrText),
    (&["shows"], Type::Object),
    (&["shows", "*"], Type::ObjectOrText),
    (&["updates"], Type::Object),
    (&["updates", "*"], Type::ObjectOrText),
    (&["validate_doc_update"], Type::Text),
    (&["views"], Type::Object),
];

/// Reduce functions that CouchDB has itself, by their beginning.
const BUILTIN: [&str; 6] = ["_sum", "_count", "_stats", "_approx_count_distinct", "_first", "_last"];

/// The same, with a number of rows after it.
const RANKED: [&str; 2] = ["_top_", "_bottom_"];

/// Most rows that they keep.
const MOST_RANKED: u32 = 100;

/// A function of a view, which is to compile.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ViewFunction {
    /// `map` or `reduce`.
    what: &'static str,
    view: String,
    /// The function's text.
    pub(super) source: String,
}

impl ViewFunction {
    /// What is wrong with it, in CouchDB's words.
    pub(super) fn failed(&self, reason: &str) -> Refusal {
        let Self { what, view, .. } = self;
        Refusal::Compilation(format!("Compilation of the {what} function in the '{view}' view failed: {reason}"))
    }
}

/// Checks a design document's own members; answers the functions that are to compile.
pub(super) fn check(body: &[u8]) -> Result<Result<Vec<ViewFunction>, Refusal>, StoreError> {
    for (path, wanted) in MEMBERS {
        if let Some(place) = mistyped(body, path, wanted, String::new())? {
            return Ok(Err(invalid(&place, wanted)));
        }
    }
    let options = json::member(body, "options")?.unwrap_or(b"{}");
    if json::member(options, "partitioned")? == Some(b"true") {
        let reason = "partitioned option cannot be true in a non-partitioned database.";
        return Ok(Err(Refusal::InvalidDesign(reason.into())));
    }
    let language = json::member(body, "language")?.and_then(json::string).unwrap_or(Cow::Borrowed("javascript"));
    let mut functions = Vec::new();
    for view in json::members(json::member(body, "views")?.unwrap_or(b"{}"))? {
        match view_functions(&view.key, view.value, &language)? {
            Ok(found) => functions.extend(found),
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    if language != "javascript" {
        functions.clear();
    }
    Ok(Ok(functions))
}

fn view_functions(name: &str, view: &[u8], language: &str) -> Result<Result<Vec<ViewFunction>, Refusal>, StoreError> {
    if !Type::Object.is_of(view) {
        return Ok(Err(invalid(&format!("views.{name}"), Type::Object)));
    }
    // Modules for the others.
    if name == "lib" {
        return Ok(Ok(Vec::new()));
    }
    let wanted = if language == "query" { Type::Object } else { Type::Text };
    let Some(map) = json::member(view, "map")? else {
        return Ok(Err(Refusal::InvalidDesign(format!("View `{name}` must contain map function"))));
    };
    if !wanted.is_of(map) {
        return Ok(Err(invalid(&format!("views.{name}.map"), wanted)));
    }
    let reduce = json::member(view, "reduce")?;
    if reduce.is_some_and(|reduce| !Type::Text.is_of(reduce)) {
        return Ok(Err(invalid(&format!("views.{name}.reduce"), Type::Text)));
    }
    let function = |what, text: &[u8]| {
        let source = json::string(text)?.into_owned();
        Some(ViewFunction { what, view: name.to_owned(), source })
    };
    let mut functions: Vec<_> = function("map", map).into_iter().collect();
    if let Some(reduce) = reduce.and_then(|reduce| function("reduce", reduce)) {
        match reduce.source.starts_with('_') {
            true => {
                if let Err(refusal) = builtin(&reduce.source) {
                    return Ok(Err(refusal));
                }
            }
            false => functions.push(reduce),
        }
    }
    Ok(Ok(functions))
}

fn builtin(name: &str) -> Result<(), Refusal> {
    if BUILTIN.iter().any(|known| name.starts_with(known)) {
        return Ok(());
    }
    let Some(rank) = RANKED.iter().find_map(|known| name.strip_prefix(known)) else {
        return Err(Refusal::InvalidDesign(format!("`{name}` is not a supported reduce function.")));
    };
    let reason = match rank.parse::<u32>() {
        Ok(1..=MOST_RANKED) => return Ok(()),
        Ok(_) => format!("rank value must be between 1 and {MOST_RANKED}"),
        Err(_) => "invalid rank reducer".into(),
    };
    Err(Refusal::InvalidDesign(reason))
}

/// Where a member stands that isn't of the type that it must be of.
fn mistyped(object: &[u8], path: &[&str], wanted: Type, above: String) -> Result<Option<String>, StoreError> {
    let [name, rest @ ..] = path else { return Ok(None) };
    for member in json::members(object)? {
        if *name != "*" && *name != member.key {
            continue;
        }
        let place = if above.is_empty() { member.key.into_owned() } else { format!("{above}.{}", member.key) };
        if rest.is_empty() {
            if !wanted.is_of(member.value) {
                return Ok(Some(place));
            }
        } else if Type::Object.is_of(member.value)
            && let Some(found) = mistyped(member.value, rest, wanted, place)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn invalid(place: &str, wanted: Type) -> Refusal {
    let wanted = match wanted {
        Type::Object => "object",
        Type::Text => "string",
        Type::Boolean => "boolean",
        Type::ObjectOrText => "string or object",
        Type::ArrayOrText => "array or string",
    };
    Refusal::InvalidDesign(format!("`{place}` field must have {wanted} type"))
}

impl Type {
    /// Whether a value's text is of this type.
    fn is_of(self, value: &[u8]) -> bool {
        let (object, text) = (value.starts_with(b"{"), value.starts_with(b"\""));
        match self {
            Self::Object => object,
            Self::Text => text,
            Self::Boolean => matches!(value, b"true" | b"false"),
            Self::ObjectOrText => object || text,
            Self::ArrayOrText => text || value.starts_with(b"["),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What CouchDB 3.5.0 answers to each of them.
    #[test]
    fn a_design_document_is_refused_in_couchdbs_words() {
        for (body, reason) in [
            (r#"{"views":[]}"#, "`views` field must have object type"),
            (r#"{"views":null}"#, "`views` field must have object type"),
            (r#"{"views":{"v":"x"}}"#, "`views.v` field must have object type"),
            (r#"{"views":{"lib":"x"}}"#, "`views.lib` field must have object type"),
            (r#"{"views":{"v":{"map":1}}}"#, "`views.v.map` field must have string type"),
            (r#"{"language":"query","views":{"v":{"map":"x"}}}"#, "`views.v.map` field must have object type"),
            (r#"{"views":{"v":{}}}"#, "View `v` must contain map function"),
            (r#"{"views":{"v":{"map":"f","reduce":"_nope"}}}"#, "`_nope` is not a supported reduce function."),
            (r#"{"views":{"v":{"map":"f","reduce":"_top_x"}}}"#, "invalid rank reducer"),
            (r#"{"views":{"v":{"map":"f","reduce":"_top_5000"}}}"#, "rank value must be between 1 and 100"),
            (r#"{"filters":"x"}"#, "`filters` field must have object type"),
            (r#"{"filters":{"a":1}}"#, "`filters.a` field must have string or object type"),
            (r#"{"language":1}"#, "`language` field must have string type"),
            (r#"{"options":1}"#, "`options` field must have object type"),
            (r#"{"options":{"include_design":1}}"#, "`options.include_design` field must have boolean type"),
            (r#"{"options":{"partitioned":true}}"#, "partitioned option cannot be true in a non-partitioned database."),
            (r#"{"rewrites":1}"#, "`rewrites` field must have array or string type"),
            (r#"{"updates":[]}"#, "`updates` field must have object type"),
            (r#"{"validate_doc_update":null}"#, "`validate_doc_update` field must have string type"),
        ] {
            assert_eq!(check(body.as_bytes()).unwrap(), Err(Refusal::InvalidDesign(reason.into())), "{body}");
        }
    }

    #[test]
    fn functions_of_views_in_javascript_are_to_compile() {
        let functions = |body: &str| {
            let found = check(body.as_bytes()).unwrap().unwrap();
            found.into_iter().map(|found| (found.what, found.view, found.source)).collect::<Vec<_>>()
        };
        let views = r#""views":{"lib":{"a":"("},"v":{"map":"m","reduce":"_sum"},"w":{"map":"n","reduce":"r"}}"#;
        let of = |what, view: &str, source: &str| (what, view.to_owned(), source.to_owned());
        let expected = [of("map", "v", "m"), of("map", "w", "n"), of("reduce", "w", "r")];
        assert_eq!(functions(&format!("{{{views}}}")), expected);
        assert_eq!(functions(&format!(r#"{{"language":"javascript",{views}}}"#)), expected);
        assert_eq!(functions(&format!(r#"{{"language":"erlang",{views}}}"#)), []);
        assert_eq!(functions(r#"{"filters":{"f":"("},"validate_doc_update":"(","x":[]}"#), []);
    }
}
