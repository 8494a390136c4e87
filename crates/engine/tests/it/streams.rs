//! Shards of streams over a log whose reads are answered at once, and sockets that are read by hand.

mod talks;

use std::io::Read as _;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tidings_core::event::{Defaults, Draft, EventLimits};
use tidings_core::filter::{Filter, TypePattern};
use tidings_core::offset::Offset;
use tidings_core::tenant::TenantName;
use tidings_core::time::Timestamp;
use tidings_engine::streams::guest::{Guest, Pass, Style, Wants};
use tidings_engine::streams::{Env, Streams};
use tidings_log::memory::{MemoryDisk, MemoryStore};
use tidings_log::store::{Append, Prepared};
use tidings_log::{Store, Tenant, Write, Written};

use crate::flaky::Flaky;
use crate::rig::{now, random};

#[expect(clippy::disallowed_methods, reason = "the shell of the tests")]
fn monotonic() -> Instant {
    Instant::now()
}

/// A clock that a test has race: each look finds an eighth of a second gone, as long as it may.
struct Race {
    gone_ms: AtomicU64,
    until_ms: AtomicU64,
}

/// For [`racing`]: each test has its own.
static RACES: [Race; 4] = [const { Race { gone_ms: AtomicU64::new(0), until_ms: AtomicU64::new(0) } }; 4];

fn racing<const RACE: usize>() -> Instant {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let Race { gone_ms, until_ms } = &RACES[RACE];
    let step = if gone_ms.load(Relaxed) < until_ms.load(Relaxed) { 125 } else { 0 };
    *BEGUN.get_or_init(monotonic) + Duration::from_millis(gone_ms.fetch_add(step, Relaxed) + step)
}

impl Race {
    /// Has the shard run the rounds of so many seconds, about: in each it looks twice, and no round is longer than a look.
    fn to(&self, seconds: u64) {
        let until_ms = seconds * 2_000;
        self.until_ms.store(until_ms, Relaxed);
        while self.gone_ms.load(Relaxed) < until_ms {
            std::thread::yield_now();
        }
    }
}

/// A log with a shard of streams over it.
struct Rig {
    store: Arc<dyn Store>,
    tenant: Tenant,
    streams: Streams,
}

impl Rig {
    async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::open(&MemoryDisk::default())), monotonic).await
    }

    async fn over(store: Arc<dyn Store>, monotonic: fn() -> Instant) -> Self {
        let name = TenantName::parse("default").unwrap();
        let written = store.commit(now(), vec![Write::Tenant(name)]).await.unwrap();
        let [Written::Tenant(tenant)] = written[..] else { panic!("{written:?}") };
        let (streams, shards) = Streams::new(&store, Env { now, monotonic, random }, 1).unwrap();
        for shard in shards {
            std::thread::spawn(move || shard.run().unwrap());
        }
        Self { store, tenant, streams }
    }

    /// Appends events whose `data` is a text of so many bytes.
    async fn append(&self, count: usize, bytes: usize) {
        let event = format!(r#"{{"eventType":"a.b","data":"{}"}}"#, "x".repeat(bytes));
        let prepare = |_| {
            let mut chance = [0; 26];
            random(&mut chance);
            let draft = Draft::parse(&event.clone().into(), &EventLimits::default()).unwrap();
            Prepared::new(self.tenant, draft.encode(&Defaults { now: now(), source: "/test", random: chance }))
        };
        let append = Append { tenant: self.tenant, events: (0..count).map(prepare).collect(), request: None };
        self.store.commit(now(), vec![Write::Append(append)]).await.unwrap();
    }

    /// Appends 100 events, more than are kept in memory.
    async fn overflow(&self) {
        for _ in 0..10 {
            self.append(10, 200_000).await;
        }
    }

    fn open(&self, after: u64) -> UnixStream {
        self.open_with(after, Filter::default(), |_| Pass::Good(None))
    }

    fn open_with(&self, after: u64, filter: Filter, pass: impl Fn(Timestamp) -> Pass + Send + 'static) -> UnixStream {
        self.admit(Wants::Stream { filter, cursor: Offset(after), style: Style::default(), replays: true }, pass)
    }

    fn admit(&self, wants: Wants, pass: impl Fn(Timestamp) -> Pass + Send + 'static) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        self.streams.admit(Guest {
            socket: TcpStream::from(OwnedFd::from(theirs)),
            greeting: b"hello\n\n".to_vec(),
            tenant: self.tenant,
            wants,
            pass: Box::new(pass),
        });
        ours
    }
}

