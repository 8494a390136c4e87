//! Laws of documents.

use super::Engine;
use super::stage::{Stage, refusal};
use crate::store::{Document, Expect, Kind, Owner, Refusal, Write, Written};

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
