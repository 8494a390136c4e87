//! Header lines, as they go over the wire.

/// Header lines that are checked: none can end early or begin another.
#[derive(Clone, Debug, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// No lines yet, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a header; `false` if the name is no token or the value is not visible ASCII, with spaces within.
    #[must_use = "a header that is refused is not sent"]
    pub fn push(&mut self, name: &str, value: &[u8]) -> bool {
        let good = is_token(name) && value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        if good {
            self.put(name, value);
        }
        good
    }

    pub(crate) fn put(&mut self, name: &str, value: &[u8]) {
        self.0.reserve(name.len() + value.len() + 4);
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
    }

    /// Adds the empty line that ends a head.
    pub(crate) fn end(&mut self) {
        self.0.extend_from_slice(b"\r\n");
    }

    /// The lines, each with its end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether `name` can be the name of a header (RFC 9110 §5.6.2).
pub fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
