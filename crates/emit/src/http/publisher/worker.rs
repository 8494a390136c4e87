//! The task behind a publisher: one request at a time, so that order needs no thought.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::{Job, Parcel, PublishError, PublisherLimits};
use crate::http::backoff::delay_now;
use crate::http::batch::{Verdict, verdict};
use crate::http::client::{Client, NoAnswer};

pub(super) struct Worker {
    client: Client,
    limits: PublisherLimits,
    failures_in_a_row: u32,
    failing_since: Option<Instant>,
}

impl Worker {
    pub(super) fn new(client: Client, limits: PublisherLimits) -> Self {
        Self { client, limits, failures_in_a_row: 0, failing_since: None }
    }

    /// Until all publishers are dropped and what they gave is settled.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut ahead = None;
        loop {
            let next = match ahead.take() {
                None => jobs.recv().await,
                ahead => ahead,
            };
            match next {
                None => return,
                Some(Job::Flush(answer)) => tell(answer, ()),
                Some(Job::Publish(parcel)) => {
                    let (batch, unfitting) = self.gather(parcel, &mut jobs);
                    ahead = unfitting;
                    self.settle(batch).await;
                }
            }
        }
    }

    /// What has queued behind `first`, as far as a request takes it; and what did not fit any more.
    fn gather(&self, first: Parcel, jobs: &mut mpsc::Receiver<Job>) -> (Vec<Parcel>, Option<Job>) {
        let mut bytes = first.text.len();
        let mut batch = vec![first];
        while batch.len() < self.limits.batch_events {
            match jobs.try_recv() {
                Ok(Job::Publish(parcel)) if bytes + parcel.text.len() <= self.limits.batch_bytes => {
                    bytes += parcel.text.len();
                    batch.push(parcel);
                }
                Ok(job) => return (batch, Some(job)),
                Err(_) => break,
            }
        }
        (batch, None)
    }

    /// Sends a batch until each of its events has its answer.
    async fn settle(&mut self, batch: Vec<Parcel>) {
        let mut rest = VecDeque::from([batch]);
        while let Some(mut batch) = rest.pop_front() {
            match self.send(&batch).await {
                Verdict::Taken(receipts) => {
                    for (parcel, receipt) in batch.into_iter().zip(receipts) {
                        tell(parcel.answer, Ok(receipt));
                    }
                }
                Verdict::Refused(mut named) => {
                    let mut others = Vec::new();
                    for (index, parcel) in batch.into_iter().enumerate() {
                        match named.remove(&index) {
                            Some(refusal) => tell(parcel.answer, Err(PublishError::Refused(Box::new(refusal)))),
                            None => others.push(parcel),
                        }
                    }
                    if !others.is_empty() {
                        rest.push_front(others);
                    }
                }
                Verdict::Split => {
                    let second = batch.split_off(batch.len() / 2);
                    rest.push_front(second);
                    rest.push_front(batch);
                }
                Verdict::Again(why) => {
                    for parcel in batch {
                        tell(parcel.answer, Err(PublishError::Unavailable(why.clone())));
                    }
                }
            }
        }
    }

    /// Sends until there is an answer that decides; `Again` when it is given up.
    async fn send(&mut self, batch: &[Parcel]) -> Verdict {
        let body = array(batch);
        loop {
            let posted = self.client.post("/events", body.clone(), self.limits.timeout).await;
            let (why, asked) = match posted {
                Ok(answer) => match verdict(answer.status, &answer.body, batch.len()) {
                    Verdict::Again(why) => (why, answer.retry_after),
                    decided => {
                        (self.failures_in_a_row, self.failing_since) = (0, None);
                        return decided;
                    }
                },
                Err(NoAnswer(why)) => (why, None),
            };
            if !self.wait(asked).await {
                return Verdict::Again(why);
            }
        }
    }

    /// Waits before the next try; false if it is time to give up.
    async fn wait(&mut self, asked: Option<Duration>) -> bool {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let delay = delay_now(self.failures_in_a_row, asked);
        if since.elapsed() + delay > self.limits.give_up_after {
            return false;
        }
        sleep(delay).await;
        true
    }
}

/// A JSON array: one event alone, too, so that all answers have one form.
fn array(batch: &[Parcel]) -> Bytes {
    let mut body = BytesMut::with_capacity(batch.iter().map(|parcel| parcel.text.len() + 1).sum::<usize>() + 1);
    for (index, parcel) in batch.iter().enumerate() {
        body.extend_from_slice(if index == 0 { b"[" } else { b"," });
        body.extend_from_slice(&parcel.text);
    }
    body.extend_from_slice(b"]");
    body.freeze()
}

/// Answers; whoever asked may have gone.
fn tell<T>(answer: oneshot::Sender<T>, value: T) {
    let _ = answer.send(value);
}
