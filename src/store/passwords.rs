//! New passwords of user documents: hashed before anything else is done with the document, however it is written.

use std::num::NonZeroU32;

use tokio::sync::Semaphore;

use super::StoreError;
use super::edit::Edit;
use crate::access::Caller;
use crate::json::MAX_VALUE_BYTES;
use crate::tasks;
use crate::users::document::{may_be_own, take_password};

/// Whoever hashes a password. One at a time, whoever writes it: it is slow on purpose, and others need the processor too.
static TURN: Semaphore = Semaphore::const_new(1);

/// New passwords in one call of somebody who is no admin of the database: each takes a quarter of a second. A password
/// that stays as it came is refused by the rules of user documents.
const MOST: usize = 10;

/// Hashes the new passwords of user documents, of those that their author may write.
pub(super) async fn hash_passwords(
    mut edits: Vec<Edit>,
    (author, is_admin): (&Caller, bool),
    iterations: NonZeroU32,
) -> Result<Vec<Edit>, StoreError> {
    let most = if is_admin { usize::MAX } else { MOST };
    let own = |edit: &&mut Edit| !edit.id.is_design() && may_be_own(edit.id.as_str(), author, is_admin).is_ok();
    for edit in edits.iter_mut().filter(own).take(most) {
        // One that is larger is refused.
        let small = edit.body.len() <= MAX_VALUE_BYTES;
        let Some(unhashed) = small.then(|| take_password(&edit.body)).flatten() else { continue };
        let turn = TURN.acquire().await.map_err(|_| StoreError::Closing)?;
        let hashing = move || {
            let _turn = turn;
            unhashed.hash(iterations)
        };
        edit.body = tasks::blocking("hash a password", hashing).await?;
    }
    Ok(edits)
}
