//! What lanes that are behind read of the log, together.
//!
//! After an outage thousands of lanes are behind, most at about the same place. A block of the log is read once for all
//! that come to it, and lanes take turns: few are at it at once, so that they neither fill the queue of the log's readers
//! nor keep the others of their thread waiting. Who is known to answer does not wait behind who is not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::circuit::Repute;
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::offset::Offset;
use tidings_log::{Event, Page, Query, Store, Tenant, Unavailable};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

/// Events of a block, in bits.
const BLOCK_BITS: u32 = 8;
/// What a shard keeps of blocks.
const BYTES_MAX: usize = 8 << 20;
const BLOCKS_MAX: usize = 64;
/// A block is kept for so long: retention may have taken what is in it.
const AGE_MAX: Duration = Duration::from_secs(5);
/// Lanes that read at once.
const TURNS: usize = 8;
/// Who wants few of the events reads those alone, if it is further behind than this.
const NEAR: u64 = 4_096;

pub(super) struct Shelf {
    store: Arc<dyn Store>,
    blocks: Mutex<VecDeque<Block>>,
    proven: Semaphore,
    unproven: Semaphore,
}

struct Block {
    tenant: Tenant,
    number: u64,
    since: Instant,
    /// What was erased before it was read: one that is older may have data that is not to be seen any more.
    erasures: u64,
    read: Arc<OnceCell<Read>>,
}

/// All events of a block, how far they go, and where the log began then.
struct Read {
    events: Vec<Arc<Event>>,
    reached: Offset,
    first: Offset,
    bytes: usize,
}

impl Shelf {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        let (proven, unproven) = (Semaphore::new(TURNS), Semaphore::new(TURNS));
        Self { store, blocks: Mutex::default(), proven, unproven }
    }

    /// Reads up to `limit` matching events after `after`, when it is the lane's turn.
    pub(super) async fn page(
        &self,
        tenant: Tenant,
        (repute, filter): (Repute, &Filter),
        after: Offset,
        limit: usize,
    ) -> Result<Page, Unavailable> {
        let turns = if repute == Repute::Proven { &self.proven } else { &self.unproven };
        // Nobody closes them.
        let _turn = turns.acquire().await.ok();
        let behind = self.store.extent(tenant).head.0.saturating_sub(after.0);
        if takes_most(filter) || behind <= NEAR {
            let read = self.block(tenant, after.0 >> BLOCK_BITS);
            let read = read.get_or_try_init(|| self.read(tenant, after)).await?;
            if read.reached > after {
                return Ok(read.page(filter, after, limit));
            }
        }
        self.store.read(Query { filter: filter.clone(), ..Query::after(tenant, after, limit) }).await
    }

    async fn read(&self, tenant: Tenant, after: Offset) -> Result<Read, Unavailable> {
        let before = Offset(after.0 >> BLOCK_BITS << BLOCK_BITS);
        let query = Query { filter: Filter::everything(), ..Query::after(tenant, before, 1 << BLOCK_BITS) };
        let page = self.store.read(query).await?;
        let bytes = page.events.iter().map(|event| event.envelope().len()).sum();
        Ok(Read { events: page.events, reached: page.reached, first: page.first, bytes })
    }

    /// A block that is read, or is to be read by the first who needs it.
    fn block(&self, tenant: Tenant, number: u64) -> Arc<OnceCell<Read>> {
        let mut blocks = self.blocks.lock();
        let mut bytes = 0;
        let mut count = 0;
        // From the newest on; a block that fails to be read stays empty, and the next one tries.
        let erasures = self.store.tail().erasures();
        let fresh = |block: &Block| block.since.elapsed() < AGE_MAX && block.erasures == erasures;
        let kept = |block: &&Block| {
            bytes += block.read.get().map_or(0, |read| read.bytes);
            count += 1;
            bytes <= BYTES_MAX && count < BLOCKS_MAX && fresh(block)
        };
        let kept = blocks.iter().rev().take_while(kept).count();
        let gone = blocks.len() - kept;
        blocks.drain(..gone);
        if let Some(block) = blocks.iter().find(|block| block.tenant == tenant && block.number == number) {
            return Arc::clone(&block.read);
        }
        let read = Arc::new(OnceCell::new());
        blocks.push_back(Block { tenant, number, since: Instant::now(), erasures, read: Arc::clone(&read) });
        read
    }
}

impl Read {
    fn page(&self, filter: &Filter, after: Offset, limit: usize) -> Page {
        let first = self.events.partition_point(|event| event.offset <= after);
        let mut matching = self.events[first..].iter().filter(|event| filter.matches(&event.subject));
        let events = matching.by_ref().take(limit).cloned().collect();
        // Never past one that was left out.
        let reached = matching.next().map_or(self.reached, |next| Offset(next.offset.0 - 1));
        Page { events, reached, more: true, first: self.first }
    }
}

/// Whether a filter takes whatever an application publishes.
fn takes_most(filter: &Filter) -> bool {
    let narrow = filter.aggregate.is_some() || filter.confined.is_some() || !filter.channels.is_empty();
    !narrow && (filter.types.is_empty() || filter.types.contains(&TypePattern::All))
}
