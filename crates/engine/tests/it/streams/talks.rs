//! WebSockets in a shard: who is silent, who does not read, and whom retention overtakes.

use std::io::{ErrorKind, Write as _};
use std::sync::mpsc::{Receiver, channel};

use tidings_engine::streams::voice::{Subscription, Voice};

use super::*;

/// A ping of the server, which has no payload, and what a client answers: masked by zeros.
const PING: [u8; 2] = [0x89, 0];
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
/// A message of a client.
const MESSAGE: [u8; 7] = [0x81, 0x81, 0, 0, 0, 0, b'x'];

/// A WebSocket that was greeted; each of its messages subscribes to everything from the start, and is told of when that is
/// asked for. The receiver ends with the connection.
fn talk(rig: &Rig) -> (UnixStream, Receiver<()>) {
    let (heard, messages) = channel();
    let subscription = || Subscription { id: "a".into(), filter: Filter::default(), cursor: Offset(0), replays: false };
    let hear = move |_, voice: &Voice| {
        voice.subscribe(subscription());
        voice.done();
        heard.send(()).unwrap();
    };
    let mut socket = rig.admit(Wants::Talk(Box::new(hear)), |_| Pass::Good(None));
    let mut greeting = [0; 7];
    socket.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello\n\n");
    (socket, messages)
}

/// Nothing has come.
fn is_silent(socket: &mut UnixStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let read = socket.read(&mut [0; 1]);
    socket.set_nonblocking(false).unwrap();
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn who_says_nothing_is_asked_after_twenty_seconds_and_closed_after_twenty_five_more() {
    let rig = Rig::over(Arc::new(MemoryStore::open(&MemoryDisk::default())), racing::<1>).await;
    let ((mut silent, silent_heard), (mut answers, answers_heard)) = (talk(&rig), talk(&rig));
    RACES[1].to(19);
    assert!(is_silent(&mut silent) && is_silent(&mut answers));
    let mut ping = [0; 2];
    RACES[1].to(22);
    for socket in [&mut silent, &mut answers] {
        socket.read_exact(&mut ping).unwrap();
        assert_eq!(ping, PING);
    }
    answers.write_all(&PONG).unwrap();
    answers.write_all(&MESSAGE).unwrap();
    answers_heard.recv_timeout(Duration::from_secs(10)).unwrap();
    RACES[1].to(41);
    assert!(is_silent(&mut silent) && is_silent(&mut answers));
    RACES[1].to(49);
    let mut close = Vec::new();
    silent.read_to_end(&mut close).unwrap();
    // 1008, and the reason for people.
    assert_eq!((close[0], &close[2..4]), (0x88, &1008_u16.to_be_bytes()[..]));
    assert!(std::str::from_utf8(&close[4..]).unwrap().contains("no answer to a ping"));
    assert_eq!(silent_heard.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Disconnected));
    // Who answered is asked again.
    answers.read_exact(&mut ping).unwrap();
    assert_eq!((ping, answers_heard.try_recv()), (PING, Err(TryRecvError::Empty)));
}

#[tokio::test]
async fn a_websocket_that_takes_nothing_for_thirty_seconds_is_closed_and_no_other() {
    let rig = Rig::over(Arc::new(MemoryStore::open(&MemoryDisk::default())), racing::<2>).await;
    let ((mut stalled, stalled_heard), (mut reads, reads_heard)) = (talk(&rig), talk(&rig));
    for (socket, heard) in [(&mut stalled, &stalled_heard), (&mut reads, &reads_heard)] {
        socket.write_all(&MESSAGE).unwrap();
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
    }
    // More than its socket holds: 4 MB to each.
    rig.append(20, 200_000).await;
    stalled.read_exact(&mut vec![0; 300_000]).unwrap();
    let mut all = vec![0; 4_000_000];
    reads.read_exact(&mut all).unwrap();
    // The other one reads on, and answers.
    let reader = std::thread::spawn(move || {
        let mut rest = Vec::new();
        while !rest.windows(13).any(|window| window == b"\"offset\":21,\"") {
            let mut piece = [0; 4_096];
            let length = reads.read(&mut piece).unwrap();
            assert_ne!(length, 0, "it was closed");
            rest.extend_from_slice(&piece[..length]);
            reads.write_all(&PONG).unwrap();
        }
    });
    RACES[2].to(29);
    assert_eq!(stalled_heard.try_recv(), Err(TryRecvError::Empty));
    RACES[2].to(33);
    assert_eq!(stalled_heard.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Disconnected));
    let mut rest = Vec::new();
    stalled.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 1_000_000, "{} bytes", rest.len());
    rig.append(1, 1).await;
    reader.join().unwrap();
}

#[tokio::test]
async fn a_subscription_is_told_what_retention_takes_before_it_is_read() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::open(&MemoryDisk::default()));
    let flaky = Flaky::over(&memory);
    let rig = Rig::over(flaky.clone(), monotonic).await;
    rig.overflow().await;
    flaky.held.send_replace(true);
    let (mut socket, heard) = talk(&rig);
    socket.write_all(&MESSAGE).unwrap();
    heard.recv_timeout(Duration::from_secs(10)).unwrap();
    while flaky.held.receiver_count() == 0 {
        std::thread::yield_now();
    }
    memory.commit(now(), vec![Write::Trim(rig.tenant, Offset(50))]).await.unwrap();
    flaky.held.send_replace(false);
    let mut text = vec![0; 300];
    socket.read_exact(&mut text).unwrap();
    let gap = br#"{"type":"status","subscription":"a","replay":"gap","from":51}"#;
    assert_eq!(&text[2..2 + gap.len()], gap);
    let next = String::from_utf8_lossy(&text[2 + gap.len()..]).into_owned();
    assert!(next.contains(r#"{"type":"event","subscription":"a","offset":51,"#), "{next}");
}
