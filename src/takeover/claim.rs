//! Becomes the owner of the note, if nobody living is.
//!
//! CouchDB lets every write of a `_local` document through, so two that start at once both believe to have left their note. So each looks
//! again after a while (Fischer's mutual exclusion): from its last look at the old note to the end of its own write it takes at
//! most `claim_limit`, else it begins again; then it waits for longer than that, and whose note stands there then is the owner. Whoever
//! else saw the old note has written by then, or will see the new one. A write that CouchDB carries out later than it was waited
//! for may break this; then one of the two finds itself overtaken at its next heartbeat.

use tokio::time::{Instant, sleep};

use super::error::TakeoverError;
use super::liveness::{Liveness, LivenessWatch};
use super::note::{Note, NoteOwner, Notes};
use crate::config::couchdb::CouchDb;

/// Tries to be fast enough.
const TRIES: usize = 5;
/// Looks at a note while one heartbeat passes.
const LOOKS_A_HEARTBEAT: u32 = 5;

/// Watches what stands there until it is known to be a dead one's; answers that note, or `None` if there is none.
pub async fn dead_note(notes: &Notes, settings: &CouchDb) -> Result<Option<Note>, TakeoverError> {
    let times = &settings.takeover;
    let (mut watch, mut is_watched) = (LivenessWatch::default(), false);
    let mut answered = Instant::now();
    loop {
        match notes.find().await {
            Ok(None) => return Ok(None),
            Ok(Some(note)) => {
                answered = Instant::now();
                match watch.look(&note, answered, times.dead_after) {
                    Liveness::Living => return Err(TakeoverError::Living(note.owner)),
                    Liveness::Dead => return Ok(Some(note)),
                    Liveness::Unsure => {}
                }
                if !std::mem::replace(&mut is_watched, true) {
                    let limit = times.dead_after;
                    tracing::info!(owner = %note.owner, "CouchDB's replications are taken over; watching for {limit:?} whether he is living");
                }
            }
            Err(error) if answered.elapsed() > settings.start_patience => return Err(error.into()),
            Err(_) => watch.lose_sight(Instant::now()),
        }
        sleep(times.heartbeat / LOOKS_A_HEARTBEAT).await;
    }
}

/// Puts a note in the place of `before`, with what `before` has to put back, and with `old` values besides.
pub async fn write(
    notes: &Notes,
    owner: &NoteOwner,
    settings: &CouchDb,
    before: Option<Note>,
    old: impl FnOnce(&mut Note),
) -> Result<Note, TakeoverError> {
    let limit = settings.takeover.claim_limit;
    let mut note = Note::first(owner.clone(), before.clone());
    old(&mut note);
    for _ in 0..TRIES {
        let looked = Instant::now();
        let found = notes.find().await?;
        note.stands_in_place_of(found.as_ref());
        if let Some(found) = found
            && found.owner.id != owner.id
            && !before.as_ref().is_some_and(|before| before.is_same_sign_as(&found))
        {
            return Err(TakeoverError::LostRace(found.owner));
        }
        let written = notes.write(&note).await;
        if looked.elapsed() > limit {
            continue;
        }
        match written {
            // As of a server that looks at `_rev`: who was faster is seen below.
            Err(error) if error.is_conflict() => {}
            written => written?,
        }
        sleep(2 * limit).await;
        match notes.find().await? {
            Some(found) if found.owner.id == owner.id => return Ok(found),
            Some(found) => return Err(TakeoverError::LostRace(found.owner)),
            // Whoever gave back the old one has deleted ours.
            None => {}
        }
    }
    Err(TakeoverError::TooSlow)
}
