//! What errors and failures show of a peer's text.

/// Bytes of an answer shown in an error.
const SHOWN_BYTES: usize = 100;

/// The beginning of an answer, as errors show it.
pub(super) fn beginning(answer: &[u8]) -> String {
    shorten(answer, SHOWN_BYTES)
}

/// So many bytes of a text, on one line.
pub(super) fn shorten(text: &[u8], bytes: usize) -> String {
    let shown = String::from_utf8_lossy(&text[..text.len().min(bytes)]);
    let cut = if text.len() > bytes { "…" } else { "" };
    format!("{}{cut}", shown.split_whitespace().collect::<Vec<_>>().join(" "))
}
