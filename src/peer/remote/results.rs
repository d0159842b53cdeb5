//! What the results of an answer say: a document, why there is none, for which of the revisions asked for.
//!
//! With `latest=true` another revision than the asked one may come, or one twice: the second is dropped. Every asked
//! revision must be mentioned, by itself, by a descendant or with a reason: what isn't told is never taken for done.
//!
//! Promises: an answer is about what was asked for, and it ends. What is kept of it beside the documents' texts (ids,
//! revisions, words) is a small multiple of the question; what isn't so is malformed.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::answer::malformed;
use super::attachments::AttachmentKind;
use super::judgement::Words;
use super::shown::beginning;
use super::*;
use crate::document::Revisions;
use crate::json::{self, Cursor};
use crate::peer::Doubt;

const EXPECTED: &str = "fetched documents";

/// One of `results`.
#[derive(Deserialize)]
pub(super) struct BulkResult<'a> {
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// An array of [`Item`]s.
    #[serde(borrow)]
    pub docs: &'a RawValue,
}

/// `{"ok":{…}}`, `{"missing":"rev"}`, `{"error":{"rev","error","reason"}}`, or express-pouchdb's
/// `{"error":"…","reason":"…"}`.
#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub ok: Option<&'a RawValue>,
    #[serde(borrow)]
    missing: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
}

/// What something said of a revision takes, about, beside its own text.
const NOTE_BYTES: usize = 64;
/// How many times its question an answer may be, and how much more: with `latest=true` one revision is answered by many.
const TIMES_ASKED: usize = 16;
const MORE_THAN_ASKED: usize = 1 << 20;
/// Results too large to be looked at that may come beside one for each revision asked for.
const MORE_LEFT_OUT: usize = 1000;
/// Things told beside documents after which they are handed on.
const MANY_TOLD: usize = 1000;

/// What was asked for of one document.
#[derive(Default)]
struct AskedRevs {
    /// Revisions not yet mentioned.
    revs: HashSet<Rev>,
    /// All leaves were asked for, and nothing was answered yet.
    all_leaves: bool,
}

/// Sorts documents by how they go on.
#[derive(Default)]
pub(super) struct Sorter {
    asked: HashMap<DocId, AskedRevs>,
    /// Revisions asked for; a document with all of its leaves counts as one.
    asked_count: usize,
    given: HashSet<(DocId, Rev)>,
    /// Bytes that may still be noted.
    room: usize,
    /// Results that were left out because of their size.
    left_out: usize,
    /// Only documents with their attachments within them are wanted: all else is to be fetched in another way.
    inline: bool,
    pub ready: Fetched,
}

impl Sorter {
    /// Expects these.
    pub(super) fn new(wanted: &[Wanted]) -> Self {
        let mut asked = HashMap::<DocId, AskedRevs>::with_capacity(wanted.len());
        let (mut asked_count, mut bytes) = (0, 0);
        for Wanted { id, revs, .. } in wanted {
            asked.entry(id.clone()).or_default().revs.extend(revs.iter().cloned());
            asked_count += revs.len().max(1);
            bytes += revs.iter().map(|rev| NOTE_BYTES + rev.hash.as_bytes().len()).sum::<usize>().max(NOTE_BYTES);
        }
        asked.values_mut().for_each(|asked| asked.all_leaves = asked.revs.is_empty());
        let room = bytes.saturating_mul(TIMES_ASKED).saturating_add(MORE_THAN_ASKED);
        Self { asked, asked_count, room, ..Self::default() }
    }

    /// Expects these with their attachments within them.
    pub(super) fn of_inline(wanted: &[Wanted]) -> Self {
        Self { inline: true, ..Self::new(wanted) }
    }

    /// Bytes of the documents that are ready.
    pub(super) fn ready_bytes(&self) -> usize {
        if self.ready.docs.is_empty() { 0 } else { self.ready.docs.size() }
    }

    /// Whether there is enough to be handed on.
    pub(super) fn is_full(&self, max_bytes: usize) -> bool {
        let Fetched { attached, small, refused, doubtful, .. } = &self.ready;
        self.ready_bytes() >= max_bytes || attached.len() + small.len() + refused.len() + doubtful.len() >= MANY_TOLD
    }

    /// Sorts one of `results`.
    pub(super) fn take_result(&mut self, request: &str, result: &BulkResult<'_>) -> Result<(), PeerError> {
        let (id, docs) = (DocId::from(&*result.id), result.docs.get());
        if !docs.starts_with('[') {
            return Err(not_fetched(request, docs.as_bytes(), &"no array of documents"));
        }
        self.note(request, 0)?;
        self.was_asked(request, &id)?;
        let all_leaves = self.all_leaves(&id);
        let mut cursor = Cursor::default();
        while let Some(item) = cursor.element(docs.as_bytes()) {
            let read = serde_json::from_slice(item).map_err(|error| not_fetched(request, item, &error))?;
            self.take(request, &id, &read, all_leaves)?;
        }
        Ok(())
    }

