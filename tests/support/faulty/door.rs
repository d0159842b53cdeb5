//! The door of a faulty peer: connections are accepted, or refused while it is down.

use std::io;
use std::net::SocketAddr;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// Accepts connections, or refuses them while the peer is down.
pub(super) struct Door {
    pub(super) addr: SocketAddr,
    /// `None` while the peer is down.
    pub(super) listener: Option<TcpListener>,
    pub(super) down: watch::Receiver<Instant>,
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let down_until = *self.down.borrow_and_update();
            if down_until > Instant::now() {
                self.listener = None;
                tokio::time::sleep_until(down_until).await;
            }
            let listener = match self.listener.take() {
                Some(listener) => listener,
                None => TcpListener::bind(self.addr).await.unwrap(),
            };
            let listener = self.listener.insert(listener);
            tokio::select! {
                biased;
                _ = self.down.changed() => {}
                accepted = listener.accept() => return accepted,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}
