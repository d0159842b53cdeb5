//! Databases that are opened, closed, deleted and crashed, and who waits for them meanwhile.

use super::*;

/// A deadline that passed while others were served was put off by a whole interval, each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_never_rest_do_not_put_off_the_sync() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { sync_interval: Duration::from_millis(20), ..StoreSettings::default() };
    let store = Store::open(directory.path(), settings).await.unwrap();
    let bench = Bench { database: store.create(&name("db")).await.unwrap(), store, directory };
    let synced = async { while bench.database.read(|snapshot| Ok(snapshot.info().unsynced)).await.unwrap() {} };
    bench.put("first", "{}").await.unwrap();
    let writing = futures::future::join_all((0..64).map(async |writer| {
        for number in 0.. {
            bench.put(&format!("{writer}-{number}"), "{}").await.unwrap();
        }
    }));
    tokio::select! {
        () = synced => {}
        _ = writing => unreachable!("they never end"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("nothing was synced"),
    }
}

#[tokio::test]
async fn a_deleted_database_is_gone_and_its_name_starts_anew() {
    let bench = bench().await;
    bench.put("a", "{}").await.unwrap();
    bench.store.delete(&name("db")).await.unwrap();
    assert!(matches!(bench.store.database(&name("db")).await, Err(StoreError::NoDatabase)));
    assert!(matches!(bench.store.delete(&name("db")).await, Err(StoreError::NoDatabase)));
    assert!(matches!(bench.database.ensure_full_commit().await, Err(StoreError::Closing)));
    let again = bench.store.create(&name("db")).await.unwrap();
    assert!(matches!(bench.store.create(&name("db")).await, Err(StoreError::AlreadyExists)));
    assert_eq!(again.stats().await.unwrap().update_seq, 0);
}

#[tokio::test]
async fn databases_that_nobody_uses_are_closed_beyond_the_limit_and_open_again() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { open_databases: 3, ..StoreSettings::default() };
    let store = Store::open(directory.path(), settings).await.unwrap();
    for number in 0..12 {
        let database = store.create(&name(&format!("db{number}"))).await.unwrap();
        database.put_local_doc("x", None, Some(format!("{{\"n\":{number}}}").into())).await.unwrap().unwrap();
    }
    assert!(store.inner.open.len() <= 4, "{}", store.inner.open.len());
    for number in 0..12 {
        let database = store.database(&name(&format!("db{number}"))).await.unwrap();
        let (rev, body) = database.local_doc("x").await.unwrap().unwrap();
        assert_eq!((rev.as_str(), body), ("0-1", format!("{{\"n\":{number}}}").into_bytes()));
    }
}

#[tokio::test]
async fn whoever_waits_for_a_database_hears_of_writes_after_it_was_closed_and_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { open_databases: 1, ..StoreSettings::default() };
    let store = Store::open(directory.path(), settings).await.unwrap();
    let mut updates = store.create(&name("a")).await.unwrap().updates();
    store.create(&name("b")).await.unwrap();
    assert!(!store.inner.open.contains_key(&name("a")));
    let parts = DocParts::parse(br#"{"_id":"x"}"#).unwrap();
    let edit = Edit::new(&parts, "x".into(), false, Vec::new()).unwrap();
    let again = store.reopen(&name("a"), &updates).await.unwrap();
    assert!(!updates.has_changed().unwrap());
    again.write(vec![edit], &Caller::server_admin(), Durability::Unsynced).await.unwrap().remove(0).unwrap();
    updates.changed().await.unwrap();
    assert_eq!(*updates.borrow(), 1);
}

#[tokio::test]
async fn whoever_waits_for_a_database_hears_of_its_end_and_is_given_no_other_of_its_name() {
    let bench = bench().await;
    let mut updates = bench.database.updates();
    bench.store.delete(&name("db")).await.unwrap();
    assert!(updates.changed().await.is_err());
    bench.store.create(&name("db")).await.unwrap();
    assert!(matches!(bench.store.reopen(&name("db"), &updates).await, Err(StoreError::NoDatabase)));
}

#[tokio::test]
async fn instance_start_time_stays_through_a_clean_end() {
    let bench = bench().await;
    let before = bench.database.ensure_full_commit().await.unwrap();
    bench.put("a", "{}").await.unwrap();
    let bench = bench.reopen().await;
    assert_eq!(bench.database.ensure_full_commit().await.unwrap(), before);
    assert_eq!(bench.feed(0).await.len(), 1);
}

#[tokio::test]
async fn instance_start_time_changes_where_unsynced_writes_were_lost_and_their_seqs_are_not_used_again() {
    let bench = bench().await;
    let before = bench.database.ensure_full_commit().await.unwrap();
    bench.put("a", "{}").await.unwrap();
    bench.put("b", "{}").await.unwrap();
    // As after a kill: a copy of the files as they are on disk now.
    let crashed = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-r").arg(bench.directory.path()).arg(crashed.path()).status();
    assert!(copied.unwrap().success());
    let copy = crashed.path().join(bench.directory.path().file_name().unwrap());
    let store = Store::open(&copy, StoreSettings::default()).await.unwrap();
    let database = store.database(&name("db")).await.unwrap();
    assert_ne!(database.ensure_full_commit().await.unwrap(), before);
    assert!(database.update_seq() > bench.database.update_seq());
}

#[tokio::test]
async fn a_database_whose_writer_ended_is_opened_anew() {
    let Bench { store, database, directory: _directory } = bench().await;
    database.close().await;
    drop(database);
    let again = store.database(&name("db")).await.unwrap();
    again.put_local_doc("x", None, Some(b"{}".to_vec())).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_read_that_outlives_its_caller_keeps_its_database_open() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { open_databases: 1, ..StoreSettings::default() };
    let store = Store::open(directory.path(), settings).await.unwrap();
    let database = store.create(&name("a")).await.unwrap();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (finish, may_finish) = std::sync::mpsc::channel::<()>();
    let mut read = Box::pin(async move {
        let work = move |_: &Snapshot| {
            let _ = started.send(());
            let _ = may_finish.recv();
            Ok(())
        };
        database.read(work).await
    });
    tokio::select! {
        _ = &mut read => panic!("it waits for the test"),
        started = has_started => started.unwrap(),
    }
    drop(read);
    for other in ["b", "c"] {
        store.create(&name(other)).await.unwrap();
    }
    store.database(&name("a")).await.unwrap().ensure_full_commit().await.unwrap();
    finish.send(()).unwrap();
}

#[tokio::test]
async fn a_deletion_whose_caller_is_gone_leaves_nothing_half_done() {
    let bench = bench().await;
    let db = name("db");
    let mut delete = Box::pin(bench.store.delete(&db));
    assert!(futures::poll!(&mut delete).is_pending());
    drop(delete);
    // Made only once the other has ended.
    bench.store.create(&name("db")).await.unwrap().ensure_full_commit().await.unwrap();
    assert!(bench.database.ensure_full_commit().await.is_err());
}
