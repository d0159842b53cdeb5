//! A client that reads an answer's head and then stands still.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Bytes of the client's receive buffer, so that an answer doesn't end up in the kernel.
const RECEIVED: u32 = 64 << 10;

/// Its connection; it is closed when dropped.
pub struct StillReader {
    stream: TcpStream,
    /// What of the answer was read.
    pub head: String,
}

impl StillReader {
    /// Sends a request (`GET /db/doc`), and reads the beginning of its answer.
    pub async fn of(addr: SocketAddr, request: &str, accept: &str, body: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVED).unwrap();
        let mut stream = socket.connect(addr).await.unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: {accept}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut head = vec![0; 1024];
        let read = stream.read(&mut head).await.unwrap();
        head.truncate(read);
        Self { stream, head: String::from_utf8_lossy(&head).into_owned() }
    }

    /// The answer's status.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// Reads on to the end; what came, however it ended.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
        rest
    }
}
