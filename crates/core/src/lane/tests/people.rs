//! What people do to the lane of a world of chance: dead letters, replays, jumps, other settings.

use super::*;

/// Attempts that are excused when somebody had an event sent again.
const AGAIN: u32 = 20;

impl World {
    pub(super) fn do_something(&mut self) {
        match self.chance.below(8) {
            0..3 => self.revive(),
            3..5 => self.decide(),
            5 => self.lane.cancel("rp"),
            6 => self.lane.hold(),
            _ => self.jump(),
        }
    }

    /// Has something under the cursor sent again, or tries to.
    fn revive(&mut self) {
        let offset = Offset(1 + self.chance.below(self.head()));
        let dead: Vec<_> = self.disk.dead.iter().copied().collect();
        let offset = if dead.is_empty() || self.chance.one_in(4) {
            offset
        } else {
            dead[usize::try_from(self.chance.below(dead.len() as u64)).unwrap()]
        };
        self.send_again(offset);
    }

    fn send_again(&mut self, offset: Offset) {
        let key = self.keys[usize::try_from(offset.0).unwrap()];
        let replay = self.chance.one_in(2).then(|| "rp".into());
        if self.lane.revive(offset, key, replay) {
            self.revived.insert(offset);
            *self.excused.entry(offset).or_default() += AGAIN;
        }
    }

    /// Has what is parked sent again, or gives it up.
    pub(super) fn decide(&mut self) {
        let parked = |(offset, row): (&Offset, &Row)| (row.state == RowState::Parked).then_some(*offset);
        let parked: Vec<_> = self.disk.rows.iter().filter_map(parked).collect();
        for offset in parked {
            if self.chance.one_in(3) {
                self.send_again(offset);
            } else {
                self.lane.release(offset);
            }
        }
    }

    /// The first law, of what is committed.
    pub(super) fn nothing_is_forgotten(&self, before: &Disk, changes: &Changes) {
        let delivered: BTreeSet<_> = self.delivered.iter().collect();
        for offset in (1..=self.disk.cursor.0).map(Offset) {
            let key = self.keys[usize::try_from(offset.0).unwrap()];
            let follows = |row: &Row| {
                let same = key.is_some() && key == self.keys[usize::try_from(row.offset.0).unwrap()];
                row.offset == offset || (same && row.followers.is_some_and(|after| after < offset))
            };
            let kept = delivered.contains(&offset)
                || self.disk.dead.contains(&offset)
                || self.disk.standing.has_skipped(offset)
                || self.disk.rows.values().any(follows);
            assert!(kept, "{offset} is forgotten by {changes:?}; before: {before:?}");
        }
    }

    /// Moves the cursor ahead.
    fn jump(&mut self) {
        if !self.in_flight.is_empty() || self.taken.is_some() || !self.chance.one_in(4) {
            return;
        }
        let to = Offset((self.lane.cursor().0 + self.chance.below(20)).min(self.head()));
        self.lane.pause(self.now);
        assert!(self.lane.jump(to));
        self.lane.activate();
        // What lies ahead again is sent again.
        for offset in (to.0 + 1..=self.head()).map(Offset) {
            *self.excused.entry(offset).or_default() += AGAIN;
        }
    }

    /// Its settings change, in a world where they do.
    pub(super) fn waver(&mut self) {
        if self.wavers {
            self.settings.ordering = if self.chance.one_in(2) { Ordering::None } else { Ordering::Aggregate };
        }
    }
}

#[test]
fn people_do_what_they_want_and_nothing_is_lost() {
    run_with(5_000..5_300, true, false, true);
    run_with(6_000..6_150, false, true, true);
}
