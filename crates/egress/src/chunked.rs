//! The chunked form of a body (RFC 9112 §7.1), read piece by piece.

use crate::answer::BODY_BYTES_MAX;

/// How much sizes, extensions and trailers may take together.
const OVERHEAD_BYTES_MAX: usize = 16 << 10;

/// A chunked body that is being read.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
    overhead: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the digits of a size.
    Size {
        size: u64,
        digits: u8,
    },
    /// In an extension, which says nothing to us.
    Extension {
        size: u64,
    },
    /// Before the line feed of a size.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataEnd,
    /// In the lines after the last chunk; whether the current one is empty so far.
    Trailer {
        empty: bool,
    },
    TrailerEnd {
        empty: bool,
    },
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl Chunked {
    /// Takes from `input` up to its end or the end of the body; adds data to `body` until it is longer than is kept.
    pub(crate) fn take(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, &'static str> {
        let mut taken = 0;
        while taken < input.len() && !self.is_done() {
            if let State::Data { left } = &mut self.state {
                let rest = &input[taken..];
                let step = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                let room = (BODY_BYTES_MAX + 1).saturating_sub(body.len());
                body.extend_from_slice(&rest[..step.min(room)]);
                *left -= step as u64;
                taken += step;
                if *left == 0 {
                    self.state = State::DataReturn;
                }
                continue;
            }
            self.state = self.next(input[taken])?;
            taken += 1;
            self.overhead += 1;
            if self.overhead > OVERHEAD_BYTES_MAX {
                return Err("its chunks are more frame than data");
            }
        }
        Ok(taken)
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn next(&self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < 15 => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::Size { size, digits: 1.. } | State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Size { size, digits: 1.. }, b';') | (State::Extension { size }, b'\t' | b' '..=b'~') => {
                Ok(State::Extension { size })
            }
            (State::SizeEnd { size: 0 } | State::TrailerEnd { empty: false }, b'\n') => {
                Ok(State::Trailer { empty: true })
            }
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataReturn, b'\r') => Ok(State::DataEnd),
            (State::DataEnd, b'\n') => Ok(State::default()),
            (State::Trailer { empty }, b'\r') => Ok(State::TrailerEnd { empty }),
            (State::Trailer { .. }, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Trailer { empty: false }),
            (State::TrailerEnd { empty: true }, b'\n') => Ok(State::Done),
            _ => Err("its chunks are malformed"),
        }
    }
}
