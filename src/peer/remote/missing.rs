//! Asks which revisions the peer lacks.
//!
//! `POST {db}/_revs_diff`; an id absent from the answer lacks nothing. So that no page, no `{}` of whatever stands between
//! reads as "nothing is missing", each question has a revision in it that nobody has. CouchDB before 1.1 has only `_missing_revs`, which
//! knows no `possible_ancestors`; a peer that was found to be so old isn't asked for more again.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::answer::malformed;
use super::call::Call;
use super::*;
use crate::document::RevHash;
use crate::json;

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
        let mut missing = match self.ask_revs_diff(&body, &probe).await? {
            Some(missing) => missing,
            None => self.ask_missing_revs(body, &probe).await?,
        };
        let wanted = asked.into_iter().filter_map(|(id, _)| {
            let mut diff = missing.remove(id).filter(|diff| !diff.missing.is_empty())?;
            diff.possible_ancestors.truncate(MAX_ANCESTORS);
            Some(Wanted { id: id.clone(), revs: diff.missing, atts_since: diff.possible_ancestors })
        });
        Ok(wanted.collect())
    }

    /// `None` where the peer has no `_revs_diff`.
    async fn ask_revs_diff(&self, body: &Bytes, probe: &Probe) -> Result<Option<HashMap<DocId, Diff>>, PeerError> {
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
            let mut missing: HashMap<DocId, Diff> = self.expected(reply)?.json(EXPECTED)?;
            let found = missing.remove(&probe.id).is_some_and(|diff| diff.missing.contains(&probe.rev));
            found.then_some(Some(missing)).ok_or_else(|| self.unasked(&call))
        })
        .await
    }

    /// An answer that doesn't know of the revision that nobody has: it is none to this question.
    fn unasked(&self, call: &Call) -> PeerError {
        malformed(&self.request_name(call), EXPECTED, "nothing of a revision that can't be there".into())
    }

    async fn ask_missing_revs(&self, body: Bytes, probe: &Probe) -> Result<HashMap<DocId, Diff>, PeerError> {
        #[derive(Deserialize)]
        struct Missing {
            missing_revs: HashMap<DocId, Vec<Rev>>,
        }
        let call = Call::post(Operation::RevsDiff, "_missing_revs", body);
        self.ask(&call, |reply| {
            let Missing { mut missing_revs } = self.expected(reply)?.json(EXPECTED)?;
            let found = missing_revs.remove(&probe.id).is_some_and(|revs| revs.contains(&probe.rev));
            let diff = |(id, missing)| (id, Diff { missing, possible_ancestors: Vec::new() });
            found.then(|| missing_revs.into_iter().map(diff).collect()).ok_or_else(|| self.unasked(&call))
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

#[derive(Deserialize)]
struct Diff {
    missing: Vec<Rev>,
    #[serde(default)]
    possible_ancestors: Vec<Rev>,
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
