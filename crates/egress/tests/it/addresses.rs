//! Which addresses are public: a table of literal expectations.

use std::net::IpAddr;

use tidings_egress::{classify, nat64};

const TABLE: &str = include_str!("addresses.txt");

#[test]
fn every_address_of_the_table_is_judged_as_it_says() {
    let mut count = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let (address, expected) = line.split_once(' ').unwrap();
        let verdict = classify(address.parse().unwrap(), &[]);
        assert_eq!(verdict.is_ok(), expected == "yes", "{address}: {verdict:?}");
        count += 1;
    }
    assert!(count >= 400, "{count} addresses");
}

/// RFC 6052 §2.4 writes 192.0.2.33 under each length of prefix; here it is 8.8.8.8 and 169.254.169.254.
#[test]
fn what_a_nat64_prefix_translates_is_judged_by_what_it_stands_for() {
    for (prefix, public, metadata) in [
        ("2600:db8::/32", "2600:db8:808:808::", "2600:db8:a9fe:a9fe::"),
        ("2600:db8:100::/40", "2600:db8:108:808:8::", "2600:db8:1a9:fea9:fe::"),
        ("2600:db8:122::/48", "2600:db8:122:808:8:800::", "2600:db8:122:a9fe:a9:fe00::"),
        ("2600:db8:122:300::/56", "2600:db8:122:308:8:808::", "2600:db8:122:3a9:fe:a9fe::"),
        ("2600:db8:122:344::/64", "2600:db8:122:344:8:808:800::", "2600:db8:122:344:a9:fea9:fe00::"),
        ("64:ff9b::/96", "64:ff9b::808:808", "64:ff9b::a9fe:a9fe"),
    ] {
        let prefixes = [nat64(prefix).unwrap()];
        let judged = |text: &str| classify(text.parse::<IpAddr>().unwrap(), &prefixes);
        assert_eq!(judged(public), Ok(()), "{public}");
        assert!(judged(metadata).is_err(), "{metadata}");
    }
    assert!(nat64("64:ff9b::/95").is_err() && nat64("10.0.0.0/8").is_err());
}
