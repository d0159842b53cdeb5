//! The functions that judge writes, read from the design documents of a snapshot.

use std::sync::Arc;

use super::own::OwnRules;
use crate::access::Security;
use crate::javascript::{Code, Kind};
use crate::json;
use crate::store::StoreError;
use crate::store::prepared::Prepared;
use crate::store::read::Snapshot;
use crate::store::read::render::DocOptions;

/// What writes are judged by.
#[derive(Debug)]
pub(in crate::store) struct Rules {
    /// How often any of this had been changed when it was read.
    pub(super) generation: u64,
    /// One of each design document that has one, in the order of their ids.
    pub(super) functions: Vec<Arc<Code>>,
    /// Rules of the server's own, which come before the functions.
    pub(super) own: Option<OwnRules>,
    pub(super) security: Arc<Security>,
}

impl Rules {
    /// Reads the design documents.
    pub(super) fn read(
        snapshot: &Snapshot,
        generation: u64,
        security: Arc<Security>,
        database: &str,
        own: Option<OwnRules>,
    ) -> Result<Self, StoreError> {
        let mut functions = Vec::new();
        snapshot.documents(Some("_design/"), |id, record| {
            if !id.starts_with("_design/") {
                return Ok(false);
            }
            let Some(leaf) = record.tree.winner().filter(|winner| !winner.deleted) else { return Ok(true) };
            let mut design = Vec::new();
            snapshot.render(id, &record, &leaf, &DocOptions::default(), &mut design)?;
            let Some(function) = json::member(&design, "validate_doc_update")? else { return Ok(true) };
            // Anything but a text is a text that is no function, and refuses everything.
            let as_written = || String::from_utf8_lossy(function).into_owned();
            let source = json::string(function).map_or_else(as_written, Into::into);
            functions.push(Arc::new(Code { database: database.to_owned(), design, source, kind: Kind::Validation }));
            Ok(true)
        })?;
        Ok(Self { generation, functions, own, security })
    }

    /// Whether an edit is still to be judged.
    pub(super) fn concern(&self, edit: &Prepared) -> bool {
        let judged = edit.judged.as_ref().is_some_and(|judged| judged.generation == self.generation);
        (edit.id.is_design() || self.own.is_some() || !self.functions.is_empty()) && !judged
    }
}
