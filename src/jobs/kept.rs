//! Jobs that somebody asked for at `_replicate` and that are to survive a restart: they become documents of `_replicator`.
//!
//! The document's id is the replication's, and its owner who asked for it, who must be allowed to write there. Cancelled, it is deleted. The
//! job of a document that a person wrote isn't cancelled but paused, which the document remembers.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::documents::states;
use super::replication::{JobDocument, Replication};
use crate::access::Caller;
use crate::document::{DocId, DocParts, Revisions};
use crate::peer::PeerError;
use crate::replicate::ReplicateError;
use crate::replicate::id::ReplicationId;
use crate::store::{Database, DbName, Durability, Edit, EditKind, Refusal, Store, StoreError};

/// Members of a request that say how it is asked for.
const NOT_KEPT: [&str; 6] = ["keep", "cancel", "id", "_local_id", "replication_id", "_id"];

/// Makes a document of a request; that it is there already is a success.
pub async fn keep(
    store: &Store,
    mut body: Map<String, Value>,
    id: &ReplicationId,
    caller: &Caller,
) -> Result<(), ReplicateError> {
    let database = store.database(&DbName::replicator()).await.map_err(PeerError::from)?;
    database.security().may_open(caller)?;
    body.retain(|name, _| !NOT_KEPT.contains(&name.as_str()) && !name.starts_with('_'));
    let edit = edit(id.to_string().into(), &body)?;
    match write(&database, edit, caller).await? {
        Ok(()) => Ok(()),
        // It is kept already, by him.
        Err(Refusal::Conflict) if is_own(&database, id, caller).await? => Ok(()),
        Err(Refusal::Conflict) => Err(ReplicateError::Unauthorized("it is kept in a document of somebody else".into())),
        Err(refusal) => Err(ReplicateError::Unauthorized(refusal.to_string())),
    }
}

async fn is_own(database: &Arc<Database>, id: &ReplicationId, caller: &Caller) -> Result<bool, ReplicateError> {
    let id = id.to_string();
    let document = database.read(move |snapshot| states::read(snapshot, &id)).await.map_err(PeerError::from)?;
    let owner = document.as_ref().and_then(|document| document.get("owner")).and_then(Value::as_str);
    Ok(caller.may_manage(owner))
}

/// Ends the job of a document for somebody who may: a kept one's document is deleted, another one's remembers that it is paused. Answers
/// whether it was there.
pub async fn end(store: &Store, job: &Replication, place: &JobDocument) -> Result<bool, ReplicateError> {
    let database = store.database(&place.database).await.map_err(PeerError::from)?;
    if place.id.as_str() != job.id.to_string() {
        let paused = states::set_member(&database, &place.id, ("paused", Some(Value::Bool(true))));
        return Ok(paused.await.map_err(PeerError::from)?);
    }
    loop {
        let id = place.id.clone();
        let winner = database.read(move |snapshot| {
            let record = snapshot.document(id.as_str())?;
            Ok(record.and_then(|record| record.tree.winner()).filter(|winner| !winner.deleted))
        });
        let Some(winner) = winner.await.map_err(PeerError::from)? else { return Ok(false) };
        let edit = Edit {
            id: place.id.clone(),
            kind: EditKind::New { parent: Some(Revisions::single(winner.rev)) },
            deleted: true,
            body: b"{}".to_vec(),
            attachments: Vec::new(),
        };
        match write(&database, edit, &Caller::replicator()).await? {
            Err(Refusal::Conflict) => {}
            Ok(()) => return Ok(true),
            Err(refusal) => return Err(ReplicateError::Unauthorized(refusal.to_string())),
        }
    }
}

async fn write(database: &Arc<Database>, edit: Edit, author: &Caller) -> Result<Result<(), Refusal>, ReplicateError> {
    let written = database.write(vec![edit], author, Durability::Synced).await.map_err(PeerError::from)?;
    Ok(written.into_iter().next().map_or(Ok(()), |written| written.map(drop)))
}

fn edit(id: DocId, body: &Map<String, Value>) -> Result<Edit, ReplicateError> {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let parts = DocParts::parse(&text).map_err(|error| ReplicateError::BadRequest(error.to_string()))?;
    let unreadable = |_| PeerError::from(StoreError::Damaged("a request that is to be kept"));
    Ok(Edit::new(&parts, id, false, Vec::new()).map_err(unreadable)?)
}
