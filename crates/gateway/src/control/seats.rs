//! Places for streams: so many in all, of a tenant, and from an address.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;
use tidings_log::Tenant;

/// How many streams may be open at a time; 0: any number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SeatLimits {
    pub(crate) all: usize,
    pub(crate) of_tenant: usize,
    pub(crate) of_address: usize,
}

/// The places that are taken.
#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    tenants: HashMap<Tenant, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// A place; free again when it is dropped.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    tenant: Tenant,
    address: Option<IpAddr>,
}

impl Seats {
    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.lock().all
    }

    /// A place, if there is one.
    pub(crate) fn take(self: &Arc<Self>, limits: SeatLimits, tenant: Tenant, address: Option<IpAddr>) -> Option<Seat> {
        let address = address.map(network);
        let mut taken = self.0.lock();
        let full = |count: usize, limit: usize| limit > 0 && count >= limit;
        let of = |address: IpAddr| taken.addresses.get(&address).copied().unwrap_or_default();
        if full(taken.all, limits.all)
            || full(taken.tenants.get(&tenant).copied().unwrap_or_default(), limits.of_tenant)
            || address.is_some_and(|address| full(of(address), limits.of_address))
        {
            return None;
        }
        taken.all += 1;
        *taken.tenants.entry(tenant).or_default() += 1;
        if let Some(address) = address {
            *taken.addresses.entry(address).or_default() += 1;
        }
        Some(Seat { seats: Arc::clone(self), tenant, address })
    }
}

/// Whoever has an IPv6 address has a /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock();
        taken.all -= 1;
        free(&mut taken.tenants, &self.tenant);
        if let Some(address) = &self.address {
            free(&mut taken.addresses, address);
        }
    }
}

fn free<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_and_a_seat_is_free_again_when_it_is_left() {
        let seats = Arc::new(Seats::default());
        let limits = SeatLimits { all: 3, of_tenant: 2, of_address: 2 };
        let at = |text: &str| Some(text.parse().unwrap());
        let take = |tenant, address| seats.take(limits, Tenant(tenant), address);
        let first = take(1, at("10.0.0.1")).unwrap();
        let second = take(1, at("10.0.0.2")).unwrap();
        assert!(take(1, None).is_none(), "of the tenant");
        drop(second);
        let third = take(2, at("::ffff:10.0.0.1")).unwrap();
        assert!(take(3, at("10.0.0.1")).is_none(), "of the address");
        let fourth = take(3, at("2001:db8::1")).unwrap();
        assert!(take(4, at("10.0.0.3")).is_none(), "of all");
        drop((first, third, fourth));
        let neighbours = [take(1, at("2001:db8::1")).unwrap(), take(2, at("2001:db8::2")).unwrap()];
        assert!(take(3, at("2001:db8::3")).is_none(), "of the /64");
        drop(neighbours);
        assert_eq!(seats.taken(), 0);
        assert!(seats.0.lock().tenants.is_empty() && seats.0.lock().addresses.is_empty());
    }
}
