//! Why a server doesn't start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::tls::CertificateError;
use crate::accounts::AccountsError;
use crate::beside::{AdminError, TrustError, UuidError};
use crate::peer::remote::ClientError;
use crate::settings::SettingsError;
use crate::store::StoreError;
use crate::takeover::TakeoverError;

/// Why the server didn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else listens there.
    #[error(
        "could not listen on {listen}: the address is taken{}; take another one with --listen, as --listen 127.0.0.1:5985",
        by_whom(listen)
    )]
    Taken {
        /// As it was given.
        listen: String,
    },
    /// The address can't be listened on.
    #[error("could not listen on {listen}")]
    Listen {
        /// As it was given.
        listen: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Everyone in the network would be admin.
    #[error("refusing to listen on {0} without admins: give --admin NAME:PASSWORD, or listen on a loopback address")]
    Open(SocketAddr),
    /// There is no HTTP client to replicate with.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The settings can't be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Nobody could log in.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// TLS can't be spoken.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The data dir can't be used.
    #[error("could not use the data dir {}", dir.display())]
    DataDir {
        /// As it was given.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The CouchDB beside which the server is to stand doesn't say who it is.
    #[error("could not find the CouchDB at {url}")]
    CouchDb {
        /// As it was given.
        url: String,
        /// Why not.
        #[source]
        source: UuidError,
    },
    /// Its admin, as we were given him, isn't one there.
    #[error("could not be admin of the CouchDB at {url}")]
    CouchDbAdmin {
        /// As it was given.
        url: String,
        /// Why not.
        #[source]
        source: AdminError,
    },
    /// Its replications can't be taken over.
    #[error("could not take over the replications of the CouchDB at {url}")]
    TakeOver {
        /// As it was given.
        url: String,
        /// Why not.
        #[source]
        source: TakeoverError,
    },
    /// The CouchDB is to be asked over TLS, and nobody could be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The store can't be opened.
    #[error("could not open the store in {}", dir.display())]
    Store {
        /// As it was given.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: StoreError,
    },
}

/// Our own port is CouchDB's, beside which many stand.
fn by_whom(listen: &str) -> &'static str {
    if listen.ends_with(":5984") { ", probably by a CouchDB or another couchrep" } else { "" }
}
