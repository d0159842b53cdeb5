//! Who the owner of a document is now: his job has the rights that he has, whatever the document says of roles.

use crate::access::Caller;
use crate::accounts::Accounts;
use crate::beside::CouchDbUsers;
use crate::replicate::ReplicateError;

/// Knows them. Cheap to clone.
#[derive(Clone)]
pub enum Owners {
    /// By the accounts of the embedded store.
    Accounts(Accounts),
    /// As a CouchDB knows them.
    CouchDb(CouchDbUsers),
}

impl Owners {
    /// Who has this name; `None`: nobody in particular. Of whom nothing is known there is but the name.
    pub async fn find(&self, name: Option<&str>) -> Result<Caller, ReplicateError> {
        match self {
            Self::Accounts(accounts) => of_accounts(accounts, name).await,
            Self::CouchDb(users) => {
                let Some(name) = name else { return Ok(Caller::default()) };
                let roles = users.roles(name).await.map_err(|error| ReplicateError::CouchDb(error.into()))?;
                Ok(Caller { name: Some(name.to_owned()), roles, ..Caller::default() })
            }
        }
    }
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
