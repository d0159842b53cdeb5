//! Fetches many documents with one request, and reads them while they stream in.
//!
//! `POST {db}/_bulk_get?latest=true&revs=true&attachments=false`. The answer is cut at the borders of its results as they
//! arrive; a document's text is copied once, into the batch that goes to the target, and looked at for `_id`, `_rev` and
//! `_attachments`. With `latest=true` another revision than the asked one may come, or one twice: the second is dropped.
//!
//! Documents with attachments, and design documents, which a target may refuse for themselves, are left to
//! `open_rev`. An asked revision that the answer doesn't mention, by itself, by a descendant or with a reason, makes the
//! answer malformed: what isn't told is never taken for done. A peer without `_bulk_get` is asked with `open_revs`,
//! document by document, several at once.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use bytes::{Buf, BytesMut};
use futures::{StreamExt, stream};

use super::answer::{Answer, MAX_HELD_BYTES, malformed};
use super::call::Call;
use super::missing::push_revs;
use super::*;
use crate::document::Revisions;
use crate::json::{self, Elements};

/// Requests in flight where each document takes one.
const OPEN_REVS_IN_FLIGHT: usize = 8;
/// Revisions in one `open_revs`: a URL of some 5,000 bytes, which every server takes.
const REVS_PER_URL: usize = 100;

const EXPECTED: &str = "fetched documents";

/// An answer to `_bulk_get` that is being read.
pub struct RemoteBulkGet {
    source: Source,
    /// What was asked for and not yet mentioned.
    unmentioned: HashMap<DocId, Vec<Rev>>,
    given: HashSet<(DocId, Rev)>,
    ready: Fetched,
    /// Is told after what came before it was given.
    failed: Option<PeerError>,
    ended: bool,
}

enum Source {
    /// Nothing was left to ask for.
    Nothing,
    /// The answer to `_bulk_get`.
    Bulk(Box<Streaming>),
    /// The answers to `open_revs`, one a document.
    Single {
        answers: BoxStream<'static, Result<(DocId, Answered), PeerError>>,
        /// The request answered last, for errors.
        last: String,
    },
}

/// An answer to `_bulk_get` on its way.
struct Streaming {
    answer: Answer,
    /// What came and isn't cut yet.
    text: BytesMut,
    elements: Elements,
}

/// A whole answer to `open_revs`, and the request that it answers.
struct Answered {
    request: String,
    body: Bytes,
}

