//! SIGINT and SIGTERM, which end a command in order, and SIGHUP, which doesn't.
//!
//! A terminal that closes sends SIGHUP, and by default that kills. Here work goes on, as under `nohup`; a server also takes it as a word
//! to read its certificate again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals; from now on they end nothing by themselves.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Begins to listen.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next that is to end the command, and names it.
    pub async fn next(&mut self) -> &'static str {
        self.next_ending(|| {}).await
    }

    /// The same; `hung_up` is called at each SIGHUP.
    pub async fn next_ending(&mut self, hung_up: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hangup.recv() => hung_up(),
            }
        }
    }
}
