//! Jobs that somebody asked for at `_replicate` and that are to survive a restart: they become documents of `_replicator`.
//!
//! The document's id is the replication's, and its owner who asked for it, who must be allowed to write there. Cancelled, it is deleted. The
//! job of a document that a person wrote isn't cancelled but paused, which the document remembers.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::documents::description::{Description, Fingerprint, Stated};
use super::documents::states;
use super::replication::{JobDocument, Replication};
use crate::access::Caller;
use crate::document::{DocId, DocParts, Rev, Revisions};
use crate::peer::PeerError;
use crate::replicate::ReplicateError;
use crate::replicate::id::ReplicationId;
use crate::store::{Database, DbName, Durability, Edit, EditKind, Refusal, Store, StoreError};

/// Members of a request that say how it is asked for.
const NOT_KEPT: [&str; 6] = ["keep", "cancel", "id", "_local_id", "replication_id", "_id"];

/// Makes a document of a request; that it is there already is a success, if it still describes the same and isn't paused or failed.
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
        Err(Refusal::Conflict) => check(&database, body, id, caller).await,
        Err(refusal) => Err(ReplicateError::Unauthorized(refusal.to_string())),
    }
}

/// Whether the document of this name keeps what is asked for, for him. It may have been edited since it was made.
async fn check(
    database: &Arc<Database>,
    mut body: Map<String, Value>,
    id: &ReplicationId,
    caller: &Caller,
) -> Result<(), ReplicateError> {
    let name = id.to_string();
    let document = database.read(move |snapshot| states::read(snapshot, &name)).await.map_err(PeerError::from)?;
    // Deleted meanwhile.
    let document = document.ok_or(PeerError::Conflict)?;
    if !caller.may_manage(document.get("owner").and_then(Value::as_str)) {
        return Err(ReplicateError::Unauthorized("it is kept in a document of somebody else".into()));
    }
    body.extend(document.get("owner").map(|owner| ("owner".to_owned(), owner.clone())));
    let asked = Description::parse(&body)?.fingerprint;
    let kept = Description::parse(&document).ok().filter(|kept| kept.fingerprint == asked);
    let Some(kept) = kept else {
        let why = format!("the document `{id}`, which would keep it, describes something else by now");
        return Err(ReplicateError::KeptOtherwise(why));
    };
    if kept.paused {
        return Err(ReplicateError::Paused);
    }
    match Stated::of(&document) {
        Stated::Live => Ok(()),
        Stated::Completed | Stated::Failed | Stated::Duplicate => {
            let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
            let (state, reason) = (text("_replication_state"), text("_replication_state_reason"));
            let why = format!("the document `{id}`, which keeps it, is in the state `{state}`: {reason}");
            Err(ReplicateError::KeptOtherwise(why))
        }
    }
}

/// Ends the job of a document for somebody who may: a kept one's document is deleted, another one's remembers that it is paused. Answers
/// whether it was there.
///
/// # Errors
/// [`PeerError::Conflict`] if it describes something else by now than `of`: another one's edit mustn't be lost.
pub async fn end(
    store: &Store,
    job: &Replication,
    place: &JobDocument,
    of: Fingerprint,
) -> Result<bool, ReplicateError> {
    let database = store.database(&place.database).await.map_err(PeerError::from)?;
    loop {
        let id = place.id.clone();
        let document = database.read(move |snapshot| states::read(snapshot, id.as_str()));
        let Some(document) = document.await.map_err(PeerError::from)? else { return Ok(false) };
        let rev = document.get("_rev").and_then(Value::as_str).and_then(Rev::parse);
        let same = Description::parse(&document).is_ok_and(|description| description.fingerprint == of);
        let Some(rev) = rev.filter(|_| same) else { return Err(PeerError::Conflict.into()) };
        if !job.is_kept() {
            let paused = states::set_member(&database, &place.id, ("paused", Some(Value::Bool(true))));
            return Ok(paused.await.map_err(PeerError::from)?);
        }
        let edit = Edit {
            id: place.id.clone(),
            kind: EditKind::New { parent: Some(Revisions::single(rev)) },
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::StoreSettings;
    use crate::jobs::tests::job;

    /// Whoever cancelled a job whose document had just been edited deleted the edit with it.
    #[tokio::test]
    async fn a_document_that_describes_something_else_by_now_is_not_ended() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), StoreSettings::default()).await.unwrap();
        let database = store.create(&DbName::replicator()).await.unwrap();
        let mut job = job("cafe+continuous");
        let body = |target: &str| {
            // As it stands there, the owner is nobody in particular.
            let body = json!({"source": "http://h/a", "target": target, "continuous": true, "owner": null});
            let Value::Object(body) = body else { unreachable!() };
            body
        };
        keep(&store, body("http://h/b"), &job.id, &Caller::server_admin()).await.unwrap();
        let place = JobDocument { database: database.name().clone(), id: job.id.to_string().into() };
        job.document = Some(place.clone());
        let of = |target: &str| Description::parse(&body(target)).unwrap().fingerprint;
        let refused = end(&store, &job, &place, of("http://h/c")).await.unwrap_err();
        assert!(matches!(refused, ReplicateError::Peer(error) if matches!(*error, PeerError::Conflict)));
        assert_eq!(database.update_seq(), 1);
        assert!(end(&store, &job, &place, of("http://h/b")).await.unwrap());
        assert!(!end(&store, &job, &place, of("http://h/b")).await.unwrap());
    }
}
