//! The W3C trace context of a request or an event: which trace it belongs to, and what caused it.

use std::fmt;

/// The name of the header, and of the metadata pair of an event.
pub const TRACEPARENT: &str = "traceparent";

/// One span of a trace, as others name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace; not zero.
    pub trace: [u8; 16],
    /// The span in it; not zero.
    pub span: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl Context {
    /// Reads a `traceparent` (W3C Trace Context, section 3.2). `None` if it is none: then it counts as left out.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = hex::<1>(text.get(..2)?)?[0];
        let dashes = bytes.len() >= 55 && [2, 35, 52].iter().all(|place| bytes[*place] == b'-');
        // A later version may have more behind another dash.
        let whole = bytes.len() == 55 || (version > 0 && bytes.get(55) == Some(&b'-'));
        if version == 0xff || !dashes || !whole {
            return None;
        }
        let (trace, span) = (hex::<16>(text.get(3..35)?)?, hex::<8>(text.get(36..52)?)?);
        let flags = hex::<1>(text.get(53..55)?)?[0];
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

/// As a `traceparent`.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.sampled))
    }
}

/// Digits in lower case, two a byte.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(*pair.get(1)?)?;
    }
    (text.len() == 2 * N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_and_written_back() {
        let context = Context::parse(GOOD).unwrap();
        assert!(context.sampled && context.trace[0] == 0x0a && context.span[7] == 0x31);
        assert_eq!(context.to_string(), GOOD);
        let quiet = GOOD.replace("-01", "-00");
        assert_eq!(Context::parse(&quiet).unwrap().to_string(), quiet);
    }

    #[test]
    fn later_versions_may_say_more_and_other_texts_count_as_left_out() {
        let later = format!("cc{}-more", &GOOD[2..]);
        assert_eq!(Context::parse(&later), Context::parse(GOOD));
        for bad in [
            "",
            "00",
            "00-1",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}x"),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("b7ad", "b7äd"),
            &GOOD.replace('-', "_"),
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }
}
