//! Percent-encoding as RFC 3986 has it: all but what it calls unreserved.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Encodes text, slashes included. CouchDB's `mochiweb_util:quote_plus/1` keeps the same, and so does OAuth 1.0.
pub fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}
