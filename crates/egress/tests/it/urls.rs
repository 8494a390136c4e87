//! Spellings of URLs: what is taken as it stands, and what is refused rather than repaired.

use tidings_egress::{Policy, Target};

fn parse(url: &str, policy: &Policy) -> Result<String, String> {
    Target::parse(url, policy).map(|target| format!("{target:?}"))
}

#[test]
fn plain_urls_are_taken() {
    for (url, shown) in [
        ("https://example.com", "https://example.com/"),
        ("https://Example.COM/Hooks", "https://example.com/Hooks"),
        ("HTTPS://example.com/a?token=secret", "https://example.com/a"),
        ("https://example.com:443/", "https://example.com/"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://example.com:1024/a", "https://example.com:1024/a"),
        ("https://example.com./a", "https://example.com/a"),
        ("https://a_b.example.com/", "https://a_b.example.com/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://[2606:4700:4700::1111]/", "https://[2606:4700:4700::1111]/"),
        ("https://[2606:4700:4700:0:0:0:0:1111]:8443/", "https://[2606:4700:4700::1111]:8443/"),
        ("https://127.0.0.1.nip.io/", "https://127.0.0.1.nip.io/"),
    ] {
        assert_eq!(parse(url, &Policy::default()), Ok(format!("Target({shown})")), "{url}");
    }
}

#[test]
fn everything_else_is_refused_with_what_is_accepted_and_no_address() {
    let long = format!("https://example.com/{}", "a".repeat(2048));
    let label = format!("https://{}.com/", "a".repeat(64));
    let cases = [
        ("", "whole URL"),
        ("example.com", "whole URL"),
        ("//example.com", "whole URL"),
        ("https:example.com", "whole URL"),
        ("https:/example.com", "whole URL"),
        ("https:///example.com", "whole URL"),
        ("https://", "whole URL"),
        ("https://?a", "whole URL"),
        ("http://example.com", "https://"),
        ("ftp://example.com", "https://"),
        ("file:///etc/passwd", "https://"),
        ("gopher://example.com", "https://"),
        ("https://user@example.com", "user name"),
        ("https://user:secret@example.com", "user name"),
        ("https://@example.com", "user name"),
        ("https://:@example.com", "user name"),
        ("https://example.com@10.0.0.1", "user name"),
        ("https://example.com#", "fragment"),
        ("https://example.com/a#b", "fragment"),
        ("https://example.com\\a", "backslash"),
        ("https://10.0.0.1\\@example.com", "backslash"),
        ("https://exam\tple.com", "control"),
        ("https://exam\nple.com", "control"),
        ("https://example.com/\r\nhost: a", "control"),
        (" https://example.com", "control"),
        ("https://example.com/a b", "control"),
        ("https://exam\u{ad}ple.com", "as it is"),
        ("https://ex%61mple.com", "as it is"),
        ("https://ｅxample.com", "as it is"),
        ("https://127。0。0。1", "as it is"),
        ("https://１２７.0.0.1", "as it is"),
        ("https://①27.0.0.1", "as it is"),
        ("https://127.1", "as it is"),
        ("https://0x7f.0.0.1", "as it is"),
        ("https://0177.0.0.1", "as it is"),
        ("https://2130706433", "as it is"),
        ("https://017700000001", "as it is"),
        ("https://0x7f000001", "as it is"),
        ("https://8.8.8.8.", "as it is"),
        ("https://010.8.8.8", "as it is"),
        ("https://example.com..", "as it is"),
        ("https://.example.com", "as it is"),
        ("https://a..b.com", "as it is"),
        ("https://*.example.com", "as it is"),
        (&label, "as it is"),
        ("https://[example.com]", "not a URL"),
        ("https://[::1%25eth0]", "not a URL"),
        ("https://[fe80::1%eth0]", "not a URL"),
        ("https://1.2.3.4.5", "not a URL"),
        ("https://256.1.1.1", "not a URL"),
        ("https://example.com:", "number from 1"),
        ("https://example.com:0", "number from 1"),
        ("https://example.com:0443", "number from 1"),
        ("https://example.com:99999", "not a URL"),
        ("https://example.com:80", "443"),
        ("https://example.com:22", "443"),
        ("https://example.com:25", "443"),
        ("https://example.com:1023", "443"),
        ("https://example.com:6379", "443"),
        ("https://example.com:5432", "443"),
        ("https://example.com:11211", "443"),
        ("https://localhost", "public"),
        ("https://LOCALHOST.", "public"),
        ("https://a.localhost", "public"),
        ("https://printer.local", "public"),
        ("https://db.internal", "public"),
        ("https://nas.home.arpa", "public"),
        ("https://intranet", "public"),
        ("https://metadata.google.internal", "public"),
        ("https://kubernetes.default.svc.cluster.local", "public"),
        ("https://kubernetes.default.svc", "public"),
        ("https://1.0.0.127.in-addr.arpa", "public"),
        ("https://127.0.0.1", "public"),
        ("https://10.0.0.1:8443", "public"),
        ("https://169.254.169.254", "public"),
        ("https://168.63.129.16", "public"),
        ("https://0.0.0.0", "public"),
        ("https://[::]", "public"),
        ("https://[::1]", "public"),
        ("https://[::ffff:127.0.0.1]", "public"),
        ("https://[::ffff:7f00:1]", "public"),
        ("https://[::127.0.0.1]", "public"),
        ("https://[::ffff:0:7f00:1]", "public"),
        ("https://[64:ff9b::a9fe:a9fe]", "public"),
        ("https://[2002:a9fe:a9fe::]", "public"),
        ("https://[fd00:ec2::254]", "public"),
        ("https://[fe80::1]", "public"),
        (&long, "2048"),
    ];
    for (url, says) in cases {
        let error = parse(url, &Policy::default()).expect_err(url);
        assert!(error.contains(says), "{url:.80}: {error}");
        assert!(!error.contains("secret") && !error.contains("127.0") && !error.contains("169.254"), "{url}: {error}");
    }
}

#[test]
fn an_operator_opens_clear_text_ports_and_local_names() {
    let http = Policy { http: true, ..Policy::default() };
    assert!(parse("http://example.com/", &http).is_ok() && parse("http://example.com:80/", &http).is_ok());
    let narrow = Policy { ports: vec![443], ..Policy::default() };
    assert!(parse("https://example.com:8443/", &narrow).unwrap_err().contains("443"));
    let local = Policy { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Policy::default() };
    for (url, taken) in [
        ("https://orders/", true),
        ("https://db.internal/", true),
        ("https://10.2.3.4/", true),
        ("https://10.2.3.4:25/", false),
        ("https://localhost/", false),
        ("https://metadata.google.internal/", false),
        ("https://169.254.169.254/", false),
    ] {
        assert_eq!(parse(url, &local).is_ok(), taken, "{url}");
    }
    let port = Policy { allow: vec!["10.2.3.4:25".parse().unwrap()], ..Policy::default() };
    assert!(parse("https://10.2.3.4:25/", &port).is_ok() && parse("https://8.8.8.8:25/", &port).is_err());
}

#[test]
fn development_takes_this_machine() {
    for url in ["http://localhost:3000/hooks", "http://a.localhost:1/", "http://127.0.0.1:9/", "http://[::1]:6379/x"] {
        assert!(parse(url, &Policy::dev()).is_ok(), "{url}");
    }
    for url in ["http://10.0.0.1/", "http://169.254.169.254/", "http://[fe80::1]/"] {
        assert!(parse(url, &Policy::dev()).is_err(), "{url}");
    }
}
