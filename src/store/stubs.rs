//! Which stored attachment a stub stands for.
//!
//! Rules from CouchDB: `couch_doc:merge_stubs/2`, `couch_att:merge_stubs/2`.

use super::StoreError;
use super::attachments::Attachment;
use super::prepared::PreparedAttachment;
use super::replaced::nearest_leaf;
use super::revtree::RevTree;
use crate::document::{Digest, Revisions};

/// The attachment that a stub stands for: of the nearest ancestor that is a leaf, else of any leaf that shows the
/// very digest under that name. One of another `revpos` than the stub's is another attachment.
///
/// `attachments` reads those of a stored body.
pub(super) fn find(
    tree: &RevTree,
    ancestors: Option<&Revisions>,
    stub: &PreparedAttachment,
    digest: Option<Digest>,
    attachments: impl Fn(u64) -> Result<Vec<Attachment>, StoreError>,
) -> Result<Option<Attachment>, StoreError> {
    let meant =
        |stored: &Attachment| stored.name == stub.name && stub.revpos.is_none_or(|revpos| stored.revpos == revpos);
    if let Some(leaf) = ancestors.and_then(|path| nearest_leaf(tree, path)) {
        let found = attachments(leaf.body)?.into_iter().find(meant);
        if found.is_some() {
            return Ok(found);
        }
    }
    let Some(digest) = digest else { return Ok(None) };
    for leaf in tree.leaves() {
        let same = |attachment: &Attachment| meant(attachment) && attachment.digest == digest;
        if let Some(found) = attachments(leaf.body)?.into_iter().find(same) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
