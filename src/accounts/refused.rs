//! Why somebody isn't whom he says he is.

use crate::store::StoreError;
use crate::tasks::Panicked;
use crate::users::cookie::Malformed;
use crate::users::token::TokenError;

/// Why somebody isn't whom he says he is, or why that can't be told.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Name or password is wrong.
    #[error("Name or password is incorrect.")]
    WrongPassword,
    /// Which of his document's revisions is right, nobody can say.
    #[error("User document conflicts must be resolved before the document is used for authentication purposes.")]
    Conflicts,
    /// The cookie is none.
    #[error(transparent)]
    Cookie(#[from] Malformed),
    /// The token proves nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Too many passwords are being checked.
    #[error("too many logins at once")]
    Busy,
    /// `_users` can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A check crashed.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}
