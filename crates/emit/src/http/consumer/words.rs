//! What a worker says of its messages, said beside the work.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tidings_core::time::format_duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Nack;
use crate::http::backoff::delay_now;
use crate::http::client::{Answer, Client};

/// Words that wait; whoever works faster than they are said waits too.
const WAITING_MAX: usize = 1_000;
/// Tokens of one request.
const TOKENS_MAX: usize = 1_000;
/// Longest reason that the gateway takes.
const REASON_BYTES_MAX: usize = 1_024;
/// Longest delay that the gateway takes.
const DELAY_MAX: Duration = Duration::from_hours(24);
const LIMIT: Duration = Duration::from_secs(10);
/// How often a word is said before it is given up: then the message comes again after `ackWait`.
const TRIES: u32 = 5;

/// A word about messages, by their tokens.
#[derive(Debug)]
pub(super) enum Word {
    Ack(String),
    Nack(String, Nack),
    Extend(Vec<String>),
}

impl Word {
    pub(super) fn of(token: String, done: Result<(), Nack>) -> Self {
        match done {
            Ok(()) => Self::Ack(token),
            Err(nack) => Self::Nack(token, nack),
        }
    }
}

/// Says words in the background, until it is dropped and all is said.
#[derive(Debug)]
pub(super) struct Words(mpsc::Sender<Word>);

impl Words {
    pub(super) fn start(client: Client, name: String) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), tokio::spawn(run(client, name, receiver)))
    }

    pub(super) async fn say(&self, word: Word) {
        // An error: the runtime ends.
        let _ = self.0.send(word).await;
    }
}

async fn run(mut client: Client, name: String, mut words: mpsc::Receiver<Word>) {
    let mut waiting = Vec::new();
    while words.recv_many(&mut waiting, TOKENS_MAX).await > 0 {
        let mut acked = Vec::new();
        for word in waiting.drain(..) {
            match word {
                Word::Ack(token) => acked.push(token),
                Word::Nack(token, Nack { reason, delay }) => {
                    let delay = delay.map(|delay| format_duration(delay.min(DELAY_MAX)));
                    let body = json!({"token": token, "delay": delay, "reason": printable(&reason)});
                    say(&mut client, &name, "nack", &body).await;
                }
                Word::Extend(tokens) => {
                    for tokens in tokens.chunks(TOKENS_MAX) {
                        say(&mut client, &name, "extend", &json!({ "tokens": tokens })).await;
                    }
                }
            }
        }
        if !acked.is_empty() {
            say(&mut client, &name, "ack", &json!({ "tokens": acked })).await;
        }
    }
}

/// Says it until the gateway has heard it, a few times. A refusal is an answer too: those messages are not ours any more.
async fn say(client: &mut Client, name: &str, what: &str, body: &Value) {
    let route = format!("/consumers/{name}/{what}");
    let body = Bytes::from(body.to_string());
    for failures in 1..=TRIES {
        let asked = match client.post(&route, body.clone(), LIMIT).await {
            Ok(Answer { status: 408 | 429 | 500..=599, retry_after, .. }) => retry_after,
            Ok(_) => return,
            Err(_) => None,
        };
        if failures < TRIES {
            sleep(delay_now(failures, asked)).await;
        }
    }
}

/// As the gateway takes a reason: without control characters, not empty, not too long.
fn printable(reason: &str) -> String {
    let mut text: String = reason.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
    if text.is_empty() { "refused by a worker".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_a_reason() {
        assert_eq!(printable("a\nb"), "a b");
        assert_eq!(printable(""), "refused by a worker");
        assert!(printable(&"ü".repeat(1_000)).len() <= REASON_BYTES_MAX);
    }
}
