//! Fetches many documents with one request, and reads them while they stream in.
//!
//! `POST {db}/_bulk_get?latest=true&revs=true&attachments=false&att_encoding_info=true`. The answer is cut at the borders of its results as they
//! arrive ([`ElementReader`]); a document's text is copied once, into the batch that goes to the target, and looked at for `_id`,
//! `_rev` and `_attachments` ([`Sorter`]).
//!
//! Documents with attachments, and design documents, which a target may refuse for themselves, are left to `open_rev`. If
//! their stubs tell that the attachments are small, they may be asked for once more, in bulk and with the data in them
//! (`POST {db}/_bulk_get?revs=true&attachments=true`). That is a second way to fetch what `open_rev` fetches: whatever doesn't
//! come by it is left to `open_rev` after all, which says why.
//!
//! A peer without `_bulk_get` is asked with `open_revs`, document by document: several answers are waited for at once, and
//! read one after the other.
//!
//! Memory: what is held is within the caller's share, at every moment. Where there is no more, the documents that are
//! whole are handed on; one that is larger than any may be is left out and told as refused.

use std::sync::atomic::Ordering;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};

use super::answer::Answer;
use super::call::Call;
use super::element_reader::{ElementReader, Read};
use super::missing::push_revs;
use super::results::{BulkResult, Item, Sorter, not_fetched};
use super::*;
use crate::effort::budget::{Share, cost};
use crate::json;

/// Requests in flight where each document takes one.
const OPEN_REVS_IN_FLIGHT: usize = 8;
/// Revisions in one `open_revs`: a URL of some 5,000 bytes, which every server takes.
const REVS_PER_URL: usize = 100;

/// Answers to `_bulk_get` or `open_revs` that are being read.
pub struct RemoteBulkGet {
    peer: RemotePeer,
    /// A document of the same request came.
    lets_us_read: bool,
    /// The answer in hand.
    reading: Option<AnswerReader>,
    /// Answers to come, one a document.
    answers: Option<BoxStream<'static, Result<OpenRevsAnswer, PeerError>>>,
    sorter: Sorter,
    /// The request answered last, for errors.
    last: String,
    /// Is told after what came before it was given.
    failed: Option<PeerError>,
    ended: bool,
}

/// An answer that is being read.
struct AnswerReader {
    cutting: ElementReader,
    of: Of,
}

/// Whose leaves an answer holds.
enum Of {
    /// Those of many documents: an answer to `_bulk_get`.
    Many,
    /// Some revisions of one.
    Some(DocId),
    /// All leaves of one.
    All(DocId),
}

/// What a question about one document was answered.
pub(super) enum DocumentAnswer {
    /// With success.
    Answer(Answer),
    /// That there is no such document or revision.
    Missing,
    /// That we may not read it.
    Forbidden(Why),
}

/// What `open_revs` was answered.
enum OpenRevsAnswer {
    Answer(Box<AnswerReader>),
    /// PouchDB's way to say that there is no such document.
    Missing(DocId),
    /// We may not read it, in the source's words.
    Refused(DocId, Why),
}