/// The ids up to the word that everything was replayed.
fn replayed(stream: &mut UnixStream) -> Vec<u64> {
    let mut text = Vec::new();
    let mut piece = vec![0; 1 << 20];
    while !text.ends_with(b"}\n\n")
        || !String::from_utf8_lossy(&text[text.len().saturating_sub(80)..]).contains("\"complete\"")
    {
        let length = stream.read(&mut piece).expect("more comes in time");
        assert_ne!(length, 0, "the stream ended");
        text.extend_from_slice(&piece[..length]);
    }
    let text = String::from_utf8(text).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
}

/// Reads until the event with an id has come whole; a word about the replay may follow it.
fn read_to(stream: &mut UnixStream, id: u64) {
    let (mut text, mut piece, begin) = (String::new(), vec![0; 1 << 20], format!("id: {id}\n"));
    while !text.split_once(&begin).is_some_and(|(_, frame)| frame.contains("x\"}\n\n")) {
        let length = stream.read(&mut piece).expect("more comes in time");
        assert_ne!(length, 0, "the stream ended");
        text.push_str(std::str::from_utf8(&piece[..length]).unwrap());
    }
}

#[tokio::test]
async fn who_is_behind_the_ring_gets_all_from_the_log_also_when_a_read_is_answered_at_once() {
    let rig = Rig::new().await;
    // Several pages, then more than the 16 MiB that are kept in memory, of which a few fill a page.
    rig.append(3_200, 10).await;
    rig.overflow().await;
    for after in [0, 3, 999, 1_000, 1_001, 3_198, 3_299, 3_300] {
        assert_eq!(replayed(&mut rig.open(after)), (after + 1..=3_300).collect::<Vec<_>>());
    }
}

