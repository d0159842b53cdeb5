//! Which leaves of a row of the feed a selector lets through, as CouchDB's `filter=_selector` has it.
//!
//! Each leaf is looked at for itself, as the document that a reader would get, `_id`, `_rev` and `_deleted` included; a
//! row without a leaf that passes isn't shown at all.

use super::StoreError;
use super::read::Snapshot;
use super::read::render::DocOptions;
use crate::document::Rev;
use crate::selector::Selector;

impl Snapshot {
    /// Those of a document's leaves that pass, in their order.
    pub fn selected(&self, id: &str, leaves: &[Rev], selector: &Selector) -> Result<Vec<Rev>, StoreError> {
        let Some(record) = self.document(id)? else { return Ok(Vec::new()) };
        let mut passing = Vec::new();
        let mut text = Vec::new();
        for rev in leaves {
            let Some(leaf) = record.tree.leaf(rev) else { continue };
            text.clear();
            self.render(id, &record, &leaf, &DocOptions::default(), &mut text)?;
            if selector.matches_text(&text)? {
                passing.push(rev.clone());
            }
        }
        Ok(passing)
    }
}
