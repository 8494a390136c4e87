//! Settings: defaults, then `tidings.toml`, then `TIDINGS_*`, then flags; each value knows where it came from.

mod delivery;
mod egress;
mod http;
mod outbox;
mod setting;
mod telemetry;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use tidings_core::event::EventLimits;
use tidings_core::time::parse_duration;
use tidings_log::sqlite::Synchronous;

pub(crate) use delivery::{Health, Smtp};
pub(crate) use egress::Egress;
pub(crate) use http::Tls;
pub(crate) use outbox::{Mode, Outbox};
pub(crate) use setting::SETTINGS;
pub(crate) use telemetry::Telemetry;

use crate::api::cors::Origins;
use crate::control::seats::SeatLimits;

/// The settings file that is read when it exists and no other is named.
const DEFAULT_FILE: &str = "tidings.toml";
pub(crate) const ENV_PREFIX: &str = "TIDINGS_";
/// Variables that are not settings of the server.
const ENV_OTHERS: [&str; 4] = ["TIDINGS_URL", "TIDINGS_KEY", "TIDINGS_CONFIG", "TIDINGS_OUTBOX_URL"];
/// Where OpenTelemetry's own tools look for a collector; it stands for `telemetry.otlp`.
const ENV_OTLP: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// A repeated `eventId` is recognised for at least a day, so events stay at least as long.
const RETENTION_AGE_MIN: Duration = Duration::from_hours(24);

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
    pub(crate) origins: Origins,
    pub(crate) tls: Option<Tls>,
    pub(crate) egress: Egress,
    pub(crate) smtp: Option<Smtp>,
    pub(crate) contact: Option<String>,
    pub(crate) health: Health,
    pub(crate) outboxes: Vec<Outbox>,
    pub(crate) telemetry: Telemetry,
    pub(crate) synchronous: Synchronous,
    pub(crate) retention: Retention,
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
            event: EventLimits { data_bytes_max: some(values, "limits.data_bytes")?, ..EventLimits::default() },
            body_bytes_max: some(values, "limits.body_bytes")?,
            batch_events_max: some(values, "limits.batch_events")?,
            connections_max: some(values, "limits.connections")?,
            seats: SeatLimits {
                all: some(values, "limits.streams")?,
                of_tenant: typed(values, "limits.tenant_streams")?,
                of_address: typed(values, "limits.address_streams")?,
            },
            body_timeout: duration(values, "limits.body_timeout")?
                .filter(|span| !span.is_zero())
                .ok_or_else(|| anyhow!("setting `limits.body_timeout`: a duration of more than 0s"))?,
            origins: http::origins(values)?,
            tls: http::tls(values)?,
            egress: egress::egress(values)?,
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
        let listeners = std::iter::once(settings.listen).chain(settings.tls.as_ref().map(|tls| tls.listen));
        if let Some(open) = listeners.filter(|_| settings.dev).find(|address| !address.ip().is_loopback()) {
            bail!("--dev needs no keys, so it listens on loopback addresses only; {open} is not one");
        }
        if settings.retention.age.is_some_and(|age| age < RETENTION_AGE_MIN) {
            bail!("setting `retention.age`: at least 1d, because a repeated eventId is recognised for a day");
        }
        Ok(settings)
    }
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

/// How many, at least one: with none nothing would be taken.
fn some(values: &Values, key: &str) -> Result<usize> {
    match typed(values, key)? {
        0 => bail!("setting `{key}` = \"0\": at least 1"),
        count => Ok(count),
    }
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
        let cases: [Case<'_>; 22] = [
            ("[limits]\ndata_bytes = 0", &[], "limits.data_bytes"),
            ("[limits]\nbody_bytes = 0", &[], "limits.body_bytes"),
            ("[limits]\nbatch_events = 0", &[], "limits.batch_events"),
            ("[limits]\nstreams = 0", &[], "limits.streams"),
            ("", &[("TIDINGS_LIMITS_CONNECTIONS", "0")], "limits.connections"),
            ("[cors]\norigins = [\"https://x.example/\"]", &[], "cors.origins"),
            ("[tls]\nlisten = \"127.0.0.1:1\"", &[], "tls.cert_file"),
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
            (
                "dev = true\n[tls]\nlisten = \"0.0.0.0:443\"\ncert_file = \"c\"\nkey_file = \"k\"",
                &[],
                "loopback addresses only; 0.0.0.0:443",
            ),
        ];
        for (file, env, named) in cases {
            let error = parse(file, env, &[]).expect_err(file).to_string();
            assert!(error.contains(named), "{file:?}: {error}");
        }
    }
}
