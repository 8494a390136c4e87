//! Laws of what stands beside the log: documents and the progress of subscriptions.

use tidings_core::offset::Offset;
use tidings_core::time::Timestamp;

use super::Engine;
use super::stage::{Stage, draft, refusal};
use crate::store::{Attempt, Document, Expect, Kind, Owner, Progress, Refusal, Settle, Waiting, Write, Written};

fn document(kind: Kind, owner: Owner, id: &str, body: &str) -> Document {
    Document { kind, owner, id: id.into(), revision: 0, body: body.into() }
}

pub(super) async fn documents_count_their_revisions(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let owner = Owner::Tenant(stage.tenant);
    let hook = |body: &str| document(Kind::Webhook, owner, "wh_1", body);
    for (expect, answer) in [
        (Expect::Revision(1), None),
        (Expect::New, Some(1)),
        (Expect::New, None),
        (Expect::Any, Some(2)),
        (Expect::Revision(1), None),
        (Expect::Revision(2), Some(3)),
    ] {
        let written = stage.commit(vec![Write::Put(hook(&format!("{answer:?}")), expect)]).await;
        match answer {
            Some(revision) => assert_eq!(written.unwrap(), [Written::Put(revision)]),
            None => assert_eq!(refusal(written), Refusal::Revision),
        }
    }
    stage.reopen();
    let store = stage.store();
    let kept = store.get(Kind::Webhook, owner, "wh_1").await.unwrap().unwrap();
    assert_eq!(kept, Document { revision: 3, ..hook("Some(3)") });
    for (kind, owner, id) in
        [(Kind::Key, owner, "wh_1"), (Kind::Webhook, Owner::Operator, "wh_1"), (Kind::Webhook, owner, "wh_2")]
    {
        assert_eq!(store.get(kind, owner, id).await.unwrap(), None);
    }
    for _ in 0..2 {
        assert_eq!(stage.one(Write::Remove(Kind::Webhook, owner, "wh_1".into())).await, Written::Done);
        assert_eq!(stage.store().get(Kind::Webhook, owner, "wh_1").await.unwrap(), None);
    }
    assert_eq!(stage.one(Write::Put(hook("again"), Expect::New)).await, Written::Put(1));
}

pub(super) async fn documents_are_listed_in_pages(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let other = stage.add_tenant("other").await;
    let owners = [Owner::Operator, Owner::Tenant(stage.tenant), Owner::Tenant(other)];
    let mut writes = Vec::new();
    for owner in owners {
        for number in (0..25).rev() {
            writes.push(Write::Put(document(Kind::Setting, owner, &format!("s{number:02}"), "1"), Expect::New));
        }
        writes.push(Write::Put(document(Kind::Key, owner, "key", "1"), Expect::New));
    }
    stage.commit(writes).await.unwrap();
    stage.reopen();
    for (owner, count) in [(Some(owners[0]), 25), (Some(owners[1]), 25), (Some(owners[2]), 25), (None, 75)] {
        for limit in [1, 7, 25, 1_000] {
            let mut all: Vec<Document> = Vec::new();
            loop {
                let after = all.last().map_or(String::new(), |last| last.id.to_string());
                let page = stage.store().list(Kind::Setting, owner, &after, limit).await.unwrap();
                if page.is_empty() {
                    break;
                }
                assert!(owner.is_none() || page.len() <= limit);
                all.extend(page);
            }
            assert_eq!(all.len(), count, "{owner:?} by {limit}");
            assert!(all.windows(2).all(|pair| pair[0].id <= pair[1].id));
            assert!(
                all.iter().all(|document| document.kind == Kind::Setting && owner.is_none_or(|o| o == document.owner))
            );
        }
    }
}

fn waiting(offset: u64, attempts: u32) -> Waiting {
    let due = Timestamp::from_millis(1_000 + i64::from(attempts));
    Waiting { offset: Offset(offset), attempts, due, reason: format!("status {attempts}").into() }
}

pub(super) async fn progress_is_kept(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.append(vec![draft("order.created"); 9]).await;
    assert_eq!(stage.store().progress("wh_1").await.unwrap(), None);
    let blank = Settle { subscription: "wh_1".into(), tenant: stage.tenant, ..Settle::default() };
    let settles = [
        Settle { cursor: Offset(4), waiting: vec![waiting(3, 1), waiting(2, 1)], ..blank.clone() },
        Settle {
            cursor: Offset(6),
            waiting: vec![waiting(2, 2), waiting(5, 1)],
            cleared: vec![Offset(3)],
            ..blank.clone()
        },
        Settle { cursor: Offset(6), dead: vec![waiting(5, 6)], cleared: vec![Offset(9)], ..blank.clone() },
        // The same again changes nothing: an answer that was lost is repeated.
        Settle { cursor: Offset(6), dead: vec![waiting(5, 6)], ..blank },
    ];
    for settle in settles {
        assert_eq!(stage.one(Write::Settle(settle)).await, Written::Done);
    }
    let other = Settle { subscription: "wh_2".into(), tenant: stage.tenant, cursor: Offset(1), ..Settle::default() };
    stage.one(Write::Settle(other)).await;
    for _ in 0..2 {
        let kept = Progress { cursor: Offset(6), waiting: vec![waiting(2, 2)], dead: 1 };
        assert_eq!(stage.store().progress("wh_1").await.unwrap(), Some(kept));
        stage.reopen();
    }
    stage.one(Write::Forget("wh_1".into())).await;
    assert_eq!(stage.store().progress("wh_1").await.unwrap(), None);
    let kept = Progress { cursor: Offset(1), waiting: Vec::new(), dead: 0 };
    assert_eq!(stage.store().progress("wh_2").await.unwrap(), Some(kept));
}

pub(super) async fn attempts_are_kept(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    stage.append(vec![draft("order.created"); 3]).await;
    let attempt = |offset: u64, number: u32| Attempt {
        subscription: "wh_1".into(),
        offset: Offset(offset),
        number,
        at: Timestamp::from_millis(i64::from(number)),
        latency_ms: 12,
        status: number.is_multiple_of(2).then_some(503),
        reason: (number < 8).then(|| "status 503".into()),
    };
    for number in [1, 3, 5, 7] {
        // Several commits, each with attempts of near and far events.
        let attempts = vec![attempt(1, number), attempt(70_000, number), attempt(2, number), attempt(1, number + 1)];
        let settle = Settle { subscription: "wh_1".into(), tenant: stage.tenant, attempts, ..Settle::default() };
        stage.one(Write::Settle(settle)).await;
    }
    for _ in 0..2 {
        for (offset, limit, numbers) in [
            (1, 100, vec![1, 2, 3, 4, 5, 6, 7, 8]),
            (1, 3, vec![6, 7, 8]),
            (2, 100, vec![1, 3, 5, 7]),
            (3, 100, vec![]),
            (70_000, 2, vec![5, 7]),
        ] {
            let found = stage.store().attempts(stage.tenant, Offset(offset), limit).await.unwrap();
            let expected: Vec<Attempt> = numbers.into_iter().map(|number| attempt(offset, number)).collect();
            assert_eq!(found, expected, "the newest {limit} of {offset}");
        }
        stage.reopen();
    }
    let other = stage.add_tenant("other").await;
    assert_eq!(stage.store().attempts(other, Offset(1), 10).await.unwrap(), []);
}
