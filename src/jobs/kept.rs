//! Jobs that somebody asked for at `_replicate` and that are to survive a restart: they become documents of `_replicator`.
//!
//! The document's id is the replication's, and its owner who asked for it, who must be allowed to write there. Cancelled, it is deleted. The
//! job of a document that a person wrote isn't cancelled but paused, which the document remembers.

use serde_json::{Map, Value};

use super::documents::description::{Description, Fingerprint, Stated};
use super::documents::home::{DocumentHome, HomeError, NotPut};
use super::documents::states::TRIES;
use super::replication::{JobDocument, Replication};
use crate::access::Caller;
use crate::peer::PeerError;
use crate::replicate::ReplicateError;
use crate::replicate::id::ReplicationId;
use crate::store::DbName;

/// Members of a request that say how it is asked for.
const NOT_KEPT: [&str; 6] = ["keep", "cancel", "id", "_local_id", "replication_id", "_id"];

/// Makes a document of a request; that it is there already is a success, if it still describes the same and isn't paused or failed.
pub async fn keep(
    home: &DocumentHome,
    mut body: Map<String, Value>,
    id: &ReplicationId,
    caller: &Caller,
) -> Result<JobDocument, ReplicateError> {
    let place = JobDocument { database: DbName::replicator(), id: id.to_string().into() };
    home.may_open(&place.database, caller).await?;
    body.retain(|name, _| !NOT_KEPT.contains(&name.as_str()) && !name.starts_with('_'));
    match put(home, &place, body.clone(), caller).await? {
        Ok(()) => {}
        Err(NotPut::Conflict) => check(home, &place, body, caller).await?,
        Err(NotPut::Refused(reason)) => return Err(ReplicateError::Unauthorized(reason)),
    }
    Ok(place)
}

/// Whether the document of this name keeps what is asked for, for him. It may have been edited since it was made.
async fn check(
    home: &DocumentHome,
    place: &JobDocument,
    mut body: Map<String, Value>,
    caller: &Caller,
) -> Result<(), ReplicateError> {
    let id = &place.id;
    let document = home.document(place).await?.and_then(|stored| stored.document);
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
/// [`PeerError::Conflict`] if it describes something else by now than `of`: another one's edit mustn't be lost; or if others' edits come
/// between again and again.
pub async fn end(
    home: &DocumentHome,
    job: &Replication,
    place: &JobDocument,
    of: Fingerprint,
) -> Result<bool, ReplicateError> {
    for _ in 0..TRIES {
        let found = home.document(place).await?.and_then(|stored| stored.document);
        let Some(mut document) = found else { return Ok(false) };
        if Description::parse(&document).ok().is_none_or(|description| description.fingerprint != of) {
            return Err(PeerError::Conflict.into());
        }
        // Over the revision that was looked at.
        if job.is_kept() {
            document.retain(|name, _| name == "_rev");
            document.insert("_deleted".into(), Value::Bool(true));
        } else {
            document.insert("paused".into(), Value::Bool(true));
        }
        match put(home, place, document, &Caller::replicator()).await? {
            Err(NotPut::Conflict) => {}
            Ok(()) => return Ok(true),
            Err(NotPut::Refused(reason)) => return Err(ReplicateError::Unauthorized(reason)),
        }
    }
    Err(PeerError::Conflict.into())
}

async fn put(
    home: &DocumentHome,
    place: &JobDocument,
    document: Map<String, Value>,
    author: &Caller,
) -> Result<Result<(), NotPut>, HomeError> {
    let put = home.put(&place.database, vec![(place.id.clone(), document)], author, true).await?;
    Ok(put.into_iter().next().unwrap_or(Ok(())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::StoreSettings;
    use crate::jobs::tests::job;
    use crate::store::Store;

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
        let home = DocumentHome::of_store(store);
        keep(&home, body("http://h/b"), &job.id, &Caller::server_admin()).await.unwrap();
        let place = JobDocument { database: database.name().clone(), id: job.id.to_string().into() };
        job.document = Some(place.clone());
        let of = |target: &str| Description::parse(&body(target)).unwrap().fingerprint;
        let refused = end(&home, &job, &place, of("http://h/c")).await.unwrap_err();
        assert!(matches!(refused, ReplicateError::Peer(error) if matches!(*error, PeerError::Conflict)));
        assert_eq!(database.update_seq(), 1);
        assert!(end(&home, &job, &place, of("http://h/b")).await.unwrap());
        assert!(!end(&home, &job, &place, of("http://h/b")).await.unwrap());
    }
}
