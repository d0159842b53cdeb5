//! What the results of an answer say: a document, why there is none, for which of the revisions asked for.
//!
//! With `latest=true` another revision than the asked one may come, or one twice: the second is dropped. Every asked
//! revision must be mentioned, by itself, by a descendant or with a reason: what isn't told is never taken for done.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::answer::malformed;
use super::attachments::Attached;
use super::judgement::Words;
use super::*;
use crate::document::Revisions;
use crate::json;
use crate::peer::Doubt;

const EXPECTED: &str = "fetched documents";

/// One of `results`.
#[derive(Deserialize)]
pub(super) struct BulkResult<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    #[serde(borrow)]
    pub docs: Vec<Item<'a>>,
}

/// `{"ok":{…}}`, `{"missing":"rev"}`, `{"error":{"rev","error","reason"}}`, or express-pouchdb's
/// `{"error":"…","reason":"…"}`.
#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub ok: Option<&'a RawValue>,
    #[serde(borrow)]
    missing: Option<Cow<'a, str>>,
    error: Option<serde_json::Value>,
    reason: Option<serde_json::Value>,
}

/// Sorts documents by how they go on.
#[derive(Default)]
pub(super) struct Sorter {
    /// What was asked for and not yet mentioned; without revisions: all leaves were asked for.
    unmentioned: HashMap<DocId, Vec<Rev>>,
    given: HashSet<(DocId, Rev)>,
    /// Results that were left out because of their size.
    left_out: usize,
    /// Only documents with their attachments within them are wanted: all else is to be fetched in another way.
    inline: bool,
    pub ready: Fetched,
}

impl Sorter {
    /// Expects these.
    pub(super) fn new(wanted: &[Wanted]) -> Self {
        let mut unmentioned = HashMap::<_, Vec<_>>::with_capacity(wanted.len());
        for wanted in wanted {
            unmentioned.entry(wanted.id.clone()).or_default().extend(wanted.revs.iter().cloned());
        }
        Self { unmentioned, ..Self::default() }
    }

    /// Expects these with their attachments within them.
    pub(super) fn of_inline(wanted: &[Wanted]) -> Self {
        Self { inline: true, ..Self::new(wanted) }
    }

    /// Bytes of the documents that are ready.
    pub(super) fn ready_bytes(&self) -> usize {
        if self.ready.docs.is_empty() { 0 } else { self.ready.docs.size() }
    }

