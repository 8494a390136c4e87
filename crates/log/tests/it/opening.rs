//! Opening and closing a folder.

use rusqlite::Connection;
use tidings_log::sqlite::{OpenError, SqliteStore, Synchronous, log_path};
use tidings_log::store::Store as _;
use tidings_log::verify::{VerifyError, verify};

use crate::folder::{Folder, add_tenant, append, event, ids};

fn refusal(folder: &Folder) -> OpenError {
    SqliteStore::open(folder.path(), Synchronous::Full).err().expect("a refusal")
}

#[tokio::test]
async fn a_folder_has_one_owner_at_a_time() {
    let folder = Folder::new();
    let store = folder.open_store();
    let error = refusal(&folder);
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    drop(store);
    folder.open_store();
}

#[tokio::test]
async fn a_closed_log_is_one_file() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    append(&*store, tenant, vec![event(tenant, "a", "1")]).await;
    assert!(folder.path().join("log.db-wal").exists());
    store.close();
    drop(store);
    assert!(!folder.path().join("log.db-wal").exists());
    assert_eq!(ids(&*folder.open_store(), tenant).await, ["a"]);
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_as_it_is() {
    let text = Folder::new();
    std::fs::write(log_path(text.path()), "Dear diary, ".repeat(1_000)).unwrap();
    let database = Folder::new();
    Connection::open(log_path(database.path())).unwrap().execute_batch("CREATE TABLE diary (day)").unwrap();
    for folder in [text, database] {
        let before = std::fs::read(log_path(folder.path())).unwrap();
        let error = refusal(&folder);
        assert!(matches!(error, OpenError::Foreign(_)), "{error}");
        let error = verify(folder.path(), &mut |_| ()).expect_err("a refusal");
        assert!(matches!(error, VerifyError::Open(OpenError::Foreign(_))), "{error}");
        assert_eq!(std::fs::read(log_path(folder.path())).unwrap(), before);
    }
}

#[test]
fn a_layout_from_the_future_is_refused() {
    let folder = Folder::new();
    drop(folder.open_store());
    folder.vandal().pragma_update(None, "user_version", 2).unwrap();
    assert!(matches!(refusal(&folder), OpenError::TooNew { found: 2 }));
}

#[test]
fn there_is_nothing_to_verify_in_an_empty_folder() {
    let folder = Folder::new();
    let error = verify(folder.path(), &mut |_| ()).expect_err("a refusal");
    assert!(matches!(error, VerifyError::Absent(_)), "{error}");
}
