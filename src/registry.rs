//! A stand-in of the registry's interface, for this branch only.

use std::sync::Arc;

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::replicate::ReplicateError;

/// All running replications.
#[derive(Clone, Default)]
pub struct Registry {
    _inner: Arc<()>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The authenticated name.
    pub name: Option<String>,
    /// Whether the caller is a server admin.
    pub is_admin: bool,
    /// The `Authorization` header.
    pub authorization: Option<SecretString>,
    /// The value of the `AuthSession` cookie.
    pub cookie: Option<SecretString>,
}

/// What a caller is told.
#[derive(Debug)]
pub enum Answer {
    /// The whole answer of a one-shot that ended.
    Completed(Value),
    /// The id of a continuous replication.
    Started(String),
    /// The id of the replication that was cancelled.
    Cancelled(String),
}

impl Registry {
    /// Starts, joins or cancels.
    #[expect(clippy::unused_async, reason = "a stand-in")]
    pub async fn replicate(&self, _body: &Map<String, Value>, _caller: &Caller) -> Result<Answer, ReplicateError> {
        Err(ReplicateError::ShuttingDown)
    }

    /// For `_active_tasks`.
    pub fn active_tasks(&self) -> Vec<Value> {
        Vec::new()
    }
}
