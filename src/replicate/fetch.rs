//! Stage 3: fetches what the target lacks from the source.
//!
//! Documents without attachments come in bulk, in pieces of a bounded size that are handed on before the next is read,
//! so a slow target slows the source down instead of filling memory. The memory for them is taken before the source is
//! asked, and given back where it keeps us waiting ([`crate::effort::budget`]). Documents with attachments are only named here
//! ([`Fetched::attached`], [`Fetched::small`]). Once the bulk answer has been read to its end, those with small ones are
//! asked for again in bulk, with the data in them; the others are fetched one by one, each streaming from source to target.
//! Every read races the stop token.

use super::ReplicateError;
use super::life::Life;
use super::progress::Counts;
use crate::document::{DocId, Rev, Wanted};
use crate::effort::budget::{Share, cost};
use crate::peer::{BulkGet, Fetched, PeerError};

/// Bytes kept free for a document where only few are wanted. More are taken as they come; generous, so that few documents
/// are begun that must then wait for memory halfway.
const EXPECTED_BYTES: usize = 128 << 10;

/// A bulk answer that is being read.
pub struct Fetching<'a> {
    life: &'a Life,
    answer: BulkGet,
    share: Share,
}

/// Asks the source. A document that is wanted without any revision is wanted with all its leaves.
pub async fn ask(life: &Life, wanted: Vec<Wanted>) -> Result<Fetching<'_>, ReplicateError> {
    let attempts = wanted.iter().map(|wanted| wanted.revs.len().max(1) as u64).sum();
    life.progress.count(Counts { bulk_get_attempts: attempts, ..Counts::default() });
    begin(life, wanted.len(), life.source.bulk_get(wanted)).await
}

/// Asks the source for documents with small attachments within them, which were attempted before.
pub async fn ask_inline(life: &Life, small: Vec<(DocId, Rev)>) -> Result<Fetching<'_>, ReplicateError> {
    begin(life, small.len(), life.source.bulk_get_inline(small)).await
}

async fn begin(
    life: &Life,
    wanted: usize,
    question: impl Future<Output = Result<BulkGet, PeerError>>,
) -> Result<Fetching<'_>, ReplicateError> {
    let expected = wanted.saturating_mul(EXPECTED_BYTES).min(life.batch_bytes);
    let mut share = life.unless_stopped(life.budget.share(cost(expected), life.progress.pulse())).await?;
    let answer = life.unless_stopped(share.waiting(0, question)).await??;
    Ok(Fetching { life, answer, share })
}

impl Fetching<'_> {
    /// The next piece; `None` at the end. The piece before must have been written and dropped.
    pub async fn next(&mut self) -> Result<Option<Fetched>, ReplicateError> {
        let fetched = self.life.unless_stopped(self.answer.next(self.life.batch_bytes, &mut self.share)).await??;
        if let Some(fetched) = &fetched {
            let docs = fetched.docs.docs().len() as u64;
            self.life.progress.count(Counts { bulk_get_docs: docs, ..Counts::default() });
        }
        Ok(fetched)
    }
}
