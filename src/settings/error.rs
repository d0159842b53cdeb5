//! Why settings can't be used, or changed.

use std::path::PathBuf;
use std::{fmt, io};

use crate::access::Denied;
use crate::config::ConfigError;
use crate::tasks::Panicked;
use crate::users::token::BadKey;

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file can't be read or written.
    #[error("could not use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was put makes no sense any more.
    #[error("could not use {}: {problem}", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// Which, and why not; without the value.
        problem: String,
    },
    /// A key of tokens can't be used.
    #[error(transparent)]
    JwtKey(#[from] BadKey),
    /// Reading, or hashing a password, crashed.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// A setting as it was named.
#[derive(Debug)]
pub struct SettingName {
    /// Its section.
    pub section: String,
    /// Its key there.
    pub key: String,
}

impl SettingName {
    pub(super) fn new(section: &str, key: &str) -> Self {
        Self { section: section.into(), key: key.into() }
    }
}

impl fmt::Display for SettingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.section, self.key)
    }
}

/// Why a setting isn't changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingRefused {
    /// couchrep doesn't have it.
    #[error("couchrep has no setting {0}")]
    Unknown(SettingName),
    /// It isn't set.
    #[error("the setting isn't set")]
    NotSet,
    /// The value makes no sense, by itself or beside other settings.
    #[error("{name} {problem}")]
    Value {
        /// The setting.
        name: SettingName,
        /// Without the value.
        problem: &'static str,
    },
    /// A file that is named can't be read.
    #[error(transparent)]
    Unreadable(#[from] ConfigError),
    /// A key of tokens can't be used.
    #[error(transparent)]
    JwtKey(#[from] BadKey),
    /// Everybody would be admin.
    #[error("it is the last admin")]
    LastAdmin,
    /// The author is no admin any more.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It can't be kept.
    #[error(transparent)]
    Failed(#[from] SettingsError),
}