    /// Sorts what was answered for a document.
    pub(super) fn take(&mut self, request: &str, id: &DocId, items: &[Item<'_>]) -> Result<(), PeerError> {
        let all_leaves = self.all_leaves(id);
        for item in items {
            match (&item.ok, &item.missing) {
                (Some(doc), _) => self.take_doc(request, doc.get().as_bytes())?,
                // What isn't mentioned is fetched in another way.
                (None, _) if self.inline => {}
                (None, Some(rev)) => self.doubtful(id, Rev::parse(rev), Why::new("not_found", "missing")),
                (None, None) => {
                    let refusal = item.refused();
                    let refusal = refusal.ok_or_else(|| malformed(request, EXPECTED, format!("nothing of {id}")))?;
                    match all_leaves && refusal.rev.is_none() {
                        true => self.no_leaves(id, refusal.why),
                        false => self.doubtful(id, refusal.rev, refusal.why),
                    }
                }
            }
        }
        Ok(())
    }

    /// Where all leaves of a document were asked for, its answer gives all that there are. Tells whether they were.
    pub(super) fn all_leaves(&mut self, id: &DocId) -> bool {
        let all_leaves = self.unmentioned.get(id).is_some_and(Vec::is_empty);
        if all_leaves {
            self.unmentioned.remove(id);
        }
        all_leaves
    }

    /// Why a document of which all leaves were asked for gave none: there is no such document, which is no failure, or it
    /// is in doubt.
    fn no_leaves(&mut self, id: &DocId, why: Why) {
        if judgement::of_document(&why) != Blame::Missing {
            self.tell(Failure { id: id.clone(), rev: None, why });
        }
    }

    /// Notes what is said of a document that didn't come.
    fn tell(&mut self, failure: Failure) {
        match judgement::of_document(&failure.why) {
            _ if judgement::is_about_rights(&failure.why) => self.ready.refused.push(failure),
            Blame::Document => self.ready.refused.push(failure),
            Blame::Missing => {
                let failure = Failure { why: Why::missing(), ..failure };
                self.ready.doubtful.push(Doubt { failure, blame: Blame::Missing });
            }
            blame => self.ready.doubtful.push(Doubt { failure, blame }),
        }
    }

    /// A result was too large to be looked at: which, the end will tell.
    pub(super) fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// A leaf of this document was too large, where all leaves were asked for; which, nobody can tell.
    pub(super) fn leave_out_leaf(&mut self, id: &DocId, max_document: usize) {
        self.ready.refused.push(Failure::too_large(id.clone(), None, max_document));
    }

    /// No document answers to this id.
    pub(super) fn missing(&mut self, id: &DocId) {
        self.doubtful(id, None, Why::new("not_found", "missing"));
    }

    /// The source doesn't give this document to us.
    pub(super) fn refuse(&mut self, id: &DocId, why: &Why) {
        let revs = self.unmentioned.remove(id).unwrap_or_default();
        let refused = |rev| Failure { id: id.clone(), rev, why: why.clone() };
        match revs.is_empty() {
            true => self.ready.refused.push(refused(None)),
            false => self.ready.refused.extend(revs.into_iter().map(|rev| refused(Some(rev)))),
        }
    }

    /// Checks at the end that everything was mentioned. What wasn't is what was left out, where no more is lacking.
    pub(super) fn end(&mut self, request: &str, max_document: usize) -> Result<(), PeerError> {
        if self.inline {
            let lacking = self.unmentioned.drain();
            let lacking = lacking.flat_map(|(id, revs)| revs.into_iter().map(move |rev| (id.clone(), rev)));
            self.ready.attached.extend(lacking);
            return Ok(());
        }
        let lacking = self.unmentioned.values().map(|revs| revs.len().max(1)).sum::<usize>();
        if lacking > self.left_out {
            let id = self.unmentioned.keys().next().map(DocId::as_str).unwrap_or_default();
            return Err(malformed(request, "every revision asked for, or why not", format!("not all of {id}")));
        }
        for (id, revs) in self.unmentioned.drain() {
            match revs.is_empty() {
                true => self.ready.refused.push(Failure::too_large(id, None, max_document)),
                false => {
                    let refused = revs.into_iter().map(|rev| Failure::too_large(id.clone(), Some(rev), max_document));
                    self.ready.refused.extend(refused);
                }
            }
        }
        Ok(())
    }

    fn take_doc(&mut self, request: &str, text: &[u8]) -> Result<(), PeerError> {
        let head = document_head(text).map_err(|error| not_fetched(request, text, &error))?;
        let Some(DocumentHead { id, rev, attached }) = head else {
            return Err(not_fetched(request, text, &"a document without `_id` and `_rev`"));
        };
        self.mention(&id, &rev, text)?;
        if !self.given.insert((id.clone(), rev.clone())) {
            return Ok(());
        }
        match attached {
            _ if id.is_design() => self.ready.attached.push((id, rev)),
            Attached::Nothing => self.ready.docs.push(id, rev, text),
            Attached::Within if self.inline => self.ready.docs.push(id, rev, text),
            Attached::Small if !self.inline => self.ready.small.push((id, rev)),
            // There is no other way for it, however large they are, if it can be held at all.
            Attached::More if !self.inline && !id.has_url() => self.ready.small.push((id, rev)),
            Attached::Within | Attached::Small | Attached::More => self.ready.attached.push((id, rev)),
        }
        Ok(())
    }

    /// Notes that a document answers for the revision that was asked for, or for those that it has gone on from.
    fn mention(&mut self, id: &DocId, rev: &Rev, text: &[u8]) -> Result<(), PeerError> {
        let Some(asked) = self.unmentioned.get_mut(id) else { return Ok(()) };
        let before = asked.len();
        asked.retain(|asked| asked != rev);
        if asked.len() == before {
            let path = revisions(text)?;
            asked.retain(|asked| !path.as_ref().is_some_and(|path| path.contains(asked)));
        }
        if asked.is_empty() {
            self.unmentioned.remove(id);
        }
        Ok(())
    }

    /// Notes what is said of the revision, or of all that are still asked for if the peer names none.
    fn doubtful(&mut self, id: &DocId, rev: Option<Rev>, why: Why) {
        let asked = self.unmentioned.remove(id).unwrap_or_default();
        let (gone, left): (Vec<_>, Vec<_>) = match rev {
            Some(rev) => {
                let left = asked.into_iter().filter(|asked| *asked != rev).collect();
                (vec![rev], left)
            }
            None => (asked, Vec::new()),
        };
        if !left.is_empty() {
            self.unmentioned.insert(id.clone(), left);
        }
        gone.into_iter().for_each(|rev| self.tell(Failure { id: id.clone(), rev: Some(rev), why: why.clone() }));
    }
}

impl Item<'_> {
    /// Why it holds no document.
    pub(super) fn refusal(&self) -> Option<Why> {
        Some(self.refused()?.why)
    }

    fn refused(&self) -> Option<Refusal> {
        // Not a flattened member: no text could be borrowed then.
        let words = Words { error: self.error.clone(), name: None, reason: self.reason.clone() };
        Some(Refusal { rev: words.rev().and_then(Rev::parse), why: words.why()? })
    }
}

/// Why a revision didn't come.
struct Refusal {
    /// Where it is named.
    rev: Option<Rev>,
    why: Why,
}

/// What replication looks at in a document.
pub(super) struct DocumentHead {
    pub id: DocId,
    pub rev: Rev,
    pub attached: Attached,
}

/// `None` where `_id` or `_rev` isn't there.
pub(super) fn document_head(text: &[u8]) -> Result<Option<DocumentHead>, DocumentError> {
    let (mut id, mut rev, mut attached) = (None, None, Attached::Nothing);
    for member in json::members(text)? {
        match &*member.key {
            "_id" => id = json::string(member.value),
            "_rev" => rev = json::string(member.value).and_then(|rev| Rev::parse(&rev)),
            "_attachments" => attached = Attached::of(member.value)?,
            _ => {}
        }
    }
    Ok(id.zip(rev).map(|(id, rev)| DocumentHead { id: DocId::from(id), rev, attached }))
}

/// A document's `_revisions`.
fn revisions(text: &[u8]) -> Result<Option<Revisions>, DocumentError> {
    let mut members = json::members(text)?.filter(|member| member.key == "_revisions");
    members.next().map(|member| Revisions::parse(member.value)).transpose()
}

pub(super) fn not_fetched(request: &str, text: &[u8], error: &dyn std::fmt::Display) -> PeerError {
    malformed(request, EXPECTED, format!("`{}` ({error})", super::answer::shorten(text, 100)))
}
