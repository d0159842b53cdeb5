//! Who the owner of a document is now: his job has the rights that he has, whatever the document says of roles.

use crate::access::Caller;
use crate::accounts::Accounts;
use crate::beside::{AdminError, CouchDbUsers};
use crate::replicate::ReplicateError;
use crate::store::DbName;

/// Knows them. Cheap to clone.
#[derive(Clone)]
pub enum Owners {
    /// By the accounts of the embedded store.
    Accounts(Accounts),
    /// As a CouchDB knows them.
    CouchDb(CouchDbUsers),
}

impl Owners {
    /// Who has this name, which stands in a document of this database; `None`: nobody in particular. Of whom nothing is known there is but
    /// the name.
    pub async fn find(&self, database: &DbName, name: Option<&str>) -> Result<Caller, ReplicateError> {
        match self {
            Self::Accounts(accounts) => of_accounts(accounts, name).await,
            Self::CouchDb(users) => {
                let Some(name) = name else { return Ok(Caller::default()) };
                let roles = users.roles(database.as_str(), name).await.map_err(asked)?;
                Ok(Caller { name: Some(name.to_owned()), roles, ..Caller::default() })
            }
        }
    }

    /// Whether documents of this database may name secrets of the settings: whether it is known whose they are.
    pub async fn are_known(&self, database: &DbName) -> Result<bool, ReplicateError> {
        match self {
            Self::Accounts(_) => Ok(true),
            Self::CouchDb(users) => users.is_closed(database.as_str()).await.map_err(asked),
        }
    }
}

fn asked(error: AdminError) -> ReplicateError {
    ReplicateError::CouchDb(error.into())
}

/// Where there are no admins, everyone is one.
async fn of_accounts(accounts: &Accounts, name: Option<&str>) -> Result<Caller, ReplicateError> {
    if !accounts.has_admins() {
        return Ok(Caller { name: name.map(str::to_owned), ..Caller::server_admin() });
    }
    let Some(name) = name else { return Ok(Caller::default()) };
    let known = accounts.caller(name).await.map_err(|refused| ReplicateError::Unauthorized(refused.to_string()))?;
    Ok(known.unwrap_or_else(|| Caller { name: Some(name.to_owned()), ..Caller::default() }))
}
