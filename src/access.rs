//! Who asks, what he may do, and what he can prove to a database elsewhere.
//!
//! The whole program knows one [`Caller`]. `http` finds out who he is; a right is asked of him (`may_…`) and of nothing
//! else: not of a path, not of a name. Roles are CouchDB's: a server admin has the role `_admin`, and where no admins are
//! set everyone has it. A replication keeps its caller, so that it never has more rights than whoever asked for it.
//!
//! What he may do with one database, its [`Security`] says.

mod security;

use secrecy::SecretString;

pub use self::security::{Security, SecurityError};

/// The role of server admins.
const ADMIN: &str = "_admin";
/// The role of the replicator itself. Whatever proves who asks over HTTP, it never proves this role (`http/identify.rs`).
pub const REPLICATOR: &str = "_replicator";
/// The role of who may watch the server, and nothing else.
const METRICS: &str = "_metrics";

/// Who asks.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// The user's name; `None` for nobody in particular.
    pub name: Option<String>,
    /// His roles.
    pub roles: Vec<String>,
    /// The request's `Authorization` as it came. It enters the ids of replications between databases without a URL.
    pub authorization: Option<SecretString>,
    /// What proves who he is only for a while, to the CouchDB beside which this server stands: headers with a session's cookie, a
    /// token, a proxy's word. None if a password proves it.
    pub temporary_proofs: Vec<(String, SecretString)>,
}

/// Why somebody may not do something, in CouchDB's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Anybody with a name may.
    #[error("You are not an authenticated user")]
    NotAuthenticated,
    /// Server admins may.
    #[error("You are not a server admin.")]
    NotServerAdmin,
    /// Server admins may, and who has the role to watch.
    #[error("You are not a server admin or read-only metrics user")]
    MayNotWatch,
    /// Members of the database may; nobody in particular asks.
    #[error("You are not authorized to access this db.")]
    NotMember,
    /// Members of the database may; somebody else asks, whom another login won't help.
    #[error("You are not allowed to access this db.")]
    ForeignDatabase,
    /// Admins of the users' database may read its design documents.
    #[error("Only administrators can view design docs in the users database.")]
    UsersDesign,
    /// Admins of the database may have it cleaned up.
    #[error("You are not a server or db admin.")]
    NotDatabaseAdmin,
    /// Admins of the database may change its design documents and settings.
    #[error("You are not a db or server admin.")]
    MayNotDesign {
        /// Whether somebody in particular asks, whom another login won't help.
        known: bool,
    },
}

impl Caller {
    /// A server admin without a name: whoever calls if there are no admins, or starts a command on this machine.
    pub fn server_admin() -> Self {
        Self { roles: vec![ADMIN.to_owned()], ..Self::default() }
    }

    /// The replicator, where it reads and writes the documents that tell it what to do. A server admin besides.
    pub fn replicator() -> Self {
        Self { roles: vec![ADMIN.to_owned(), REPLICATOR.to_owned()], ..Self::default() }
    }

    /// Whether it is the replicator itself, and no person.
    pub fn is_replicator(&self) -> bool {
        self.roles.iter().any(|role| role == REPLICATOR)
    }

    /// Whether nothing is forbidden to him.
    pub fn is_server_admin(&self) -> bool {
        self.roles.iter().any(|role| role == ADMIN)
    }

    /// Whether he may look at and change the server as a whole: its list of databases, its running tasks.
    pub fn may_administer(&self) -> Result<(), Denied> {
        self.is_server_admin().then_some(()).ok_or(Denied::NotServerAdmin)
    }

    /// Whether he may read the server's metrics.
    pub fn may_watch(&self) -> Result<(), Denied> {
        let may = self.is_server_admin() || self.roles.iter().any(|role| role == METRICS);
        may.then_some(()).ok_or(Denied::MayNotWatch)
    }

    /// Whether he may make and remove databases on this server.
    pub fn may_make_databases(&self) -> Result<(), Denied> {
        self.may_administer()
    }

    /// Whether he may ask for replications.
    pub fn may_replicate(&self) -> Result<(), Denied> {
        (self.name.is_some() || self.is_server_admin()).then_some(()).ok_or(Denied::NotAuthenticated)
    }

    /// Whether he may look into, and cancel, a replication that `owner` started.
    pub fn may_manage(&self, owner: Option<&str>) -> bool {
        self.is_server_admin() || (self.name.is_some() && owner == self.name.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Caller {
        Caller { name: Some(name.into()), ..Caller::default() }
    }

    #[test]
    fn strangers_may_do_nothing_users_may_replicate_and_admins_may_do_everything() {
        let rights = |caller: &Caller| [caller.may_replicate(), caller.may_make_databases(), caller.may_administer()];
        let no_admin = Err(Denied::NotServerAdmin);
        assert_eq!(rights(&Caller::default()), [Err(Denied::NotAuthenticated), no_admin, no_admin]);
        assert_eq!(rights(&user("ann")), [Ok(()), no_admin, no_admin]);
        assert_eq!(rights(&Caller::server_admin()), [Ok(()); 3]);
    }

    #[test]
    fn who_may_watch_may_do_nothing_else() {
        let watcher = Caller { roles: vec!["_metrics".into()], ..user("prometheus") };
        assert_eq!((watcher.may_watch(), watcher.may_administer()), (Ok(()), Err(Denied::NotServerAdmin)));
        assert_eq!(Caller::server_admin().may_watch(), Ok(()));
        assert_eq!(
            (user("ann").may_watch(), Caller::default().may_watch()),
            (Err(Denied::MayNotWatch), Err(Denied::MayNotWatch))
        );
    }

    #[test]
    fn a_replication_is_its_owners_and_the_admins_to_manage() {
        assert!(user("ann").may_manage(Some("ann")) && Caller::server_admin().may_manage(Some("ann")));
        assert!(!user("bob").may_manage(Some("ann")) && !user("bob").may_manage(None));
        assert!(!Caller::default().may_manage(None), "nobody in particular owns nothing");
    }
}
