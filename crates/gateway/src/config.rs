//! Settings: defaults, then `tidings.toml`, then `TIDINGS_*`, then flags; each value knows where it came from.

mod delivery;
mod outbox;
mod telemetry;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tidings_core::event::EventLimits;
use tidings_core::time::parse_duration;
use tidings_egress::{Allowance, Policy, nat64, network};
use tidings_log::sqlite::Synchronous;

pub(crate) use delivery::{Health, Smtp};
pub(crate) use outbox::Outbox;
pub(crate) use telemetry::Telemetry;

use crate::control::seats::SeatLimits;

/// The settings file that is read when it exists and no other is named.
const DEFAULT_FILE: &str = "tidings.toml";
const ENV_PREFIX: &str = "TIDINGS_";
/// Variables that are not settings of the server.
const ENV_OTHERS: [&str; 4] = ["TIDINGS_URL", "TIDINGS_KEY", "TIDINGS_CONFIG", "TIDINGS_OUTBOX_URL"];
/// Where OpenTelemetry's own tools look for a collector; it stands for `telemetry.otlp`.
const ENV_OTLP: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// A repeated `eventId` is recognised for at least a day, so events stay at least as long.
const RETENTION_AGE_MIN: Duration = Duration::from_hours(24);

/// One setting: its key in the file, its default, what it is.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
}

/// Every setting.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting { key: "listen", default: "127.0.0.1:8080", help: "address and port of the HTTP API" },
    Setting { key: "data", default: "./tidings-data", help: "folder with everything that is kept" },
    Setting { key: "dev", default: "false", help: "no keys, plain http webhooks; on loopback addresses only" },
    Setting { key: "environment", default: "live", help: "second part of API keys made here: tdg_<environment>_…" },
    Setting { key: "source", default: "/", help: "`source` of events whose producer gives none (URI reference)" },
    Setting { key: "seal_key_file", default: "", help: "file with the sealing key; made as DATA/seal.key if not set" },
    Setting { key: "threads", default: "0", help: "threads that serve requests; 0: one for each core" },
    Setting { key: "log_format", default: "pretty", help: "pretty or json" },
    Setting { key: "limits.data_bytes", default: "262144", help: "largest `data` of an event, in bytes" },
    Setting { key: "limits.body_bytes", default: "8388608", help: "largest body of a request, in bytes" },
    Setting { key: "limits.batch_events", default: "10000", help: "most events in one request" },
    Setting { key: "limits.connections", default: "12000", help: "most connections at a time" },
    Setting { key: "limits.streams", default: "10000", help: "most event streams at a time" },
    Setting {
        key: "limits.tenant_streams",
        default: "0",
        help: "most event streams of a tenant; 0: as many as there may be",
    },
    Setting {
        key: "limits.address_streams",
        default: "0",
        help: "most event streams from an address (IPv6: a /64); 0: as many as there may be, as behind a proxy",
    },
    Setting { key: "limits.body_timeout", default: "30s", help: "time for a request's body to arrive" },
    Setting {
        key: "egress.allow",
        default: "",
        help: "networks beyond the public internet that webhooks may reach: 10.1.0.0/16, 10.1.2.3:8080, …",
    },
    Setting { key: "egress.deny", default: "", help: "networks that webhooks may not reach, although public" },
    Setting { key: "egress.http", default: "false", help: "whether webhooks may go out in clear text" },
    Setting { key: "egress.ports", default: "", help: "the only ports that webhooks may reach, as in 443,8443" },
    Setting { key: "egress.nat64", default: "", help: "prefixes of this network's NAT64, as in 64:ff9b::/96" },
    Setting { key: "egress.ca_file", default: "", help: "PEM file of authorities to trust beside the system's" },
    Setting { key: "egress.keep_answers", default: "true", help: "whether the text that endpoints answer is kept" },
    Setting {
        key: "delivery.contact",
        default: "",
        help: "whom to tell of webhooks that name nobody in `notify`: mailto:… or https://…",
    },
    Setting { key: "smtp.host", default: "", help: "mail server; empty: no mail" },
    Setting { key: "smtp.port", default: "587", help: "its port" },
    Setting { key: "smtp.security", default: "starttls", help: "starttls, tls or none" },
    Setting { key: "smtp.user", default: "", help: "user name, if it asks for one" },
    Setting { key: "smtp.password_file", default: "", help: "file with the password" },
    Setting { key: "smtp.ca_file", default: "", help: "PEM file of an authority to trust beside the system's" },
    Setting { key: "smtp.from", default: "", help: "sender of mails" },
    Setting { key: "health.queue_depth", default: "1000", help: "waiting deliveries above which health is degraded" },
    Setting { key: "health.dead_letters", default: "", help: "open dead letters above which it is; empty: never" },
    Setting { key: "health.lag", default: "", help: "events behind the head above which it is; empty: never" },
    Setting { key: "health.latency", default: "", help: "average time to delivery above which it is; empty: never" },
    Setting {
        key: "health.outbox_delay",
        default: "1m",
        help: "time from a commit in an outbox to the log above which it is; empty: never",
    },
    Setting {
        key: "outbox",
        default: "",
        help: "outboxes that are read: [[outbox]] with name, url, password_file, tenant, source",
    },
    Setting { key: "metrics.open", default: "false", help: "whether GET /metrics takes no key" },
    Setting {
        key: "telemetry.otlp",
        default: "",
        help: "collector of traces, as in http://localhost:4318; empty: none",
    },
    Setting { key: "telemetry.sample", default: "100", help: "of a hundred traces begun here, how many are recorded" },
    Setting {
        key: "log.synchronous",
        default: "full",
        help: "full: acknowledged means on disk; off: UNSAFE, loses acknowledged events",
    },
    Setting {
        key: "retention.age",
        default: "",
        help: "events older than this are removed, at least 1d; empty: kept for ever",
    },
    Setting { key: "retention.events", default: "0", help: "most events kept for each tenant; 0: all" },
];

