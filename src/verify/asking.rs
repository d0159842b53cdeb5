//! Asks a database again for what may be answered another time.

use crate::effort::pauses::Pauses;
use crate::peer::{Blame, PeerError};

/// Tries of an answer that broke off.
const TRIES: u32 = 5;

/// Asks again, some times, what may be answered another time.
pub(super) async fn repeated<T, F>(question: impl Fn() -> F) -> Result<T, PeerError>
where
    F: Future<Output = Result<T, PeerError>>,
{
    for pause in Pauses::between_tries(TRIES) {
        match question().await {
            too_long @ Err(PeerError::TooLong { .. }) => return too_long,
            Err(error) if matches!(error.blame(), Blame::Passing | Blame::Unclear { .. }) => {
                tokio::time::sleep(pause).await;
            }
            answered => return answered,
        }
    }
    question().await
}