    /// Sorts one of the answers for a document of which some revisions were asked for, or all leaves.
    pub(super) fn take_item(&mut self, request: &str, id: &DocId, item: &Item<'_>) -> Result<(), PeerError> {
        let all_leaves = self.all_leaves(id);
        self.take(request, id, item, all_leaves)
    }

    /// Counts what is kept of an answer.
    fn note(&mut self, request: &str, bytes: usize) -> Result<(), PeerError> {
        let many = || malformed(request, EXPECTED, "much more than was asked for".into());
        self.room = self.room.checked_sub(NOTE_BYTES + bytes).ok_or_else(many)?;
        Ok(())
    }

    fn was_asked(&self, request: &str, id: &DocId) -> Result<(), PeerError> {
        let unasked = || not_fetched(request, id.as_str().as_bytes(), &"a document that wasn't asked for");
        self.asked.contains_key(id).then_some(()).ok_or_else(unasked)
    }

    fn take(&mut self, request: &str, id: &DocId, item: &Item<'_>, all_leaves: bool) -> Result<(), PeerError> {
        self.note(request, 0)?;
        match (&item.ok, &item.missing) {
            (Some(doc), _) => self.take_doc(request, doc.get().as_bytes()),
            // What isn't mentioned is fetched in another way.
            (None, _) if self.inline => Ok(()),
            (None, Some(rev)) => self.doubtful(request, id, Rev::parse(rev), Why::new("not_found", "missing")),
            (None, None) => {
                let refusal = item.refused();
                let refusal = refusal.ok_or_else(|| {
                    malformed(request, EXPECTED, format!("nothing of {}", beginning(id.as_str().as_bytes())))
                })?;
                match all_leaves && refusal.rev.is_none() {
                    true => self.no_leaves(request, id, refusal.why),
                    false => self.doubtful(request, id, refusal.rev, refusal.why),
                }
            }
        }
    }

    /// Where all leaves of a document were asked for, its answer gives all that there are. Tells whether they were.
    pub(super) fn all_leaves(&mut self, id: &DocId) -> bool {
        self.asked.get_mut(id).is_some_and(|asked| std::mem::take(&mut asked.all_leaves))
    }

    /// Why a document of which all leaves were asked for gave none: there is no such document, which is no failure, or it
    /// is in doubt.
    fn no_leaves(&mut self, request: &str, id: &DocId, why: Why) -> Result<(), PeerError> {
        if judgement::of_document(&why) != Blame::Missing {
            self.tell(request, Failure { id: id.clone(), rev: None, why })?;
        }
        Ok(())
    }

    /// Notes what is said of a document that didn't come.
    fn tell(&mut self, request: &str, failure: Failure) -> Result<(), PeerError> {
        let rev = failure.rev.as_ref().map_or(0, |rev| rev.hash.as_bytes().len());
        self.note(request, rev + failure.why.error.len() + failure.why.reason.len())?;
        match judgement::of_document(&failure.why) {
            _ if judgement::is_about_rights(&failure.why) => self.ready.refused.push(failure),
            Blame::Document => self.ready.refused.push(failure),
            Blame::Missing => {
                let failure = Failure { why: Why::missing(), ..failure };
                self.ready.doubtful.push(Doubt { failure, blame: Blame::Missing });
            }
            blame => self.ready.doubtful.push(Doubt { failure, blame }),
        }
        Ok(())
    }

    /// A result was too large to be looked at: which, the end will tell.
    pub(super) fn leave_out(&mut self, request: &str) -> Result<(), PeerError> {
        self.left_out += 1;
        match self.left_out > self.asked_count + MORE_LEFT_OUT {
            true => Err(malformed(request, EXPECTED, format!("{} that are too large", self.left_out))),
            false => Ok(()),
        }
    }

    /// A leaf of this document was too large, where all leaves were asked for; which, nobody can tell.
    pub(super) fn leave_out_leaf(&mut self, request: &str, id: &DocId, max_document: usize) -> Result<(), PeerError> {
        self.note(request, NOTE_BYTES)?;
        self.ready.refused.push(Failure::too_large(id.clone(), None, max_document));
        Ok(())
    }

    /// No document answers to this id.
    pub(super) fn missing(&mut self, request: &str, id: &DocId) -> Result<(), PeerError> {
        self.doubtful(request, id, None, Why::new("not_found", "missing"))
    }

