//! Names that lie: whatever DNS answers, nothing is dialled that was not vetted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings_egress::{Door, Line, Lines, Policy, Resolver, Response, Target, Trust};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::dns::{Reply, server};
use crate::peer::{OK, PATIENCE, request};

/// The only address that the operator opened.
const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ATTEMPTS: usize = 4000;

/// A good endpoint, and canaries at the same port everywhere else on this machine.
struct Cage {
    port: u16,
    sung: Arc<AtomicUsize>,
}

impl Cage {
    async fn new() -> Self {
        let good = TcpListener::bind((GOOD, 0)).await.unwrap();
        let port = good.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = good.accept().await.unwrap();
                tokio::spawn(async move {
                    while request(&mut stream).await.is_some() {
                        stream.write_all(OK.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        let sung = Arc::new(AtomicUsize::new(0));
        for address in canaries() {
            let canary = TcpListener::bind((address, port)).await.unwrap();
            let sung = Arc::clone(&sung);
            tokio::spawn(async move {
                loop {
                    let (stream, _) = canary.accept().await.unwrap();
                    sung.fetch_add(1, Ordering::SeqCst);
                    drop(stream);
                }
            });
        }
        Self { port, sung }
    }

    fn policy(&self) -> Policy {
        let allow = vec![format!("{GOOD}:{}", self.port).parse().unwrap()];
        Policy { allow, http: true, ..Policy::default() }
    }

    async fn door(&self, decide: impl Fn(&str, bool) -> Reply + Send + Sync + 'static) -> Arc<Door> {
        let resolver = Resolver::at(server(decide).await).unwrap();
        Arc::new(Door::new(self.policy(), resolver, Trust::new(None).unwrap()))
    }

    async fn post(&self, door: &Arc<Door>, host: &str) -> Result<Response, String> {
        let target = Target::parse(&format!("http://{host}:{}/", self.port), &door.policy())?;
        let line = Line::new(Arc::clone(door), target, &Lines::default());
        line.post(Lines::default(), b"{}", PATIENCE).await.map_err(|error| error.word().to_owned())
    }

    /// How many connections the canaries saw; proves that they would have told.
    async fn count(&self) -> usize {
        let before = self.sung.load(Ordering::SeqCst);
        for address in canaries() {
            let mut probe = TcpStream::connect((address, self.port)).await.unwrap();
            // Accepted in order: once this one is closed, all before it are counted.
            let _ = tokio::io::AsyncReadExt::read_u8(&mut probe).await;
        }
        assert_eq!(self.sung.load(Ordering::SeqCst), before + canaries().len(), "canaries sing");
        before
    }
}

fn canaries() -> [IpAddr; 3] {
    [LOOPBACK, Ipv4Addr::new(127, 0, 0, 2).into(), Ipv6Addr::LOCALHOST.into()]
}

/// Addresses that lead to a canary, or would where such forms are routed.
fn denied() -> Vec<IpAddr> {
    let texts = [
        "127.0.0.1",
        "127.0.0.2",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:127.0.0.2",
        "::127.0.0.1",
        "::ffff:0:7f00:1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "0.0.0.0",
        "::",
        "169.254.169.254",
        "10.0.0.1",
        "fd00:ec2::254",
        "fe80::1",
    ];
    texts.map(|text| text.parse().unwrap()).into()
}

#[tokio::test]
async fn a_vetted_name_is_reached() {
    let cage = Cage::new().await;
    let door = cage.door(|_, _| Reply::Addresses(vec![GOOD])).await;
    assert_eq!(cage.post(&door, "good.example.com").await.unwrap().status, 200);
    let door = cage.door(|_, _| Reply::Alias(vec![GOOD])).await;
    assert_eq!(cage.post(&door, "alias.example.com").await.unwrap().status, 200);
    assert_eq!(cage.count().await, 0);
}

#[tokio::test]
async fn one_denied_answer_refuses_all() {
    let cage = Cage::new().await;
    for denied in denied() {
        for answers in [vec![denied], vec![GOOD, denied], vec![denied, GOOD]] {
            let alias = answers.clone();
            let door = cage.door(move |_, _| Reply::Addresses(answers.clone())).await;
            assert_eq!(cage.post(&door, "mixed.example.com").await.unwrap_err(), "blocked address", "{denied}");
            let door = cage.door(move |_, _| Reply::Alias(alias.clone())).await;
            assert_eq!(cage.post(&door, "alias.example.com").await.unwrap_err(), "blocked address", "{denied}");
        }
    }
    assert_eq!(cage.count().await, 0);
}

#[tokio::test]
async fn a_name_that_changes_with_every_look_up_never_leads_inside() {
    let cage = Cage::new().await;
    let asked = AtomicUsize::new(0);
    let door = cage
        .door(move |_, v6| match v6 {
            true => Reply::Addresses(vec![]),
            false if asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => Reply::Addresses(vec![GOOD]),
            false => Reply::Addresses(vec![LOOPBACK]),
        })
        .await;
    for attempt in 0..500 {
        let said = cage.post(&door, "rebind.example.com").await.map(|response| response.status);
        let expected = if attempt % 2 == 0 { Ok(200) } else { Err("blocked address".to_owned()) };
        assert_eq!(said, expected, "attempt {attempt}: nothing is kept of an answer with a TTL of 0");
    }
    assert_eq!(cage.count().await, 0);
}

#[tokio::test]
async fn no_attempt_reaches_the_canary() {
    let cage = Arc::new(Cage::new().await);
    // What a name stands for is in the name: which denied addresses, and whether the good one is among them.
    let door = cage
        .door(|name, _| {
            let number: usize = name.split('.').next().unwrap().trim_start_matches('n').parse().unwrap();
            Reply::Addresses(answers(number))
        })
        .await;
    let mut attempts = JoinSet::new();
    let mut tally = [0; 3];
    for number in 0..ATTEMPTS {
        let (cage, door) = (Arc::clone(&cage), Arc::clone(&door));
        attempts.spawn(async move { (number, cage.post(&door, &format!("n{number}.example.com")).await) });
        if attempts.len() >= 16 || number + 1 == ATTEMPTS {
            while let Some(ended) = attempts.join_next().await {
                let (number, said) = ended.unwrap();
                let answers = answers(number);
                let kind = match said.map(|response| response.status) {
                    Ok(200) if answers.iter().all(|address| *address == GOOD) => 0,
                    Err(word) if word == "blocked address" && answers.iter().any(|address| *address != GOOD) => 1,
                    Err(word) if word == "dns" && answers.is_empty() => 2,
                    other => panic!("{answers:?}: {other:?}"),
                };
                tally[kind] += 1;
            }
        }
    }
    assert!(tally.iter().all(|count| *count > 50), "{tally:?}: each happens");
    assert_eq!(cage.count().await, 0);
}

/// A choice of addresses that differs with each number.
fn answers(number: usize) -> Vec<IpAddr> {
    let mut chance = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut draw = |below: usize| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(chance >> 33).unwrap() % below
    };
    let denied = denied();
    match draw(20) {
        0 => vec![],
        1..4 => vec![GOOD],
        _ => {
            let mut answers: Vec<_> = (0..=draw(5)).map(|_| denied[draw(denied.len())]).collect();
            if draw(2) == 0 {
                answers.insert(draw(answers.len() + 1), GOOD);
            }
            answers
        }
    }
}

#[tokio::test]
async fn a_name_with_thousands_of_addresses_is_refused() {
    let cage = Cage::new().await;
    // As many as a message of DNS holds.
    for count in [17, 4000] {
        let door = cage.door(move |_, _| Reply::Addresses(vec![GOOD; count])).await;
        assert_eq!(cage.post(&door, "many.example.com").await.unwrap_err(), "blocked address", "{count}");
    }
    let door = cage.door(|_, _| Reply::Addresses(vec![GOOD; 16])).await;
    assert_eq!(cage.post(&door, "some.example.com").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_name_that_is_not_known_or_without_an_address_is_dns() {
    let cage = Cage::new().await;
    for unknown in [true, false] {
        let reply = move |_: &str, _| if unknown { Reply::Unknown } else { Reply::Addresses(vec![]) };
        let door = cage.door(reply).await;
        assert_eq!(cage.post(&door, "nowhere.example.com").await.unwrap_err(), "dns");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_dns_within_its_time() {
    let cage = Cage::new().await;
    let door = cage.door(|_, _| Reply::Silence).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(cage.post(&door, "silent.example.com").await.unwrap_err(), "dns");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn search_domains_are_not_tried() {
    let cage = Cage::new().await;
    let (told, asked) = std::sync::mpsc::channel();
    let door = cage
        .door(move |name, _| {
            let _ = told.send(name.to_owned());
            Reply::Unknown
        })
        .await;
    assert_eq!(cage.post(&door, "orders").await.unwrap_err(), "dns");
    assert!(asked.try_iter().all(|name| name == "orders"));
}
