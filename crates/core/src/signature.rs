//! Signatures of webhook deliveries: Standard Webhooks 1.0, symmetric (`v1`, HMAC-SHA256) and asymmetric (`v1a`, Ed25519).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::secret::{SecretKey, SigningSecret};

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

/// Signs many deliveries with the same secrets: each has them prepared.
pub struct Signer {
    macs: Vec<Hmac<Sha256>>,
    keys: Vec<SecretKey>,
}

impl Signer {
    /// Signs with all of them: while secrets rotate, whoever has either can verify.
    pub fn new(secrets: &[SigningSecret], keys: &[SecretKey]) -> Self {
        Self { macs: secrets.iter().map(keyed).collect(), keys: keys.to_vec() }
    }

    /// The `webhook-signature` value of a delivery: one signature for each secret and key, separated by spaces.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let prefix = format!("{id}.{timestamp_s}.");
        let mut header = String::with_capacity(48 * self.macs.len() + 93 * self.keys.len());
        for mac in &self.macs {
            append(&mut header, "v1,", &finish(mac.clone(), &prefix, body));
        }
        if !self.keys.is_empty() {
            let message = [prefix.as_bytes(), body].concat();
            for key in &self.keys {
                append(&mut header, "v1a,", &key.sign(&message));
            }
        }
        header
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(***)")
    }
}

fn append(header: &mut String, version: &str, signature: &[u8]) {
    if !header.is_empty() {
        header.push(' ');
    }
    header.push_str(version);
    STANDARD.encode_string(signature, header);
}

fn mac(secret: &SigningSecret, id: &str, timestamp_s: i64, body: &[u8]) -> [u8; 32] {
    finish(keyed(secret), &format!("{id}.{timestamp_s}."), body)
}

fn keyed(secret: &SigningSecret) -> Hmac<Sha256> {
    // HMAC takes keys of any length (RFC 2104 §3).
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.bytes()) else { unreachable!("HMAC takes keys of any length") };
    mac
}

fn finish(mut mac: Hmac<Sha256>, prefix: &str, body: &[u8]) -> [u8; 32] {
    mac.update(prefix.as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use std::slice;

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
    fn the_published_vector_of_asymmetric_signatures_comes_out() {
        let key = SecretKey::parse("whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=").unwrap();
        let known = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
        assert_eq!(Signer::new(&[], slice::from_ref(&key)).sign(ID, TIME, BODY), known);
        assert_eq!(Signer::new(&[secret()], &[key]).sign(ID, TIME, BODY), format!("{SIGNATURE} {known}"));
    }

    #[test]
    fn while_secrets_rotate_both_verify() {
        let new = SigningSecret::from_random([1; 32]);
        let header = Signer::new(&[new.clone(), secret()], &[]).sign(ID, TIME, BODY);
        assert!(header.starts_with("v1,") && header.ends_with(&format!(" {SIGNATURE}")), "{header}");
        assert!(verify_v1(&new, ID, TIME, BODY, &header) && verify_v1(&secret(), ID, TIME, BODY, &header));
        assert!(!verify_v1(&SigningSecret::from_random([2; 32]), ID, TIME, BODY, &header));
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
