//! What errors and failures show of a peer's text.

/// The beginning of a text, on one line.
pub(super) fn shorten(text: &[u8], bytes: usize) -> String {
    let shown = String::from_utf8_lossy(&text[..text.len().min(bytes)]);
    let cut = if text.len() > bytes { "…" } else { "" };
    format!("{}{cut}", shown.split_whitespace().collect::<Vec<_>>().join(" "))
}
