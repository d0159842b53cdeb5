//! What is an event of a database, as a CouchDB 3.5 with `_global_changes` has it.

use super::*;

fn events(store: &Store) -> Vec<(String, DbEvent)> {
    let rows = store.db_updates().since(0, usize::MAX);
    rows.into_iter().map(|row| (row.name.to_string(), row.event)).collect()
}

#[tokio::test]
async fn what_changes_an_update_seq_is_an_update_and_nothing_else_is() {
    let bench = bench().await;
    let (database, log) = (&bench.database, bench.store.db_updates());
    assert_eq!(events(&bench.store), [("db".into(), DbEvent::Created)]);

    let rev = bench.put("a", "{}").await.unwrap();
    assert_eq!(log.seq(), 2, "a document");
    bench.write("b", r#"{"_rev":"1-a"}"#, true).await.unwrap();
    assert_eq!(log.seq(), 3, "a copied one");
    bench.write("b", r#"{"_rev":"1-a"}"#, true).await.unwrap();
    assert_eq!(log.seq(), 3, "the same again");
    bench.put("a", "{}").await.unwrap_err();
    assert_eq!(log.seq(), 3, "a conflict");
    database.purge(vec![("a".into(), vec![rev])]).await.unwrap();
    assert_eq!(log.seq(), 4, "a purge");

    database.put_local_doc("a", None, Some("{}".into())).await.unwrap().unwrap();
    database.set_security(Security::default()).await.unwrap();
    database.set_revs_limit(7).await.unwrap();
    database.ensure_full_commit().await.unwrap();
    bench.compact().await;
    assert_eq!(log.seq(), 4);
    assert_eq!(events(&bench.store), [("db".into(), DbEvent::Created), ("db".into(), DbEvent::Updated)]);

    let mut watch = log.watch();
    bench.store.delete(&name("db")).await.unwrap();
    assert_eq!(events(&bench.store), [("db".into(), DbEvent::Deleted)]);
    assert!(watch.has_changed().unwrap());
    bench.store.create(&name("db")).await.unwrap();
    bench.store.create(&name("another")).await.unwrap();
    assert_eq!(events(&bench.store), ["db", "another"].map(|name| (name.into(), DbEvent::Created)));

    bench.store.close().await;
    watch.borrow_and_update();
    assert!(watch.changed().await.is_err(), "the store is closed");
}

#[tokio::test]
async fn after_a_restart_the_log_begins_anew_with_the_databases_that_are_there() {
    let bench = bench().await;
    bench.put("a", "{}").await.unwrap();
    bench.store.create(&name("another")).await.unwrap();
    let life = bench.store.db_updates().life();
    let bench = bench.reopen().await;
    assert_ne!(bench.store.db_updates().life(), life);
    assert_eq!(events(&bench.store), ["another", "db"].map(|name| (name.into(), DbEvent::Created)));
    bench.database.stats().await.unwrap();
    assert_eq!(bench.store.db_updates().seq(), 2, "opening one is no event");
    bench.put("b", "{}").await.unwrap();
    assert_eq!(events(&bench.store).last(), Some(&("db".into(), DbEvent::Updated)));
}
