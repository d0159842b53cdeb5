//! SIGINT and SIGTERM, which end a command in order, and SIGHUP, which doesn't.
//!
//! A terminal that closes sends SIGHUP, and by default that kills. Here work goes on, as under `nohup`.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals; from now on they end nothing by themselves.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    _hangup: Signal,
}

impl Signals {
    /// Begins to listen.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next that is to end the command, and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
