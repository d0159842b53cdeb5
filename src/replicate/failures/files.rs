//! Lists of failures in files, and what a server knows of lists that stand elsewhere.
//!
//! `{dir}/failures/{base id}/` holds the pages of one list, a file each, and `source.json`: the source, without credentials,
//! if its list stands there; so it is found by the replication's id alone, after a restart too. Whose replications have put something
//! into the list, wherever it stands, is told by `owner-{digest of the name}.json`, a file for each: so no two of them write the same one.
//! A file is written beside its place and moved there: a crash leaves all of it, or nothing. Ids and a target's words may be secret, so that
//! what is made here is for this user alone.
//!
//! Lists of couchrep 0.1 (`{base id}.json`, at most 1,000 failures) are taken over when they are first looked for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use ring::digest;
use serde::{Deserialize, Serialize};

use super::RecordedFailure;
use super::page::{self, NewPage, PageName};
use crate::store::StoreError;
use crate::tasks;

/// Where this machine keeps lists of failures. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FailureFiles {
    /// `None`: nowhere.
    directory: Option<PathBuf>,
    /// Whether it is noted where lists stand.
    notes: bool,
}

#[derive(Serialize, Deserialize)]
struct Pointer {
    source: String,
}

#[derive(Serialize)]
struct Owner<'a> {
    owner: &'a str,
}

impl FailureFiles {
    /// In this data dir.
    pub fn under(data_dir: &Path) -> Self {
        Self { directory: Some(data_dir.join("failures")), notes: true }
    }

    /// In the state dir of a command, which is made when there is something to keep. Nobody asks a command for lists by
    /// the replication's id.
    pub fn in_state_dir(directory: &Path) -> Self {
        Self { notes: false, ..Self::under(directory) }
    }

    /// Notes in which source the list of this replication stands: a name or a URL without credentials.
    pub async fn point(&self, base_id: &str, source: &str) -> Result<(), StoreError> {
        self.note(base_id, "source.json".into(), &Pointer { source: source.to_owned() }).await
    }

    /// Notes that a replication of this user has put something into the list.
    pub async fn note_owner(&self, base_id: &str, owner: &str) -> Result<(), StoreError> {
        self.note(base_id, owner_file(owner), &Owner { owner }).await
    }

    /// Whether that was noted.
    pub async fn has_owner(&self, base_id: &str, owner: &str) -> Result<bool, StoreError> {
        let Some(list) = self.list(base_id) else { return Ok(false) };
        let path = list.join(owner_file(owner));
        let noted = tasks::blocking("find the owner of a list of failures", move || read(&path)).await??;
        Ok(noted.is_some())
    }

    async fn note(&self, base_id: &str, file: String, note: &impl Serialize) -> Result<(), StoreError> {
        let Some(list) = self.list(base_id).filter(|_| self.notes) else { return Ok(()) };
        let note = serde_json::to_vec(note).map_err(std::io::Error::from)?;
        let noted = tasks::blocking("note a list of failures", move || {
            let path = list.join(file);
            if fs::read(&path).is_ok_and(|noted| noted == note) {
                return Ok(());
            }
            make_directory(&list)?;
            write(&path, &note)
        });
        noted.await?
    }

    /// The source that was noted.
    pub async fn pointed(&self, base_id: &str) -> Result<Option<String>, StoreError> {
        let Some(list) = self.list(base_id) else { return Ok(None) };
        let noted = tasks::blocking("find a list of failures", move || read(&list.join("source.json"))).await??;
        Ok(noted.and_then(|text| Some(serde_json::from_str::<Pointer>(&text).ok()?.source)))
    }

    pub(super) fn list(&self, base_id: &str) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(base_id))
    }
}

/// A name may be longer than a file's, and have slashes.
fn owner_file(owner: &str) -> String {
    format!("owner-{}.json", hex::encode(digest::digest(&digest::SHA256, owner.as_bytes())))
}

/// The file of a page.
pub(super) fn page(list: &Path, name: &PageName) -> PathBuf {
    list.join(format!("{}.json", name.as_str()))
}

/// The pages of a list, the newest first.
pub(super) fn names(list: &Path) -> Result<Vec<PageName>, StoreError> {
    take_over(list)?;
    let files = match fs::read_dir(list) {
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for file in files {
        let name = file?.file_name();
        names.extend(name.to_str().and_then(|name| PageName::parse(name.strip_suffix(".json")?)));
    }
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Makes pages of a list that couchrep 0.1 left.
fn take_over(list: &Path) -> Result<(), StoreError> {
    #[derive(Deserialize)]
    struct Old {
        failures: Vec<RecordedFailure>,
    }
    let path = list.with_extension("json");
    let Some(text) = read(&path)? else { return Ok(()) };
    let old: Old = serde_json::from_str(&text).map_err(|_| StoreError::Damaged("a list of failures"))?;
    add(list, &page::pages(old.failures)?)?;
    remove(&path)
}

/// A file's text; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes pages; they are durable afterwards.
pub(super) fn add(list: &Path, pages: &[NewPage]) -> Result<(), StoreError> {
    make_directory(list)?;
    // The directory is new, perhaps, and so is the one that it is in.
    list.ancestors().skip(1).take(2).try_for_each(sync)?;
    pages.iter().try_for_each(|new| write(&page(list, &new.name), new.body.get().as_bytes()))
}

/// Removes a file; that it has gone already is a success.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes a directory, and those that it is in, for this user alone.
fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Creates a file for this user alone.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn write(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    let unfinished = path.with_extension("new");
    let mut file = create(&unfinished)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    path.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> Result<(), StoreError> {
    Ok(File::open(directory)?.sync_all()?)
}
