//! What an operator may open and close.

use std::net::IpAddr;

use tidings_egress::{Allowance, Policy, nat64, network};

const OWN: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5)), IpAddr::V4(std::net::Ipv4Addr::new(5, 5, 5, 5))];

fn policy(allow: &[&str]) -> Policy {
    Policy { allow: allow.iter().map(|text| text.parse().unwrap()).collect(), ..Policy::default() }
}

fn vet(policy: &Policy, address: &str, port: u16) -> bool {
    policy.vet(address.parse().unwrap(), port, &OWN).is_ok()
}

#[test]
fn an_allowance_opens_its_network_at_its_ports() {
    let policy = policy(&["10.1.0.0/16", "10.2.3.4:25", "[fd12::/16]:8080", "192.168.7.7"]);
    for (address, port, open) in [
        ("10.1.2.3", 443, true),
        ("10.1.2.3", 8080, true),
        ("10.1.2.3", 25, false),
        ("10.1.2.3", 6379, false),
        ("10.2.3.4", 25, true),
        ("10.2.3.4", 443, false),
        ("10.2.3.5", 25, false),
        ("fd12::9", 8080, true),
        ("fd12::9", 443, false),
        ("192.168.7.7", 443, true),
        ("192.168.7.8", 443, false),
        ("::ffff:10.1.2.3", 443, true),
        ("8.8.8.8", 443, true),
        ("8.8.8.8", 25, false),
        ("8.8.8.8", 80, false),
        ("8.8.8.8", 1024, true),
        ("8.8.8.8", 1023, false),
    ] {
        assert_eq!(vet(&policy, address, port), open, "{address} {port}");
    }
}

#[test]
fn no_network_opens_metadata_transition_forms_or_this_machine() {
    let policy = policy(&["0.0.0.0/0", "::/0"]);
    assert!(vet(&policy, "10.9.9.9", 443) && vet(&policy, "fd12::1", 443));
    for address in [
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
        "ff02::1",
        "::127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "2001::1",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "10.0.0.5",
        "5.5.5.5",
    ] {
        assert!(!vet(&policy, address, 443), "{address}");
    }
}

#[test]
fn this_machine_is_opened_by_one_address_at_one_port() {
    let policy = policy(&["127.0.0.1:3000", "10.0.0.5:3000", "127.0.0.0/8", "127.0.0.2"]);
    for (address, port, open) in [
        ("127.0.0.1", 3000, true),
        ("127.0.0.1", 3001, false),
        ("127.0.0.2", 3000, false),
        ("10.0.0.5", 3000, true),
        ("10.0.0.5", 443, false),
    ] {
        assert_eq!(vet(&policy, address, port), open, "{address} {port}");
    }
}

#[test]
fn this_server_is_never_reached() {
    let at = |listener: &str| Policy { listeners: vec![listener.parse().unwrap()], ..Policy::dev() };
    assert!(!vet(&at("127.0.0.1:8080"), "127.0.0.1", 8080));
    assert!(vet(&at("127.0.0.1:8080"), "127.0.0.1", 8081));
    for address in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1", "10.0.0.5", "5.5.5.5"] {
        assert!(!vet(&at("0.0.0.0:8080"), address, 8080), "{address}");
    }
    let opened = Policy { allow: vec!["127.0.0.1:8080".parse().unwrap()], ..at("[::]:8080") };
    assert!(!vet(&opened, "127.0.0.1", 8080));
}

#[test]
fn the_operators_list_is_stronger_than_any_allowance() {
    let deny = vec![network("10.1.0.0/24").unwrap(), network("8.8.8.8").unwrap()];
    let policy = Policy { deny, ..policy(&["10.1.0.0/16"]) };
    assert!(!vet(&policy, "10.1.0.9", 443) && vet(&policy, "10.1.1.9", 443));
    assert!(!vet(&policy, "8.8.8.8", 443) && !vet(&policy, "::ffff:8.8.8.8", 443) && vet(&policy, "8.8.4.4", 443));
    let translated = Policy { nat64: vec![nat64("64:ff9b::/96").unwrap()], ..policy };
    assert!(!vet(&translated, "64:ff9b::808:808", 443) && vet(&translated, "64:ff9b::808:404", 443));
}

#[test]
fn named_ports_are_the_only_ones() {
    let policy = Policy { ports: vec![443], ..Policy::default() };
    assert!(vet(&policy, "8.8.8.8", 443) && !vet(&policy, "8.8.8.8", 8443));
}

#[test]
fn development_opens_this_machine_and_no_more() {
    let policy = Policy::dev();
    for (address, port, open) in [
        ("127.0.0.1", 1, true),
        ("::1", 6379, true),
        ("127.8.8.8", 3000, true),
        ("10.0.0.9", 443, false),
        ("192.168.1.1", 80, false),
        ("169.254.169.254", 80, false),
        ("8.8.8.8", 80, true),
        ("8.8.8.8", 25, false),
    ] {
        assert_eq!(vet(&policy, address, port), open, "{address} {port}");
    }
}

#[test]
fn what_is_no_allowance_is_refused_with_an_example() {
    for text in ["", "ten", "10.0.0.0/33", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:70000", "example.com:443", "[fd00::]:x"]
    {
        let error = text.parse::<Allowance>().unwrap_err();
        assert!(error.contains("10.1.0.0/16"), "{error}");
    }
}
