//! Each law of the conformance suite, on the embedded engine.

use tidings_log::conformance::LAWS;

use crate::folder::Folder;

async fn holds(name: &str) {
    let (_, law) = LAWS.iter().find(|(law, _)| *law == name).expect("a law of the suite");
    law(&Folder::new()).await;
}

#[test]
fn every_law_is_tested() {
    let tests = include_str!("laws.rs");
    for (law, _) in LAWS {
        assert!(tests.contains(&format!("async fn {law}()")), "{law} has no test");
    }
}

#[tokio::test]
async fn offsets_are_dense_in_commit_order() {
    holds("offsets_are_dense_in_commit_order").await;
}

#[tokio::test]
async fn readers_never_skip() {
    holds("readers_never_skip").await;
}

#[tokio::test]
async fn recorded_never_goes_back() {
    holds("recorded_never_goes_back").await;
}

#[tokio::test]
async fn what_was_answered_can_be_read() {
    holds("what_was_answered_can_be_read").await;
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    holds("tenants_do_not_see_each_other").await;
}

#[tokio::test]
async fn sequence_numbers_are_dense() {
    holds("sequence_numbers_are_dense").await;
}

#[tokio::test]
async fn an_expected_sequence_counts_its_own_batch() {
    holds("an_expected_sequence_counts_its_own_batch").await;
}

#[tokio::test]
async fn one_of_equal_expectations_wins() {
    holds("one_of_equal_expectations_wins").await;
}

#[tokio::test]
async fn equal_appends_at_once_make_one_event() {
    holds("equal_appends_at_once_make_one_event").await;
}

#[tokio::test]
async fn a_repeated_id_is_found_wherever_it_is() {
    holds("a_repeated_id_is_found_wherever_it_is").await;
}

#[tokio::test]
async fn an_id_with_other_content_is_refused() {
    holds("an_id_with_other_content_is_refused").await;
}

#[tokio::test]
async fn a_request_key_replays_its_first_answer() {
    holds("a_request_key_replays_its_first_answer").await;
}

#[tokio::test]
async fn a_request_key_expires_after_a_day() {
    holds("a_request_key_expires_after_a_day").await;
}

#[tokio::test]
async fn a_refused_request_keeps_no_answer() {
    holds("a_refused_request_keeps_no_answer").await;
}

#[tokio::test]
async fn a_batch_with_a_refused_event_leaves_none() {
    holds("a_batch_with_a_refused_event_leaves_none").await;
}

#[tokio::test]
async fn a_unit_is_kept_whole() {
    holds("a_unit_is_kept_whole").await;
}

#[tokio::test]
async fn a_refused_unit_leaves_nothing() {
    holds("a_refused_unit_leaves_nothing").await;
}

#[tokio::test]
async fn a_refusal_disturbs_no_neighbour() {
    holds("a_refusal_disturbs_no_neighbour").await;
}

#[tokio::test]
async fn what_is_handed_over_in_order_is_applied_in_order() {
    holds("what_is_handed_over_in_order_is_applied_in_order").await;
}

#[tokio::test]
async fn every_filter_equals_a_naive_one() {
    holds("every_filter_equals_a_naive_one").await;
}

#[tokio::test]
async fn operational_events_must_be_named() {
    holds("operational_events_must_be_named").await;
}

#[tokio::test]
async fn before_is_the_last_offset_before_a_time() {
    holds("before_is_the_last_offset_before_a_time").await;
}

#[tokio::test]
async fn an_erased_payload_is_gone_and_its_leaf_stays() {
    holds("an_erased_payload_is_gone_and_its_leaf_stays").await;
}

#[tokio::test]
async fn an_erased_event_can_be_repeated() {
    holds("an_erased_event_can_be_repeated").await;
}

#[tokio::test]
async fn the_chain_covers_every_event() {
    holds("the_chain_covers_every_event").await;
}

#[tokio::test]
async fn a_page_says_where_the_log_began() {
    holds("a_page_says_where_the_log_began").await;
}

#[tokio::test]
async fn retention_takes_whole_seals() {
    holds("retention_takes_whole_seals").await;
}

#[tokio::test]
async fn numbers_go_on_when_everything_is_trimmed() {
    holds("numbers_go_on_when_everything_is_trimmed").await;
}

#[tokio::test]
async fn retention_waits_for_what_it_would_forget() {
    holds("retention_waits_for_what_it_would_forget").await;
}

#[tokio::test]
async fn an_era_jumps_and_is_explained() {
    holds("an_era_jumps_and_is_explained").await;
}

#[tokio::test]
async fn retention_crosses_an_era() {
    holds("retention_crosses_an_era").await;
}

#[tokio::test]
async fn documents_count_their_revisions() {
    holds("documents_count_their_revisions").await;
}

#[tokio::test]
async fn documents_are_listed_in_pages() {
    holds("documents_are_listed_in_pages").await;
}

#[tokio::test]
async fn progress_is_kept() {
    holds("progress_is_kept").await;
}

#[tokio::test]
async fn attempts_are_kept() {
    holds("attempts_are_kept").await;
}

#[tokio::test]
async fn closing_answers_what_is_queued() {
    holds("closing_answers_what_is_queued").await;
}

#[tokio::test]
async fn a_sweep_takes_progress_away() {
    holds("a_sweep_takes_progress_away").await;
}

#[tokio::test]
async fn who_is_behind_is_listed_in_pages() {
    holds("who_is_behind_is_listed_in_pages").await;
}

#[tokio::test]
async fn a_subscription_is_forgotten_whole() {
    holds("a_subscription_is_forgotten_whole").await;
}

#[tokio::test]
async fn a_delivery_has_one_open_letter() {
    holds("a_delivery_has_one_open_letter").await;
}

#[tokio::test]
async fn a_dead_delivery_has_a_row_only_for_what_follows() {
    holds("a_dead_delivery_has_a_row_only_for_what_follows").await;
}

#[tokio::test]
async fn dead_letters_are_listed_newest_first() {
    holds("dead_letters_are_listed_newest_first").await;
}

#[tokio::test]
async fn a_letter_is_closed_once() {
    holds("a_letter_is_closed_once").await;
}

#[tokio::test]
async fn retention_keeps_what_is_needed() {
    holds("retention_keeps_what_is_needed").await;
}

#[tokio::test]
async fn what_is_kept_goes_when_nothing_needs_it() {
    holds("what_is_kept_goes_when_nothing_needs_it").await;
}

#[tokio::test]
async fn an_erasure_reaches_what_is_kept() {
    holds("an_erasure_reaches_what_is_kept").await;
}

#[tokio::test]
async fn history_is_told_newest_first() {
    holds("history_is_told_newest_first").await;
}

#[tokio::test]
async fn history_goes_with_its_events() {
    holds("history_goes_with_its_events").await;
}
