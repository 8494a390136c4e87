//! How long to wait before the next try.

use std::time::Duration;

use crate::clock;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// What a gateway may ask for at the most.
const ASKED_MAX: Duration = Duration::from_mins(5);

/// Doubles from 100 ms to 30 s, half of it by chance; never earlier than the gateway asks (`Retry-After`, at most 5 min).
/// `failures` in a row, from 1; `chance` from 0 to 255.
fn delay(failures: u32, asked: Option<Duration>, chance: u8) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    let delay = whole / 2 + whole / 2 * u32::from(chance) / 255;
    delay.max(asked.unwrap_or_default().min(ASKED_MAX))
}

/// The same with chance from the system.
pub(super) fn delay_now(failures: u32, asked: Option<Duration>) -> Duration {
    let [chance] = clock::random();
    delay(failures, asked, chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let ms = |failures, asked_s: Option<u64>, chance| {
            delay(failures, asked_s.map(Duration::from_secs), chance).as_millis()
        };
        assert_eq!(
            [1, 2, 3, 9, 10, 100, u32::MAX].map(|n| ms(n, None, 255)),
            [100, 200, 400, 25_600, 30_000, 30_000, 30_000]
        );
        assert_eq!(ms(1, None, 0), 50);
        assert_eq!(ms(1, Some(2), 0), 2_000);
        assert_eq!(ms(9, Some(2), 0), 12_800);
        assert_eq!(ms(1, Some(86_400), 0), 300_000);
    }
}
