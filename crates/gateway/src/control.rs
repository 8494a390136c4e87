//! What the operator and the tenants manage: tenants, keys, webhooks, consumers. Registries live in memory and in the log.

pub(crate) mod audit;
pub(crate) mod consumers;
pub(crate) mod deliveries;
mod duration_text;
pub(crate) mod keys;
pub(crate) mod replays;
pub(crate) mod sealing;
pub(crate) mod seats;
pub(crate) mod socket;
pub(crate) mod starts;
pub(crate) mod tickets;
pub(crate) mod webhooks;

use std::borrow::Cow;

/// What is wrong with something new: the member, and the way out.
pub(crate) type Fault = (Cow<'static, str>, String);

/// Room for a description. It goes into the audit event of its maker, too.
const DESCRIPTION_BYTES_MAX: usize = 1_024;

fn check_description(text: &str) -> Result<(), Fault> {
    if text.len() > DESCRIPTION_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(("/description".into(), format!("at most {DESCRIPTION_BYTES_MAX} bytes, no control characters")));
    }
    Ok(())
}