impl RemotePeer {
    /// Starts to fetch revisions.
    pub async fn bulk_get(&self, wanted: Vec<Wanted>) -> Result<RemoteBulkGet, PeerError> {
        // Without revisions it must be asked which there are.
        let known_design = |wanted: &Wanted| wanted.id.is_design() && !wanted.revs.is_empty();
        let (design, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().partition(known_design);
        let one_by_one =
            design.into_iter().flat_map(|Wanted { id, revs, .. }| revs.into_iter().map(move |rev| (id.clone(), rev)));
        let mut sorter = Sorter::new(&wanted);
        sorter.ready.attached.extend(one_by_one);
        let (mut reading, mut answers) = (None, None);
        if !wanted.is_empty() {
            let path = "_bulk_get?latest=true&revs=true&attachments=false&att_encoding_info=true";
            reading = self.ask_bulk_get(Operation::Fetch, path, request(&wanted, false)).await?;
            answers = reading.is_none().then(|| self.open_revs(wanted));
        }
        Ok(RemoteBulkGet::new(self, reading, answers, sorter))
    }

    /// Starts to fetch revisions with their attachments within them.
    pub async fn bulk_get_inline(&self, wanted: Vec<Wanted>) -> Result<RemoteBulkGet, PeerError> {
        let path = "_bulk_get?revs=true&attachments=true";
        let reading = self.ask_bulk_get(Operation::FetchInline, path, request(&wanted, true)).await?;
        Ok(RemoteBulkGet::new(self, reading, None, Sorter::of_inline(&wanted)))
    }

    /// `None` if the peer has no `_bulk_get`.
    async fn ask_bulk_get(
        &self,
        operation: Operation,
        path: &str,
        question: Vec<u8>,
    ) -> Result<Option<AnswerReader>, PeerError> {
        if self.inner.lacks_bulk_get.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let call = Call::post(operation, path, question);
        let sent = self.send(&call, |reply| {
            // CouchDB 1 takes `_bulk_get` for a document's id, and a POST to one for a form.
            match reply.meaning().is_unknown_request() {
                true => Ok(()),
                false => Err(self.refusal(reply)),
            }
        });
        match sent.await? {
            Ok(answer) => Ok(Some(AnswerReader { cutting: ElementReader::of_results(answer), of: Of::Many })),
            Err(()) => {
                self.inner.lacks_bulk_get.store(true, Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    fn open_revs(&self, wanted: Vec<Wanted>) -> BoxStream<'static, Result<OpenRevsAnswer, PeerError>> {
        let requests: Vec<(DocId, Vec<Rev>)> = wanted
            .into_iter()
            .flat_map(|Wanted { id, revs, .. }| match revs.as_slice() {
                [] => vec![(id, Vec::new())],
                revs => revs.chunks(REVS_PER_URL).map(|revs| (id.clone(), revs.to_vec())).collect(),
            })
            .collect();
        let peer = self.clone();
        let answers = stream::iter(requests).map(move |(id, revs)| {
            let peer = peer.clone();
            async move { peer.open_some(id, &revs).await }
        });
        answers.buffered(OPEN_REVS_IN_FLIGHT).boxed()
    }

    async fn open_some(&self, id: DocId, revs: &[Rev]) -> Result<OpenRevsAnswer, PeerError> {
        if let Some(why) = path::unnameable(&id) {
            return Ok(OpenRevsAnswer::Refused(id, why));
        }
        let call = Call::get(Operation::Fetch, open_revs_path(&id, revs, &[]));
        Ok(match self.send_about_one(&call).await? {
            DocumentAnswer::Answer(answer) => {
                let of = if revs.is_empty() { Of::All(id) } else { Of::Some(id) };
                OpenRevsAnswer::Answer(Box::new(AnswerReader { cutting: ElementReader::of_array(answer), of }))
            }
            DocumentAnswer::Missing => OpenRevsAnswer::Missing(id),
            DocumentAnswer::Forbidden(why) => OpenRevsAnswer::Refused(id, why),
        })
    }

    /// Sends a question about one document. That we may not read it counts if the database lets us in at that moment, and
    /// if it is said once more after that.
    pub(super) async fn send_about_one(&self, call: &Call) -> Result<DocumentAnswer, PeerError> {
        let mut told_before = false;
        loop {
            let sent = self.send(call, |reply| match reply.meaning() {
                Meaning::NotThere => Ok(DocumentAnswer::Missing),
                Meaning::NotAllowed => Ok(DocumentAnswer::Forbidden(reply.why())),
                _ => Err(self.refusal(reply)),
            });
            match sent.await? {
                Ok(answer) => return Ok(DocumentAnswer::Answer(answer)),
                Err(DocumentAnswer::Forbidden(_)) if !told_before => {
                    self.let_in().await?;
                    told_before = true;
                }
                Err(told) => return Ok(told),
            }
        }
    }
}

impl RemoteBulkGet {
    fn new(
        peer: &RemotePeer,
        reading: Option<AnswerReader>,
        answers: Option<BoxStream<'static, Result<OpenRevsAnswer, PeerError>>>,
        sorter: Sorter,
    ) -> Self {
        let (peer, last) = (peer.clone(), String::new());
        Self { peer, lets_us_read: false, reading, answers, sorter, last, failed: None, ended: false }
    }

    /// The next documents, about `max_bytes` of them; `None` at the end.
    pub async fn next(&mut self, max_bytes: usize, share: &mut Share) -> Result<Option<Fetched>, PeerError> {
        // What was given before has been written.
        share.keep(cost(max_bytes.max(self.unread())));
        while !self.ended && self.failed.is_none() && !self.sorter.is_full(max_bytes) {
            match self.read(max_bytes, share).await {
                Ok(Read::On) => {}
                Ok(Read::NoRoom) => break,
                Err(error) => self.failed = Some(error),
            }
        }
        let ready = std::mem::take(&mut self.sorter.ready);
        // A document that we may not read counts if we may read another, or the database at this moment.
        self.lets_us_read |= !ready.docs.is_empty() || !ready.attached.is_empty() || !ready.small.is_empty();
        let is_about_rights = ready.refused.iter().any(|failure| judgement::is_about_rights(&failure.why));
        if is_about_rights && !self.lets_us_read {
            self.peer.let_in().await?;
        }
        share.keep(cost(ready.docs.size() + self.unread()));
        if !ready.is_empty() {
            return Ok(Some(ready));
        }
        self.ended = true;
        self.failed.take().map_or(Ok(None), Err)
    }

    /// Bytes of documents that can be given.
    fn ready(&self) -> usize {
        self.sorter.ready_bytes()
    }

    /// Bytes that came and aren't sorted yet.
    fn unread(&self) -> usize {
        self.reading.as_ref().map_or(0, |reading| reading.cutting.held())
    }

    /// Sorts what has arrived, up to `max_bytes`, and reads on after that.
    async fn read(&mut self, max_bytes: usize, share: &mut Share) -> Result<Read, PeerError> {
        let Some(reading) = &mut self.reading else { return self.next_answer(share).await };
        let sorter = &mut self.sorter;
        while !sorter.is_full(max_bytes) {
            let Some((request, element)) = reading.cutting.element() else { break };
            let wrong = |error| not_fetched(request, element, &error);
            match &reading.of {
                Of::Many => {
                    let result: BulkResult<'_> = serde_json::from_slice(element).map_err(wrong)?;
                    sorter.take_result(request, &result)?;
                }
                Of::Some(id) | Of::All(id) => {
                    let item: Item<'_> = serde_json::from_slice(element).map_err(wrong)?;
                    sorter.take_item(request, id, &item)?;
                }
            }
        }
        reading.cutting.drop_cut();
        let ready = self.ready();
        if self.sorter.is_full(max_bytes) {
            return Ok(Read::On);
        }
        let Some(reading) = &mut self.reading else { return Ok(Read::On) };
        let read = reading.cutting.read_on(ready, max_bytes, share).await?;
        for _ in 0..std::mem::take(&mut reading.cutting.left_out) {
            match &reading.of {
                Of::All(id) => self.sorter.leave_out_leaf(reading.cutting.request(), id, share.max_document())?,
                Of::Many | Of::Some(_) => self.sorter.leave_out(reading.cutting.request())?,
            }
        }
        if reading.cutting.ended() {
            if let Of::All(id) = &reading.of {
                self.sorter.all_leaves(id);
            }
            self.last = reading.cutting.request().to_owned();
            self.reading = None;
        }
        Ok(read)
    }

    /// Waits for the next answer; at the end checks that nothing was left unsaid.
    async fn next_answer(&mut self, share: &mut Share) -> Result<Read, PeerError> {
        let ready = self.ready();
        let answer = match &mut self.answers {
            Some(answers) => share.waiting(cost(ready), answers.next()).await.transpose()?,
            None => None,
        };
        match answer {
            Some(OpenRevsAnswer::Answer(reading)) => self.reading = Some(*reading),
            Some(OpenRevsAnswer::Missing(id)) => self.sorter.missing(&self.last, &id)?,
            Some(OpenRevsAnswer::Refused(id, why)) => self.sorter.refuse(&id, &why),
            None => {
                self.ended = true;
                self.sorter.end(&self.last, share.max_document())?;
            }
        }
        Ok(Read::On)
    }
}

fn request(wanted: &[Wanted], inline: bool) -> Vec<u8> {
    let mut body = format!(r#"{{"revs":true,"latest":{},"docs":["#, !inline).into_bytes();
    let mut first = true;
    let mut push = |id: &DocId, rev: Option<&Rev>| {
        body.extend_from_slice(if std::mem::take(&mut first) { b"{" } else { b",{" });
        if let Some(rev) = rev {
            body.extend_from_slice(b"\"rev\":");
            json::push_string(&mut body, &rev.to_string());
            body.push(b',');
        }
        body.extend_from_slice(b"\"id\":");
        json::push_string(&mut body, id.as_str());
        body.extend_from_slice(if inline { b"}" } else { b",\"atts_since\":[]}" });
    };
    for Wanted { id, revs, .. } in wanted {
        match revs.as_slice() {
            [] => push(id, None),
            revs => revs.iter().for_each(|rev| push(id, Some(rev))),
        }
    }
    body.extend_from_slice(format!(r#"],"attachments":{inline}}}"#).as_bytes());
    body
}

/// `{id}?revs=true&open_revs=[…]&latest=true`, with `atts_since` if there are any; without `revs`, all leaves.
pub(super) fn open_revs_path(id: &DocId, revs: &[Rev], atts_since: &[Rev]) -> String {
    let list = |revs: &[Rev]| {
        let mut json = Vec::new();
        push_revs(&mut json, revs);
        path::encode(&String::from_utf8_lossy(&json)).to_string()
    };
    let open_revs = if revs.is_empty() { "all".to_owned() } else { list(revs) };
    let mut text = format!("{}?revs=true&open_revs={open_revs}&latest=true", path::document(id));
    if !atts_since.is_empty() {
        text += &format!("&atts_since={}", list(&atts_since[..atts_since.len().min(REVS_PER_URL / 2)]));
    }
    text
}
