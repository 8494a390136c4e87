//! Laws of the end.

use std::sync::Arc;

use tidings_core::offset::Offset;

use super::Engine;
use super::stage::{Stage, appended, draft, offsets};
use crate::query::Query;
use crate::store::CommitError;

pub(super) async fn closing_answers_what_is_queued(engine: &dyn Engine) {
    let mut stage = Stage::set(engine).await;
    let under_way: Vec<_> = (0..300).map(|_| stage.begin(vec![draft("order.created")])).collect();
    stage.store().close();
    let mut kept = Vec::new();
    for answer in under_way {
        match answer.await {
            Ok(written) => kept.push(appended(Ok(written))[0].offset.0),
            Err(error) => assert!(matches!(error, CommitError::Unavailable(_)), "{error}"),
        }
    }
    assert_eq!(kept.len(), 300, "what was queued before the end is still committed");
    let late = stage.begin(vec![draft("order.created")]).await;
    assert!(matches!(late, Err(CommitError::Unavailable(_))));
    let store = Arc::clone(stage.store());
    assert!(store.read(Query::after(stage.tenant, Offset(0), 1)).await.is_err());
    store.close();
    drop(store);
    stage.reopen();
    assert_eq!(offsets(&stage.log().await), kept);
}
