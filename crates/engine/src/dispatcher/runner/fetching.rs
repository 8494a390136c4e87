//! What a lane does otherwise when workers fetch from it.

use tidings_core::lane::Late;
use tidings_core::time::Timestamp;

use super::super::entry::Told;
use super::super::orders::{Outcome, Word};
use super::super::room::Place;
use super::Runner;

impl Runner {
    /// Room for one more attempt: whom workers fetch from has its own, and the bell rings when there is more.
    #[expect(clippy::option_option, reason = "whether there is room, and the place if one is taken")]
    pub(super) fn place(&mut self) -> Option<Option<Place>> {
        if self.lane.is_pulled() {
            return (self.signals.answers.len() < self.attempts.sink.capacity()).then_some(None);
        }
        let enter = || self.shard.room.enter(self.subscription.tenant, self.repute(), &self.ticket);
        let place = self.ticket.take().or_else(enter);
        self.crowded = place.is_none();
        place.map(Some)
    }

    /// Ends all attempts as if they had not been made; the workers who have them may still say that they are done.
    pub(super) fn take_back(&mut self, until: Timestamp) {
        self.signals.answers.clear();
        self.lane.take_back(until);
    }

    /// A lane that ends does not wait for workers: what they have is theirs as long as they were promised.
    pub(super) fn let_workers_be(&mut self) {
        if let Some(pull) = self.subscription.settings.pull.filter(|_| self.told > Told::Run) {
            self.take_back((self.shard.env.now)().plus(pull.ack_wait));
        }
    }

    /// Takes the words of workers whose deliveries have ended, one way or the other.
    pub(super) fn take_words(&mut self, words: &[Word]) -> Outcome {
        let counts = |word: &&Word| self.lane.late(word.offset, word.attempt) != Late::Stale;
        Outcome::Settled(words.iter().filter(counts).map(|word| word.offset).collect())
    }
}
