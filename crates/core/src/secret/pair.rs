//! The key of asymmetric signatures (`v1a`): whoever verifies needs no secret.

use std::fmt;

use base64::Engine as _;
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use super::BASE64;

const PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// The secret half of an Ed25519 pair, wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Reads `whsk_<base64>` of 32 bytes, or of 64: then the public half follows, as some tools write it. The error says
    /// what is accepted and never repeats the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "a signing key is `whsk_` followed by the base64 of an Ed25519 secret key".to_owned();
        let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() <= 88).ok_or_else(wrong)?;
        let bytes = Zeroizing::new(BASE64.decode(encoded).map_err(|_| wrong())?);
        let (secret, public) = bytes.split_at_checked(32).ok_or_else(wrong)?;
        let key = Self::from_random(secret.try_into().map_err(|_| wrong())?);
        let matches = public.is_empty() || *public == key.0.verifying_key().to_bytes();
        if matches { Ok(key) } else { Err(wrong()) }
    }

    /// A key from 32 random bytes.
    pub fn from_random(random: [u8; 32]) -> Self {
        let random = Zeroizing::new(random);
        Self(SigningKey::from_bytes(&random))
    }

    /// The key as `whsk_<base64>`, to show or to seal. The only way out.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(self.0.as_bytes()))
    }

    /// What verifies its signatures, `whpk_<base64>`: not a secret.
    pub fn public(&self) -> String {
        format!("{PUBLIC_PREFIX}{}", BASE64.encode(self.0.verifying_key().to_bytes()))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With its public half behind it.
    const PAIR: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

    #[test]
    fn a_key_survives_its_text() {
        let key = SecretKey::parse(PAIR).unwrap();
        assert_eq!(key.expose(), "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=");
        assert_eq!(key.public(), "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
        assert_eq!(SecretKey::parse(&key.expose()).unwrap(), key);
    }

    #[test]
    fn keys_of_another_length_or_another_pair_are_refused_without_being_repeated() {
        let mut other = PAIR.to_owned();
        other.replace_range(60..61, "A");
        for text in
            [&PAIR[..20], &PAIR[..60], &other, &PAIR.replace("whsk", "whpk"), "whsk_", "", &format!("{PAIR}AAAA")]
        {
            assert!(!SecretKey::parse(text).unwrap_err().contains("6Xb"), "{text}");
        }
    }

    #[test]
    fn a_key_cannot_be_printed() {
        assert_eq!(format!("{:?}", SecretKey::from_random([7; 32])), "SecretKey(***)");
    }
}
