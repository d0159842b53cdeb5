//! A document on its way out, with the attachments that follow it.

use crate::store::{AttachmentsAs, DocOptions, DocRecord, Leaf, OpenAttachment, Snapshot, StoreError};

use super::outgoing::Outgoing;

/// A document on its way out.
pub struct Rendered {
    /// Its JSON text.
    pub outgoing: Outgoing,
    /// The attachments that follow it, if they do.
    pub following: Vec<OpenAttachment>,
}

/// Renders a leaf, and tells which attachments its text promises to follow.
pub fn render(
    snapshot: &Snapshot,
    id: &str,
    record: &DocRecord,
    leaf: &Leaf,
    options: &DocOptions,
    mut outgoing: Outgoing,
) -> Result<Rendered, StoreError> {
    outgoing.render(snapshot, id, record, leaf, options)?;
    let following = match (options.attachments, &options.atts_since) {
        (AttachmentsAs::Stubs | AttachmentsAs::Inline, _) => Vec::new(),
        (AttachmentsAs::Follows, None) => snapshot.attachments(leaf)?,
        (AttachmentsAs::Follows, Some(since)) => snapshot.attachments_since(record, leaf, since)?,
    };
    let following = following.into_iter().map(|attachment| snapshot.hold(attachment)).collect::<Result<_, _>>()?;
    Ok(Rendered { outgoing, following })
}