/// The effective settings, typed.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) dev: bool,
    pub(crate) environment: String,
    pub(crate) source: String,
    pub(crate) seal_key_file: Option<PathBuf>,
    pub(crate) threads: usize,
    pub(crate) log_json: bool,
    pub(crate) event: EventLimits,
    pub(crate) body_bytes_max: usize,
    pub(crate) batch_events_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) seats: SeatLimits,
    pub(crate) body_timeout: Duration,
    pub(crate) egress: Egress,
    pub(crate) smtp: Option<Smtp>,
    pub(crate) contact: Option<String>,
    pub(crate) health: Health,
    pub(crate) outboxes: Vec<Outbox>,
    pub(crate) telemetry: Telemetry,
    pub(crate) synchronous: Synchronous,
    pub(crate) retention: Retention,
}

/// Where requests may go.
#[derive(Clone, Debug)]
pub(crate) struct Egress {
    pub(crate) policy: Policy,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) keep_answers: bool,
}

/// What is removed, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retention {
    pub(crate) age: Option<Duration>,
    pub(crate) events_max: Option<u64>,
}

/// A value and where it came from.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Value {
    pub(crate) value: String,
    pub(crate) from: String,
}

/// All values by key.
pub(crate) type Values = BTreeMap<&'static str, Value>;

/// Collects the values: `file` is the one named by `--config`, `flags` are those given on the command line.
pub(crate) fn collect(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[(&str, String)],
) -> Result<Values> {
    let mut values: Values = SETTINGS
        .iter()
        .map(|setting| (setting.key, Value { value: setting.default.to_owned(), from: "default".to_owned() }))
        .collect();
    let found = file.map(Path::to_path_buf).or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
    if let Some(path) = found {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let table: toml::Table = text.parse().with_context(|| format!("{} is not valid TOML", path.display()))?;
        for (key, value) in flatten("", &table)? {
            set(&mut values, &key, value, &path.display().to_string())?;
        }
    }
    // In order, so that our own variable wins.
    for (name, value) in env.collect::<BTreeMap<_, _>>() {
        if name == ENV_OTLP {
            set(&mut values, "telemetry.otlp", value, &name)?;
            continue;
        }
        let Some(short) = name.strip_prefix(ENV_PREFIX) else { continue };
        if ENV_OTHERS.contains(&name.as_str()) {
            continue;
        }
        let wanted = short.to_lowercase();
        let key = SETTINGS.iter().map(|setting| setting.key).find(|key| key.replace('.', "_") == wanted);
        let key = key.ok_or_else(|| anyhow!("{name} names no setting; `tidings config` lists them"))?;
        set(&mut values, key, value, &name)?;
    }
    for (key, value) in flags {
        set(&mut values, key, value.clone(), &format!("--{}", key.replace('_', "-")))?;
    }
    Ok(values)
}

fn set(values: &mut Values, key: &str, value: String, from: &str) -> Result<()> {
    let Some(slot) = values.get_mut(key) else {
        bail!("{from}: unknown setting `{key}`; `tidings config` lists all");
    };
    *slot = Value { value, from: from.to_owned() };
    Ok(())
}

