//! Which addresses are the public internet: pure, and denied unless known to be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

/// Why an address is not dialled; for the operator's log, never for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub(crate) &'static str);

/// What is not the public internet although it looks like it (IANA special-purpose registry, and what clouds put there).
const V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::UNSPECIFIED, 8, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared by a carrier"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a cloud's metadata"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "for protocols"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation"),
    (Ipv4Addr::new(192, 31, 196, 0), 24, "AS112"),
    (Ipv4Addr::new(192, 52, 193, 0), 24, "multicast tunnels"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relays"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(192, 175, 48, 0), 24, "AS112"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// The same within `2000::/3`; everything outside it is denied anyhow.
const V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "for protocols, Teredo among them"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "6to4"),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48, "AS112"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
];
const GLOBAL: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Whether `address` is on the public internet. `nat64` are the prefixes (RFC 6052) under which this network translates
/// to IPv4: what stands in such an address is judged in its place. Without one, NAT64 is denied.
///
/// Source of the ranges: IANA's special-purpose registries. Never allows more of an IPv6 form than of the IPv4 in it.
pub fn classify(address: IpAddr, nat64: &[Ipv6Net]) -> Result<(), Denied> {
    let address = match address {
        IpAddr::V4(address) => return classify_v4(address),
        IpAddr::V6(address) => address,
    };
    if let Some(mapped) = address.to_ipv4_mapped() {
        return classify_v4(mapped);
    }
    if let Some(translated) = translated(address, nat64) {
        return classify_v4(translated);
    }
    if !in_v6(address, GLOBAL.0, GLOBAL.1) {
        return Err(Denied("not global unicast"));
    }
    if let Some((.., why)) = V6.iter().find(|(net, bits, _)| in_v6(address, *net, *bits)) {
        return Err(Denied(why));
    }
    // ISATAP (RFC 5214): the IPv4 address behind its mark.
    let segments = address.segments();
    if matches!(segments[4], 0 | 0x200) && segments[5] == 0x5efe {
        return classify_v4(low_v4(address));
    }
    Ok(())
}

/// What an address under a NAT64 prefix stands for.
pub(crate) fn translated(address: Ipv6Addr, nat64: &[Ipv6Net]) -> Option<Ipv4Addr> {
    let prefix = nat64.iter().find(|prefix| prefix.contains(&address))?;
    embedded(address, prefix.prefix_len())
}

/// Whether no allowlist may open an address: where clouds keep their credentials, what cannot be a peer, and forms that
/// hide an IPv4 address.
pub(crate) fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            a == 0
                || a >= 224
                || matches!([a, b, c, d], [169, 254, ..] | [168, 63, 129, 16] | [100, 100, 100, 200])
                || [a, b, c] == [192, 0, 0]
        }
        IpAddr::V6(address) => {
            let segments = address.segments();
            matches!(segments, [0 | 0x64 | 0x2002, ..] | [0x2001, 0, ..])
                || address.is_multicast()
                || address.is_unicast_link_local()
                || segments == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
                || segments == [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        }
    }
}

fn classify_v4(address: Ipv4Addr) -> Result<(), Denied> {
    let bits = address.to_bits();
    let denied = V4.iter().find(|(net, length, _)| (bits ^ net.to_bits()) >> (32 - length) == 0);
    denied.map_or(Ok(()), |(.., why)| Err(Denied(why)))
}

fn in_v6(address: Ipv6Addr, net: Ipv6Addr, length: u32) -> bool {
    (address.to_bits() ^ net.to_bits()) >> (128 - length) == 0
}

fn low_v4(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

/// The IPv4 address within a translated one (RFC 6052 §2.2): byte 8 is always left out.
fn embedded(address: Ipv6Addr, prefix_length: u8) -> Option<Ipv4Addr> {
    let bytes = address.octets();
    let at = match prefix_length {
        32 => [4, 5, 6, 7],
        40 => [5, 6, 7, 9],
        48 => [6, 7, 9, 10],
        56 => [7, 9, 10, 11],
        64 => [9, 10, 11, 12],
        96 => [12, 13, 14, 15],
        _ => return None,
    };
    Some(Ipv4Addr::from(at.map(|index| bytes[index])))
}
