//! Whether a request is a delivery of ours: Standard Webhooks 1.0, symmetric signatures.

use std::time::Duration;

use tidings_core::id::EventId;
use tidings_core::secret::SigningSecret;
use tidings_core::signature::verify_v1;
use tidings_core::time::Timestamp;

use crate::clock;

/// How far a signature's time may be off (Standard Webhooks: 5 minutes).
const TOLERANCE: Duration = Duration::from_mins(5);
/// Digits of a time in seconds that are read.
const SECONDS_DIGITS_MAX: usize = 12;

/// Verifies deliveries with any of its secrets: while they rotate, give both.
#[derive(Clone, Debug)]
pub struct Verifier {
    secrets: Vec<SigningSecret>,
    tolerance: Duration,
}

/// A delivery whose signature is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The event's id: the same at every attempt.
    pub id: EventId,
    /// When the attempt was signed, to the second.
    pub signed: Timestamp,
    /// Which attempt this is, from 1; none if the header is missing.
    pub attempt: Option<u32>,
    /// The replay that it is part of.
    pub replay: Option<String>,
}

/// The request is not a delivery of ours: answer 400, and do not look at its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unverified {
    /// A header is missing, or is not what it should be.
    #[error("the header {0} is missing or malformed")]
    Header(&'static str),
    /// Signed too long ago, or in the future: repeated by somebody, or a clock is wrong.
    #[error("the signature's time is more than {} seconds off", .0.as_secs())]
    Stale(Duration),
    /// The body was changed, or the secret is another one.
    #[error("no signature fits: the body was changed, or the secret is another one")]
    Signature,
}

impl Verifier {
    /// With secrets as they were shown, `whsec_…`. The error says what is accepted and never repeats a secret.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let secrets = secrets.into_iter().map(SigningSecret::parse).collect::<Result<Vec<_>, _>>()?;
        if secrets.is_empty() {
            return Err("a verifier needs a secret".into());
        }
        Ok(Self { secrets, tolerance: TOLERANCE })
    }

    /// Another bound for how far a signature's time may be off; 5 minutes if nobody says.
    #[must_use]
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// The delivery, if one signature fits and its time is recent.
    ///
    /// `header` gives a header by its name in lower case; `body` is the body as it came, not parsed and written again.
    ///
    /// ```
    /// # use tidings_emit::{Verifier, Delivery, Unverified};
    /// # struct Headers; impl Headers { fn get(&self, _: &str) -> Option<&str> { None } }
    /// fn receive(verifier: &Verifier, headers: &Headers, body: &[u8]) -> Result<Delivery, Unverified> {
    ///     verifier.verify(|name| headers.get(name), body)
    /// }
    /// # let verifier = Verifier::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();
    /// # assert!(receive(&verifier, &Headers, b"{}").is_err());
    /// ```
    pub fn verify<'h>(
        &self,
        header: impl Fn(&'static str) -> Option<&'h str>,
        body: &[u8],
    ) -> Result<Delivery, Unverified> {
        self.verify_at(header, body, clock::now())
    }

    /// As [`Self::verify`], at a time of the caller's.
    pub fn verify_at<'h>(
        &self,
        header: impl Fn(&'static str) -> Option<&'h str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Delivery, Unverified> {
        let required = |name| header(name).ok_or(Unverified::Header(name));
        let id = required("webhook-id")?;
        let seconds = required("webhook-timestamp").and_then(seconds)?;
        let signatures = required("webhook-signature")?;
        let signed = Timestamp::from_millis(seconds * 1000);
        if now.since(signed).max(signed.since(now)) > self.tolerance {
            return Err(Unverified::Stale(self.tolerance));
        }
        // All secrets are tried: the time tells nothing.
        let fits = |fits, secret| fits | verify_v1(secret, id, seconds, body, signatures);
        if !self.secrets.iter().fold(false, fits) {
            return Err(Unverified::Signature);
        }
        Ok(Delivery {
            id: EventId::parse(id).map_err(|_| Unverified::Header("webhook-id"))?,
            signed,
            attempt: header("tidings-attempt").and_then(|number| number.parse().ok()),
            replay: header("tidings-replay").map(str::to_owned),
        })
    }
}

fn seconds(text: &str) -> Result<i64, Unverified> {
    let digits = text.len() <= SECONDS_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or(Unverified::Header("webhook-timestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNED: Timestamp = Timestamp::from_millis(1_614_265_330_000);
    /// The vector of Standard Webhooks.
    const HEADERS: [(&str, &str); 4] = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ("tidings-attempt", "2"),
    ];

    fn verify(headers: &[(&str, &str)], body: &[u8], now: Timestamp) -> Result<Delivery, Unverified> {
        let verifier = Verifier::new([SECRET]).unwrap();
        let header = |name| headers.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        verifier.verify_at(header, body, now)
    }

    #[test]
    fn a_signed_delivery_is_read() {
        let delivery = verify(&HEADERS, BODY, SIGNED).unwrap();
        let id = EventId::parse("msg_p5jXN8AQM9LWM0D4loKWxJek").unwrap();
        assert_eq!(delivery, Delivery { id, signed: SIGNED, attempt: Some(2), replay: None });
    }

    #[test]
    fn five_minutes_off_is_recent_and_a_millisecond_more_is_not() {
        for (offset_ms, fits) in [(300_000, true), (300_001, false), (-300_000, true), (-300_001, false)] {
            let now = Timestamp::from_millis(SIGNED.as_millis() + offset_ms);
            assert_eq!(verify(&HEADERS, BODY, now).is_ok(), fits, "{offset_ms}");
        }
    }

    #[test]
    fn a_changed_body_id_or_time_is_refused() {
        assert_eq!(verify(&HEADERS, b"{}", SIGNED), Err(Unverified::Signature));
        for (index, value) in [(0, "msg_other"), (1, "1614265331")] {
            let mut headers = HEADERS;
            headers[index].1 = value;
            assert_eq!(verify(&headers, BODY, SIGNED), Err(Unverified::Signature), "{value}");
        }
    }

    #[test]
    fn headers_that_are_missing_or_malformed_are_named() {
        for (index, name) in ["webhook-id", "webhook-timestamp", "webhook-signature"].into_iter().enumerate() {
            let mut headers = HEADERS.to_vec();
            headers.remove(index);
            assert_eq!(verify(&headers, BODY, SIGNED), Err(Unverified::Header(name)));
        }
        for time in ["", "-1", "+1614265330", "1614265330.0", "1e9", "9999999999999"] {
            let mut headers = HEADERS;
            headers[1].1 = time;
            assert_eq!(verify(&headers, BODY, SIGNED), Err(Unverified::Header("webhook-timestamp")), "{time}");
        }
    }

    #[test]
    fn while_secrets_rotate_either_fits() {
        let other = SigningSecret::from_random([1; 32]).expose();
        let header = |name| HEADERS.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        for secrets in [[SECRET, &other], [&other, SECRET]] {
            assert!(Verifier::new(secrets).unwrap().verify_at(header, BODY, SIGNED).is_ok());
        }
        assert!(Verifier::new([other.as_str()]).unwrap().verify_at(header, BODY, SIGNED).is_err());
        assert!(Verifier::new([]).is_err() && Verifier::new(["whsec_short"]).is_err());
    }
}
