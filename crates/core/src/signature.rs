//! Signatures of webhook deliveries: Standard Webhooks 1.0, symmetric (`v1`, HMAC-SHA256).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::secret::SigningSecret;

/// Most signatures looked at in one header: a rotation needs two, a hostile header must not cost more.
const SIGNATURES_MAX: usize = 16;

/// The `webhook-signature` value of a delivery: `v1,<base64>` over `id.timestamp.body`.
pub fn sign_v1(secret: &SigningSecret, id: &str, timestamp_s: i64, body: &[u8]) -> String {
    format!("v1,{}", STANDARD.encode(mac(secret, id, timestamp_s, body)))
}

/// Whether one of the space separated signatures of `header` is ours. Takes the same time whichever byte differs.
///
/// The caller checks that `timestamp_s` is recent (Standard Webhooks: 5 minutes).
pub fn verify_v1(secret: &SigningSecret, id: &str, timestamp_s: i64, body: &[u8], header: &str) -> bool {
    let expected = mac(secret, id, timestamp_s, body);
    let given = header.split(' ').take(SIGNATURES_MAX).filter_map(|signature| signature.strip_prefix("v1,"));
    let found = given.fold(Choice::from(0), |found, encoded| {
        // 32 bytes are 44 characters; anything else, the empty signature too, cannot be one.
        let mut decoded = [0; 33];
        match STANDARD.decode_slice(encoded, &mut decoded) {
            Ok(32) => found | decoded[..32].ct_eq(&expected),
            _ => found,
        }
    });
    found.into()
}

fn mac(secret: &SigningSecret, id: &str, timestamp_s: i64, body: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length (RFC 2104 §3).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.bytes()) else {
        unreachable!("HMAC takes keys of any length")
    };
    mac.update(id.as_bytes());
    mac.update(format!(".{timestamp_s}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIME: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret() -> SigningSecret {
        SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()
    }

    #[test]
    fn the_vector_of_standard_webhooks_comes_out() {
        assert_eq!(sign_v1(&secret(), ID, TIME, BODY), SIGNATURE);
    }

    #[test]
    fn one_good_signature_among_several_is_enough() {
        let other = sign_v1(&SigningSecret::from_random([1; 32]), ID, TIME, BODY);
        for header in [SIGNATURE.to_owned(), format!("{other} {SIGNATURE}"), format!("v1a,AAAA {SIGNATURE} {other}")] {
            assert!(verify_v1(&secret(), ID, TIME, BODY, &header), "{header}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let other = sign_v1(&SigningSecret::from_random([1; 32]), ID, TIME, BODY);
        let bare = SIGNATURE.trim_start_matches("v1,");
        let flood = format!("{}{SIGNATURE}", "v1,AAAA ".repeat(SIGNATURES_MAX));
        for header in [
            "",
            "v1,",
            "v1, ",
            "v1",
            "v2,",
            ",",
            " ",
            bare,
            &SIGNATURE[..SIGNATURE.len() - 1],
            &format!("{SIGNATURE}AAAA"),
            &other,
            &flood,
        ] {
            assert!(!verify_v1(&secret(), ID, TIME, BODY, header), "{header}");
        }
        assert!(!verify_v1(&secret(), "msg", TIME, BODY, SIGNATURE));
        assert!(!verify_v1(&secret(), ID, TIME + 1, BODY, SIGNATURE));
        assert!(!verify_v1(&secret(), ID, TIME, b"{}", SIGNATURE));
    }
}