    /// The source doesn't give this document to us.
    pub(super) fn refuse(&mut self, id: &DocId, why: &Why) {
        let revs = self.asked.get_mut(id).map(std::mem::take).unwrap_or_default().revs;
        let refused = |rev| Failure { id: id.clone(), rev, why: why.clone() };
        match revs.is_empty() {
            true => self.ready.refused.push(refused(None)),
            false => self.ready.refused.extend(revs.into_iter().map(|rev| refused(Some(rev)))),
        }
    }

    /// Checks at the end that everything was mentioned. What wasn't is what was left out, where no more is lacking.
    pub(super) fn end(&mut self, request: &str, max_document: usize) -> Result<(), PeerError> {
        if self.inline {
            let lacking = self.asked.drain();
            let lacking = lacking.flat_map(|(id, asked)| asked.revs.into_iter().map(move |rev| (id.clone(), rev)));
            self.ready.attached.extend(lacking);
            return Ok(());
        }
        self.asked.retain(|_, asked| asked.all_leaves || !asked.revs.is_empty());
        let lacking = self.asked.values().map(|asked| asked.revs.len().max(1)).sum::<usize>();
        if lacking > self.left_out {
            let id = self.asked.keys().next().map(DocId::as_str).unwrap_or_default();
            let id = beginning(id.as_bytes());
            return Err(malformed(request, "every revision asked for, or why not", format!("not all of {id}")));
        }
        for (id, AskedRevs { revs, .. }) in self.asked.drain() {
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
        self.note(request, rev.hash.as_bytes().len())?;
        self.was_asked(request, &id)?;
        self.mention(&id, &rev, text)?;
        if !self.given.insert((id.clone(), rev.clone())) {
            return Ok(());
        }
        match attached {
            _ if id.is_design() => self.ready.attached.push((id, rev)),
            // Its stubs told of attachments.
            AttachmentKind::Nothing if self.inline => self.ready.attached.push((id, rev)),
            AttachmentKind::Nothing => self.ready.docs.push(id, rev, text),
            AttachmentKind::Within if self.inline => self.ready.docs.push(id, rev, text),
            AttachmentKind::Small if !self.inline => self.ready.small.push((id, rev)),
            // There is no other way for it, however large they are, if it can be held at all.
            AttachmentKind::More if !self.inline && !id.has_url() => self.ready.small.push((id, rev)),
            AttachmentKind::Within | AttachmentKind::Small | AttachmentKind::More => {
                self.ready.attached.push((id, rev))
            }
        }
        Ok(())
    }

    /// Notes that a document answers for the revision that was asked for, or for those that it has gone on from.
    fn mention(&mut self, id: &DocId, rev: &Rev, text: &[u8]) -> Result<(), PeerError> {
        let Some(AskedRevs { revs: asked, .. }) = self.asked.get_mut(id) else { return Ok(()) };
        if asked.remove(rev) || asked.is_empty() {
            return Ok(());
        }
        if let Some(path) = revisions(text)? {
            // No more steps than the document has revisions, however many were asked for.
            path.revs().for_each(|rev| _ = asked.remove(&rev));
        }
        Ok(())
    }

    /// Notes what is said of the revision, or of all that are still asked for if the peer names none.
    fn doubtful(&mut self, request: &str, id: &DocId, rev: Option<Rev>, why: Why) -> Result<(), PeerError> {
        let asked = self.asked.entry(id.clone()).or_default();
        let gone = match rev {
            Some(rev) => {
                asked.revs.remove(&rev);
                vec![rev]
            }
            None => {
                asked.all_leaves = false;
                asked.revs.drain().collect()
            }
        };
        gone.into_iter()
            .try_for_each(|rev| self.tell(request, Failure { id: id.clone(), rev: Some(rev), why: why.clone() }))
    }
}

impl Item<'_> {
    /// Why it holds no document.
    pub(super) fn refusal(&self) -> Option<Why> {
        Some(self.refused()?.why)
    }

    fn refused(&self) -> Option<Refusal> {
        // Not a flattened member: no text could be borrowed then.
        let words = Words { error: self.error, name: None, reason: self.reason };
        Some(Refusal { rev: words.rev().and_then(|rev| Rev::parse(&rev)), why: words.why()? })
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
    pub attached: AttachmentKind,
}

/// `None` if `_id` or `_rev` isn't there.
pub(super) fn document_head(text: &[u8]) -> Result<Option<DocumentHead>, DocumentError> {
    let (mut id, mut rev, mut attached) = (None, None, AttachmentKind::Nothing);
    for member in json::members(text)? {
        match &*member.key {
            "_id" => id = json::string(member.value),
            "_rev" => rev = json::string(member.value).and_then(|rev| Rev::parse(&rev)),
            "_attachments" => attached = AttachmentKind::of(member.value)?,
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
    malformed(request, EXPECTED, format!("`{}` ({error})", beginning(text)))
}
