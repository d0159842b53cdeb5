//! Which requests are tried again, after which pause, and for how long.
//!
//! Does no I/O and reads no clock: [`verdict`] judges a failure, [`Schedule`] counts the tries and deals out pauses.
//! The same request sent twice is the rule here, not the exception: an answer may get lost after the peer has done the
//! work, so only requests that may arrive twice are repeated ([`Operation::repeatable`]).

use std::time::{Duration, SystemTime};

use crate::config;
use crate::effort::pauses::Pauses;
use crate::peer::Blame;

/// A request of a replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Info,
    Create,
    DesignDoc,
    ReadLocal,
    PutLocal,
    Changes,
    /// The feed, waiting for a change.
    Wait,
    RevsDiff,
    /// `_bulk_get` or `open_revs`, up to the start of the answer.
    Fetch,
    /// The same with small attachments in the documents: a short cut.
    FetchInline,
    BulkDocs,
    /// The same with small attachments in the documents: a short cut.
    BulkDocsInline,
    /// A document whose body is held in memory.
    PutDoc,
    /// A document whose attachments stream through.
    StreamDoc,
    Commit,
}

impl Operation {
    /// Whether the request may be sent again as it is. All are idempotent; one can't be sent twice by us.
    pub fn repeatable(self) -> bool {
        match self {
            // Reads.
            Self::Info
            | Self::DesignDoc
            | Self::ReadLocal
            | Self::Changes
            | Self::Wait
            | Self::RevsDiff
            | Self::Fetch
            | Self::FetchInline => true,
            // A second attempt is answered 412, which means "there already".
            Self::Create => true,
            // A second attempt may be answered 409; the checkpoint then compares what is stored with what it sent.
            Self::PutLocal => true,
            // With `new_edits:false` a revision that is there already changes nothing.
            Self::BulkDocs | Self::BulkDocsInline | Self::PutDoc => true,
            // Idempotent like the others, but its bytes are gone: the caller fetches the document again.
            Self::StreamDoc => false,
            // Makes durable what is written; twice is no more than once.
            Self::Commit => true,
        }
    }

    /// Whether one of the request's documents may be what its answer is about: then a batch has tries of its own, longer
    /// and with fewer documents.
    pub fn is_of_documents(self) -> bool {
        matches!(self, Self::RevsDiff | Self::Fetch | Self::BulkDocs | Self::PutDoc | Self::StreamDoc)
            || self.is_short_cut()
    }

    /// Whether there is another way to get the same done, that needn't be as much work at once.
    fn is_short_cut(self) -> bool {
        matches!(self, Self::FetchInline | Self::BulkDocsInline)
    }
}

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The host's name stands for no address.
    Unresolved,
    /// No connection: refused, unreachable, or it took too long.
    NoConnection,
    /// The peer's certificate isn't trusted, or TLS failed otherwise.
    Tls,
    /// The connection broke before the answer's head came.
    Broke,
    /// The peer was silent for too long before the answer's head came.
    Silent,
    /// The answer's body broke off, or fell silent.
    BrokeOff,
    /// The request can't be sent as it is.
    Unsendable,
    /// It may not be sent there.
    Forbidden,
    /// Another answer than the expected one.
    Answered(Blame),
}

/// What a failure means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass: try again.
    Retry,
    /// It may pass, though rarely: try again, at most [`FEW_TRIES`] times in all.
    RetryFew,
    /// It stays so.
    Stop,
}

/// Tries in all for what rarely passes: a name server has hiccups, a misspelt name stays wrong.
pub const FEW_TRIES: u32 = 3;

/// Says whether to try again.
pub fn verdict(operation: Operation, failure: Trouble) -> Verdict {
    if !operation.repeatable() {
        return Verdict::Stop;
    }
    match failure {
        // Whoever works for so long at it does so each time.
        Trouble::Silent if operation.is_short_cut() => Verdict::Stop,
        Trouble::Broke if operation.is_of_documents() => Verdict::RetryFew,
        Trouble::NoConnection | Trouble::Broke | Trouble::Silent => Verdict::Retry,
        // A waiting feed that ends is no error of the moment: whoever waits asks anew, with fresh tries.
        Trouble::BrokeOff if operation == Operation::Wait => Verdict::Stop,
        Trouble::BrokeOff if operation.is_of_documents() => Verdict::RetryFew,
        Trouble::BrokeOff => Verdict::Retry,
        Trouble::Unresolved => Verdict::RetryFew,
        Trouble::Tls | Trouble::Unsendable | Trouble::Forbidden => Verdict::Stop,
        Trouble::Answered(Blame::Document | Blame::Missing | Blame::Lasting) => Verdict::Stop,
        Trouble::Answered(Blame::Passing | Blame::Unclear { .. }) if operation.is_of_documents() => Verdict::RetryFew,
        Trouble::Answered(Blame::Passing | Blame::Unclear { .. }) => Verdict::Retry,
    }
}

/// Tries and time that a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tries, the first included.
    pub tries: u32,
    /// For all of them together.
    pub time: Duration,
}

impl Budget {
    /// What a request has at a peer that has answered before.
    pub fn of(settings: &config::Replicator) -> Self {
        Self { tries: settings.retries_per_request, time: settings.retry_time_limit }
    }

