//! Compares the attachments of a page's leaves.
//!
//! Both sides are asked for the leaves (`_bulk_get`), of which only `_attachments` is looked at: names, digests and
//! lengths. Of one name on both sides, equal digests prove equal bytes. Different ones prove nothing yet: CouchDB's is
//! that of the bytes as it stores them, gzipped perhaps, PouchDB's that of the bytes as they are. Then both are
//! streamed through a hash, decoded.
//!
//! A leaf that only one side gives isn't looked at: it was reported missing, or has been edited meanwhile.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;

use flate2::write::GzDecoder;
use futures::StreamExt as _;
use md5::{Digest as _, Md5};

use super::asking::repeated;
use super::report::{Difference, Problem, Report};
use crate::document::{AttachmentPiece, DocId, DocParts, DocumentError, Rev, Wanted, each_described};
use crate::effort::budget::{Budget, cost};
use crate::effort::pulse::Pulse;
use crate::peer::{AttachedDoc, Blame, Change, Failure, Opened, Peer, PeerError};

/// Leaves asked for at once, and bytes of their documents held: those with small attachments come with them.
const LEAVES_AT_ONCE: usize = 100;
const PIECE_BYTES: usize = 1 << 20;

type Leaf = (DocId, Rev);
/// Names and digests of a leaf's attachments.
type Attachments = BTreeMap<String, Option<String>>;

/// Compares what both sides tell of the attachments of these leaves, and adds to the report what `other` lacks.
///
/// # Errors
/// [`PeerError::Answered`] if a document may not be read, or is too large for the budget.
pub async fn compare(
    this: &Peer,
    other: &Peer,
    changes: &[Change],
    budget: &Budget,
    report: &mut Report,
) -> Result<(), PeerError> {
    for changes in changes.chunks(LEAVES_AT_ONCE) {
        let ours = repeated(|| told(this, changes, budget)).await?;
        let with_attachments: Vec<_> =
            changes.iter().filter(|change| ours.keys().any(|(id, _)| *id == change.id)).cloned().collect();
        if with_attachments.is_empty() {
            continue;
        }
        let mut theirs = repeated(|| told(other, &with_attachments, budget)).await?;
        for (leaf, attachments) in ours {
            let theirs = theirs.remove(&leaf).unwrap_or_default();
            compare_leaf(this, other, leaf, attachments, &theirs, budget, report).await?;
        }
    }
    Ok(())
}

async fn compare_leaf(
    this: &Peer,
    other: &Peer,
    leaf: Leaf,
    ours: Attachments,
    theirs: &Attachments,
    budget: &Budget,
    report: &mut Report,
) -> Result<(), PeerError> {
    let known_missing =
        |lacking: &Difference| lacking.attachment.is_none() && lacking.id == leaf.0 && lacking.rev == leaf.1;
    if report.named.iter().any(known_missing) {
        return Ok(());
    }
    let mut hashed = None;
    for (name, our) in ours {
        report.attachments += 1;
        let problem = match theirs.get(&name) {
            None => Some(Problem::Missing),
            Some(their) if our.is_some() && our == *their => None,
            Some(_) => {
                let (ours, theirs) = match &hashed {
                    Some(hashed) => hashed,
                    None => hashed.insert((hash(this, &leaf, budget).await?, hash(other, &leaf, budget).await?)),
                };
                (ours.get(&name) != theirs.get(&name)).then_some(Problem::Different)
            }
        };
        if let Some(problem) = problem {
            let (id, rev) = leaf.clone();
            report.lacks(Difference { id, rev, attachment: Some(name), problem });
        }
    }
    Ok(())
}

