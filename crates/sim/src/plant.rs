//! Faults planted on purpose: a judge that does not see them is none.

/// A fault that one can make, and that would hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Events are acknowledged before they are committed.
    AckBeforeCommit,
    /// The cursor passes what was only sent.
    CursorBefore2xx,
    /// The next event of an aggregate goes while the first waits for a retry.
    OrderLostOnRetry,
    /// What is in flight at a graceful stop counts as delivered.
    DropOnShutdown,
    /// A start begins a few events too early.
    DuplicateOnResume,
    /// A subscription gets the events of another tenant too.
    TenantFilterMissing,
    /// A retry is encoded again, with other bytes.
    BodyReserialised,
    /// Retries come after half the step.
    RetryTooEarly,
    /// A row commits after the cursor that passes it.
    BlockRowAfterCursor,
    /// A subscriber that recovered is still treated as failing.
    CircuitNeverCloses,
    /// `Retry-After` is not heard.
    RetryAfterIgnored,
    /// Attempts are not kept.
    HistoryDropped,
    /// A deactivation is not told.
    DeactivationUntold,
    /// More attempts are in flight than may be.
    ConcurrencyIgnored,
    /// A delivery is given up without a dead letter.
    DeadLetterLost,
    /// However often it dies, the process does not count attempts before they are made.
    CarelessStart,
    /// What is counted before it is made is not kept.
    CountForgotten,
    /// What workers have when the process stops comes back at once.
    PromiseForgotten,
}

impl Plant {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 18] = [
        ("ack-before-commit", Self::AckBeforeCommit),
        ("cursor-before-2xx", Self::CursorBefore2xx),
        ("order-lost-on-retry", Self::OrderLostOnRetry),
        ("drop-on-shutdown", Self::DropOnShutdown),
        ("duplicate-on-resume", Self::DuplicateOnResume),
        ("tenant-filter-missing", Self::TenantFilterMissing),
        ("body-re-serialised", Self::BodyReserialised),
        ("retry-too-early", Self::RetryTooEarly),
        ("block-row-after-cursor", Self::BlockRowAfterCursor),
        ("circuit-never-closes", Self::CircuitNeverCloses),
        ("retry-after-ignored", Self::RetryAfterIgnored),
        ("history-dropped", Self::HistoryDropped),
        ("deactivation-untold", Self::DeactivationUntold),
        ("concurrency-ignored", Self::ConcurrencyIgnored),
        ("dead-letter-lost", Self::DeadLetterLost),
        ("careless-start", Self::CarelessStart),
        ("count-forgotten", Self::CountForgotten),
        ("promise-forgotten", Self::PromiseForgotten),
    ];

    /// The fault of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(other, _)| *other == name).map(|(_, plant)| *plant)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, plant)| *plant == self).map_or("", |(name, _)| name)
    }
}
