//! Settings of the way out.

use std::path::PathBuf;

use anyhow::Result;
use tidings_egress::{Allowance, Policy, nat64, network};

use super::{Values, list, optional, typed};

/// Where requests may go.
#[derive(Clone, Debug)]
pub(crate) struct Egress {
    pub(crate) policy: Policy,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) keep_answers: bool,
}

/// `--dev` opens this machine and clear text; the other settings go on top.
pub(super) fn egress(values: &Values) -> Result<Egress> {
    let mut policy = if typed(values, "dev")? { Policy::dev() } else { Policy::default() };
    policy.allow.extend(list::<Allowance>(values, "egress.allow", str::parse)?);
    policy.deny = list(values, "egress.deny", network)?;
    policy.http |= typed::<bool>(values, "egress.http")?;
    policy.ports = list(values, "egress.ports", |text| text.parse().map_err(|_| format!("{text:?} is not a port")))?;
    policy.nat64 = list(values, "egress.nat64", nat64)?;
    let ca_file = optional(values, "egress.ca_file").map(PathBuf::from);
    Ok(Egress { policy, ca_file, keep_answers: typed(values, "egress.keep_answers")? })
}
