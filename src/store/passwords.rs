//! New passwords of user documents: hashed before anything else is done with the document, however it is written.

use std::num::NonZeroU32;

use tokio::sync::Semaphore;

use super::StoreError;
use super::edit::Edit;
use crate::tasks;
use crate::users::document::take_password;

/// Whoever hashes a password. One at a time, whoever writes it: it is slow on purpose, and others need the processor too.
static TURN: Semaphore = Semaphore::const_new(1);

/// Hashes the new passwords of user documents.
pub(super) async fn hash_passwords(mut edits: Vec<Edit>, iterations: NonZeroU32) -> Result<Vec<Edit>, StoreError> {
    for edit in edits.iter_mut().filter(|edit| !edit.id.is_design()) {
        let Some(unhashed) = take_password(&edit.body) else { continue };
        let turn = TURN.acquire().await.map_err(|_| StoreError::Closing)?;
        let hashing = move || {
            let _turn = turn;
            unhashed.hash(iterations)
        };
        edit.body = tasks::blocking("hash a password", hashing).await?;
    }
    Ok(edits)
}
