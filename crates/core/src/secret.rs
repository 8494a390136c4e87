//! Signing secrets of webhooks, in the form of Standard Webhooks 1.0: `whsec_` or `whsk_`, and base64.

mod pair;

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

pub use pair::SecretKey;

const PREFIX: &str = "whsec_";
/// Writes padding, reads with or without: people copy secrets by hand.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The secret of a webhook's HMAC signatures: 24 to 64 bytes, wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Zeroizing<Vec<u8>>);

impl SigningSecret {
    /// Fewest bytes (Standard Webhooks: 192 bits).
    pub const BYTES_MIN: usize = 24;
    /// Most bytes (Standard Webhooks: 512 bits).
    pub const BYTES_MAX: usize = 64;

    /// Reads `whsec_<base64>`; the error says what is accepted and never repeats the secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "a signing secret is `whsec_` followed by the base64 of 24 to 64 random bytes".to_owned();
        let encoded =
            text.strip_prefix(PREFIX).filter(|encoded| encoded.len() <= 2 * Self::BYTES_MAX).ok_or_else(wrong)?;
        let bytes = Zeroizing::new(BASE64.decode(encoded).map_err(|_| wrong())?);
        if (Self::BYTES_MIN..=Self::BYTES_MAX).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(wrong()) }
    }

    /// A secret from 32 random bytes.
    pub fn from_random(random: [u8; 32]) -> Self {
        Self(Zeroizing::new(random.to_vec()))
    }

    /// The secret as `whsec_<base64>`, to show or to seal. The only way out.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&*self.0))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_its_text() {
        let secret = SigningSecret::from_random([7; 32]);
        assert_eq!(SigningSecret::parse(&secret.expose()).unwrap(), secret);
        let known = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert_eq!(SigningSecret::parse(known).unwrap().expose(), known);
    }

    #[test]
    fn padding_may_be_left_out() {
        let padded = SigningSecret::from_random([1; 32]).expose();
        assert!(padded.ends_with('='));
        assert_eq!(SigningSecret::parse(padded.trim_end_matches('=')).unwrap().expose(), padded);
    }

    #[test]
    fn secrets_too_short_too_long_or_misspelt_are_refused_without_being_repeated() {
        let of = |length: usize| format!("whsec_{}", BASE64.encode(vec![0xab; length]));
        assert!(SigningSecret::parse(&of(24)).is_ok());
        assert!(SigningSecret::parse(&of(64)).is_ok());
        let raw = of(32).replace("whsec_", "");
        for text in [
            of(23),
            of(65),
            of(100_000),
            raw,
            "whsec_".into(),
            String::new(),
            "whsec_%%%%".into(),
            "WHSEC_q6urq6urq6ur".into(),
        ] {
            assert!(!SigningSecret::parse(&text).unwrap_err().contains("q6ur"));
        }
    }

    #[test]
    fn a_secret_cannot_be_printed() {
        assert_eq!(format!("{:?}", SigningSecret::from_random([7; 32])), "SigningSecret(***)");
    }
}
