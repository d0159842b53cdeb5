//! How documents and attachments are named in URLs.

use crate::document::DocId;
use crate::peer::Why;
pub(super) use crate::percent::encode;

/// A document's path; the slash after `_design` and `_local` stays.
pub(super) fn document(id: &DocId) -> String {
    let id = id.as_str();
    let special = ["_design/", "_local/"].into_iter().find_map(|prefix| Some((prefix, id.strip_prefix(prefix)?)));
    let (prefix, rest) = special.unwrap_or(("", id));
    format!("{prefix}{}", encode(rest))
}

/// An attachment's path; slashes in its name stay.
pub(super) fn attachment(id: &DocId, name: &str) -> String {
    let segments: Vec<String> = name.split('/').map(|segment| encode(segment).to_string()).collect();
    format!("{}/{}", document(id), segments.join("/"))
}

/// Why no URL can name this document, if none can.
pub(super) fn unnameable(id: &DocId) -> Option<Why> {
    (!id.has_url()).then(|| Why::new("illegal_docid", "no URL can name this document"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_slash_of_special_documents_stays() {
        assert_eq!(document(&DocId::from("a/b c+Zoë?#%")), "a%2Fb%20c%2BZo%C3%AB%3F%23%25");
        assert_eq!(document(&DocId::from("_design/a/b")), "_design/a%2Fb");
        assert_eq!(document(&DocId::from("_local/a/b")), "_local/a%2Fb");
        assert_eq!(attachment(&DocId::from("x/y"), "dir/a b.txt"), "x%2Fy/dir/a%20b.txt");
    }
}
