//! A client that takes its answer slowly, seen from its connection's writes.
//!
//! A write that waits for longer than [`SLOW`] shows that the client has stopped reading for now, and that the kernel's
//! buffers are full. Its request then leaves its place to others and takes one of those for slow readers; where all of
//! these are taken, the connection is closed. A client that takes less than [`LEAST`] while writes wait for `reader_pause`
//! is closed too, whether it stands still or takes a byte now and then: it would hold what was read for it for ever. A
//! feed that waits for changes has nothing to write, so it isn't slow, and neither is the end of an answer that the
//! kernel has taken.
//!
//! "Takes" is what the kernel takes: with buffers of some MB, a client that reads a few KB a second may look as if it took
//! nothing for minutes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::Reader;

/// Longer than any pause of a client that reads as fast as it can, and short enough that places are soon free again.
const SLOW: Duration = Duration::from_secs(1);

/// Bytes that a client takes at least, in a `reader_pause` of waiting: far below what the slowest lines carry, and less than a
/// replicator reads of its source's feed, whose target takes minutes for each batch.
const LEAST: usize = 16 << 10;

/// Watches how much a client takes.
pub struct SlowReader {
    reader: Reader,
    pause: Duration,
    /// While a write waits.
    waiting: Option<Waiting>,
    /// How long writes have waited since the client took [`LEAST`].
    waited: Duration,
    /// How much it has taken since.
    taken: usize,
}

struct Waiting {
    since: Instant,
    slow: bool,
    alarm: Pin<Box<Sleep>>,
}

impl SlowReader {
    /// Watches a connection whose requests `reader` knows.
    pub fn new(reader: Reader, pause: Duration) -> Self {
        Self { reader, pause, waiting: None, waited: Duration::ZERO, taken: 0 }
    }

    /// What becomes of a write: one that waits for too long fails.
    pub fn watch(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(taken) = &written {
            self.waited += self.waiting.take().map_or(Duration::ZERO, |waiting| waiting.since.elapsed());
            self.taken += taken.as_ref().map_or(0, |bytes| *bytes);
            if self.taken >= LEAST {
                (self.waited, self.taken) = (Duration::ZERO, 0);
            }
            return written;
        }
        let left = self.pause.saturating_sub(self.waited);
        let waiting = self.waiting.get_or_insert_with(|| {
            let since = Instant::now();
            Waiting { since, slow: false, alarm: Box::pin(sleep_until(since + SLOW.min(left))) }
        });
        loop {
            ready!(waiting.alarm.as_mut().poll(context));
            if waiting.since.elapsed() >= left {
                return closed(format!("the client took {} bytes in {:?}", self.taken, self.pause));
            }
            if !waiting.slow && !self.reader.is_slow() {
                return closed("there are too many slow readers".into());
            }
            waiting.slow = true;
            waiting.alarm.as_mut().reset(waiting.since + left);
        }
    }
}

fn closed(why: String) -> Poll<io::Result<usize>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
}

#[cfg(test)]
mod tests {
    use super::super::client_stream::ClientStream;
    use super::super::hang_up::{HangUp, UnansweredRequests};
    use super::super::raw_targets::RawTargets;
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    fn watched(stream: DuplexStream, reader: Reader, pause: Duration) -> ClientStream<DuplexStream> {
        let hang_up = HangUp::new(UnansweredRequests::default());
        ClientStream::new(stream, RawTargets::new(0, 0), SlowReader::new(reader, pause), hang_up)
    }

    /// Such a client held what was read for it, and its place, until it hung up.
    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let (stream, _client) = duplex(64);
        let mut watched = watched(stream, Reader::default(), Duration::from_millis(20));
        let error = watched.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.to_string(), "the client took 64 bytes in 20ms");
    }

    /// Such a client held what was read for it as well, a snapshot and answers' memory, for as long as it liked.
    #[tokio::test]
    async fn a_client_that_drips_is_cut_off_however_often_it_takes_a_byte() {
        let (stream, mut client) = duplex(64);
        let mut watched = watched(stream, Reader::default(), Duration::from_millis(300));
        let drip = async {
            for _ in 0..200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                client.read_exact(&mut [0]).await.unwrap();
            }
            client.read_to_end(&mut Vec::new()).await.unwrap();
        };
        tokio::select! {
            written = watched.write_all(&[0; 1000]) => assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut),
            () = drip => unreachable!("the stream is open"),
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_enough_is_not_cut_off_however_long_it_takes() {
        let (stream, mut client) = duplex(1 << 10);
        let pause = Duration::from_secs(2);
        let mut watched = watched(stream, Reader::default(), pause);
        let reading = async {
            for _ in 0..128 {
                tokio::time::sleep(pause / 100).await;
                client.read_exact(&mut [0; 8 << 10]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(watched.write_all(&[0; 1 << 20]), reading);
        written.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_takes_all_is_not_cut_off_whatever_it_waits_for() {
        let (stream, mut client) = duplex(64);
        let pause = Duration::from_millis(20);
        let mut watched = watched(stream, Reader::default(), pause);
        for _ in 0..3 {
            watched.write_all(&[0; 64]).await.unwrap();
            // A feed with nothing to say: nothing is written, so no time runs.
            tokio::time::sleep(2 * pause).await;
            client.read_exact(&mut [0; 64]).await.unwrap();
        }
    }
}
