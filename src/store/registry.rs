//! Which database is in which file: a small file of its own, whose lock keeps a second process out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::error::StoreError;
use super::name::DbName;

/// The name of a database's file: random, so that a name that is used again never meets an old file.
pub(super) type FileId = u128;

/// The registry is small.
const CACHE_BYTES: usize = 1 << 20;

const FILES: TableDefinition<'_, &str, FileId> = TableDefinition::new("files");

pub(super) struct Registry {
    directory: PathBuf,
    /// Opened anew after the disk failed under it.
    open: Option<redb::Database>,
}

impl Registry {
    /// Opens a data directory's registry; answers also what is booked there.
    pub(super) fn open(directory: &Path) -> Result<(Self, BTreeMap<DbName, FileId>), StoreError> {
        let registry = open(directory)?;
        let transaction = registry.begin_write()?;
        let mut files = BTreeMap::new();
        for row in transaction.open_table(FILES)?.iter()? {
            let (name, file) = row?;
            files.insert(DbName::parse(name.value())?, file.value());
        }
        commit_synced(transaction)?;
        Ok((Self { directory: directory.to_owned(), open: Some(registry) }, files))
    }

    /// Books a name, or, with no file, strikes it out.
    pub(super) fn book(&mut self, name: &DbName, file: Option<FileId>) -> Result<(), StoreError> {
        let registry = match self.open.take() {
            Some(registry) => registry,
            None => open(&self.directory)?,
        };
        let booked = book(&registry, name, file);
        // Closed before it is opened, for only one may hold it.
        self.open = match booked.as_ref().is_err_and(StoreError::is_fatal) {
            true => {
                drop(registry);
                open(&self.directory).ok()
            }
            false => Some(registry),
        };
        booked
    }
}

fn open(directory: &Path) -> Result<redb::Database, StoreError> {
    let file = directory.join("databases.redb");
    Ok(redb::Database::builder().set_cache_size(CACHE_BYTES).create(file)?)
}

fn book(registry: &redb::Database, name: &DbName, file: Option<FileId>) -> Result<(), StoreError> {
    let transaction = registry.begin_write()?;
    {
        let mut table = transaction.open_table(FILES)?;
        match file {
            Some(file) => drop(table.insert(name.as_str(), file)?),
            None => drop(table.remove(name.as_str())?),
        }
    }
    commit_synced(transaction)
}

fn commit_synced(mut transaction: WriteTransaction) -> Result<(), StoreError> {
    transaction.set_quick_repair(true);
    Ok(transaction.commit()?)
}
