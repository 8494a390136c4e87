//! What the operator and the tenants manage: tenants, keys, webhooks. Registries live in memory and in the log.

pub(crate) mod audit;
pub(crate) mod keys;
pub(crate) mod sealing;
pub(crate) mod socket;
pub(crate) mod webhooks;
