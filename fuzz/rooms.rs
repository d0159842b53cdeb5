//! The rooms of couchrep that are fuzzed, compiled without the rest of the house.
//!
//! They do no I/O and need little: this builds in a fraction of the server's time, and coverage is theirs alone. What they
//! need of rooms that aren't here is written below: the store's error, a boundary's id, and the types that axum has of
//! `http`. The properties call them by the names that they have in couchrep; there, `tests/fuzzed.rs` holds the server's own
//! to them.

#![allow(dead_code, reason = "what is here for others has no others here")]

extern crate self as axum;
extern crate self as couchrep;

pub use http;
pub use rooms::*;

#[path = "../src"]
mod rooms {
    pub mod json;
    pub mod document;
    pub mod multipart;
    pub mod uuids {
        /// Always the same, so that an input does the same each time.
        pub fn random() -> String {
            "0f8fad5bd9cb469fa165708672899502".into()
        }
    }
    pub mod config {
        pub mod auth;
    }
    pub mod users {
        pub mod cookie;
        pub mod token;
        pub mod proxy;
    }
    pub mod store {
        pub mod revtree;
        pub(crate) mod varint;

        #[derive(Debug, thiserror::Error)]
        pub enum StoreError {
            #[error("a stored record is damaged: {0}")]
            Damaged(&'static str),
        }
    }
}

#[path = "properties/all.rs"]
pub mod properties;
