//! How a lane goes on with what waited for an event that is settled now.

use std::sync::Arc;

use tidings_core::filter::Filter;
use tidings_core::lane::Follow;
use tidings_core::offset::Offset;
use tidings_log::Unavailable;
use tokio::time::sleep;

use super::super::reading;
use super::super::signals::Followed;
use super::{READ_PAUSE, Runner};

impl Runner {
    /// Begins to read what waited for an event that is settled now.
    pub(super) fn follow(&mut self) {
        if self.signals.follow.is_some() {
            return;
        }
        if let Some(follow) = self.lane.follow() {
            let (store, filter) = (Arc::clone(&self.shard.store), Filter::clone(&self.subscription.filter));
            let read = reading::followers(store, self.subscription.tenant, filter, follow);
            self.signals.follow = Some((follow, Box::pin(read)));
        }
    }

    /// Takes what was read; what retention took of it is told.
    pub(super) fn take_followed(&mut self, follow: Follow, read: Result<Followed, Unavailable>) {
        let subscription = &*self.subscription.id;
        match read {
            Ok(Followed { offsets, reached, first }) => {
                if follow.after.next() < first {
                    let after = follow.after.0;
                    tracing::warn!(subscription, after, first = first.0, "retention removed events that waited");
                    let last = follow.through.min(Offset(first.0 - 1));
                    self.lane.miss(follow.after.next(), last);
                }
                self.lane.followed(follow, &offsets, reached);
            }
            Err(error) => {
                tracing::warn!(subscription, %error, "a lane cannot read what waited");
                let nothing = Followed { reached: follow.after, ..Followed::default() };
                let again = async move {
                    sleep(READ_PAUSE).await;
                    Ok(nothing)
                };
                self.signals.follow = Some((follow, Box::pin(again)));
            }
        }
    }
}