impl RemotePeer {
    /// Starts to fetch revisions.
    pub async fn bulk_get(&self, wanted: Vec<Wanted>) -> Result<RemoteBulkGet, PeerError> {
        // Without revisions it must be asked which there are.
        let known_design = |wanted: &Wanted| wanted.id.is_design() && !wanted.revs.is_empty();
        let (design, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().partition(known_design);
        let one_by_one =
            design.into_iter().flat_map(|Wanted { id, revs, .. }| revs.into_iter().map(move |rev| (id.clone(), rev)));
        let ready = Fetched { attached: one_by_one.collect(), ..Fetched::default() };
        let mut unmentioned = HashMap::<_, Vec<_>>::with_capacity(wanted.len());
        for wanted in &wanted {
            unmentioned.entry(wanted.id.clone()).or_default().extend(wanted.revs.iter().cloned());
        }
        let source = match self.ask_bulk_get(&wanted).await? {
            Some(source) => source,
            None => self.open_revs(wanted),
        };
        Ok(RemoteBulkGet { source, unmentioned, given: HashSet::new(), ready, failed: None, ended: false })
    }

    /// `None` where the peer has no `_bulk_get`.
    async fn ask_bulk_get(&self, wanted: &[Wanted]) -> Result<Option<Source>, PeerError> {
        if wanted.is_empty() {
            return Ok(Some(Source::Nothing));
        }
        if self.inner.lacks_bulk_get.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let path = "_bulk_get?latest=true&revs=true&attachments=false";
        let answer = self.send(&Call::post(Operation::Fetch, path, request(wanted))).await?;
        if answer.is_success() {
            let streaming = Streaming { answer, text: BytesMut::new(), elements: Elements::default() };
            return Ok(Some(Source::Bulk(Box::new(streaming))));
        }
        let reply = self.present(answer.whole().await?)?;
        // CouchDB 1 takes `_bulk_get` for a document's id, and a POST to one for a form.
        if reply.is_unknown_resource() || matches!(reply.status, 400 | 415) {
            self.inner.lacks_bulk_get.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        Err(reply.into_error())
    }

    fn open_revs(&self, wanted: Vec<Wanted>) -> Source {
        let requests: Vec<_> = wanted
            .into_iter()
            .flat_map(|wanted| {
                let groups: Vec<Vec<Rev>> = match wanted.revs.as_slice() {
                    [] => vec![Vec::new()],
                    revs => revs.chunks(REVS_PER_URL).map(<[Rev]>::to_vec).collect(),
                };
                groups.into_iter().map(move |revs| (wanted.id.clone(), revs))
            })
            .collect();
        let peer = self.clone();
        let answers = stream::iter(requests).map(move |(id, revs)| {
            let peer = peer.clone();
            async move {
                let call = Call::get(Operation::Fetch, open_revs_path(&id, &revs, &[]));
                let reply = peer.present(peer.ask(&call).await?)?;
                // PouchDB's way to say that there is no such document.
                let body = if reply.status == 404 { no_document(&revs) } else { reply.success()?.body };
                Ok((id, Answered { request: peer.request_name(&call), body }))
            }
        });
        Source::Single { answers: answers.buffered(OPEN_REVS_IN_FLIGHT).boxed(), last: String::new() }
    }
}

impl RemoteBulkGet {
    /// The next documents, about `max_bytes` of them; `None` at the end.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Option<Fetched>, PeerError> {
        while !self.ended && self.failed.is_none() && !full(&self.ready, max_bytes) {
            if let Err(error) = self.read(max_bytes).await {
                self.failed = Some(error);
            }
        }
        let ready = std::mem::take(&mut self.ready);
        if !(ready.docs.is_empty() && ready.attached.is_empty() && ready.unavailable.is_empty()) {
            return Ok(Some(ready));
        }
        self.ended = true;
        self.failed.take().map_or(Ok(None), Err)
    }

    /// Takes what has arrived, up to `max_bytes`, and waits for more behind that.
    async fn read(&mut self, max_bytes: usize) -> Result<(), PeerError> {
        let mut sorter = Sorter { unmentioned: &mut self.unmentioned, given: &mut self.given, ready: &mut self.ready };
        match &mut self.source {
            Source::Nothing => self.ended = true,
            Source::Single { answers, last } => match answers.next().await {
                Some(answered) => {
                    let (id, Answered { request, body }) = answered?;
                    let items = serde_json::from_slice(&body).map_err(|error| not_fetched(&request, &body, &error))?;
                    sorter.take(&request, &id, items)?;
                    *last = request;
                }
                None => {
                    self.ended = true;
                    check_mentioned(last, sorter.unmentioned)?;
                }
            },
            Source::Bulk(streaming) => {
                let Streaming { answer, text, elements } = &mut **streaming;
                while let Some(element) = elements.next(text) {
                    let element = &text[element];
                    let result: BulkResult<'_> = serde_json::from_slice(element)
                        .map_err(|error| not_fetched(answer.request(), element, &error))?;
                    sorter.take(answer.request(), &DocId::from(result.id), result.docs)?;
                    if full(sorter.ready, max_bytes) {
                        break;
                    }
                }
                if !full(sorter.ready, max_bytes) {
                    // What isn't cut yet stays; the rest makes room.
                    let done = elements.consumable();
                    text.advance(done);
                    elements.consume(done);
                    match answer.chunk().await? {
                        Some(_) if text.len() > MAX_HELD_BYTES => {
                            return Err(malformed(answer.request(), "documents of at most 256 MiB", "more".into()));
                        }
                        Some(chunk) => text.extend_from_slice(&chunk),
                        None => {
                            self.ended = true;
                            if !elements.finished() {
                                return Err(not_fetched(answer.request(), text, &"the JSON ends early"));
                            }
                            check_mentioned(answer.request(), sorter.unmentioned)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn full(fetched: &Fetched, max_bytes: usize) -> bool {
    !fetched.docs.is_empty() && fetched.docs.size() >= max_bytes
}

/// One of `results`.
#[derive(Deserialize)]
struct BulkResult<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    docs: Vec<Item<'a>>,
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
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
}

/// Sorts documents by how they go on.
struct Sorter<'a> {
    unmentioned: &'a mut HashMap<DocId, Vec<Rev>>,
    given: &'a mut HashSet<(DocId, Rev)>,
    ready: &'a mut Fetched,
}

impl Sorter<'_> {
    fn take(&mut self, request: &str, id: &DocId, items: Vec<Item<'_>>) -> Result<(), PeerError> {
        // All leaves were asked for, and these are all that there are.
        if self.unmentioned.get(id).is_some_and(Vec::is_empty) {
            self.unmentioned.remove(id);
        }
        for item in &items {
            match (&item.ok, &item.missing) {
                (Some(doc), _) => self.take_doc(request, doc.get().as_bytes())?,
                (None, Some(rev)) => self.unavailable(id, Rev::parse(rev), "missing".into()),
                (None, None) => {
                    let (rev, reason) =
                        item.refusal().ok_or_else(|| malformed(request, EXPECTED, format!("nothing of {id}")))?;
                    self.unavailable(id, rev, reason);
                }
            }
        }
        Ok(())
    }

    fn take_doc(&mut self, request: &str, text: &[u8]) -> Result<(), PeerError> {
        let looked = look(text).map_err(|error| not_fetched(request, text, &error))?;
        let Some(Looked { id, rev, attached }) = looked else {
            return Err(not_fetched(request, text, &"a document without `_id` and `_rev`"));
        };
        self.mention(&id, &rev, text)?;
        if !self.given.insert((id.clone(), rev.clone())) {
            return Ok(());
        }
        match attached || id.is_design() {
            true => self.ready.attached.push((id, rev)),
            false => self.ready.docs.push(id, rev, text),
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

    /// Notes the revision, or all that are still asked for where the peer names none.
    fn unavailable(&mut self, id: &DocId, rev: Option<Rev>, reason: String) {
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
        self.ready.unavailable.extend(gone.into_iter().map(|rev| (id.clone(), rev, reason.clone())));
    }
}

impl Item<'_> {
    /// The revision, where it is named, and the reason why it didn't come.
    fn refusal(&self) -> Option<(Option<Rev>, String)> {
        let error = self.error.as_ref()?;
        let text = |key: &str| error.get(key).and_then(serde_json::Value::as_str);
        let word = error.as_str().or_else(|| text("error")).unwrap_or("error");
        let reason = self.reason.as_deref().or_else(|| text("reason")).unwrap_or_default();
        Some((text("rev").and_then(Rev::parse), format!("{word}: {reason}")))
    }
}

/// What replication looks at in a document.
pub(super) struct Looked {
    pub id: DocId,
    pub rev: Rev,
    pub attached: bool,
}

/// `None` where `_id` or `_rev` isn't there.
pub(super) fn look(text: &[u8]) -> Result<Option<Looked>, DocumentError> {
    let (mut id, mut rev, mut attached) = (None, None, false);
    for member in json::members(text)? {
        match &*member.key {
            "_id" => id = json::string(member.value),
            "_rev" => rev = json::string(member.value).and_then(|rev| Rev::parse(&rev)),
            "_attachments" => attached = json::members(member.value)?.next().is_some(),
            _ => {}
        }
    }
    Ok(id.zip(rev).map(|(id, rev)| Looked { id: DocId::from(id), rev, attached }))
}

/// An answer that ended must have mentioned everything.
fn check_mentioned(request: &str, unmentioned: &HashMap<DocId, Vec<Rev>>) -> Result<(), PeerError> {
    match unmentioned.keys().next() {
        Some(id) => Err(malformed(request, "every revision asked for, or why not", format!("not all of {id}"))),
        None => Ok(()),
    }
}

/// What the protocol says where PouchDB says 404.
fn no_document(revs: &[Rev]) -> Bytes {
    let missing: Vec<_> = revs.iter().map(|rev| serde_json::json!({ "missing": rev.to_string() })).collect();
    serde_json::Value::from(missing).to_string().into()
}

/// A document's `_revisions`.
fn revisions(text: &[u8]) -> Result<Option<Revisions>, DocumentError> {
    let mut members = json::members(text)?.filter(|member| member.key == "_revisions");
    members.next().map(|member| Revisions::parse(member.value)).transpose()
}

pub(super) fn not_fetched(request: &str, text: &[u8], error: &dyn std::fmt::Display) -> PeerError {
    malformed(request, EXPECTED, format!("`{}` ({error})", super::answer::shorten(text, 100)))
}

fn request(wanted: &[Wanted]) -> Vec<u8> {
    let mut body = br#"{"revs":true,"latest":true,"docs":["#.to_vec();
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
        body.extend_from_slice(b",\"atts_since\":[]}");
    };
    for Wanted { id, revs, .. } in wanted {
        match revs.as_slice() {
            [] => push(id, None),
            revs => revs.iter().for_each(|rev| push(id, Some(rev))),
        }
    }
    body.extend_from_slice(br#"],"attachments":false}"#);
    body
}

/// `{id}?revs=true&open_revs=[…]&latest=true`, with `atts_since` where there are any; without `revs`, all leaves.
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
