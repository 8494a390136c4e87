//! What the file keeps of deliveries: no trace of what was erased, and as much history as can be read.

use tidings_core::lane::{Changes, Dead};
use tidings_core::offset::Offset;
use tidings_log::Tenant;
use tidings_log::conformance::Engine as _;
use tidings_log::store::{Attempt, Letter, Settle, Store, Write, Written};

use crate::folder::{Folder, NOW, add_tenant, append, event, fill};
use crate::traces::{SECRET, is_in_files};

fn dead(tenant: Tenant, offset: u64) -> Write {
    let dead = Dead { offset: Offset(offset), attempts: 3, reason: "status 503".into() };
    Write::Settle(Settle {
        subscription: "wh_1".into(),
        tenant,
        changes: Changes { dead: vec![dead], ..Changes::default() },
        letters: vec![Letter { id: format!("d{offset:08}").into(), event_type: "order.created".into() }],
        attempts: Vec::new(),
    })
}

#[tokio::test]
async fn an_erased_payload_that_a_dead_letter_kept_is_in_no_file_after_the_end() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    let short = format!("\"{SECRET}\"");
    let long = format!("\"{}\"", SECRET.repeat(2_000));
    let mut secrets = Vec::new();
    for round in 0..30 {
        let data = if round % 3 == 2 { &long } else { &short };
        let secret = event(tenant, &format!("secret{round}"), data);
        secrets.push(secret.encoded.subject.id.clone());
        let offset = append(&*store, tenant, vec![secret]).await[0].offset.0;
        store.commit(NOW, vec![dead(tenant, offset)]).await.unwrap();
        fill(&*store, tenant, &format!("e{round}_"), round * 10).await;
    }
    folder.rest().await;
    let head = store.extent(tenant).head;
    while store.extent(tenant).first <= head {
        store.commit(NOW, vec![Write::Trim(tenant, head)]).await.unwrap();
    }
    assert!(is_in_files(folder.path()));
    for id in secrets {
        let written = store.commit(NOW, vec![Write::Erase(tenant, id)]).await.unwrap();
        assert!(matches!(written[..], [Written::Erased(_)]));
    }
    drop(store);
    assert!(!is_in_files(folder.path()));
    assert!(folder.verify().is_whole());
}

#[tokio::test]
async fn history_that_is_damaged_is_passed_over() {
    let folder = Folder::new();
    let store = folder.open_store();
    let tenant = add_tenant(&*store, "acme").await;
    let attempt = |number| Attempt {
        subscription: "wh_1".into(),
        offset: Offset(1),
        number,
        at: NOW,
        latency_ms: 1,
        status: None,
        reason: Some("timeout".into()),
        answer: None,
        replay: false,
    };
    for number in [1, 2, 3] {
        let settle =
            Settle { subscription: "wh_1".into(), tenant, attempts: vec![attempt(number)], ..Settle::default() };
        store.commit(NOW, vec![Write::Settle(settle)]).await.unwrap();
    }
    let damaged = "UPDATE attempt SET attempts = substr(attempts, 1, length(attempts) - 1) WHERE number = 2";
    assert_eq!(folder.vandal().execute(damaged, []).unwrap(), 1);
    assert_eq!(store.attempts(tenant, Offset(1), 9).await.unwrap(), [attempt(1), attempt(3)]);
    let history = store.history("wh_1", None, 9).await.unwrap();
    assert_eq!(history.into_iter().map(|(_, attempt)| attempt).collect::<Vec<_>>(), [attempt(3), attempt(1)]);
}
