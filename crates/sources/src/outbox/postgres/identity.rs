//! Whether a source is still the one that was read before.

use super::position::{Identity, Position};

/// What a database says of itself.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) system: String,
    pub(super) timeline: String,
    pub(super) install: String,
    /// Who reads it, by its own account.
    pub(super) reader: Option<String>,
    pub(super) mark: i64,
    /// The era by its own account; none after a crash.
    pub(super) era: Option<i64>,
    /// Transactions from this on have not begun.
    pub(super) xmax: u64,
}

impl Found {
    /// It, in an era.
    pub(super) fn identity(self, era: i64) -> Identity {
        Identity { system: self.system, timeline: self.timeline, install: self.install, mark: self.mark, era }
    }

    /// Why what is known of it holds no more: transaction ids mean something else, or rows may have come and gone.
    pub(super) fn differs(&self, known: &Position, reader: &str) -> Option<String> {
        let Identity { system, timeline, install, mark, era } = &known.identity;
        let seen = known.page.as_ref().map_or(&known.seen, |page| &page.until);
        let reasons = [
            (self.install != *install, "the outbox was made anew"),
            (self.system != *system, "it is another database cluster"),
            (self.timeline != *timeline, "the database was restored, or another node took over"),
            (self.mark < *mark, "the database was taken back to an earlier state"),
            (self.xmax < seen.xmax, "its transaction counter went back"),
            (self.reader.as_deref() != Some(reader), "another Tidings read it in between"),
            (self.era != Some(*era), "the database recovered from a crash"),
        ];
        reasons.into_iter().find(|(differs, _)| *differs).map(|(_, reason)| reason.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        let text = |text: &str| text.to_owned();
        let (system, timeline, install) = (text("s"), text("00000001"), text("i"));
        Found { system, timeline, install, reader: Some(text("me")), mark: 7, era: Some(2), xmax: 100 }
    }

    #[test]
    fn each_way_to_be_another_database_is_noticed() {
        let mut known = Position::beginning();
        known.seen = "90:100:90".parse().unwrap();
        known.identity = found().identity(2);
        assert_eq!(found().differs(&known, "me"), None);
        assert_eq!(Found { mark: 8, xmax: 101, ..found() }.differs(&known, "me"), None, "time went on");
        let others = [
            Found { install: "j".into(), ..found() },
            Found { system: "t".into(), ..found() },
            Found { timeline: "00000002".into(), ..found() },
            Found { mark: 6, ..found() },
            Found { xmax: 99, ..found() },
            Found { reader: None, ..found() },
            Found { era: None, ..found() },
            Found { era: Some(3), ..found() },
        ];
        for other in others {
            assert!(other.differs(&known, "me").is_some(), "{other:?}");
        }
    }
}
