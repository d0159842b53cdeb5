//! Documents out of the embedded store, a piece at a time.
//!
//! A piece is as large as the caller's share of memory allows: where it has no more, documents come in smaller ones, and a
//! document that alone needs more waits until there is as much.

use std::collections::VecDeque;

use super::LocalPeer;
use super::attached::newest;
use crate::document::{Encoding, Rev, Wanted};
use crate::effort::budget::{Share, cost};
use crate::peer::{Doubt, Failure, Fetched, PeerError, SMALL_BYTES};
use crate::store::{Attachment, AttachmentsAs, DocOptions, Leaf, Snapshot, StoreError};

/// Documents that are read as they are asked for.
pub struct LocalBulkGet {
    peer: LocalPeer,
    /// What wasn't read yet.
    wanted: VecDeque<Wanted>,
    /// With their attachments within them.
    inline: bool,
}

impl LocalBulkGet {
    pub(super) fn new(peer: LocalPeer, wanted: Vec<Wanted>, inline: bool) -> Self {
        Self { peer, wanted: wanted.into(), inline }
    }

    /// See [`crate::peer::BulkGet::next`].
    pub async fn next(&mut self, max_bytes: usize, share: &mut Share) -> Result<Option<Fetched>, PeerError> {
        // More room at once makes larger pieces; without it, documents come in smaller ones.
        share.keep(cost(max_bytes));
        share.try_hold(cost(max_bytes));
        self.peer.readable().await?;
        while !self.wanted.is_empty() {
            let mut wanted = std::mem::take(&mut self.wanted);
            let (held, max_document, inline) = (share.bytes(), share.max_document(), self.inline);
            let read = self.peer.read(move |snapshot| {
                let mut fetched = Fetched::default();
                let mut lacking = None;
                while fetched.docs.size() < max_bytes
                    && lacking.is_none()
                    && let Some(next) = wanted.pop_front()
                {
                    let fits = |bytes| cost(bytes) <= held;
                    if let Some((rest, bytes)) = fetch(snapshot, next, &mut fetched, (inline, fits), max_document)? {
                        wanted.push_front(rest);
                        lacking = Some(bytes);
                    }
                }
                Ok((fetched, wanted, lacking))
            });
            let (fetched, lacking);
            (fetched, self.wanted, lacking) = read.await?;
            if !fetched.is_empty() {
                share.keep(cost(fetched.docs.size()));
                return Ok(Some(fetched));
            }
            if let Some(bytes) = lacking {
                share.hold(cost(bytes), cost(max_bytes)).await;
            }
        }
        Ok(None)
    }
}

/// Reads what is wanted of a document as far as there is room; else answers the rest, and the bytes that it needs.
fn fetch(
    snapshot: &Snapshot,
    wanted: Wanted,
    fetched: &mut Fetched,
    (inline, fits): (bool, impl Fn(usize) -> bool),
    max_document: usize,
) -> Result<Option<(Wanted, usize)>, StoreError> {
    let attachments = if inline { AttachmentsAs::Inline } else { AttachmentsAs::Stubs };
    let options = DocOptions { revs: true, attachments, ..DocOptions::default() };
    let id = &wanted.id;
    let missing = |rev: &Rev| Doubt::missing(id.clone(), rev.clone());
    let Some(record) = snapshot.document(id.as_str())? else {
        if inline {
            fetched.attached.extend(wanted.revs.iter().map(|rev| (id.clone(), rev.clone())));
            return Ok(None);
        }
        fetched.doubtful.extend(wanted.revs.iter().map(missing));
        return Ok(None);
    };
    let mut leaves: Vec<Leaf> = if wanted.revs.is_empty() { record.tree.leaves() } else { Vec::new() };
    for rev in &wanted.revs {
        // Inline, exactly this one was asked for.
        match if inline { record.tree.leaf(rev) } else { newest(&record, rev) } {
            Some(leaf) if leaves.contains(&leaf) => {}
            Some(leaf) => leaves.push(leaf),
            None if inline => fetched.attached.push((id.clone(), rev.clone())),
            None => fetched.doubtful.push(missing(rev)),
        }
    }
    for (place, leaf) in leaves.iter().enumerate() {
        let small = if leaf.attached { small_bytes(&snapshot.attachments(leaf)?) } else { Some(0) };
        match small {
            Some(_) if !id.is_design() && (inline || !leaf.attached) => {}
            Some(_) if !id.is_design() => {
                fetched.small.push((id.clone(), leaf.rev.clone()));
                continue;
            }
            _ => {
                fetched.attached.push((id.clone(), leaf.rev.clone()));
                continue;
            }
        }
        let stored = snapshot.stored(leaf)?;
        if stored.size() > max_document {
            fetched.refused.push(Failure::too_large(id.clone(), Some(leaf.rev.clone()), max_document));
            continue;
        }
        let before = if fetched.docs.is_empty() { 0 } else { fetched.docs.size() };
        let bytes = before + stored.size() + small.map_or(0, base64_bytes);
        if !fits(bytes) {
            let revs = leaves[place..].iter().map(|leaf| leaf.rev.clone()).collect();
            return Ok(Some((Wanted { revs, ..wanted }, bytes)));
        }
        if leaf.attached {
            let mut text = Vec::new();
            let gaps = snapshot.render_stored(id.as_str(), &record, leaf, &stored, &options, &mut text)?;
            match gaps.is_empty() {
                true => fetched.docs.push(id.clone(), leaf.rev.clone(), &text),
                // With so large a document, the attachments didn't find room in it.
                false => fetched.attached.push((id.clone(), leaf.rev.clone())),
            }
            continue;
        }
        let mut rendered = Ok(());
        fetched.docs.push_with(id.clone(), leaf.rev.clone(), |out| {
            rendered = snapshot.render_stored(id.as_str(), &record, leaf, &stored, &options, out).map(|_| ());
        });
        rendered?;
    }
    Ok(None)
}

/// The bytes of attachments that may travel within their document.
fn small_bytes(attachments: &[Attachment]) -> Option<u64> {
    let plain = attachments.iter().all(|attachment| attachment.encoding == Encoding::Identity);
    let bytes = attachments.iter().fold(0_u64, |sum, attachment| sum.saturating_add(attachment.stored_length));
    (plain && bytes <= SMALL_BYTES).then_some(bytes)
}

fn base64_bytes(bytes: u64) -> usize {
    bytes as usize / 3 * 4 + 4
}
