//! Puts back what was set.

use futures::future::join_all;

use super::claim;
use super::error::TakeoverError;
use super::nodes::{DEFAULT, Members, NONE, Nodes};
use super::note::{Note, Notes};
use crate::beside::{AdminError, CouchDbAsAdmin};

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum GivenBack {
    /// There was no note. These nodes' `max_jobs` is 0 all the same, and whoever did that knows why.
    Nothing {
        /// Their names.
        standing_still: Vec<String>,
    },
    /// What a dead process had set.
    All,
}

/// Puts back what a dead process has left, and tells what came of it. A living one's it leaves alone.
pub async fn give_back(couchdb: CouchDbAsAdmin) -> Result<GivenBack, TakeoverError> {
    let settings = couchdb.upstream().settings().clone();
    let (nodes, notes) = (Nodes::new(couchdb.clone()), Notes::new(couchdb, settings.answer_timeout));
    let Some(note) = claim::dead_note(&notes, &settings).await? else {
        let mut standing_still = Vec::new();
        for node in nodes.up().await? {
            if nodes.max_jobs(&node).await?.as_deref() == Some(NONE) {
                standing_still.push(node);
            }
        }
        return Ok(GivenBack::Nothing { standing_still });
    };
    put_back(&nodes, &notes, &note).await?;
    Ok(GivenBack::All)
}

/// Puts a note's values back, and deletes it. A node whose value isn't 0 is itself already. If its owner, or another one, has given a sign
/// of life since the note was read, he is living, and goes on.
///
/// One that is down may only be cut off, and have its 0 when it returns: then the note stays, with it alone. Answers what is left.
pub async fn put_back(nodes: &Nodes, notes: &Notes, note: &Note) -> Result<Note, TakeoverError> {
    let Members { up, all } = nodes.members().await?;
    let (mut left, mut not_put_back) = (note.clone(), Vec::new());
    left.max_jobs.retain(|node, _| all.contains(node));
    unless_living(notes, note).await?;
    let puts =
        note.max_jobs.iter().filter(|(node, _)| up.contains(node)).map(|(node, own)| async move {
            (node, put_back_one(nodes, node, own.as_deref().unwrap_or(DEFAULT)).await)
        });
    for (node, put) in join_all(puts).await {
        match put {
            Ok(()) => _ = left.max_jobs.remove(node),
            Err(error) => {
                tracing::warn!(node, %error, "max_jobs couldn't be put back");
                not_put_back.push(node.clone());
            }
        }
    }
    let found = unless_living(notes, note).await?;
    left.stands_in_place_of(found.as_ref());
    if left.max_jobs.is_empty() {
        if found.is_some() {
            notes.delete(&left).await?;
        }
    } else {
        let down: Vec<_> = left.max_jobs.keys().filter(|node| !up.contains(node)).cloned().collect();
        notes.write(&left).await?;
        if !down.is_empty() {
            let down = down.join(", ");
            tracing::warn!(
                down,
                "nodes are down; if their max_jobs is 0 when they return, `couchrep give-back` puts it back"
            );
        }
    }
    if not_put_back.is_empty() { Ok(left) } else { Err(TakeoverError::NotPutBack(not_put_back)) }
}

/// What stands there now: this sign of life, or nothing.
async fn unless_living(notes: &Notes, note: &Note) -> Result<Option<Note>, TakeoverError> {
    match notes.find().await? {
        Some(found) if !found.is_same_sign_as(note) => Err(TakeoverError::Living(found.owner)),
        found => Ok(found),
    }
}

async fn put_back_one(nodes: &Nodes, node: &str, own: &str) -> Result<(), AdminError> {
    match nodes.max_jobs(node).await?.as_deref() {
        Some(NONE) => nodes.set_max_jobs(node, own).await,
        _ => Ok(()),
    }
}
