//! A client's connection as hyper reads and writes it.
//!
//! What comes in passes by [`RawTargets`], which encodes targets as people type them; what goes out passes by
//! [`SlowReader`], which closes the connection of a client that takes too little; and [`HangUp`] tells whether an end means
//! that the client left. They know nothing of streams.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hang_up::HangUp;
use super::raw_targets::RawTargets;
use super::slow_reader::SlowReader;

/// The connection.
pub struct ClientStream<S> {
    stream: S,
    targets: RawTargets,
    reader: SlowReader,
    hang_up: HangUp,
}

impl<S> ClientStream<S> {
    /// A connection that was just accepted.
    pub fn new(stream: S, targets: RawTargets, reader: SlowReader, hang_up: HangUp) -> Self {
        Self { stream, targets, reader, hang_up }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.targets.has_more() {
            let before = buffer.filled().len();
            if !this.hang_up.is_waiting() {
                let read = Pin::new(&mut this.stream).poll_read(context, buffer);
                let found = buffer.filled().len() > before;
                if found || read.is_pending() {
                    this.hang_up.read(found);
                }
                ready!(read)?;
            }
            if buffer.filled().len() == before && buffer.remaining() > 0 {
                return this.hang_up.poll_end(context, this.targets.said_all()).map(Ok);
            }
            this.targets.pass(buffer, before);
        }
        this.targets.give(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.hang_up.writes();
        self.reader.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.hang_up.writes();
        self.reader.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.hang_up.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
