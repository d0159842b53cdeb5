use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use serde_json::value::to_raw_value;
use tempfile::TempDir;

use super::list::{ListLocation, PART_BYTES};
use super::log::{FULL_BYTES, RECENT_BYTES};
use super::page::{PAGE_BYTES, Page};
use super::storage::{MAX_PAGES, Storage};
use super::*;
use crate::config::StoreSettings;
use crate::effort::pulse::Pulse;
use crate::peer::local::LocalPeer;
use crate::peer::{Peer, Why};
use crate::store::{DbName, LocalRange, Store};

/// A source in the embedded store.
struct Source {
    store: Store,
    peer: Peer,
    dir: TempDir,
}

impl Source {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreSettings::default()).await.unwrap();
        let peer = Peer::Local(LocalPeer::new(
            store.clone(),
            DbName::parse("src").unwrap(),
            std::sync::Arc::new(crate::access::Caller::server_admin()),
            Pulse::default(),
        ));
        peer.create().await.unwrap();
        Self { store, peer, dir }
    }

    fn list(&self) -> FailureList {
        list(Some(self.peer.clone()), &FailureFiles::default())
    }

    async fn local_docs(&self) -> Vec<crate::store::LocalRow> {
        let database = self.store.database(&DbName::parse("src").unwrap()).await.unwrap();
        database.local_docs(LocalRange { bodies: true, ..LocalRange::default() }).await.unwrap()
    }
}

fn list(source: Option<Peer>, files: &FailureFiles) -> FailureList {
    let source = source.map(|source| (source, "src".to_owned()));
    FailureList::new(ListLocation {
        base_id: "x",
        source,
        owner: None,
        files,
        writes_source: true,
        must_keep: true,
        may_hold: Arc::new(true.into()),
    })
}

fn files(dir: &Path) -> (FailureFiles, FailureList) {
    let files = FailureFiles::under(dir);
    (files.clone(), list(None, &files))
}

fn failure(id: usize) -> Failure {
    Failure { id: DocId::from(id.to_string()), rev: Rev::parse("1-a"), why: Why::new("forbidden", "not here") }
}

fn log(ids: impl IntoIterator<Item = usize>) -> FailureLog {
    let log = FailureLog::default();
    ids.into_iter().for_each(|id| log.add(failure(id)));
    log
}

fn ids(failures: &[RecordedFailure]) -> Vec<usize> {
    failures.iter().map(|kept| kept.failure.id.as_str().parse().unwrap()).collect()
}

async fn all(list: &FailureList) -> Vec<usize> {
    ids(&list.part(0, usize::MAX).await.unwrap().1)
}

/// Reviews the list: these go.
async fn strike(list: &FailureList, gone: impl Fn(usize) -> bool) -> u64 {
    let mut review = list.review().await.unwrap();
    while let Some(mut failures) = review.next().await.unwrap() {
        failures.retain(|kept| !gone(ids(std::slice::from_ref(kept))[0]));
        review.stand(failures);
        if review.is_due() {
            review.settle().await.unwrap();
        }
    }
    review.standing()
}

#[tokio::test]
async fn failures_are_kept_in_the_source_and_in_files_the_newest_first() {
    let (source, dir) = (Source::new().await, tempfile::tempdir().unwrap());
    let (_, in_files) = files(dir.path());
    for list in [source.list(), in_files] {
        list.keep(&log(0..3)).await.unwrap();
        list.keep(&log(3..5)).await.unwrap();
        assert_eq!(all(&list).await, [4, 3, 2, 1, 0]);
        assert_eq!(list.part(1, 2).await.unwrap().0, 5);
        assert_eq!(ids(&list.part(1, 2).await.unwrap().1), [3, 2]);
        assert_eq!(ids(&list.part(3, 9).await.unwrap().1), [1, 0]);
    }
    assert_eq!(all(&source.list()).await, [4, 3, 2, 1, 0]);
    assert_eq!(all(&list(None, &FailureFiles::default())).await, Vec::<usize>::new());
}

/// 2,500 were refused, 1,500 of them forgotten. `COUCHREP_FAILURES` may ask for another number.
#[tokio::test]
async fn a_hundred_thousand_failures_are_kept_in_pages_and_bounded_memory() {
    let count = std::env::var("COUCHREP_FAILURES").map_or(100_000, |count| count.parse().unwrap());
    let source = Source::new().await;
    let (list, log) = (source.list(), FailureLog::default());
    for id in 0..count {
        log.add(failure(id));
        if log.is_full() {
            list.keep(&log).await.unwrap();
        }
        assert!(log.unkept_bytes() < FULL_BYTES + 1000, "{id}");
    }
    assert!(log.recent().len() <= 1000);
    list.keep(&log).await.unwrap();
    let (mut found, pages) = (BTreeSet::new(), list.names().await.unwrap().len());
    for (storage, name) in list.names().await.unwrap() {
        let page = list.read(&storage, &name).await.unwrap().unwrap();
        assert_eq!(name.failures(), page.len() as u64);
        found.extend(ids(&page));
    }
    assert_eq!(found.len(), count);
    for doc in source.local_docs().await {
        assert!(doc.json.len() <= PAGE_BYTES, "{} has {} bytes", doc.id, doc.json.len());
    }
    assert_eq!(strike(&list, |id| id % 10 != 0).await, count as u64 / 10);
    assert_eq!(list.part(0, 0).await.unwrap().0, count as u64 / 10);
    // What is left of the pages was put together.
    let (before, after) = (pages, list.names().await.unwrap().len());
    assert!(after < before / 2, "{before}, then {after}");
    assert_eq!(strike(&list, |_| true).await, 0);
    assert_eq!(source.local_docs().await.len(), 1, "the index alone is left");
}