fn flatten(prefix: &str, table: &toml::Table) -> Result<Vec<(String, String)>> {
    let mut flat = Vec::new();
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            toml::Value::Table(table) => flat.extend(flatten(&format!("{key}."), table)?),
            toml::Value::String(text) => flat.push((key, text.clone())),
            toml::Value::Integer(number) => flat.push((key, number.to_string())),
            toml::Value::Boolean(yes) => flat.push((key, yes.to_string())),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                flat.push((key.clone(), serde_json::to_string(items).with_context(|| format!("setting `{key}`"))?));
            }
            toml::Value::Array(items) => flat.push((key.clone(), joined(&key, items)?)),
            other => bail!("setting `{key}`: {} is not a text, a whole number or true/false", other.type_str()),
        }
    }
    Ok(flat)
}

/// A list becomes one text, as in a variable.
fn joined(key: &str, items: &[toml::Value]) -> Result<String> {
    let texts: Option<Vec<_>> = items
        .iter()
        .map(|item| match item {
            toml::Value::String(text) => Some(text.clone()),
            toml::Value::Integer(number) => Some(number.to_string()),
            _ => None,
        })
        .collect();
    texts.map(|texts| texts.join(",")).with_context(|| format!("setting `{key}`: a list holds texts and whole numbers"))
}

impl Settings {
    /// Gives the values their types.
    pub(crate) fn parse(values: &Values) -> Result<Self> {
        let settings = Self {
            listen: typed(values, "listen")?,
            data: PathBuf::from(text(values, "data")),
            dev: typed(values, "dev")?,
            environment: environment(text(values, "environment"))?,
            source: source(text(values, "source"))?,
            seal_key_file: optional(values, "seal_key_file").map(PathBuf::from),
            threads: typed(values, "threads")?,
            log_json: one_of(values, "log_format", &["pretty", "json"])? == 1,
            event: EventLimits { data_bytes_max: typed(values, "limits.data_bytes")?, ..EventLimits::default() },
            body_bytes_max: typed(values, "limits.body_bytes")?,
            batch_events_max: typed(values, "limits.batch_events")?,
            connections_max: typed(values, "limits.connections")?,
            seats: SeatLimits {
                all: typed(values, "limits.streams")?,
                of_tenant: typed(values, "limits.tenant_streams")?,
                of_address: typed(values, "limits.address_streams")?,
            },
            body_timeout: duration(values, "limits.body_timeout")?.unwrap_or_default(),
            egress: egress(values)?,
            smtp: delivery::smtp(values)?,
            contact: optional(values, "delivery.contact").map(str::to_owned),
            health: delivery::health(values)?,
            outboxes: outbox::outboxes(values)?,
            telemetry: telemetry::telemetry(values)?,
            synchronous: [Synchronous::Full, Synchronous::Off][one_of(values, "log.synchronous", &["full", "off"])?],
            retention: Retention {
                age: duration(values, "retention.age")?,
                events_max: Some(typed(values, "retention.events")?).filter(|max| *max > 0),
            },
        };
        if settings.dev && !settings.listen.ip().is_loopback() {
            bail!("--dev needs no keys, so it listens on loopback addresses only; {} is not one", settings.listen);
        }
        if settings.retention.age.is_some_and(|age| age < RETENTION_AGE_MIN) {
            bail!("setting `retention.age`: at least 1d, because a repeated eventId is recognised for a day");
        }
        Ok(settings)
    }
}

/// `--dev` opens this machine and clear text; the other settings go on top.
fn egress(values: &Values) -> Result<Egress> {
    let mut policy = if typed(values, "dev")? { Policy::dev() } else { Policy::default() };
    policy.allow.extend(list::<Allowance>(values, "egress.allow", str::parse)?);
    policy.deny = list(values, "egress.deny", network)?;
    policy.http |= typed::<bool>(values, "egress.http")?;
    policy.ports = list(values, "egress.ports", |text| text.parse().map_err(|_| format!("{text:?} is not a port")))?;
    policy.nat64 = list(values, "egress.nat64", nat64)?;
    let ca_file = optional(values, "egress.ca_file").map(PathBuf::from);
    Ok(Egress { policy, ca_file, keep_answers: typed(values, "egress.keep_answers")? })
}

