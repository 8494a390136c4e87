//! Laws of erasure.

use tidings_core::filter::Filter;
use tidings_core::offset::Offset;

use super::Engine;
use super::stage::{Stage, about, channels, draft, refusal, saying, to, with_id};
use crate::query::{Frame, Query};
use crate::store::{Appended, Refusal, Write, Written};

pub(super) async fn an_erased_payload_is_gone_and_its_leaf_stays(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let event = with_id("personal", to(&["user:1"], saying("{\"name\":\"Ada\"}", draft("user.created"))));
    let first = stage.say(event).await;
    let other = stage.say(draft("order.created")).await;
    engine.rest().await;
    let leaf = stage.find(&first.id).await.unwrap().leaf();
    let sealed = stage.store().sealed(stage.tenant).unwrap();
    stage.assert_whole();
    let late = stage.say(with_id("late", saying("\"Grace\"", draft("user.created")))).await;
    for (id, offset) in [(&first.id, 1), (&late.id, 3), (&first.id, 1)] {
        assert_eq!(stage.one(Write::Erase(stage.tenant, id.clone())).await, Written::Erased(Offset(offset)));
    }
    for _ in 0..2 {
        let by_channel = Filter { channels: channels(&["user:1"]), ..Filter::default() };
        let read =
            [stage.find(&first.id).await.unwrap(), stage.read(by_channel).await.remove(0), stage.log().await.remove(0)];
        let tail = stage.store().tail().after(stage.tenant, Offset(0), 1);
        for event in read.iter().chain(tail.iter().flatten()) {
            assert_eq!((event.offset, &event.subject.id), (Offset(1), &first.id));
            assert_eq!(event.bytes(), None);
            assert_eq!(event.leaf(), leaf);
            assert!(event.envelope().ends_with(b",\"data\":null,\"erased\":true}"));
        }
        let frame: Frame = Box::new(|out, record| out.extend(record.envelope().concat()));
        let framed = stage.store().frame(Query::after(stage.tenant, Offset(0), 1), 1, frame).await.unwrap();
        assert_eq!(framed.bytes, **read[0].envelope());
        assert!(stage.find(&other.id).await.unwrap().bytes().is_some());
        stage.assert_whole();
        engine.rest().await;
        assert_eq!(engine.verify().tenants[0].erased, 2);
        stage.reopen();
    }
    assert_eq!(stage.store().sealed(stage.tenant).unwrap().first, sealed.last.next());
    let nobody = Write::Erase(stage.tenant, with_id("nobody", draft("a.b")).id.unwrap());
    assert_eq!(refusal(stage.commit(vec![nobody]).await), Refusal::NoSuchEvent);
}

pub(super) async fn an_erased_event_can_be_repeated(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let event = with_id("personal", about("u1", draft("user.created")));
    let first = stage.say(event.clone()).await;
    stage.one(Write::Erase(stage.tenant, first.id.clone())).await;
    for _ in 0..2 {
        // What it said cannot be known any more; what it was can.
        let again = stage.say(saying("\"anything\"", event.clone())).await;
        assert_eq!(again, Appended { duplicate: true, ..first.clone() });
        let other = with_id("personal", about("u2", draft("user.created")));
        assert_eq!(stage.refusal(vec![other]).await, Refusal::IdTaken { index: 0 });
        engine.rest().await;
        stage.reopen();
    }
}
