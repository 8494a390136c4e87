//! Secrets at rest: XChaCha20-Poly1305, bound to the place where they are stored.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use thiserror::Error;
use zeroize::Zeroizing;

const PREFIX: &str = "sealed:v1:";
const NONCE_BYTES: usize = 24;

/// The key that seals secrets; wiped from memory when dropped.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

/// Why a sealed text does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SealError {
    /// The text is not of the form `sealed:v1:<base64>`.
    #[error("the stored secret is not a sealed text")]
    Malformed,
    /// Sealed with another key, for another place, or altered.
    #[error("the stored secret does not open: the seal key is another one, or the text was moved or altered")]
    Refused,
}

impl SealingKey {
    /// A key of 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Seals `plain`. `nonce` is random and used once; `aad` names the place, so that sealed texts cannot be swapped.
    pub fn seal(&self, nonce: [u8; 24], aad: &str, plain: &[u8]) -> String {
        let payload = Payload { msg: plain, aad: aad.as_bytes() };
        // Fails only beyond 256 GiB, which no secret reaches.
        let Ok(sealed) = self.cipher().encrypt(&XNonce::from(nonce), payload) else {
            unreachable!("a secret is short")
        };
        format!("{PREFIX}{}", STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    /// Opens what was sealed with this key for the same `aad`.
    pub fn open(&self, aad: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let encoded = sealed.strip_prefix(PREFIX).ok_or(SealError::Malformed)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| SealError::Malformed)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Malformed)?;
        let payload = Payload { msg: sealed, aad: aad.as_bytes() };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| SealError::Refused)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> SealingKey {
        SealingKey::from_bytes([9; 32])
    }

    #[test]
    fn what_is_sealed_opens_in_its_place() {
        let sealed = key().seal([1; 24], "default|webhook|wh_1|secret", b"whsec_x");
        assert!(sealed.starts_with("sealed:v1:") && !sealed.contains("whsec"));
        assert_eq!(*key().open("default|webhook|wh_1|secret", &sealed).unwrap(), b"whsec_x");
        assert_eq!(*key().open("", &key().seal([1; 24], "", b"")).unwrap(), b"");
    }

    #[test]
    fn a_sealed_text_moved_to_another_row_is_refused() {
        let sealed = key().seal([1; 24], "default|webhook|wh_1|secret", b"whsec_x");
        assert_eq!(key().open("default|webhook|wh_2|secret", &sealed), Err(SealError::Refused));
    }

    #[test]
    fn another_key_is_refused() {
        let sealed = key().seal([1; 24], "a", b"whsec_x");
        assert_eq!(SealingKey::from_bytes([8; 32]).open("a", &sealed), Err(SealError::Refused));
    }

    #[test]
    fn what_is_not_sealed_is_told_apart() {
        for text in ["", "whsec_x", "sealed:v1:", "sealed:v1:%%", "sealed:v2:AAAA", "sealed:v1:AAAA"] {
            assert_eq!(key().open("a", text), Err(SealError::Malformed), "{text}");
        }
        let short = format!("sealed:v1:{}", STANDARD.encode([0; 30]));
        assert_eq!(key().open("a", &short), Err(SealError::Refused));
    }

    #[test]
    fn a_key_cannot_be_printed() {
        assert_eq!(format!("{:?}", key()), "SealingKey(***)");
    }

    proptest! {
        #[test]
        fn one_changed_bit_is_refused(plain: Vec<u8>, nonce: [u8; 24], place: prop::sample::Index, bit in 0..8u32) {
            let sealed = key().seal(nonce, "a", &plain);
            prop_assert_eq!(&*key().open("a", &sealed).unwrap(), &plain);
            let mut bytes = STANDARD.decode(&sealed[PREFIX.len()..]).unwrap();
            let at = place.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let altered = format!("{PREFIX}{}", STANDARD.encode(bytes));
            prop_assert_eq!(key().open("a", &altered), Err(SealError::Refused));
        }
    }
}
