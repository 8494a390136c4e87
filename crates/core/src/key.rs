//! API keys and what they allow.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What a key allows. In JSON and on the command line by its name, `events:write`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum Scope {
    /// Publish events.
    EventsWrite,
    /// Read the log and its deliveries.
    EventsRead,
    /// Erase the data of an event.
    EventsErase,
    /// Open streams and make tickets for them.
    StreamsRead,
    /// See webhooks, deliveries and dead letters.
    WebhooksRead,
    /// Create and change webhooks, replay, discard.
    WebhooksWrite,
    /// See signing secrets again.
    WebhooksSecret,
    /// See consumers.
    ConsumersRead,
    /// Create and change consumers, move their cursors.
    ConsumersWrite,
    /// Fetch from consumers, and say what became of it.
    ConsumersWork,
    /// List keys.
    KeysRead,
    /// Create and revoke keys.
    KeysWrite,
    /// Read the audit trail and its chain.
    AuditRead,
    /// See operational events and metrics.
    OpsRead,
    /// An operator: every scope, every tenant.
    Admin,
}

impl Scope {
    /// All scopes, in the order they are listed to people.
    pub const ALL: [Self; 15] = [
        Self::EventsWrite,
        Self::EventsRead,
        Self::EventsErase,
        Self::StreamsRead,
        Self::WebhooksRead,
        Self::WebhooksWrite,
        Self::WebhooksSecret,
        Self::ConsumersRead,
        Self::ConsumersWrite,
        Self::ConsumersWork,
        Self::KeysRead,
        Self::KeysWrite,
        Self::AuditRead,
        Self::OpsRead,
        Self::Admin,
    ];

    /// Reads a scope by its name; the error lists the names.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("unknown scope; the scopes are {names}")
        })
    }

    /// The name of the scope.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::EventsRead => "events:read",
            Self::EventsErase => "events:erase",
            Self::StreamsRead => "streams:read",
            Self::WebhooksRead => "webhooks:read",
            Self::WebhooksWrite => "webhooks:write",
            Self::WebhooksSecret => "webhooks:secret",
            Self::ConsumersRead => "consumers:read",
            Self::ConsumersWrite => "consumers:write",
            Self::ConsumersWork => "consumers:work",
            Self::KeysRead => "keys:read",
            Self::KeysWrite => "keys:write",
            Self::AuditRead => "audit:read",
            Self::OpsRead => "ops:read",
            Self::Admin => "admin",
        }
    }

    /// What the scope allows, in one line.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::EventsWrite => "publish events",
            Self::EventsRead => "read events, aggregates and who got them",
            Self::EventsErase => "erase the data of an event",
            Self::StreamsRead => "open event streams and make tickets for browsers",
            Self::WebhooksRead => "see webhooks, deliveries, attempts and dead letters",
            Self::WebhooksWrite => "create, change, test and delete webhooks; replay and discard",
            Self::WebhooksSecret => "see signing secrets again and rotate them",
            Self::ConsumersRead => "see consumers and how far behind they are",
            Self::ConsumersWrite => "create, change and delete consumers; pause them and move their cursors",
            Self::ConsumersWork => "fetch from consumers, acknowledge, refuse, extend",
            Self::KeysRead => "list API keys",
            Self::KeysWrite => "create and revoke API keys",
            Self::AuditRead => "read the audit trail and the head of its chain",
            Self::OpsRead => "receive tidings.* events and read operational state",
            Self::Admin => "operate: every scope, every tenant",
        }
    }

    /// Whether a key with this scope may do what takes `wanted`.
    pub fn covers(self, wanted: Self) -> bool {
        self == wanted || self == Self::Admin
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

const PREFIX: &str = "tdg";
const ENV_MAX: usize = 16;
const ID_CHARS: usize = 16;
/// 32 bytes in base32.
const SECRET_CHARS: usize = 52;

/// An API key, `tdg_<env>_<id>_<secret>`.
///
/// The environment is a hint for people (`live`, `test`); the id finds the key; the secret proves it and is stored only
/// as a digest. Id and secret are lower-case base32 (RFC 4648 alphabet), so that `_` splits without doubt.
#[derive(Clone)]
pub struct ApiKey {
    /// 1–16 of `[a-z0-9]`.
    pub env: Box<str>,
    /// 16 of `[a-z0-9]`; public, safe to log.
    pub id: Box<str>,
    secret: Zeroizing<String>,
}

impl ApiKey {
    /// A new key from 48 random bytes. Of `env`, characters other than `[a-z0-9]` and those beyond 16 are dropped.
    pub fn from_random(env: &str, random: [u8; 48]) -> Self {
        let random = Zeroizing::new(random);
        let env: String =
            env.chars().filter(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit()).take(ENV_MAX).collect();
        let env = if env.is_empty() { "live".into() } else { env.into() };
        Self { env, id: (*base32(&random[..10])).as_str().into(), secret: base32(&random[16..]) }
    }

    /// Reads a key; `None` for anything of another form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('_');
        let (prefix, env, id, secret) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let fits = parts.next().is_none()
            && prefix == PREFIX
            && (1..=ENV_MAX).contains(&env.len())
            && Self::is_id(id)
            && secret.len() == SECRET_CHARS
            && plain(env)
            && plain(secret);
        fits.then(|| Self { env: env.into(), id: id.into(), secret: Zeroizing::new(secret.to_owned()) })
    }

    /// Whether a text can be the id of a key.
    pub fn is_id(text: &str) -> bool {
        text.len() == ID_CHARS && plain(text)
    }

    /// The whole key, to show once.
    pub fn expose(&self) -> String {
        format!("{PREFIX}_{}_{}_{}", self.env, self.id, *self.secret)
    }

    /// SHA-256 of the secret part as written. Enough for storage: 256 random bits need no slow hash.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_bytes()).into()
    }

    /// Whether this key is the one stored as `digest`; takes the same time whichever byte differs.
    pub fn matches(&self, digest: &[u8; 32]) -> bool {
        self.digest().ct_eq(digest).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({PREFIX}_{}_{}_***)", self.env, self.id)
    }
}

