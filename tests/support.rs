//! What tests stand on: a server in this process, the real binary as a child, a peer that fails on demand, and the
//! leaves of a database as something to compare.

#![allow(dead_code, unused_imports, reason = "not every helper is used at every time")]

mod server;
mod process;
mod faulty;
mod leaves;
pub mod memory;
mod still;

pub use faulty::{Fault, FaultyPeer, Gateway};
pub use leaves::{Leaf, leaves, leaves_for_now, leaves_in_bulk, path_of};
pub use process::{Process, signal, without_times};
pub use server::{Database, Server};
pub use still::StillReader;

use reqwest::{Client, ClientBuilder, Method, StatusCode};
use serde_json::Value;

/// A client that keeps answers as they come: no redirects followed, nothing decompressed.
pub fn client() -> Client {
    client_builder().build().unwrap()
}

/// What makes such clients.
pub fn client_builder() -> ClientBuilder {
    // A second install fails, and the first one serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().redirect(reqwest::redirect::Policy::none()).no_gzip().no_proxy()
}

/// Sends a request and asserts the exact status; the answer as JSON, `null` where it is empty.
#[track_caller]
pub fn json(
    client: &Client,
    method: Method,
    url: String,
    body: Option<&Value>,
    status: u16,
) -> impl Future<Output = Value> + use<> {
    let caller = std::panic::Location::caller();
    let name = format!("{method} {url} at {caller}");
    let mut request = client.request(method, url).header("Accept", "application/json");
    if let Some(body) = body {
        request = request.header("Content-Type", "application/json").body(body.to_string());
    }
    async move {
        let answer = request.send().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let found = answer.status();
        let text = answer.text().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(found, StatusCode::from_u16(status).unwrap(), "{name}: {text}");
        if text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error} in {text}"))
    }
}
