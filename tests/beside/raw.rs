//! A CouchDB of which a test sees every byte, and decides every byte that it answers; and a client likewise.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// More than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Listens as CouchDB would.
pub struct RawCouchDb {
    listener: TcpListener,
}

impl RawCouchDb {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The next connection.
    pub async fn accept(&self) -> Wire {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("nobody connects").unwrap();
        Wire { stream, read: Vec::new() }
    }
}

/// One end of a connection.
pub struct Wire {
    stream: TcpStream,
    /// What was read and not asked for yet.
    read: Vec<u8>,
}

impl Wire {
    /// A client's.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(addr).await.unwrap(), read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// What comes up to these bytes, them included.
    pub async fn until(&mut self, end: &str) -> String {
        let found = |read: &[u8]| read.windows(end.len()).position(|found| found == end.as_bytes());
        while found(&self.read).is_none() {
            let more = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            let so_far = || String::from_utf8_lossy(&self.read).into_owned();
            let more = more.unwrap_or_else(|_| panic!("no {end:?} comes after {:?}", so_far())).unwrap();
            assert!(more > 0, "it ended before {end:?}, after {:?}", so_far());
        }
        let rest = self.read.split_off(found(&self.read).unwrap() + end.len());
        String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap()
    }

    /// The head of a message, with the empty line at its end.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// All that comes until the other side closes, a character a byte; a reset is an end too.
    pub async fn rest(self) -> String {
        self.rest_of_bytes().await.into_iter().map(char::from).collect()
    }

    /// The same, as it came.
    async fn rest_of_bytes(mut self) -> Vec<u8> {
        _ = timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await.expect("it doesn't end");
        self.read
    }

    /// Sends as much of this as the other side takes, while it reads all that comes until the other side closes.
    pub async fn exchange(mut self, bytes: &[u8], ends: bool) -> Vec<u8> {
        let (mut reading, mut writing) = self.stream.split();
        let sending = async {
            if writing.write_all(bytes).await.is_ok() && ends {
                _ = writing.shutdown().await;
            }
        };
        let both = async { tokio::join!(sending, reading.read_to_end(&mut self.read)) };
        _ = timeout(PATIENCE, both).await.expect("it doesn't end");
        self.read
    }

    /// Closes this half of the connection; the other side may go on.
    pub async fn end(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Whether nothing has come, and nothing comes for a moment.
    pub async fn is_silent(&mut self) -> bool {
        self.is_silent_for(Duration::from_millis(200)).await
    }

    /// The same, for so long. An end isn't silence.
    pub async fn is_silent_for(&mut self, moment: Duration) -> bool {
        let some = timeout(moment, self.stream.read_buf(&mut self.read)).await;
        some.is_err() && self.read.is_empty()
    }
}

/// The lines of a head, sorted but for the first.
pub fn lines(head: &str) -> Vec<String> {
    let mut lines: Vec<_> = head.trim_end().split("\r\n").map(str::to_owned).collect();
    lines[1..].sort();
    lines
}