fn base32(bytes: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(5) * 8));
    for chunk in bytes.chunks(5) {
        let mut block = [0; 8];
        block[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(block);
        for index in 0..(chunk.len() * 8).div_ceil(5) {
            text.push(char::from(ALPHABET[(bits >> (35 - 5 * index) & 31) as usize]));
        }
    }
    text
}

fn plain(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base32_is_that_of_rfc_4648() {
        for (plain, text) in
            [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foob", "mzxw6yq"), ("foobar", "mzxw6ytboi")]
        {
            assert_eq!(*base32(plain.as_bytes()), text);
        }
    }

    #[test]
    fn a_made_key_survives_its_text() {
        let key = ApiKey::from_random("live", [0xab; 48]);
        let read = ApiKey::parse(&key.expose()).unwrap();
        assert_eq!((&*read.env, &read.id), ("live", &key.id));
        assert!(read.matches(&key.digest()));
        assert_eq!(key.expose(), "tdg_live_vov2xk5lvov2xk5l_vov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvov2xk5lvovq");
    }

    #[test]
    fn another_secret_does_not_match() {
        let key = ApiKey::from_random("live", [1; 48]);
        let mut random = [1; 48];
        random[47] = 2;
        let other = ApiKey::from_random("live", random);
        assert_eq!(key.id, other.id);
        assert!(!other.matches(&key.digest()));
    }

    #[test]
    fn an_environment_is_made_to_fit() {
        for (given, kept) in [
            ("test", "test"),
            ("Prod_EU-1", "rod1"),
            ("", "live"),
            ("_", "live"),
            ("abcdefghijklmnopqrst", "abcdefghijklmnop"),
        ] {
            let key = ApiKey::from_random(given, [1; 48]);
            assert_eq!(&*key.env, kept);
            assert!(ApiKey::parse(&key.expose()).is_some());
        }
    }

    #[test]
    fn texts_of_another_form_are_no_keys() {
        let good = ApiKey::from_random("live", [1; 48]).expose();
        let cases = [
            String::new(),
            "tdg".into(),
            "tdg___".into(),
            format!("{good}_"),
            format!("{good}x"),
            format!(" {good}"),
            good.replace("tdg", "evg"),
            good.replace("live", ""),
            good.replace("live", "li-e"),
            good.to_uppercase(),
            good[..good.len() - 1].into(),
        ];
        for text in cases {
            assert!(ApiKey::parse(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_cannot_be_printed() {
        let key = ApiKey::from_random("live", [1; 48]);
        assert_eq!(format!("{key:?}"), format!("ApiKey(tdg_live_{}_***)", key.id));
    }

    #[test]
    fn scopes_are_known_by_their_names() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Ok(scope));
            assert_eq!(serde_json::to_string(&scope).unwrap(), format!("\"{scope}\""));
            assert_eq!(serde_json::from_str::<Scope>(&format!("\"{scope}\"")).unwrap(), scope);
            assert!(Scope::Admin.covers(scope) && scope.covers(scope));
        }
        assert!(Scope::parse("events:*").unwrap_err().contains("events:write"));
        assert!(!Scope::EventsRead.covers(Scope::EventsWrite));
    }

    proptest! {
        #[test]
        fn keys_are_read_whole_or_not_at_all(text in "(tdg|[a-z]{0,4})_[a-z0-9]{0,18}_[a-z2-7]{14,17}_[a-z2-7_]{50,54}|\\PC*") {
            if let Some(key) = ApiKey::parse(&text) {
                prop_assert_eq!(key.expose(), text);
            }
        }

        #[test]
        fn every_made_key_is_read_back(random in prop::collection::vec(any::<u8>(), 48)) {
            let key = ApiKey::from_random("live", random.try_into().unwrap());
            prop_assert!(ApiKey::parse(&key.expose()).is_some_and(|read| read.matches(&key.digest())));
        }
    }
}