#[tokio::test]
async fn what_failed_twice_stands_once() {
    let source = Source::new().await;
    let list = source.list();
    list.keep(&log(0..5)).await.unwrap();
    list.keep(&log(2..7)).await.unwrap();
    assert_eq!(list.part(0, 0).await.unwrap().0, 10);
    assert_eq!(strike(&list, |_| false).await, 7);
    assert_eq!(all(&list).await, [6, 5, 4, 3, 2, 1, 0]);
}

/// CouchDB from 2 on checks no revision of `_local` documents, so that the last of two writers wins.
#[tokio::test]
async fn two_writers_at_once_lose_nothing_even_if_one_overwrites_the_others_index() {
    let source = Source::new().await;
    let (one, other) = (source.list(), source.list());
    for id in 0..20 {
        let (one_log, other_log) = (log([id]), log([100 + id]));
        let (one, other) = tokio::join!(one.keep(&one_log), other.keep(&other_log));
        one.unwrap();
        other.unwrap();
    }
    let rev = source.peer.local_doc("x-failures").await.unwrap().unwrap().rev;
    let stale = to_raw_value(&json!({ "pages": [] })).unwrap();
    source.peer.put_local_doc("x-failures", Some(&rev), &stale).await.unwrap();
    let found: BTreeSet<_> = all(&one).await.into_iter().collect();
    assert_eq!(found, (0..20).chain(100..120).collect());
    assert_eq!(strike(&other, |id| id < 100).await, 20);
    assert_eq!(all(&one).await.len(), 20);
}

#[tokio::test]
async fn two_that_review_at_once_lose_nothing() {
    let source = Source::new().await;
    let (one, other) = (source.list(), source.list());
    one.keep(&log(0..10)).await.unwrap();
    let mut first = one.review().await.unwrap();
    let failures = first.next().await.unwrap().unwrap();
    assert_eq!(strike(&other, |id| id < 5).await, 5);
    other.keep(&log(10..12)).await.unwrap();
    first.stand(failures.into_iter().filter(|kept| ids(std::slice::from_ref(kept))[0] >= 3).collect());
    first.settle().await.unwrap();
    assert_eq!(strike(&other, |_| false).await, 9);
    let found: BTreeSet<_> = all(&one).await.into_iter().collect();
    assert_eq!(found, (3..12).collect());
}

#[tokio::test]
async fn a_review_that_is_broken_off_before_it_settled_changes_nothing() {
    let source = Source::new().await;
    let list = source.list();
    list.keep(&log(0..3)).await.unwrap();
    let mut review = list.review().await.unwrap();
    review.next().await.unwrap();
    review.stand(Vec::new());
    drop(review);
    assert_eq!(all(&list).await, [2, 1, 0]);
}

#[tokio::test]
async fn what_could_not_be_kept_is_kept_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("failures");
    std::fs::write(&in_the_way, "").unwrap();
    let (log, (_, list)) = (log(1..2), files(dir.path()));
    list.keep(&log).await.unwrap_err();
    std::fs::remove_file(in_the_way).unwrap();
    list.keep(&log).await.unwrap();
    assert_eq!(all(&list).await, [1]);
}

#[tokio::test]
async fn a_damaged_page_is_passed_over_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (_, list) = files(dir.path());
    list.keep(&log(0..2)).await.unwrap();
    let (Storage::Directory(path), name) = list.names().await.unwrap().remove(0) else { panic!() };
    let page = files::page(&path, &name);
    std::fs::write(&page, "{").unwrap();
    list.keep(&log(2..3)).await.unwrap();
    assert_eq!(all(&list).await, [2]);
    assert_eq!(strike(&list, |_| true).await, 2);
    assert!(page.exists());
}

#[tokio::test]
async fn a_list_of_couchrep_0_1_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("failures");
    std::fs::create_dir(&directory).unwrap();
    let old = json!({ "dropped": 3, "failures": [
        { "id": "2", "rev": "1-a", "error": "forbidden", "reason": "not here", "time": "2026-01-02T03:04:05Z" },
        { "id": "1", "rev": null, "error": "forbidden", "reason": "not here", "time": "2026-01-02T03:04:05Z" },
    ] });
    std::fs::write(directory.join("x.json"), old.to_string()).unwrap();
    for _ in 0..2 {
        assert_eq!(all(&files(dir.path()).1).await, [2, 1]);
    }
    assert!(!directory.join("x.json").exists());
}

