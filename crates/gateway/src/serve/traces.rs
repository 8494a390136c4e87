//! The export of traces, if a collector is named.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::means;
use crate::config::Settings;
use crate::telemetry::otlp::Exporter;
use crate::telemetry::trace::Tracer;

/// The last spans are sent within this time.
const LAST: Duration = Duration::from_secs(2);

/// The export that runs.
pub(super) struct Traces {
    pub(super) tracer: Tracer,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Starts the export to the collector that the settings name.
pub(super) fn start(settings: &Settings) -> Result<Option<Traces>> {
    let Some(endpoint) = &settings.telemetry.otlp else { return Ok(None) };
    let tracer = Tracer::new(settings.telemetry.sample_percent);
    let exporter = Exporter::new(tracer.clone(), endpoint, means::trust(settings)?)?;
    let (stop, stopped) = oneshot::channel();
    Ok(Some(Traces { tracer, stop, task: tokio::spawn(exporter.run(stopped)) }))
}

impl Traces {
    /// Sends what is left.
    pub(super) async fn stop(self) {
        // Without the task there is nothing left to send.
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(LAST, self.task).await;
    }
}
