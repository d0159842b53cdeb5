//! What a comparison finds: how much was compared, and what is lacking.

use serde::Serialize;

use crate::document::{DocId, Rev};

/// Differences that are named; all are counted.
const MAX_NAMED: usize = 1000;

/// What one database has that another lacks.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Documents read.
    pub docs: u64,
    /// Their leaves.
    pub leaves: u64,
    /// Attachments compared; 0 where that wasn't asked for.
    pub attachments: u64,
    /// How many differences there are.
    pub differences: u64,
    /// The first of them.
    pub named: Vec<Difference>,
}

/// Something that one database has and the other lacks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The document.
    pub id: DocId,
    /// The leaf.
    pub rev: Rev,
    /// The attachment that is absent or different; `None` if the whole leaf is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachment: Option<String>,
    /// What is the matter with it.
    pub problem: Problem,
}

/// What is the matter with a leaf or an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Problem {
    /// It isn't there.
    Missing,
    /// Its bytes are others.
    Different,
}

impl Report {
    /// Whether nothing is lacking.
    pub fn is_complete(&self) -> bool {
        self.differences == 0
    }

    pub(super) fn add(&mut self, page: Self) {
        self.docs += page.docs;
        self.leaves += page.leaves;
        self.attachments += page.attachments;
        self.differences += page.differences;
        let places = MAX_NAMED - self.named.len();
        self.named.extend(page.named.into_iter().take(places));
    }

    pub(super) fn lacks(&mut self, difference: Difference) {
        self.differences += 1;
        self.named.push(difference);
    }
}
