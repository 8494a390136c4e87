//! The settings of metrics and traces.

use anyhow::{Result, bail};

use super::{Values, optional, typed};

/// How the server is watched.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    /// Whether metrics are for everybody.
    pub(crate) metrics_open: bool,
    /// The collector of traces.
    pub(crate) otlp: Option<String>,
    /// Of a hundred traces that begin here, how many are recorded.
    pub(crate) sample_percent: u64,
}

pub(super) fn telemetry(values: &Values) -> Result<Telemetry> {
    let sample_percent = typed(values, "telemetry.sample")?;
    if sample_percent > 100 {
        bail!("setting `telemetry.sample` = {sample_percent}: a percentage, 0 to 100");
    }
    Ok(Telemetry {
        metrics_open: typed(values, "metrics.open")?,
        otlp: optional(values, "telemetry.otlp").map(str::to_owned),
        sample_percent,
    })
}