/// A group has the number of one that is no more; what was read for that one has other events, or another tenant's.
#[tokio::test]
async fn nobody_gets_what_was_read_for_one_who_has_left() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::open(&MemoryDisk::default()));
    let flaky = Flaky::over(&memory);
    let rig = Rig::over(flaky.clone(), monotonic).await;
    rig.overflow().await;
    flaky.held.send_replace(true);
    let (here, gone) = std::sync::mpsc::channel::<()>();
    let some = Filter { types: vec![TypePattern::parse("other.*").unwrap()], ..Filter::default() };
    let mut leaves = rig.open_with(0, some, move |_| {
        let _ = &here;
        Pass::Good(None)
    });
    leaves.read_exact(&mut [0; 7]).unwrap();
    drop(leaves);
    assert!(gone.recv_timeout(Duration::from_secs(10)).is_err_and(|error| error == RecvTimeoutError::Disconnected));
    let mut comes = rig.open(0);
    comes.read_exact(&mut [0; 7]).unwrap();
    flaky.held.send_replace(false);
    assert_eq!(replayed(&mut comes), (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_that_pauses_in_the_middle_of_frames_gets_each_once() {
    let rig = Rig::new().await;
    let mut slow = rig.open(0);
    // It reads a little of each batch, so that its socket is full and its frames are cut; in the end it reads all.
    let mut text = Vec::new();
    for _ in 0..10 {
        rig.append(100, 20_000).await;
        let mut piece = vec![0; 10_001];
        let length = slow.read(&mut piece).unwrap();
        text.extend_from_slice(&piece[..length]);
    }
    let mut piece = vec![0; 1 << 20];
    let end = b"id: 1000\n";
    while !text.windows(end.len()).rev().take(1 << 20).any(|window| window == end) {
        let length = slow.read(&mut piece).expect("more comes in time");
        assert_ne!(length, 0, "the stream ended");
        text.extend_from_slice(&piece[..length]);
    }
    let text = String::from_utf8(text).unwrap();
    let ids: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(ids, (1..=1_000).collect::<Vec<_>>());
    // Whole frames: each has its blank line and nothing between.
    let whole = text.split("\n\n").filter(|block| block.starts_with("id: ") && block.ends_with("x\"}"));
    assert!(whole.count() >= 999);
}

#[tokio::test]
async fn a_stream_that_ends_in_the_middle_of_a_frame_gets_the_rest_of_it_and_its_last_words() {
    for behind in [false, true] {
        let rig = Rig::new().await;
        if behind {
            rig.append(100, 100_000).await;
        }
        let mut stream = rig.open(0);
        let mut text = vec![0; 50_000];
        if !behind {
            rig.append(2, 200_000).await;
        }
        // Its socket holds less than a frame, or than all frames.
        stream.read_exact(&mut text).unwrap();
        rig.streams.drain();
        stream.read_to_end(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let blocks: Vec<_> = text.trim_end().split("\n\n").collect();
        assert_eq!(blocks.last(), Some(&"event: tidings.status\ndata: {\"closing\":\"drain\"}"));
        for event in blocks.iter().filter(|block| block.starts_with("id: ")) {
            assert!(event.ends_with("x\"}"), "a whole frame, not {} bytes", event.len());
        }
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_for_thirty_seconds_is_closed_and_no_other() {
    let rig = Rig::over(Arc::new(MemoryStore::open(&MemoryDisk::default())), racing::<0>).await;
    let (here, gone) = std::sync::mpsc::channel::<()>();
    let mut stalled = rig.open_with(0, Filter::default(), move |_| {
        let _ = &here;
        Pass::Good(None)
    });
    let mut reads = rig.open(0);
    // More than its socket holds.
    rig.append(20, 200_000).await;
    stalled.read_exact(&mut vec![0; 300_000]).unwrap();
    read_to(&mut reads, 20);
    let reader = std::thread::spawn(move || read_to(&mut reads, 21));
    RACES[0].to(29);
    assert_eq!(gone.try_recv(), Err(TryRecvError::Empty));
    RACES[0].to(33);
    assert_eq!(gone.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Disconnected));
    // What its socket held arrives, and is not all.
    let mut rest = Vec::new();
    stalled.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 1_000_000);
    rig.append(1, 1).await;
    reader.join().unwrap();
}

/// What a stream was told, one after the other: of a gap where it goes on, of events their ids.
fn told(text: &str) -> Vec<(&str, u64)> {
    let word = |block: &'static str, before: &'static str| {
        move |text: &str| -> Option<(&'static str, u64)> {
            let digits = text.split_once(before)?.1;
            let end = digits.find(|letter: char| !letter.is_ascii_digit())?;
            Some((block, digits[..end].parse().ok()?))
        }
    };
    let (gap, event) = (word("gap", "\"replay\":\"gap\",\"from\":"), word("event", "id: "));
    text.split("\n\n").filter_map(|block| gap(block).or_else(|| event(block))).collect()
}

#[tokio::test]
async fn who_catches_up_while_retention_goes_on_is_told_each_time_what_it_misses() {
    let some = Filter { types: vec![TypePattern::parse("a.*").unwrap()], ..Filter::default() };
    for filter in [Filter::default(), some] {
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::open(&MemoryDisk::default()));
        let flaky = Flaky::over(&memory);
        // Time stands still, or who pauses in the middle of a frame may find that it is gone.
        let rig = Rig::over(flaky.clone(), racing::<3>).await;
        rig.overflow().await;
        let trim = async |through| memory.commit(now(), vec![Write::Trim(rig.tenant, Offset(through))]).await.unwrap();
        flaky.held.send_replace(true);
        let mut stream = rig.open_with(0, filter, |_| Pass::Good(None));
        stream.read_exact(&mut [0; 7]).unwrap();
        // Before what it asks for is read, and then while it does not read.
        trim(20).await;
        flaky.held.send_replace(false);
        let mut text = vec![0; 600_000];
        stream.read_exact(&mut text).unwrap();
        trim(80).await;
        let mut piece = vec![0; 1 << 20];
        while !text.ends_with(b"\"complete\",\"through\":100}\n\n") {
            let length = stream.read(&mut piece).expect("more comes in time");
            assert_ne!(length, 0, "the stream ended: {:?}", told(&String::from_utf8_lossy(&text)));
            text.extend_from_slice(&piece[..length]);
        }
        let told = told(std::str::from_utf8(&text).unwrap());
        let gaps: Vec<_> = told.iter().filter(|(what, _)| *what == "gap").map(|(_, first)| *first).collect();
        assert_eq!(gaps, [21, 81]);
        let mut next = 1;
        for (what, offset) in told {
            if what == "event" {
                assert_eq!(offset, next);
            }
            next = if what == "event" { offset + 1 } else { offset };
        }
        assert_eq!(next, 101);
    }
}
