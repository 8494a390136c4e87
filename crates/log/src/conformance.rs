//! The laws of [`Store`], as tests that every engine passes unchanged.
//!
//! A test binary opens an [`Engine`] over fresh data for each of [`LAWS`] and runs it; a law that does not hold panics.
#![expect(clippy::unwrap_used, reason = "a test: what is not as it should be ends it")]

mod atomic;
mod chance;
mod close;
mod eras;
mod erasure;
mod history;
mod kept;
mod letters;
mod order;
mod progress;
mod reading;
mod repeat;
mod retention;
mod sequence;
mod stage;
mod state;

use std::pin::Pin;
use std::sync::Arc;

use crate::store::{Pending, Store};
use crate::verify::Report;

/// An engine over data of its own, empty at first.
pub trait Engine: Send + Sync {
    /// Opens the log. What was opened before is closed and dropped by then.
    fn open(&self) -> Arc<dyn Store>;

    /// Resolves once all that is committed is also sealed and indexed.
    fn rest(&self) -> Pending<()>;

    /// Verifies the log, open or not.
    fn verify(&self) -> Report;
}

/// A law under test.
pub type Law = for<'a> fn(&'a dyn Engine) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Every law, and its name.
pub const LAWS: &[(&str, Law)] = &[
    ("offsets_are_dense_in_commit_order", |engine| Box::pin(order::offsets_are_dense_in_commit_order(engine))),
    ("readers_never_skip", |engine| Box::pin(order::readers_never_skip(engine))),
    ("recorded_never_goes_back", |engine| Box::pin(order::recorded_never_goes_back(engine))),
    ("what_was_answered_can_be_read", |engine| Box::pin(order::what_was_answered_can_be_read(engine))),
    ("tenants_do_not_see_each_other", |engine| Box::pin(order::tenants_do_not_see_each_other(engine))),
    ("sequence_numbers_are_dense", |engine| Box::pin(sequence::sequence_numbers_are_dense(engine))),
    ("an_expected_sequence_counts_its_own_batch", |engine| {
        Box::pin(sequence::an_expected_sequence_counts_its_own_batch(engine))
    }),
    ("one_of_equal_expectations_wins", |engine| Box::pin(sequence::one_of_equal_expectations_wins(engine))),
    ("equal_appends_at_once_make_one_event", |engine| Box::pin(repeat::equal_appends_at_once_make_one_event(engine))),
    ("a_repeated_id_is_found_wherever_it_is", |engine| Box::pin(repeat::a_repeated_id_is_found_wherever_it_is(engine))),
    ("an_id_with_other_content_is_refused", |engine| Box::pin(repeat::an_id_with_other_content_is_refused(engine))),
    ("a_request_key_replays_its_first_answer", |engine| {
        Box::pin(repeat::a_request_key_replays_its_first_answer(engine))
    }),
    ("a_request_key_expires_after_a_day", |engine| Box::pin(repeat::a_request_key_expires_after_a_day(engine))),
    ("a_refused_request_keeps_no_answer", |engine| Box::pin(repeat::a_refused_request_keeps_no_answer(engine))),
    ("a_batch_with_a_refused_event_leaves_none", |engine| {
        Box::pin(atomic::a_batch_with_a_refused_event_leaves_none(engine))
    }),
    ("a_unit_is_kept_whole", |engine| Box::pin(atomic::a_unit_is_kept_whole(engine))),
    ("a_refused_unit_leaves_nothing", |engine| Box::pin(atomic::a_refused_unit_leaves_nothing(engine))),
    ("a_refusal_disturbs_no_neighbour", |engine| Box::pin(atomic::a_refusal_disturbs_no_neighbour(engine))),
    ("what_is_handed_over_in_order_is_applied_in_order", |engine| {
        Box::pin(atomic::what_is_handed_over_in_order_is_applied_in_order(engine))
    }),
    ("every_filter_equals_a_naive_one", |engine| Box::pin(reading::every_filter_equals_a_naive_one(engine))),
    ("operational_events_must_be_named", |engine| Box::pin(reading::operational_events_must_be_named(engine))),
    ("before_is_the_last_offset_before_a_time", |engine| {
        Box::pin(reading::before_is_the_last_offset_before_a_time(engine))
    }),
    ("an_erased_payload_is_gone_and_its_leaf_stays", |engine| {
        Box::pin(erasure::an_erased_payload_is_gone_and_its_leaf_stays(engine))
    }),
    ("an_erased_event_can_be_repeated", |engine| Box::pin(erasure::an_erased_event_can_be_repeated(engine))),
    ("the_chain_covers_every_event", |engine| Box::pin(retention::the_chain_covers_every_event(engine))),
    ("retention_takes_whole_seals", |engine| Box::pin(retention::retention_takes_whole_seals(engine))),
    ("a_page_says_where_the_log_began", |engine| Box::pin(retention::a_page_says_where_the_log_began(engine))),
    ("numbers_go_on_when_everything_is_trimmed", |engine| {
        Box::pin(retention::numbers_go_on_when_everything_is_trimmed(engine))
    }),
    ("retention_waits_for_what_it_would_forget", |engine| {
        Box::pin(retention::retention_waits_for_what_it_would_forget(engine))
    }),
    ("an_era_jumps_and_is_explained", |engine| Box::pin(eras::an_era_jumps_and_is_explained(engine))),
    ("retention_crosses_an_era", |engine| Box::pin(eras::retention_crosses_an_era(engine))),
    ("documents_count_their_revisions", |engine| Box::pin(state::documents_count_their_revisions(engine))),
    ("documents_are_listed_in_pages", |engine| Box::pin(state::documents_are_listed_in_pages(engine))),
    ("progress_is_kept", |engine| Box::pin(progress::progress_is_kept(engine))),
    ("a_sweep_takes_progress_away", |engine| Box::pin(progress::a_sweep_takes_progress_away(engine))),
    ("who_is_behind_is_listed_in_pages", |engine| Box::pin(progress::who_is_behind_is_listed_in_pages(engine))),
    ("a_subscription_is_forgotten_whole", |engine| Box::pin(progress::a_subscription_is_forgotten_whole(engine))),
    ("attempts_are_kept", |engine| Box::pin(history::attempts_are_kept(engine))),
    ("a_delivery_has_one_open_letter", |engine| Box::pin(letters::a_delivery_has_one_open_letter(engine))),
    ("a_dead_delivery_has_a_row_only_for_what_follows", |engine| {
        Box::pin(letters::a_dead_delivery_has_a_row_only_for_what_follows(engine))
    }),
    ("dead_letters_are_listed_newest_first", |engine| Box::pin(letters::dead_letters_are_listed_newest_first(engine))),
    ("a_letter_is_closed_once", |engine| Box::pin(letters::a_letter_is_closed_once(engine))),
    ("retention_keeps_what_is_needed", |engine| Box::pin(kept::retention_keeps_what_is_needed(engine))),
    ("what_is_kept_goes_when_nothing_needs_it", |engine| {
        Box::pin(kept::what_is_kept_goes_when_nothing_needs_it(engine))
    }),
    ("an_erasure_reaches_what_is_kept", |engine| Box::pin(kept::an_erasure_reaches_what_is_kept(engine))),
    ("history_is_told_newest_first", |engine| Box::pin(history::history_is_told_newest_first(engine))),
    ("history_goes_with_its_events", |engine| Box::pin(history::history_goes_with_its_events(engine))),
    ("closing_answers_what_is_queued", |engine| Box::pin(close::closing_answers_what_is_queued(engine))),
];
