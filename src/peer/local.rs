//! A database of the embedded store, as a peer: the same operations without HTTP, JSON requests or copies in between.
//!
//! Documents still travel as JSON text ([`DocBatch`]), so that any source goes with any target. Everything that reads
//! or writes blocks, and so runs on threads that may; a call that is dropped while it writes still writes.
//!
//! A handle, not an open database: each operation opens it anew (a look into a map while it is open), so a deleted
//! database is [`PeerError::DatabaseMissing`] from then on.

mod bulk_get;
mod changes_answer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use serde_json::value::RawValue;

use super::{
    AttachedDoc, Change, ChangesPage, ChangesQuery, DatabaseInfo, Extent, Failure, Filter, LocalDoc, Opened, PeerError,
    Pending, Put, Why, Written,
};
use crate::access::Caller;
use crate::document::{
    Announced, AttachmentHead, AttachmentPiece, DocBatch, DocId, DocParts, DocumentError, Rev, Seq, Wanted,
};
use crate::effort::budget::{STREAMED_JSON_BYTES, Share, cost};
use crate::effort::pulse::Pulse;
use crate::store::{
    self, AttachmentsAs, Database, DbName, DocOptions, DocRecord, Durability, Edit, FilterRequest, FilterRun, Leaf,
    LocalRange, OpenAttachment, ReadyFilter, Refusal, Snapshot, Store, StoreError, Upload, Uploaded,
};
use crate::tasks;

pub use self::bulk_get::LocalBulkGet;
pub use self::changes_answer::LocalChanges;

/// After so long a page that a filter's function has begun is given.
const PAGE_TIME: Duration = Duration::from_secs(2);

/// Bytes of a row of the feed over HTTP, and of each revision in it.
const ROW_BYTES: usize = 40;
const REV_BYTES: usize = 45;

/// A database of the embedded store.
#[derive(Clone)]
pub struct LocalPeer {
    store: Store,
    name: DbName,
    /// Who the source's filter functions are told asks.
    caller: Arc<Caller>,
    /// Of the job that it was opened for.
    pulse: Pulse,
}

impl std::fmt::Debug for LocalPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalPeer({})", self.name)
    }
}

