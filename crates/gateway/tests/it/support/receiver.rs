//! A subscriber: keeps what it was sent and answers as it is told.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use super::instant;

/// One request as it came, and the status that it got.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) at: Instant,
}

impl Post {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether it is signed with `secret` as Standard Webhooks 1.0 says; computed here, not by the server's code.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).as_bytes());
        mac.update(&self.body);
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}

type Decide = dyn Fn(&Post, usize) -> u16 + Send + Sync;

/// A server on a port of its own. Its threads end with the test.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    posts: Arc<(Mutex<Vec<Post>>, Condvar)>,
}

impl Receiver {
    /// Answers 200 at once.
    pub(crate) fn start() -> Self {
        Self::answering(|_, _| 200)
    }

    /// Answers with the status that `decide` gives for a post and the number of those before it.
    pub(crate) fn answering(decide: impl Fn(&Post, usize) -> u16 + Send + Sync + 'static) -> Self {
        Self::saying("", decide)
    }

    /// As [`Receiver::answering`], each time with a text.
    pub(crate) fn saying(text: &'static str, decide: impl Fn(&Post, usize) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let posts = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (shared, decide): (_, Arc<Decide>) = (Arc::clone(&posts), Arc::new(decide));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (posts, decide) = (Arc::clone(&shared), Arc::clone(&decide));
                // A sender that goes away ends only its own connection.
                std::thread::spawn(move || take(stream, &posts, &*decide, text).ok());
            }
        });
        Self { address, posts }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.0.lock().unwrap().clone()
    }

    /// All posts, once `enough` says so.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, enough: impl Fn(&[Post]) -> bool) -> Vec<Post> {
        let (posts, came) = &*self.posts;
        let waiting = posts.lock().unwrap();
        let (posts, timeout) =
            came.wait_timeout_while(waiting, Duration::from_secs(30), |posts| !enough(posts)).unwrap();
        assert!(!timeout.timed_out(), "{what}: {} posts came", posts.len());
        posts.clone()
    }

    /// All posts, once there are `count`.
    #[track_caller]
    pub(crate) fn wait(&self, count: usize) -> Vec<Post> {
        self.wait_for(&format!("{count} posts"), |posts| posts.len() >= count)
    }
}

fn take(stream: TcpStream, posts: &(Mutex<Vec<Post>>, Condvar), decide: &Decide, text: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut post = Post { headers, body: Vec::new(), status: 0, at: instant() };
        post.body.resize(post.header("content-length").parse().unwrap_or(0), 0);
        reader.read_exact(&mut post.body)?;
        let before = posts.0.lock().unwrap().len();
        post.status = decide(&post, before);
        let head = format!("HTTP/1.1 {} Decided\r\ncontent-type: text/plain\r\n", post.status);
        let answer = format!("{head}content-length: {}\r\n\r\n{text}", text.len());
        posts.0.lock().unwrap().push(post);
        posts.1.notify_all();
        reader.get_mut().write_all(answer.as_bytes())?;
    }
}
