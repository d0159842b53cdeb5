//! Why settings can't be used, or changed.

use std::path::PathBuf;
use std::{fmt, io};

use crate::config::ConfigError;
use crate::tasks::Panicked;
use crate::users::token::BadKey;

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// What is kept can't be read or written.
    #[error("could not use {}", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something that was put can't be taken any more.
    #[error("could not use {}", path.display())]
    Put {
        /// The file.
        path: PathBuf,
        /// Which, and why not.
        #[source]
        refused: Box<Refused>,
    },
    /// A key of tokens can't be used.
    #[error(transparent)]
    JwtKey(#[from] BadKey),
    /// Hashing crashed.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// A setting as it was named: section and key.
#[derive(Debug)]
pub struct Named(pub String, pub String);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.0, self.1)
    }
}

/// Why a setting isn't changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// couchrep doesn't have it.
    #[error("couchrep has no setting {0}")]
    Unknown(Named),
    /// It isn't set.
    #[error("unknown_config_value")]
    NotSet,
    /// The value makes no sense.
    #[error("{named} {problem}")]
    Value {
        /// The setting.
        named: Named,
        /// Without the value.
        problem: &'static str,
    },
    /// It makes no sense beside the others.
    #[error(transparent)]
    Beside(#[from] ConfigError),
    /// A key of tokens can't be used.
    #[error(transparent)]
    JwtKey(#[from] BadKey),
    /// Everybody would be admin.
    #[error("The last admin can't be deleted: without any, everyone is admin.")]
    LastAdmin,
    /// It can't be kept.
    #[error(transparent)]
    Failed(#[from] SettingsError),
}
