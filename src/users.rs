//! Who people are: user documents, and what proves that somebody is one of them. No I/O.
//!
//! A user is a document `org.couchdb.user:NAME` of the database `_users`; [`document`] has the rules for writing and
//! reading one, [`password`] the ways in which its password may be hashed. Besides name and password three things prove who
//! asks: a session's [`cookie`], a signed [`token`] (JWT), and the word of a [`proxy`] in front of the server. All of
//! them are CouchDB 3.5's, byte for byte, so that whoever logged in there is known here and the other way round.

pub mod password;
pub mod document;
pub mod account;
pub mod cookie;
pub mod token;
pub mod proxy;

pub use account::Account;
