//! The logs that a shard follows: what is new is put to the groups that want it.

use std::task::{Context, Poll};

use tidings_core::offset::Offset;
use tidings_log::{Pending, Tenant};
use tokio::sync::watch;

use super::Shard;
use super::inbox::Ring;
use crate::interest::Interest;
use crate::streams::framing::Written;
use crate::streams::group::Group;

/// Events put to the groups before sockets are written to.
const BATCH_EVENTS_MAX: usize = 256;
/// And what they may weigh: what is framed is held until it is written.
const BATCH_BYTES_MAX: usize = 128 * 1024;

/// A tenant's log, followed.
pub(super) struct Followed {
    /// Groups by number.
    interest: Interest,
    /// Through here every event was put to the groups that want it.
    seen: Offset,
    /// Resolves when the log grows.
    growth: Pending<Option<watch::Receiver<Offset>>>,
}

fn growth(mut head: watch::Receiver<Offset>) -> Pending<Option<watch::Receiver<Offset>>> {
    Box::pin(async move { head.changed().await.is_ok().then_some(head) })
}

impl Shard {
    /// Follows a tenant's log, up to its present end; where that is.
    pub(super) fn follow(&mut self, tenant: Tenant) -> Offset {
        if !self.tenants.contains_key(&tenant) {
            // In this order: what comes between is news.
            let head = self.store.tail().watch(tenant);
            let seen = self.store.extent(tenant).head;
            let followed = Followed { interest: Interest::default(), seen, growth: growth(head) };
            self.tenants.insert(tenant, followed);
            self.listen(tenant);
        }
        let head = self.store.extent(tenant).head;
        while self.seen(tenant) < head && self.advance(tenant) {}
        self.seen(tenant)
    }

    /// Through where every event was put to the groups that want it.
    pub(super) fn seen(&self, tenant: Tenant) -> Offset {
        self.tenants.get(&tenant).map_or(Offset::BEFORE_FIRST, |followed| followed.seen)
    }

    /// A group of the tenant wants something.
    pub(super) fn want(&mut self, tenant: Tenant, group: u32) {
        if let (Some(followed), Some(group_there)) = (self.tenants.get_mut(&tenant), self.groups.get(group)) {
            followed.interest.insert(group, group_there.wish.filter.clone());
        }
    }

    /// A group is no more.
    pub(super) fn unfollow(&mut self, tenant: Tenant, group: u32) {
        if let Some(followed) = self.tenants.get_mut(&tenant) {
            followed.interest.remove(group);
            if followed.interest.is_empty() {
                self.tenants.remove(&tenant);
            }
        }
    }

    /// The bell of a tenant rang.
    pub(super) fn rung(&mut self, tenant: Tenant) {
        if self.listen(tenant) && !self.news.contains(&tenant) {
            self.news.push_back(tenant);
        }
    }

    /// Waits for growth; whether there was some.
    fn listen(&mut self, tenant: Tenant) -> bool {
        let Some(followed) = self.tenants.get_mut(&tenant) else { return false };
        let bell = self.inbox.bell(Ring::News(tenant));
        let mut grew = false;
        while let Poll::Ready(head) = followed.growth.as_mut().poll(&mut Context::from_waker(&bell)) {
            // Without a head the log is closed, and this is the last news.
            let Some(head) = head else {
                followed.growth = Box::pin(std::future::pending());
                return true;
            };
            followed.growth = growth(head);
            grew = true;
        }
        grew
    }

    /// Puts some of what is new to the groups that want it, and writes it; whether there is more.
    pub(super) fn advance(&mut self, tenant: Tenant) -> bool {
        let Some(followed) = self.tenants.get_mut(&tenant) else { return false };
        let Some(events) = self.store.tail().after(tenant, followed.seen, BATCH_EVENTS_MAX) else {
            self.skip(tenant);
            return true;
        };
        let (mut found, mut fresh, mut written) = (Vec::new(), Vec::new(), Written::default());
        let mut bytes = 0;
        let mut more = events.len() == BATCH_EVENTS_MAX;
        for event in &events {
            if bytes > BATCH_BYTES_MAX {
                more = true;
                break;
            }
            written.clear();
            let record = event.record();
            followed.interest.find(&event.subject, &mut found);
            for number in &found {
                let Some(group) = self.groups.get(*number) else { continue };
                // Framed once for all groups that want it so.
                let Group { wish, frames, .. } = group;
                frames.push(event.offset, |out| bytes += written.write(out, &record, &wish.framing));
                if !group.fresh {
                    group.fresh = true;
                    fresh.push(*number);
                }
            }
            followed.seen = event.offset;
        }
        for number in fresh {
            if let Some(group) = self.groups.slab.get_mut(number as usize) {
                group.flush(&mut self.streams, self.round, &mut self.gone);
                group.tidy(number, &mut self.streams);
            }
        }
        more
    }

    /// The shared ring has lost what comes next: whoever follows this log goes on from the disk.
    fn skip(&mut self, tenant: Tenant) {
        let Some(followed) = self.tenants.get_mut(&tenant) else { return };
        followed.seen = self.store.extent(tenant).head.max(followed.seen.next());
        let mut behind = Vec::new();
        for (_, group) in self.groups.slab.iter_mut().filter(|(_, group)| group.wish.tenant == tenant) {
            group.all_behind(&mut self.streams, followed.seen, &mut behind);
        }
        self.behind.extend(behind);
    }
}
