//! Asks which revisions the peer lacks.
//!
//! `POST {db}/_revs_diff`; an id absent from the answer lacks nothing. So that no page, no `{}` of whatever stands between
//! reads as "nothing is missing", each question has a revision in it that nobody has. CouchDB before 1.1 has only `_missing_revs`, which
//! knows no `possible_ancestors`; a peer that was found to be so old isn't asked for more again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use super::answer::malformed;
use super::call::Call;
use super::shown::beginning;
use super::*;
use crate::document::RevHash;
use crate::json::{self, Cursor};

impl RemotePeer {
    /// Which of these revisions the database lacks, in the order of `changes`. Where the answer is too long, because the
    /// database has very many ancestors to tell of, it is asked in halves.
    pub async fn revs_diff(&self, changes: &[Change]) -> Result<Vec<Wanted>, PeerError> {
        let (mut wanted, mut left) = (Vec::new(), vec![changes]);
        while let Some(changes) = left.pop() {
            match self.ask_missing(changes).await {
                Err(PeerError::TooLong { .. }) if changes.len() > 1 => {
                    let (first, second) = changes.split_at(changes.len() / 2);
                    left.extend([second, first]);
                }
                asked => wanted.extend(asked?),
            }
        }
        Ok(wanted)
    }

    async fn ask_missing(&self, changes: &[Change]) -> Result<Vec<Wanted>, PeerError> {
        let asked = merged(changes);
        let probe = Probe::new();
        let body = Bytes::from(request(&asked, &probe));
        let mut missing = match self.ask_revs_diff(&body, &asked, &probe).await? {
            Some(missing) => missing,
            None => self.ask_missing_revs(body, &asked, &probe).await?,
        };
        Ok(asked.iter().filter_map(|(id, _)| missing.remove(id)).collect())
    }

    /// `None` if the peer has no `_revs_diff`.
    async fn ask_revs_diff<'a>(
        &self,
        body: &Bytes,
        asked: &[(&'a DocId, Vec<&'a Rev>)],
        probe: &Probe,
    ) -> Result<Option<Missing<'a>>, PeerError> {
        if self.inner.lacks_revs_diff.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let call = Call::post(Operation::RevsDiff, "_revs_diff", body.clone());
        self.ask(&call, |reply| {
            // A wrong id in the question is answered 400.
            if reply.status != 400 && reply.meaning().is_unknown_request() {
                self.inner.lacks_revs_diff.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            let reply = self.expected(reply)?;
            let told: &RawValue = reply.json(EXPECTED)?;
            let found = each_told(&reply, told, asked, probe, |value| {
                let Diff { missing, possible_ancestors } = serde_json::from_slice(value)?;
                Ok((missing, possible_ancestors))
            })?;
            found.map(Some).ok_or_else(|| self.unasked(&call))
        })
        .await
    }

    /// An answer that doesn't know of the revision that nobody has: it is none to this question.
    fn unasked(&self, call: &Call) -> PeerError {
        malformed(&self.request_name(call), EXPECTED, "nothing of a revision that can't be there".into())
    }

    async fn ask_missing_revs<'a>(
        &self,
        body: Bytes,
        asked: &[(&'a DocId, Vec<&'a Rev>)],
        probe: &Probe,
    ) -> Result<Missing<'a>, PeerError> {
        #[derive(Deserialize)]
        struct MissingRevs<'a> {
            #[serde(borrow)]
            missing_revs: &'a RawValue,
        }
        let call = Call::post(Operation::RevsDiff, "_missing_revs", body);
        self.ask(&call, |reply| {
            let reply = self.expected(reply)?;
            let MissingRevs { missing_revs } = reply.json(EXPECTED)?;
            let found =
                each_told(&reply, missing_revs, asked, probe, |value| Ok((serde_json::from_slice(value)?, None)))?;
            found.ok_or_else(|| self.unasked(&call))
        })
        .await
    }
}

const EXPECTED: &str = "missing revisions by document";

/// A revision that nobody has, asked for with the others: an answer that doesn't call it missing, an empty object for one,
/// wasn't made by a database that was asked.
struct Probe {
    id: DocId,
    rev: Rev,
}

impl Probe {
    fn new() -> Self {
        let hash = rand::random::<[u8; 16]>();
        let id = DocId::from(format!("couchrep-asks-{}", hex::encode(hash)));
        Self { id, rev: Rev { pos: 1, hash: RevHash::Md5(hash) } }
    }
}

/// Ancestors that are kept: no more are told to the source.
const MAX_ANCESTORS: usize = 50;

/// What is lacking of the documents asked about.
type Missing<'a> = HashMap<&'a DocId, Wanted>;