/// What a database tells of the attachments of these leaves; those without any are absent.
async fn told(peer: &Peer, changes: &[Change], budget: &Budget) -> Result<HashMap<Leaf, Attachments>, PeerError> {
    let wanted = |change: &Change| Wanted { id: change.id.clone(), revs: change.revs.clone(), atts_since: Vec::new() };
    let mut share = budget.share(cost(PIECE_BYTES), &Pulse::default()).await;
    let mut answer = peer.bulk_get(changes.iter().map(wanted).collect()).await?;
    let (mut told, mut attached) = (HashMap::new(), Vec::new());
    while let Some(fetched) = answer.next(PIECE_BYTES, &mut share).await? {
        for doc in fetched.docs.docs() {
            if let Some(attachments) = read(fetched.docs.text(doc))? {
                told.insert((doc.id.clone(), doc.rev.clone()), attachments);
            }
        }
        attached.extend(fetched.attached.into_iter().chain(fetched.small));
        let doubtful = fetched.doubtful.into_iter().filter(|doubt| doubt.blame != Blame::Missing);
        let doubtful = doubtful.map(|doubt| (doubt.failure, doubt.blame));
        let refused = fetched.refused.into_iter().map(|failure| (failure, Blame::Document));
        if let Some((Failure { id, why, .. }, blame)) = refused.chain(doubtful).next() {
            let request = format!("_bulk_get of {}{id}", peer.name());
            return Err(PeerError::Answered { request, status: None, why, blame });
        }
    }
    drop(share);
    for (id, rev) in attached {
        // The revision itself as `atts_since`: the database needn't send what hasn't changed since.
        if let Opened::Doc(doc) =
            peer.open_rev(&id, &rev, std::slice::from_ref(&rev), budget.nothing(&Pulse::default())).await?
            && let Some(attachments) = read(&doc.json)?
        {
            told.insert((doc.id, doc.rev), attachments);
        }
    }
    Ok(told)
}

fn read(json: &[u8]) -> Result<Option<Attachments>, DocumentError> {
    let Some(attachments) = DocParts::parse(json)?.attachments else { return Ok(None) };
    let mut found = Attachments::new();
    each_described(attachments, |name, described, _| {
        found.insert(name.to_owned(), described.digest.map(Cow::into_owned));
        Ok(())
    })?;
    Ok(Some(found))
}

/// The hashes of a leaf's attachments, decoded, by name; none where the leaf is gone.
async fn hash(peer: &Peer, (id, rev): &Leaf, budget: &Budget) -> Result<HashMap<String, String>, PeerError> {
    repeated(async || match peer.open_rev(id, rev, &[], budget.nothing(&Pulse::default())).await? {
        Opened::Doc(doc) => hash_parts(doc, peer.name()).await,
        Opened::Missing => Ok(HashMap::new()),
        Opened::Forbidden(why) => Err(PeerError::Answered {
            request: format!("a question for {}{id}", peer.name()),
            status: None,
            why,
            blame: Blame::Document,
        }),
    })
    .await
}

async fn hash_parts(mut doc: AttachedDoc, database: &str) -> Result<HashMap<String, String>, PeerError> {
    let mut hashes = HashMap::new();
    let mut current: Option<(String, Hash)> = None;
    loop {
        let piece = doc.parts.next().await.transpose()?;
        let fed = match piece {
            Some(AttachmentPiece::Data(data)) => current.as_mut().map_or(Ok(()), |(_, hash)| hash.update(&data)),
            Some(AttachmentPiece::Head(head)) => {
                let hash = if head.gzip {
                    Hash::Gzip(Box::new(GzDecoder::new(Writer::default())))
                } else {
                    Hash::Plain(Md5::new())
                };
                finish(current.replace((head.name, hash)), &mut hashes)
            }
            None => {
                return finish(current, &mut hashes).map(|()| hashes).map_err(|error| damaged(&doc, database, &error));
            }
        };
        fed.map_err(|error| damaged(&doc, database, &error))?;
    }
}

fn finish(ended: Option<(String, Hash)>, hashes: &mut HashMap<String, String>) -> std::io::Result<()> {
    if let Some((name, hash)) = ended {
        hashes.insert(name, hex::encode(hash.finish()?));
    }
    Ok(())
}

fn damaged(doc: &AttachedDoc, database: &str, error: &std::io::Error) -> PeerError {
    PeerError::Malformed {
        request: format!("GET {database} {}", doc.id),
        expected: "gzipped attachments that can be unzipped",
        found: error.to_string(),
    }
}

/// Hashes bytes as they come, unzipped where they come zipped.
enum Hash {
    Plain(Md5),
    Gzip(Box<GzDecoder<Writer>>),
}

impl Hash {
    fn update(&mut self, data: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(hash) => hash.update(data),
            Self::Gzip(decoder) => decoder.write_all(data)?,
        }
        Ok(())
    }

    fn finish(self) -> std::io::Result<[u8; 16]> {
        Ok(match self {
            Self::Plain(hash) => hash.finalize().into(),
            Self::Gzip(decoder) => decoder.finish()?.0.finalize().into(),
        })
    }
}

/// A hash as something to write to.
#[derive(Default)]
struct Writer(Md5);

impl std::io::Write for Writer {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
