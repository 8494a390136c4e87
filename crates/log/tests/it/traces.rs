//! An erased payload leaves no trace in the files.

use std::path::Path;

use tidings_log::conformance::Engine as _;
use tidings_log::store::{Store as _, Write, Written};

use crate::folder::{Folder, NOW, add_tenant, append, event, fill};

pub(crate) const SECRET: &str = "Ada Lovelace, 12 St James's Square";

pub(crate) fn is_in_files(folder: &Path) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()))
}

#[tokio::test]
async fn an_erased_payload_is_in_no_file_after_the_end() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    let short = format!("\"{SECRET}\"");
    // On pages of their own, and so that the row is all secret.
    let long = format!("\"{}\"", SECRET.repeat(2_000));
    let mut secrets = Vec::new();
    for round in 0..30 {
        let data = if round % 3 == 2 { &long } else { &short };
        secrets.push(event(tenant, &format!("secret{round}"), data).encoded.subject.id.clone());
        append(&*store, tenant, vec![event(tenant, &format!("secret{round}"), data)]).await;
        fill(&*store, tenant, &format!("e{round}_"), round * 10).await;
    }
    folder.rest().await;
    assert!(is_in_files(folder.path()));
    for id in secrets {
        let written = store.commit(NOW, vec![Write::Erase(tenant, id)]).await.unwrap();
        assert!(matches!(written[..], [Written::Erased(_)]));
    }
    drop(store);
    assert!(!is_in_files(folder.path()));
    assert!(folder.verify().is_whole());
    assert_eq!(folder.verify().tenants[0].erased, 30);
}

#[tokio::test]
async fn a_page_that_was_split_keeps_no_copy() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    let mut secrets = Vec::new();
    for round in 0..40 {
        let secret = event(tenant, &format!("secret{round}"), &format!("\"{SECRET}\""));
        secrets.push(Write::Erase(tenant, secret.encoded.subject.id.clone()));
        append(&*store, tenant, vec![secret]).await;
    }
    store.commit(NOW, secrets).await.unwrap();
    drop(store);
    assert!(!is_in_files(folder.path()));
}

#[tokio::test]
async fn an_erased_payload_leaves_the_files_of_a_running_log_too() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    let secret = event(tenant, "secret", &format!("\"{SECRET}\""));
    let id = secret.encoded.subject.id.clone();
    append(&*store, tenant, vec![secret]).await;
    assert!(is_in_files(folder.path()));
    store.commit(NOW, vec![Write::Erase(tenant, id)]).await.unwrap();
    // A reader in the middle of the WAL puts it off to the writer's next look, a quarter of a second later.
    let gone = async {
        while is_in_files(folder.path()) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
}