/// Items separated by commas or spaces.
fn list<T>(values: &Values, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>> {
    let items = text(values, key).split([',', ' ']).filter(|item| !item.is_empty());
    items.map(|item| parse(item).map_err(|error| anyhow!("setting `{key}`: {error}"))).collect()
}

fn text<'a>(values: &'a Values, key: &str) -> &'a str {
    values.get(key).map_or("", |value| &value.value)
}

fn optional<'a>(values: &'a Values, key: &str) -> Option<&'a str> {
    Some(text(values, key)).filter(|text| !text.is_empty())
}

fn typed<T: std::str::FromStr>(values: &Values, key: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    let value = text(values, key);
    value.parse().map_err(|error| anyhow!("setting `{key}` = {value:?}: {error}"))
}

fn duration(values: &Values, key: &str) -> Result<Option<Duration>> {
    optional(values, key)
        .map(|value| parse_duration(value).map_err(|error| anyhow!("setting `{key}` = {value:?}: {error}")))
        .transpose()
}

fn one_of(values: &Values, key: &str, choices: &[&str]) -> Result<usize> {
    let value = text(values, key);
    let choice = choices.iter().position(|choice| *choice == value);
    choice.ok_or_else(|| anyhow!("setting `{key}` = {value:?}: one of {}", choices.join(", ")))
}

fn environment(value: &str) -> Result<String> {
    let fits = (1..=16).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fits { Ok(value.to_owned()) } else { bail!("setting `environment` = {value:?}: 1 to 16 of a-z and 0-9") }
}

fn source(value: &str) -> Result<String> {
    tidings_core::event::parse_source(value)
        .map(Into::into)
        .map_err(|error| anyhow!("setting `source` = {value:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<(Values, Settings)> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("t.toml");
        std::fs::write(&file, toml)?;
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let values = collect(Some(&file), env, &flags)?;
        let settings = Settings::parse(&values)?;
        Ok((values, settings))
    }

    #[test]
    fn later_sources_win_and_are_named() {
        let file = "listen = \"127.0.0.1:1\"\n[limits]\nstreams = 5\n";
        let (values, settings) =
            parse(file, &[("TIDINGS_LISTEN", "127.0.0.1:2")], &[("data", "/d")]).expect("good settings");
        assert_eq!(settings.listen.port(), 2);
        assert_eq!(settings.seats.all, 5);
        assert_eq!(values["listen"].from, "TIDINGS_LISTEN");
        assert_eq!(values["data"].from, "--data");
        assert_eq!(values["threads"].from, "default");
    }

    #[test]
    fn egress_takes_lists_from_the_file_and_from_variables() {
        let file = "[egress]\nallow = [\"10.0.0.0/8\", \"10.1.2.3:25\"]\nhttp = true\n";
        let (_, settings) = parse(file, &[("TIDINGS_EGRESS_PORTS", "443, 8443")], &[]).expect("good settings");
        let policy = settings.egress.policy;
        assert_eq!((policy.allow.len(), policy.ports, policy.http), (2, vec![443, 8443], true));
        assert!(settings.egress.keep_answers);
    }

    #[test]
    fn what_is_not_a_setting_is_refused_by_name() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 14] = [
            ("[smtp]\nhost = \"localhost\"", &[], "smtp.from"),
            ("[smtp]\nhost = \"localhost\"\nfrom = \"a@b.c\"\nuser = \"u\"", &[], "smtp.password_file"),
            ("[smtp]\nhost = \"localhost\"\nsecurity = \"some\"", &[], "smtp.security"),
            ("[health]\nqueue_depth = \"many\"", &[], "health.queue_depth"),
            ("[egress]\nallow = [\"10.0.0.0/8\", \"ten\"]", &[], "ten"),
            ("[egress]\nports = [443, 70000]", &[], "70000"),
            ("", &[("TIDINGS_EGRESS_DENY", "1.2.3.4/33")], "1.2.3.4/33"),
            ("", &[("TIDINGS_EGRESS_NAT64", "64:ff9b::/95")], "64:ff9b::/95"),
            ("lisen = 1", &[], "lisen"),
            ("[limits]\nstream = 1", &[], "limits.stream"),
            ("", &[("TIDINGS_LISEN", "x")], "TIDINGS_LISEN"),
            ("threads = \"many\"", &[], "threads"),
            ("[retention]\nage = \"1h\"", &[], "retention.age"),
            ("dev = true\nlisten = \"0.0.0.0:80\"", &[], "loopback"),
        ];
        for (file, env, named) in cases {
            let error = parse(file, env, &[]).expect_err(file).to_string();
            assert!(error.contains(named), "{file:?}: {error}");
        }
    }
}