    /// What a request has at a peer that never answered: less, so that a wrong URL is told soon.
    pub fn first_contact(settings: &config::Replicator) -> Self {
        let few = Self { tries: 4, time: Duration::from_secs(3) };
        Self { tries: few.tries.min(settings.retries_per_request), time: few.time.min(settings.retry_time_limit) }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The tries of one request.
#[derive(Debug)]
pub struct Schedule {
    budget: Budget,
    pauses: Pauses,
    tries: u32,
}

impl Schedule {
    /// A request's tries within `budget`.
    pub fn new(budget: Budget) -> Self {
        Self { budget, pauses: Pauses::growing(FIRST_PAUSE, LONGEST_PAUSE), tries: 0 }
    }

    /// Tries so far.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Counts a try that failed and tells the pause before the next one; `None`: give up.
    ///
    /// `elapsed` counts from the first try's start. A pause the peer asked for is kept to, but for the limit of time.
    pub fn pause(&mut self, verdict: Verdict, asked: Option<Duration>, elapsed: Duration) -> Option<Duration> {
        self.tries += 1;
        let tries = match verdict {
            Verdict::Retry => self.budget.tries,
            Verdict::RetryFew => self.budget.tries.min(FEW_TRIES),
            Verdict::Stop => 0,
        };
        let pause = self.pauses.next()?.max(asked.unwrap_or_default());
        (self.tries < tries && elapsed.saturating_add(pause) <= self.budget.time).then_some(pause)
    }
}

/// Reads a `Retry-After` header: seconds, or a date as seen from `now`.
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    match header.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(header).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_for_ever_is_too_long() {
        let mut schedule = Schedule::new(Budget { tries: 5, time: Duration::from_secs(60) });
        let asked = retry_after(&u64::MAX.to_string(), SystemTime::now());
        assert_eq!(schedule.pause(Verdict::Retry, asked, Duration::from_secs(2)), None);
    }

    fn pauses(budget: Budget, verdict: Verdict) -> Vec<Duration> {
        let mut schedule = Schedule::new(budget);
        let mut elapsed = Duration::ZERO;
        std::iter::from_fn(|| {
            let pause = schedule.pause(verdict, None, elapsed)?;
            elapsed += pause;
            Some(pause)
        })
        .collect()
    }

    #[test]
    fn what_may_pass_is_retried_and_the_rest_is_not() {
        let unclear = [Blame::Unclear { worded: false }, Blame::Unclear { worded: true }, Blame::Passing];
        for blame in unclear {
            assert_eq!(verdict(Operation::Changes, Trouble::Answered(blame)), Verdict::Retry);
            assert_eq!(verdict(Operation::BulkDocs, Trouble::Answered(blame)), Verdict::RetryFew);
        }
        for blame in [Blame::Document, Blame::Missing, Blame::Lasting] {
            assert_eq!(verdict(Operation::Changes, Trouble::Answered(blame)), Verdict::Stop);
        }
        assert_eq!(verdict(Operation::Info, Trouble::Unresolved), Verdict::RetryFew);
        assert_eq!(verdict(Operation::Info, Trouble::Tls), Verdict::Stop);
        assert_eq!(verdict(Operation::Info, Trouble::Forbidden), Verdict::Stop);
        assert_eq!(verdict(Operation::Wait, Trouble::Broke), Verdict::Retry);
        assert_eq!(verdict(Operation::Wait, Trouble::BrokeOff), Verdict::Stop);
    }

    #[test]
    fn a_streamed_document_is_never_sent_again() {
        assert_eq!(verdict(Operation::StreamDoc, Trouble::Answered(Blame::Passing)), Verdict::Stop);
        assert_eq!(verdict(Operation::StreamDoc, Trouble::NoConnection), Verdict::Stop);
    }

    #[test]
    fn a_request_has_as_many_tries_as_its_budget() {
        let ample = Budget { tries: 10, time: Duration::from_secs(3600) };
        assert_eq!(pauses(ample, Verdict::Retry).len(), 9);
    }

    #[test]
    fn time_and_tries_are_limited() {
        let settings = config::Replicator::default();
        let first = pauses(Budget::first_contact(&settings), Verdict::Retry);
        assert_eq!(first.len(), 3);
        assert!(first.iter().sum::<Duration>() < Duration::from_secs(3));
        assert_eq!(pauses(Budget::of(&settings), Verdict::RetryFew).len(), 2);
        assert_eq!(pauses(Budget::of(&settings), Verdict::Stop).len(), 0);
        assert!(pauses(Budget { tries: 100, time: Duration::from_secs(9) }, Verdict::Retry).len() < 8);
    }

    #[test]
    fn the_peer_may_ask_for_a_longer_pause_within_the_limit() {
        let mut schedule = Schedule::new(Budget { tries: 10, time: Duration::from_secs(60) });
        let asked = Some(Duration::from_secs(20));
        assert_eq!(schedule.pause(Verdict::Retry, asked, Duration::ZERO), asked);
        assert_eq!(schedule.pause(Verdict::Retry, asked, Duration::from_secs(50)), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:27 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