#[tokio::test]
async fn the_place_of_a_list_is_noted() {
    let source = Source::new().await;
    let (files, _) = files(source.dir.path());
    assert_eq!(files.pointed("x").await.unwrap(), None);
    list(Some(source.peer.clone()), &files).keep(&log(0..1)).await.unwrap();
    assert_eq!(files.pointed("x").await.unwrap().as_deref(), Some("src"));
}

/// A failure of a document with a long id, in many words.
fn long(number: usize) -> Failure {
    let id = DocId::from(format!("{number}-{}", "i".repeat(100_000)));
    Failure { id, rev: None, why: Why::new("e".repeat(100_000), "r".repeat(100_000)) }
}

async fn write_index(source: &Source, pages: &[String]) {
    let index = to_raw_value(&json!({ "pages": pages })).unwrap();
    let rev = source.peer.local_doc("x-failures").await.unwrap().map(|doc| doc.rev);
    source.peer.put_local_doc("x-failures", rev.as_deref(), &index).await.unwrap();
}

/// An index may be anybody's: millions of names in it were held, and their pages asked for.
#[tokio::test]
async fn an_index_of_too_many_pages_is_an_error_and_one_of_wrong_names_is_damaged() {
    let source = Source::new().await;
    let list = source.list();
    list.keep(&log(0..3)).await.unwrap();
    write_index(&source, &["../../secrets".to_owned()]).await;
    assert_eq!(all(&list).await, [2, 1, 0]);
    write_index(&source, &(0..=MAX_PAGES).map(|page| format!("{page:012x}-{page:016x}-1")).collect::<Vec<_>>()).await;
    for error in [list.part(0, 1).await.unwrap_err(), list.keep(&log(3..4)).await.unwrap_err()] {
        assert!(error.to_string().contains("100,000 pages"), "{error}");
    }
}

/// A thousand ids of a megabyte each were remembered, whether they were kept or not.
#[tokio::test]
async fn what_is_remembered_of_long_ids_is_bounded_by_bytes() {
    let log = FailureLog::default();
    (0..50).for_each(|number| log.add(long(number)));
    let recent = log.recent();
    assert!(recent.iter().map(RecordedFailure::size).sum::<usize>() <= RECENT_BYTES);
    assert!(recent.len() > 5 && recent[0].failure.id.as_str().starts_with("49-"), "{}", recent.len());
}

#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A peer's words were shortened after they had been logged.
#[test]
fn a_log_line_is_short_however_much_a_peer_says() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || FailureLog::default().add(long(1)));
    let line = lines.0.lock().unwrap().len();
    assert!((1500..3000).contains(&line), "{line}");
}

/// A page that somebody else wrote was shown in as many words as it had.
#[test]
fn words_of_a_page_that_was_read_are_short() {
    let page = json!({ "failures": [RecordedFailure { failure: long(1), time: "t".repeat(100_000) }] });
    let page = Page::parse(&page.to_string(), None).unwrap();
    let RecordedFailure { failure, time } = &page.failures[0];
    assert_eq!((failure.why.error.len(), failure.why.reason.len(), time.len()), (500, 500, 500));
    assert_eq!(failure.id, long(1).id);
}

/// A thousand failures were answered at once, however long their ids are.
#[tokio::test]
async fn a_part_of_a_list_ends_by_bytes_too_and_the_next_begins_there() {
    let source = Source::new().await;
    let (list, log) = (source.list(), FailureLog::default());
    (0..60).for_each(|number| log.add(long(number)));
    list.keep(&log).await.unwrap();
    let (mut found, mut parts) = (Vec::new(), 0);
    while found.len() < 60 {
        let (total, part) = list.part(found.len() as u64, 1000).await.unwrap();
        assert_eq!(total, 60);
        assert!(!part.is_empty() && part.iter().map(RecordedFailure::size).sum::<usize>() < PART_BYTES + 110_000);
        found.extend(part.into_iter().map(|kept| kept.failure));
        parts += 1;
    }
    assert_eq!(parts, 2);
    let number = |failure: &Failure| failure.id.as_str().split('-').next().unwrap().parse::<usize>().unwrap();
    assert!(found.iter().map(number).eq((0..60).rev()));
}

/// Ids, reasons and the names of sources could be read by every user of the machine.
#[cfg(unix)]
#[tokio::test]
async fn files_and_directories_are_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let files = FailureFiles::under(&dir.path().join("state"));
    list(None, &files).keep(&log(0..1)).await.unwrap();
    files.point("x", "src").await.unwrap();
    let (mut directories, mut count) = (vec![dir.path().join("state")], 0);
    while let Some(directory) = directories.pop() {
        assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", directory.display());
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => directories.push(entry.path()),
                false => {
                    assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
                    count += 1;
                }
            }
        }
    }
    assert_eq!(count, 2);
}
