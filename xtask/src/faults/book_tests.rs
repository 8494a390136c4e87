//! The book is a check, so it must be able to fail: every fault is planted once and seen caught.

use super::super::event::Place;
use super::*;

const SECRET: &[u8] = b"twenty-four bytes of key";

fn book() -> Book {
    Book::new(Run::new(7), vec![SECRET.to_vec()], 3)
}

fn post(n: u32, attempt: u32, change: impl Fn(&mut Post)) -> Post {
    let mark = Mark { key: 1, n };
    let data = Run::new(7).data(mark, Place { request: n, index: 0, of: 1 });
    let id = format!("e{n}");
    let body = format!(r#"{{"eventId":"{id}","eventType":"order.shipped","data":{data}}}"#).into_bytes();
    let mut post = Post { path: "/0".to_owned(), headers: Vec::new(), body };
    let mut header = |name: &str, value: &str| post.headers.push((name.to_owned(), value.to_owned()));
    header("webhook-id", &id);
    header("webhook-timestamp", "1800000000");
    header("tidings-attempt", &attempt.to_string());
    change(&mut post);
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key");
    mac.update(format!("{}.1800000000.", post.header("webhook-id")).as_bytes());
    mac.update(&post.body);
    post.headers.push(("webhook-signature".to_owned(), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))));
    post
}

/// Takes posts, each answered with success or not; what was wrong, and how many were repeats.
fn check(posts: &[(Post, bool)]) -> (Vec<String>, usize) {
    let book = book();
    for (post, accepted) in posts {
        if let Some(arrival) = book.arrive(0, post).filter(|_| *accepted) {
            book.accept(0, arrival.mark);
        }
    }
    let hook = book.hook(0);
    (hook.words(), hook.repeats.len())
}

fn plain(n: u32, attempt: u32, accepted: bool) -> (Post, bool) {
    (post(n, attempt, |_| {}), accepted)
}

#[test]
fn a_sound_run_has_no_faults_and_no_repeats() {
    let posts = [plain(1, 1, true), plain(2, 1, false), plain(2, 2, true), plain(3, 1, true)];
    assert_eq!(check(&posts), (vec![], 0));
    let given_up = [plain(1, 1, false), plain(1, 2, false), plain(1, 3, false), plain(2, 1, true)];
    assert_eq!(check(&given_up), (vec![], 0));
}

#[test]
fn what_comes_again_is_a_repeat() {
    assert_eq!(check(&[plain(1, 1, true), plain(1, 1, true)]), (vec![], 1));
    assert_eq!(check(&[plain(1, 1, false), plain(1, 1, true)]).1, 1);
    assert_eq!(check(&[plain(1, 1, true), plain(1, 2, true)]).1, 1);
}

#[test]
fn every_fault_is_told() {
    let words = |posts: &[(Post, bool)]| check(posts).0.join("\n");
    assert!(words(&[plain(2, 1, true)]).contains("after number 0"));
    assert!(words(&[plain(1, 1, true), plain(3, 1, true), plain(2, 1, true)]).contains("after number 3"));
    assert!(words(&[plain(1, 1, false), plain(2, 1, true)]).contains("not settled"));
    let other_body = post(1, 2, |post| post.body.insert(1, b' '));
    assert!(words(&[plain(1, 1, false), (other_body, true)]).contains("another id or body"));
    let altered = post(1, 1, |post| {
        let text = String::from_utf8_lossy(&post.body).replace("1.10", "1.1");
        post.body = text.into_bytes();
    });
    assert!(words(&[(altered, true)]).contains("altered"));
    let mut forged = post(1, 1, |_| {});
    forged.body.insert(1, b' ');
    assert!(words(&[(forged, true)]).contains("signature"));
    let foreign = post(1, 1, |post| {
        post.body = br#"{"eventId":"x","data":{"run":"f0","k":1,"n":1,"request":0,"index":0,"of":1}}"#.to_vec();
    });
    assert!(words(&[(foreign, true)]).contains("nobody sent"));
}