impl LocalPeer {
    /// A database by its name; whether it is there, its operations tell.
    pub fn new(store: Store, name: DbName, caller: Arc<Caller>, pulse: Pulse) -> Self {
        Self { store, name, caller, pulse }
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    async fn database(&self) -> Result<Arc<Database>, PeerError> {
        self.store.database(&self.name).await.map_err(|error| self.explain(error))
    }

    /// What a store's error means to a replication.
    fn explain(&self, error: StoreError) -> PeerError {
        match error {
            StoreError::NoDatabase => PeerError::DatabaseMissing { database: self.name.to_string() },
            error => error.into(),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PeerError> {
        self.database().await?.read(work).await.map_err(|error| self.explain(error))
    }

    /// See [`super::Peer::info`].
    pub async fn info(&self) -> Result<DatabaseInfo, PeerError> {
        let stats = self.database().await?.stats().await?;
        Ok(DatabaseInfo {
            instance_start_time: stats.instance_start_time,
            update_seq: stats.update_seq.into(),
            documents: Some(stats.doc_count + stats.doc_del_count),
        })
    }

    /// See [`super::Peer::create`].
    pub async fn create(&self) -> Result<(), PeerError> {
        match self.store.create(&self.name).await {
            Ok(_) | Err(StoreError::AlreadyExists) => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// See [`super::Peer::design_doc`].
    pub async fn design_doc(&self, name: &str) -> Result<Option<Bytes>, PeerError> {
        let id = format!("_design/{name}");
        self.read(move |snapshot| {
            let Some(record) = snapshot.document(&id)? else { return Ok(None) };
            let Some(winner) = record.tree.winner().filter(|winner| !winner.deleted) else { return Ok(None) };
            let mut json = Vec::new();
            snapshot.render(&id, &record, &winner, &DocOptions::default(), &mut json)?;
            Ok(Some(json.into()))
        })
        .await
    }

    /// See [`super::Peer::local_doc`].
    pub async fn local_doc(&self, id: &str) -> Result<Option<LocalDoc>, PeerError> {
        let Some((rev, body)) = self.database().await?.local_doc(id).await? else { return Ok(None) };
        let body = serde_json::from_slice(&body).map_err(|_| StoreError::Damaged("a _local document"))?;
        Ok(Some(LocalDoc { rev, body }))
    }

    /// See [`super::Peer::put_local_doc`].
    pub async fn put_local_doc(&self, id: &str, rev: Option<&str>, body: &RawValue) -> Result<String, PeerError> {
        let written = self.database().await?.put_local_doc(id, rev, Some(body.get().into())).await?;
        written.map_err(|_| PeerError::Conflict)
    }

    /// See [`super::Peer::remove_local_doc`].
    pub async fn remove_local_doc(&self, id: &str, rev: &str) -> Result<(), PeerError> {
        let removed = self.database().await?.put_local_doc(id, Some(rev), None).await?;
        removed.map(drop).map_err(|_| PeerError::Conflict)
    }

    /// See [`super::Peer::local_ids`].
    pub async fn local_ids(&self, prefix: &str) -> Result<Vec<String>, PeerError> {
        let database = self.database().await?;
        let mut range = LocalRange { start: Some(prefix.to_owned()), ..LocalRange::default() };
        let mut ids = Vec::new();
        loop {
            let rows = database.local_docs(range).await?;
            let before = ids.len();
            ids.extend(rows.into_iter().map(|row| row.id).take_while(|id| id.starts_with(prefix)));
            if ids.len() == before {
                return Ok(ids);
            }
            range = LocalRange { after: ids.last().cloned(), ..LocalRange::default() };
        }
    }

    /// See [`super::Peer::changes`].
    pub async fn changes(&self, query: &ChangesQuery) -> Result<ChangesPage, PeerError> {
        let database = self.database().await?;
        let filter = self.ready(&database, query).await?;
        let (since, size) = (parse_seq(&query.since), (query.limit, query.max_bytes));
        self.read_page(&database, None, since, size, &filter).await.map_err(|error| self.explain(error))
    }

    /// See [`super::Peer::changed`].
    pub async fn changed(&self, since: &Seq) -> Result<(), PeerError> {
        let mut database = self.database().await?;
        let mut updates = database.updates();
        loop {
            updates.mark_unchanged();
            if database.update_seq() > parse_seq(since) {
                return Ok(());
            }
            // It needn't stay open while nothing happens.
            drop(database);
            let idle = self.pulse.idle();
            if updates.changed().await.is_err() {
                return Err(PeerError::DatabaseMissing { database: self.name.to_string() });
            }
            drop(idle);
            database = self.store.reopen(&self.name, &updates).await.map_err(|error| self.explain(error))?;
        }
    }

    /// Reads a page of a snapshot, else of the newest ones.
    async fn read_page(
        &self,
        database: &Database,
        snapshot: Option<&Arc<Snapshot>>,
        since: u64,
        (limit, max_bytes): (usize, usize),
        filter: &ReadyFilter,
    ) -> Result<ChangesPage, StoreError> {
        let (last_seq, pending, extent) = (since.into(), Pending::Unknown, Extent::Limited);
        let mut page = ChangesPage { changes: Vec::new(), limit, last_seq, pending, extent };
        let mut bytes = 0;
        let mut since = since;
        let started = Instant::now();
        // A filter's function looks at some of the feed at a time; what it found in a long time is a page, but an empty page
        // would say that there is no more.
        loop {
            let room = (limit.saturating_sub(page.changes.len()), max_bytes.saturating_sub(bytes));
            let filtering =
                move |snapshot: &Snapshot, filter_run: &mut FilterRun| filtered(snapshot, filter_run, since, room);
            let filtered = database.run_filter(filter, snapshot.cloned(), filtering).await?;
            self.pulse.beat();
            bytes += filtered.bytes;
            page.changes.extend(filtered.changes);
            (since, page.last_seq) = (filtered.last_seq, filtered.last_seq.into());
            page.pending = Pending::Rows(filtered.pending);
            let long = !page.changes.is_empty() && started.elapsed() >= PAGE_TIME;
            if filtered.pending == 0 || page.changes.len() >= limit || bytes >= max_bytes || long {
                return Ok(page);
            }
        }
    }

    /// Finds the filter's function as it is now: each page is asked for with it, as over HTTP.
    async fn ready(&self, database: &Database, query: &ChangesQuery) -> Result<ReadyFilter, PeerError> {
        let all_leaves = !query.winners_only;
        let (filter, query) = match &query.filter {
            Filter::None => (store::Filter::All, &[][..]),
            Filter::DocIds(ids) => {
                (store::Filter::DocIds(ids.iter().map(|id| id.as_str().to_owned()).collect()), &[][..])
            }
            Filter::Selector(selector) => (store::Filter::Selector(selector.clone()), &[][..]),
            Filter::Named { name, query } => {
                let view = query.iter().find(|(key, _)| key == "view").map(|(_, value)| value.as_str());
                (store::Filter::named(name, view).map_err(StoreError::from)?, &query[..])
            }
        };
        let filter_request = FilterRequest::replication(self.name.as_str(), query, &self.caller);
        database.ready(Arc::new(filter), all_leaves, &filter_request).await.map_err(|error| self.explain(error))
    }

    /// See [`super::Peer::revs_diff`].
    pub async fn revs_diff(&self, changes: &[Change]) -> Result<Vec<Wanted>, PeerError> {
        let changes = changes.to_vec();
        self.read(move |snapshot| {
            let mut wanted = Vec::new();
            for change in changes {
                let Some(record) = snapshot.document(change.id.as_str())? else {
                    wanted.push(Wanted { id: change.id, revs: change.revs, atts_since: Vec::new() });
                    continue;
                };
                let revs = record.tree.missing(&change.revs);
                if !revs.is_empty() {
                    let atts_since = record.tree.possible_ancestors(&revs);
                    wanted.push(Wanted { id: change.id, revs, atts_since });
                }
            }
            Ok(wanted)
        })
        .await
    }

    /// See [`super::Peer::bulk_get`].
    pub fn bulk_get(&self, wanted: Vec<Wanted>) -> LocalBulkGet {
        LocalBulkGet::new(self.clone(), wanted, false)
    }

    /// See [`super::Peer::bulk_get_inline`].
    pub fn bulk_get_inline(&self, wanted: Vec<Wanted>) -> LocalBulkGet {
        LocalBulkGet::new(self.clone(), wanted, true)
    }

    /// See [`super::Peer::open_rev`].
    pub async fn open_rev(
        &self,
        id: &DocId,
        rev: &Rev,
        atts_since: &[Rev],
        mut share: Share,
    ) -> Result<Opened, PeerError> {
        let database = self.database().await?;
        let (asked_id, asked) = (id.clone(), rev.clone());
        let size = database.read(move |snapshot| {
            let Some(record) = snapshot.document(asked_id.as_str())? else { return Ok(0) };
            newest(&record, &asked).map_or(Ok(0), |leaf| Ok(snapshot.stored(&leaf)?.size()))
        });
        let size = size.await?;
        if size > share.max_document() {
            return Err(PeerError::TooLong { request: format!("{}/{id}", self.name), limit: share.max_document() });
        }
        if size > STREAMED_JSON_BYTES {
            share.hold(cost(size), 0).await;
        }
        let (id, rev, atts_since) = (id.clone(), rev.clone(), atts_since.to_vec());
        let opened = database.read(move |snapshot| {
            let Some(record) = snapshot.document(id.as_str())? else { return Ok(None) };
            let Some(leaf) = newest(&record, &rev) else { return Ok(None) };
            let attachments = snapshot.attachments_since(&record, &leaf, &atts_since)?;
            let options = DocOptions {
                revs: true,
                attachments: AttachmentsAs::Follows,
                atts_since: Some(atts_since),
                ..DocOptions::default()
            };
            let mut json = Vec::new();
            snapshot.render(id.as_str(), &record, &leaf, &options, &mut json)?;
            let held = attachments.into_iter().map(|attachment| snapshot.hold(attachment));
            Ok(Some((id, leaf.rev, json, held.collect::<Result<Vec<_>, _>>()?)))
        });
        let Some((id, rev, json, attachments)) = opened.await? else { return Ok(Opened::Missing) };
        let pulse = self.pulse.clone();
        let parts = stream::iter(attachments)
            .flat_map(move |attachment| attachment_pieces(database.clone(), attachment, pulse.clone()));
        Ok(Opened::Doc(AttachedDoc { id, rev, json: share.around(json), parts: parts.boxed() }))
    }

    /// See [`super::Peer::bulk_docs`].
    pub async fn bulk_docs(&self, batch: DocBatch) -> Result<Written, PeerError> {
        let database = self.database().await?;
        let (docs, edits, mut refused) = tasks::blocking("take documents apart", move || {
            let mut refused = Vec::new();
            let mut edits = Vec::with_capacity(batch.docs().len());
            let mut docs = Vec::with_capacity(batch.docs().len());
            for doc in batch.docs() {
                let parts = DocParts::parse(batch.text(doc));
                match parts.and_then(|parts| Edit::new(&parts, doc.id.clone(), true, Vec::new())) {
                    Ok(edit) => {
                        edits.push(edit);
                        docs.push((doc.id.clone(), doc.rev.clone()));
                    }
                    Err(error) => refused.push(failure(doc.id.clone(), doc.rev.clone(), bad_document(&error))),
                }
            }
            (docs, edits, refused)
        })
        .await
        .map_err(StoreError::from)?;
        let written = database.write(edits, Durability::Unsynced).await?;
        refused.extend(docs.into_iter().zip(written).filter_map(|((id, rev), written)| {
            written.err().map(|refusal| failure(id, rev, refused_by_store(&refusal)))
        }));
        Ok(Written { refused, doubtful: Vec::new() })
    }

    /// See [`super::Peer::put_doc`].
    pub async fn put_doc(&self, doc: AttachedDoc) -> Result<Put, PeerError> {
        let AttachedDoc { id, json, parts, .. } = doc;
        let database = self.database().await?;
        let checked = DocParts::parse(&json).and_then(|document| Ok((Announced::all(document.attachments)?, document)));
        let (announced, document) = match checked {
            Ok(checked) => checked,
            Err(error) => return Ok(Put::Refused(bad_document(&error))),
        };
        let uploads = match take_uploads(&database, &announced, parts).await? {
            Ok(uploads) => uploads,
            Err(name) => {
                let reason = format!("the bytes of attachment `{name}` don't have the digest that the document names");
                return Ok(Put::Refused(Why::new("content_md5_mismatch", reason)));
            }
        };
        let edit = match Edit::new(&document, id.clone(), true, uploads) {
            Ok(edit) => edit,
            Err(error) => return Ok(Put::Refused(bad_document(&error))),
        };
        match database.write(vec![edit], Durability::Unsynced).await?.pop() {
            Some(Err(refusal @ Refusal::MissingStub { .. })) => {
                Err(PeerError::MissingStub { database: self.name.to_string(), reason: refusal.to_string() })
            }
            Some(Err(refusal)) => Ok(Put::Refused(refused_by_store(&refusal))),
            Some(Ok(_)) | None => Ok(Put::Written),
        }
    }

    /// See [`super::Peer::ensure_full_commit`].
    pub async fn ensure_full_commit(&self) -> Result<String, PeerError> {
        self.database().await?.ensure_full_commit().await.map_err(|error| self.explain(error))
    }

    /// See [`super::Peer::up_to_date`].
    pub async fn up_to_date(&self, seq: &Seq) -> Result<bool, PeerError> {
        Ok(self.database().await?.update_seq() == parse_seq(seq))
    }
}

/// Seqs of this store are numbers; a seq that isn't one can't be from here, and stands for the beginning.
fn parse_seq(seq: &Seq) -> u64 {
    seq.as_query().parse().unwrap_or(0)
}

/// The leaf that is the revision, or the first of those that it became (`latest=true`).
fn newest(record: &DocRecord, rev: &Rev) -> Option<Leaf> {
    record.tree.leaf(rev).or_else(|| record.tree.latest(rev).into_iter().next())
}

struct Filtered {
    changes: Vec<Change>,
    /// About as many as they would be over HTTP.
    bytes: usize,
    last_seq: u64,
    pending: u64,
}

fn filtered(
    snapshot: &Snapshot,
    filter_run: &mut FilterRun,
    since: u64,
    (limit, max_bytes): (usize, usize),
) -> Result<Filtered, StoreError> {
    let (mut changes, mut bytes) = (Vec::new(), 0);
    let mut last_seq = since.max(snapshot.update_seq());
    snapshot.changes(since, |row| {
        let revs = filter_run.passing(snapshot, &row)?;
        if !revs.is_empty() {
            bytes += ROW_BYTES + row.id.len() + revs.len() * REV_BYTES;
            changes.push(Change { seq: row.seq.into(), id: row.id.into(), revs });
        }
        let ended = changes.len() >= limit || bytes >= max_bytes || filter_run.is_tired();
        if ended {
            last_seq = row.seq;
        }
        Ok(!ended)
    })?;
    Ok(Filtered { changes, bytes, last_seq, pending: snapshot.pending(last_seq)? })
}

/// An attachment's head and bytes, read as they are asked for.
fn attachment_pieces(
    database: Arc<Database>,
    held: OpenAttachment,
    pulse: Pulse,
) -> impl stream::Stream<Item = Result<AttachmentPiece, PeerError>> {
    let head = held.attachment().head();
    let data = stream::try_unfold(0, move |offset| {
        let (database, held, pulse) = (database.clone(), held.clone(), pulse.clone());
        async move {
            let piece = database.attachment_piece(&held, offset).await?;
            pulse.moved(piece.len());
            let end = offset + piece.len() as u64;
            Ok((!piece.is_empty()).then_some((AttachmentPiece::Data(piece), end)))
        }
    });
    stream::once(async { Ok(AttachmentPiece::Head(head)) }).chain(data)
}

/// Stores the attachments that follow a document; `Err` is the name of one whose bytes aren't what was announced.
async fn take_uploads(
    database: &Database,
    announced: &[Announced],
    mut parts: stream::BoxStream<'static, Result<AttachmentPiece, PeerError>>,
) -> Result<Result<Vec<(String, Uploaded)>, String>, PeerError> {
    let mut uploads = Vec::with_capacity(announced.len());
    let mut current: Option<(AttachmentHead, Upload)> = None;
    loop {
        let piece = parts.next().await.transpose()?;
        if let Some(AttachmentPiece::Data(data)) = piece {
            if let Some((_, upload)) = &mut current {
                upload.push(data).await?;
            }
            continue;
        }
        if let Some((head, upload)) = current.take() {
            let (uploaded, digest) = upload.finish().await?;
            let promised = announced.iter().find(|announced| announced.name == head.name);
            if promised.and_then(|announced| announced.digest).is_some_and(|promised| promised != digest) {
                return Ok(Err(head.name));
            }
            uploads.push((head.name, uploaded));
        }
        match piece {
            Some(AttachmentPiece::Head(head)) => {
                let upload = database.upload(&head.content_type, head.gzip);
                current = Some((head, upload));
            }
            Some(AttachmentPiece::Data(_)) | None => return Ok(Ok(uploads)),
        }
    }
}

fn failure(id: DocId, rev: Rev, why: Why) -> Failure {
    Failure { id, rev: Some(rev), why }
}

fn bad_document(error: &DocumentError) -> Why {
    Why::new("doc_validation", error.to_string())
}

fn refused_by_store(refusal: &Refusal) -> Why {
    let error = match refusal {
        Refusal::Conflict => "conflict",
        Refusal::MissingStub { .. } => "missing_stub",
    };
    Why::new(error, refusal.to_string())
}
