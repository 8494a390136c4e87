//! Sends spans to a collector: OTLP over HTTP, as JSON. A collector that is slow or away costs spans, nothing else.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::json;
use tidings_egress::{Door, Line, Lines, Policy, Resolver, Target, Trust};
use tokio::sync::oneshot;
use url::Url;

use super::trace::{Span, Tracer, attribute};

/// How long spans gather.
const EVERY: Duration = Duration::from_millis(200);
/// Spans of one request.
const BATCH: usize = 512;
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Where a collector takes traces, below its own address.
const PATH: &str = "/v1/traces";

/// Sends what a [`Tracer`] takes.
pub(crate) struct Exporter {
    tracer: Tracer,
    line: Line,
    failing: bool,
}

impl Exporter {
    /// To the collector at `endpoint`, an address like `http://localhost:4318`.
    pub(crate) fn new(tracer: Tracer, endpoint: &str, trust: Trust) -> Result<Self> {
        let wrong = |error: String| anyhow!("setting `telemetry.otlp`: {error}");
        let policy = policy(endpoint).map_err(wrong)?;
        let url = format!("{}{PATH}", endpoint.trim_end_matches('/'));
        let target = Target::parse(&url, &policy).map_err(wrong)?;
        let mut lines = Lines::default();
        let _ = lines.push("content-type", b"application/json");
        let resolver = Resolver::system().map_err(|error| anyhow!("cannot look names up: {error}"))?;
        let door = Door::new(policy, resolver, trust);
        Ok(Self { tracer, line: Line::new(Arc::new(door), target, &lines), failing: false })
    }

    /// Runs until `stop`, and sends what is left then.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let last = tokio::time::timeout(EVERY, &mut stop).await.is_ok();
            let spans = self.tracer.take();
            for batch in spans.chunks(BATCH) {
                self.send(batch).await;
            }
            if last {
                return;
            }
        }
    }

    async fn send(&mut self, spans: &[Span]) {
        let answer = self.line.post(Lines::default(), &body(spans), TIMEOUT).await;
        let fault = match answer {
            Ok(answer) if (200..300).contains(&answer.status) => None,
            Ok(answer) => Some(format!("status {}", answer.status)),
            Err(error) => Some(error.word().to_owned()),
        };
        self.tracer.note(spans.len(), fault.is_none());
        let failed = std::mem::replace(&mut self.failing, fault.is_some());
        match fault {
            Some(fault) if !failed => tracing::warn!(fault, "the collector does not take spans: they are dropped"),
            None if failed => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

/// The operator names the collector, so it may be anywhere; nothing else is reached through this door.
fn policy(endpoint: &str) -> Result<Policy, String> {
    let url = Url::parse(endpoint).map_err(|error| format!("not a URL: {error}"))?;
    let port = url.port_or_known_default().ok_or("the URL names no port")?;
    // Loopback, other networks, and an address of this machine if it is written as such.
    let mut policy = Policy::dev();
    let anywhere = [format!("0.0.0.0/0:{port}"), format!("[::/0]:{port}")];
    let written = match url.host() {
        Some(url::Host::Ipv4(address)) => Some(format!("{address}:{port}")),
        Some(url::Host::Ipv6(address)) => Some(format!("[{address}]:{port}")),
        _ => None,
    };
    for allowed in anywhere.into_iter().chain(written) {
        policy.allow.push(allowed.parse()?);
    }
    Ok(policy)
}

fn body(spans: &[Span]) -> Vec<u8> {
    let resource = [("service.name", "tidings"), ("service.version", env!("CARGO_PKG_VERSION"))]
        .map(|(key, value)| attribute(key, &value.into()));
    let spans: Vec<_> = spans.iter().map(Span::json).collect();
    let scope = json!({"scope": {"name": "tidings"}, "spans": spans});
    json!({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_may_be_anywhere_and_a_wrong_address_is_told_by_the_name_of_its_setting() {
        let trust = Trust::new(None).expect("the system's trust");
        for good in ["http://localhost:4318", "http://127.0.0.1:4318/", "http://10.0.0.7:80/otel", "https://o.example"]
        {
            assert!(Exporter::new(Tracer::new(100), good, trust.clone()).is_ok(), "{good}");
        }
        for bad in ["localhost:4318", "ftp://a.example", "http://user:secret@a.example"] {
            let error = Exporter::new(Tracer::new(100), bad, trust.clone()).err().expect(bad).to_string();
            assert!(error.contains("telemetry.otlp") && !error.contains("secret"), "{error}");
        }
    }
}
