//! Frames in a row, each with the offset it stands for: what is written to many is kept once.
//!
//! Whoever follows them is a byte position while it keeps up, and a [`Cursor`] when it does not.

use std::collections::VecDeque;

use tidings_core::offset::Offset;
use tidings_log::Framed;

/// Memory that frames keep when there is nothing in them.
const IDLE_BYTES: usize = 4 * 1024;

/// Frames of consecutive events, and where each ends.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// The position of the first byte.
    start: u64,
    marks: VecDeque<Mark>,
    /// Everything wanted after this offset, as far as it was pushed, is here.
    after: Offset,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The position behind the frame.
    end: u64,
    offset: Offset,
}

/// Where a reader stands that follows no frames: what it has, whole, and how much of the frame after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The last offset that it needs no more.
    pub offset: Offset,
    /// What it has of the next frame.
    pub part: Option<Part>,
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose frame.
    offset: Offset,
    /// Bytes that were written.
    written: u32,
    /// Bytes in all.
    whole: u32,
}

/// Whether a cursor can go on here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// From this position.
    At(u64),
    /// The frame that was written in part is another one now (its data was erased): the reader has to begin anew.
    Changed,
    /// What comes next is not here.
    Elsewhere,
}

impl Cursor {
    /// Behind a whole frame.
    pub fn after(offset: Offset) -> Self {
        Self { offset, part: None }
    }

    /// The event whose frame it has in part.
    pub fn begun(&self) -> Option<Offset> {
        self.part.map(|part| part.offset)
    }
}

impl Frames {
    /// No frames yet, of events after `after`.
    pub fn new(after: Offset) -> Self {
        Self { after, ..Self::default() }
    }

    /// A page of frames, of events after `after`.
    pub fn of_page(page: Framed, after: Offset) -> Self {
        let marks = page.ends.into_iter().map(|(offset, end)| Mark { end: end as u64, offset }).collect();
        Self { bytes: page.bytes, start: 0, marks, after }
    }

    /// The position behind the last frame.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds the frame of the event at `offset`, which is larger than all before it.
    pub fn push(&mut self, offset: Offset, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.marks.push_back(Mark { end: self.end(), offset });
    }

    /// What follows a position; nothing if that was dropped.
    pub fn from(&self, at: u64) -> &[u8] {
        let skip = at.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.bytes.get(skip..)).unwrap_or_default()
    }

    /// What is missing of the frame that a reader at a position has in part.
    pub fn rest_of_frame(&self, at: u64) -> &[u8] {
        let rest = self.from(at);
        let missing = self.cursor(at).part.map_or(0, |part| part.whole - part.written);
        &rest[..rest.len().min(missing as usize)]
    }

    /// Where a cursor goes on here.
    pub fn resume(&self, cursor: Cursor) -> Place {
        if cursor.offset < self.after {
            return Place::Elsewhere;
        }
        let next = self.marks.partition_point(|mark| mark.offset <= cursor.offset);
        let begin = self.begin(next);
        let Some(part) = cursor.part else { return Place::At(begin) };
        match self.marks.get(next) {
            None => Place::Elsewhere,
            Some(mark) if mark.offset == part.offset && mark.end - begin == u64::from(part.whole) => {
                Place::At(begin + u64::from(part.written))
            }
            Some(_) => Place::Changed,
        }
    }

    /// The cursor of a reader at a position.
    pub fn cursor(&self, at: u64) -> Cursor {
        let next = self.marks.partition_point(|mark| mark.end <= at);
        let offset = next.checked_sub(1).map_or(self.after, |last| self.marks[last].offset);
        let begin = self.begin(next);
        let part = self.marks.get(next).filter(|_| at > begin).map(|mark| {
            // A frame is an event: far below 4 GiB.
            let bytes = |length: u64| u32::try_from(length).unwrap_or(u32::MAX);
            Part { offset: mark.offset, written: bytes(at - begin), whole: bytes(mark.end - begin) }
        });
        Cursor { offset, part }
    }

    fn begin(&self, frame: usize) -> u64 {
        frame.checked_sub(1).map_or(self.start, |before| self.marks[before].end)
    }

    /// Drops all frames: who needed them has them, or a cursor. What comes next comes after `through` at the earliest.
    pub fn clear(&mut self, through: Offset) {
        let pushed = self.marks.back().map_or(self.after, |mark| mark.offset);
        self.after = pushed.max(through);
        self.start = self.end();
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_BYTES);
        self.marks.clear();
        self.marks.shrink_to(IDLE_BYTES / size_of::<Mark>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of 10 bytes at the offsets 3, 5 and 6.
    fn three() -> Frames {
        let mut frames = Frames::new(Offset(2));
        for offset in [3, 5, 6] {
            frames.push(Offset(offset), |bytes| bytes.extend_from_slice(&[b'0' + u8::try_from(offset).unwrap(); 10]));
        }
        frames
    }

    #[test]
    fn a_position_becomes_a_cursor_and_a_position_again() {
        let frames = three();
        let part = |offset, written| Some(Part { offset: Offset(offset), written, whole: 10 });
        let cases = [(0, 2, None), (4, 2, part(3, 4)), (10, 3, None), (19, 3, part(5, 9)), (30, 6, None)];
        for (at, offset, part) in cases {
            let cursor = Cursor { offset: Offset(offset), part };
            assert_eq!(frames.cursor(at), cursor);
            assert_eq!(frames.resume(cursor), Place::At(at));
        }
        // What lies between two frames was not wanted.
        assert_eq!(frames.resume(Cursor::after(Offset(4))), Place::At(10));
        assert_eq!(frames.from(25), b"66666");
        assert_eq!((frames.rest_of_frame(14), frames.rest_of_frame(10)), (&b"555555"[..], &b""[..]));
    }

    #[test]
    fn what_is_not_here_is_elsewhere() {
        let mut frames = three();
        assert_eq!(frames.resume(Cursor::after(Offset(1))), Place::Elsewhere);
        let seventh = Part { offset: Offset(7), written: 1, whole: 10 };
        assert_eq!(frames.resume(Cursor { offset: Offset(6), part: Some(seventh) }), Place::Elsewhere);
        frames.clear(Offset(0));
        assert_eq!((frames.end(), frames.from(10)), (30, &[][..]));
        assert_eq!(frames.resume(Cursor::after(Offset(5))), Place::Elsewhere);
        assert_eq!(frames.resume(Cursor::after(Offset(6))), Place::At(30));
        frames.clear(Offset(9));
        assert_eq!(frames.resume(Cursor::after(Offset(6))), Place::Elsewhere);
    }

    #[test]
    fn a_frame_that_changed_between_its_halves_is_noticed() {
        for (offset, whole) in [(5, 300), (4, 10)] {
            let part = Part { offset: Offset(offset), written: 4, whole };
            assert_eq!(three().resume(Cursor { offset: Offset(3), part: Some(part) }), Place::Changed);
        }
    }
}
