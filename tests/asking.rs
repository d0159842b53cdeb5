//! Asks a server one thing and reads the whole answer: what the tests of the HTTP API are written in.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::support::Server;

/// An answer, read whole.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The `rev` of an answer to a write.
    pub fn rev(&self) -> String {
        self.json()["rev"].as_str().unwrap_or_else(|| panic!("no rev in {}", self.text())).to_owned()
    }
}

pub async fn send(request: RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answer { status, headers, bytes: answer.bytes().await.unwrap().to_vec() }
}

pub fn request(server: &Server, method: &str, path: &str) -> RequestBuilder {
    server.client().request(Method::from_bytes(method.as_bytes()).unwrap(), server.url(path))
}

pub async fn get(server: &Server, path: &str) -> Answer {
    send(request(server, "GET", path)).await
}

/// Sends a JSON body, which may be empty.
pub async fn ask(server: &Server, method: &str, path: &str, body: &'static str) -> Answer {
    send(request(server, method, path).header("Content-Type", "application/json").body(body)).await
}

/// A server with an empty database `db`.
pub async fn with_db() -> Server {
    let server = Server::start().await;
    assert_eq!(ask(&server, "PUT", "/db", "").await.status, 201);
    server
}
