//! Whether the owner of a note is living: judged by watching the note, never by comparing clocks of two machines.

use std::time::Duration;

use tokio::time::Instant;

use super::note::Note;

/// What is known of a note's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// He gave a sign of life while he was watched.
    Living,
    /// He gave none so far.
    Unsure,
    /// He gave none for too long.
    Dead,
}

/// Watches a note.
#[derive(Debug, Default)]
pub struct LivenessWatch {
    last: Option<(Note, Instant)>,
}

impl LivenessWatch {
    /// Judges the note as it is now.
    pub fn look(&mut self, note: &Note, now: Instant, dead_after: Duration) -> Liveness {
        match &self.last {
            Some((last, since)) if last.is_same_sign_as(note) => {
                if now.duration_since(*since) >= dead_after {
                    Liveness::Dead
                } else {
                    Liveness::Unsure
                }
            }
            last => {
                let liveness = if last.is_some() { Liveness::Living } else { Liveness::Unsure };
                self.last = Some((note.clone(), now));
                liveness
            }
        }
    }

    /// CouchDB doesn't answer, so its owner can't give a sign either: his time begins anew.
    pub fn lose_sight(&mut self, now: Instant) {
        if let Some((_, since)) = &mut self.last {
            *since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::NoteOwner;
    use super::*;

    const DEAD_AFTER: Duration = Duration::from_secs(40);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn whoever_gives_no_sign_while_couchdb_answers_is_dead() {
        let mut note = Note::first(NoteOwner::this_process(), None);
        let (mut watch, mut now) = (LivenessWatch::default(), Instant::now());
        assert_eq!(watch.look(&note, now, DEAD_AFTER), Liveness::Unsure);
        now += DEAD_AFTER / 2;
        note.beat += 1;
        assert_eq!(watch.look(&note, now, DEAD_AFTER), Liveness::Living);
        now += DEAD_AFTER - SECOND;
        assert_eq!(watch.look(&note, now, DEAD_AFTER), Liveness::Unsure);
        watch.lose_sight(now);
        now += DEAD_AFTER - SECOND;
        assert_eq!(watch.look(&note, now, DEAD_AFTER), Liveness::Unsure);
        assert_eq!(watch.look(&note, now + SECOND, DEAD_AFTER), Liveness::Dead);
    }

    #[test]
    fn another_owner_is_a_sign_of_life() {
        let (mut watch, now) = (LivenessWatch::default(), Instant::now());
        watch.look(&Note::first(NoteOwner::this_process(), None), now, DEAD_AFTER);
        assert_eq!(watch.look(&Note::first(NoteOwner::this_process(), None), now, DEAD_AFTER), Liveness::Living);
    }
}
