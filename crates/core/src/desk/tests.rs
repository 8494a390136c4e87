//! A desk against workers of all kinds.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn desk(count: u64) -> Desk {
    let mut desk = Desk::new(7);
    (1..=count).for_each(|offset| desk.lay(Offset(offset), 1));
    desk
}

fn take(desk: &mut Desk, max: usize, now: i64) -> Vec<Token> {
    let mut nonce = 0;
    let given = desk.take(max, at(now), Duration::from_secs(30), || {
        nonce += 1;
        nonce
    });
    given.into_iter().map(|(token, _)| token).collect()
}

#[test]
fn a_token_survives_its_text() {
    let token = Token { consumer: consumer_number("cns_1"), offset: Offset(1 << 40), attempt: 4, nonce: u64::MAX - 1 };
    assert_eq!(Token::parse(&token.to_text()), Some(token));
    assert_eq!(token.to_text().len(), 32);
    for text in ["", "x", &token.to_text()[1..], &format!("{}A", token.to_text()), "????????????????????????????????"] {
        assert_eq!(Token::parse(text), None, "{text}");
    }
}

#[test]
fn a_delivery_is_with_one_worker_and_its_word_counts_once() {
    let mut desk = desk(3);
    let first = take(&mut desk, 2, 0);
    let second = take(&mut desk, 2, 0);
    assert_eq!(first.iter().chain(&second).map(|token| token.offset.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(desk.end(first[0]) && !desk.end(first[0]));
    let forged = Token { nonce: 99, ..first[1] };
    assert!(!desk.end(forged) && !desk.extend(forged, at(1)) && desk.end(first[1]));
    assert_eq!(desk.out(), 1);
}

#[test]
fn what_is_over_comes_back_at_its_time_and_not_before() {
    let mut desk = desk(2);
    let taken = take(&mut desk, 2, 0);
    assert!(desk.extend(taken[0], at(40_000)));
    assert_eq!((desk.next_expiry(), desk.expire(at(29_999))), (Some(at(30_000)), vec![]));
    assert_eq!(desk.expire(at(30_000)), [Offset(2)]);
    assert!(!desk.end(taken[1]) && desk.end(taken[0]));
    assert_eq!((desk.next_expiry(), desk.expire(at(99_999))), (None, vec![]));
}

#[test]
fn a_paused_desk_gives_nothing_out_but_takes_the_word_of_those_who_have_something() {
    let mut desk = desk(2);
    desk.ask(5);
    let taken = take(&mut desk, 1, 0);
    desk.pause(true);
    assert_eq!((desk.capacity(), desk.has_ready()), (0, false));
    assert!(take(&mut desk, 1, 0).is_empty() && desk.end(taken[0]));
    desk.pause(false);
    assert_eq!((desk.capacity(), take(&mut desk, 5, 0).len()), (5, 1));
}

proptest! {
    #[test]
    fn whatever_workers_do_nothing_is_out_twice_or_forgotten(steps in prop::collection::vec((0..7_u8, 0..12_usize), 1..200)) {
        let mut desk = Desk::new(7);
        let (mut now, mut next, mut nonce) = (0, 1, 0);
        let mut ready: BTreeSet<u64> = BTreeSet::new();
        let mut out: BTreeMap<u64, Token> = BTreeMap::new();
        let mut old: Vec<Token> = Vec::new();
        for (step, size) in steps {
            match step {
                0 | 1 => for _ in 0..size {
                    desk.lay(Offset(next), 1);
                    ready.insert(next);
                    next += 1;
                },
                2 => for (token, until) in desk.take(size, at(now), Duration::from_millis(50), || { nonce += 1; nonce }) {
                    prop_assert!(until == at(now + 50));
                    prop_assert!(ready.remove(&token.offset.0), "it was not ready");
                    prop_assert!(out.insert(token.offset.0, token).is_none(), "it was out");
                },
                3 => if let Some((&offset, &token)) = out.iter().nth(size) {
                    prop_assert!(desk.end(token));
                    out.remove(&offset);
                    old.push(token);
                },
                4 => now += i64::try_from(size).unwrap(),
                5 => for offset in desk.expire(at(now)) {
                    old.extend(out.remove(&offset.0));
                    // It is tried again.
                    desk.lay(offset, 2);
                    ready.insert(offset.0);
                },
                _ => for token in &old {
                    prop_assert!(!desk.end(*token) && !desk.extend(*token, at(now + 50)), "an old word counts");
                },
            }
            prop_assert_eq!(desk.out(), out.len());
            prop_assert_eq!(desk.has_ready(), !ready.is_empty());
        }
    }
}