#[derive(Deserialize)]
struct Diff<'a> {
    #[serde(borrow)]
    missing: &'a RawValue,
    #[serde(borrow)]
    possible_ancestors: Option<&'a RawValue>,
}

/// Reads an object of documents. Of each that was asked about it keeps the revisions that were, and some ancestors; of others
/// nothing, however long the answer is. `None` if the probe isn't among them.
fn each_told<'a>(
    reply: &Reply,
    told: &RawValue,
    asked: &[(&'a DocId, Vec<&'a Rev>)],
    probe: &Probe,
    diff: impl for<'t> Fn(&'t [u8]) -> Result<(&'t RawValue, Option<&'t RawValue>), serde_json::Error>,
) -> Result<Option<Missing<'a>>, PeerError> {
    let shown = || format!("`{}`", beginning(told.get().as_bytes()));
    let wrong = || malformed(reply.request(), EXPECTED, shown());
    if !told.get().starts_with('{') {
        return Err(wrong());
    }
    let by_id: HashMap<&str, &(&'a DocId, Vec<&'a Rev>)> = asked.iter().map(|one| (one.0.as_str(), one)).collect();
    let (mut cursor, mut missing, mut probed) = (Cursor::default(), Missing::new(), false);
    while let Some(member) = cursor.member(told.get().as_bytes()) {
        let is_probe = member.key == probe.id.as_str();
        let asked = by_id.get(&*member.key);
        if !is_probe && asked.is_none() {
            continue;
        }
        let (lacking, ancestors) = diff(member.value).map_err(|_| wrong())?;
        if is_probe {
            probed = revs(lacking).ok_or_else(wrong)?.any(|rev| rev.as_ref() == Some(&probe.rev));
        }
        let Some((id, asked)) = asked else { continue };
        let asked: HashSet<&Rev> = asked.iter().copied().collect();
        // In the order in which they are told, each once.
        let (mut seen, mut kept) = (HashSet::new(), Vec::new());
        for rev in revs(lacking).ok_or_else(wrong)? {
            let rev = rev.ok_or_else(wrong)?;
            if let Some(rev) = asked.get(&rev)
                && seen.insert(*rev)
            {
                kept.push((*rev).clone());
            }
        }
        let mut atts_since = Vec::new();
        if let Some(ancestors) = ancestors {
            for rev in revs(ancestors).ok_or_else(wrong)?.take(MAX_ANCESTORS) {
                atts_since.push(rev.ok_or_else(wrong)?);
            }
        }
        if !kept.is_empty() {
            missing.insert(*id, Wanted { id: (*id).clone(), revs: kept, atts_since });
        }
    }
    Ok(probed.then_some(missing))
}

/// The revisions in an array, one at a time; `None` if it is none, and for what is no revision.
fn revs(array: &RawValue) -> Option<impl Iterator<Item = Option<Rev>>> {
    let (text, mut cursor) = (array.get().as_bytes(), Cursor::default());
    let read = |element: &[u8]| json::string(element).and_then(|rev| Rev::parse(&rev));
    text.starts_with(b"[").then(|| std::iter::from_fn(move || cursor.element(text).map(read)))
}

/// Each document once, with all of its revisions: a JSON object can't name it twice.
fn merged(changes: &[Change]) -> Vec<(&DocId, Vec<&Rev>)> {
    let mut places = HashMap::new();
    let mut asked: Vec<(&DocId, Vec<&Rev>)> = Vec::with_capacity(changes.len());
    for change in changes {
        let place = *places.entry(&change.id).or_insert_with(|| {
            asked.push((&change.id, Vec::new()));
            asked.len() - 1
        });
        asked[place].1.extend(&change.revs);
    }
    asked
}

fn request(asked: &[(&DocId, Vec<&Rev>)], probe: &Probe) -> Vec<u8> {
    let mut body = b"{".to_vec();
    let probed = vec![&probe.rev];
    for (id, revs) in asked.iter().map(|(id, revs)| (*id, revs)).chain([(&probe.id, &probed)]) {
        if body.len() > 1 {
            body.push(b',');
        }
        json::push_string(&mut body, id.as_str());
        body.push(b':');
        push_revs(&mut body, revs.iter().copied());
    }
    body.push(b'}');
    body
}

/// Appends revisions as a JSON array of strings.
pub(super) fn push_revs<'a>(out: &mut Vec<u8>, revs: impl IntoIterator<Item = &'a Rev>) {
    out.push(b'[');
    for (index, rev) in revs.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::push_string(out, &rev.to_string());
    }
    out.push(b']');
}
