//! Signing secrets: shown to who may see them, rotated with an overlap.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_core::secret::SigningSecret;
use tidings_core::time::{format_duration, parse_duration};

use super::{find, turn};
use crate::api::body::{self, answer};
use crate::api::call::Call;
use crate::api::problem::{Problem, internal};
use crate::api::routes::Answer;
use crate::api::{document, kinds};
use crate::clock;
use crate::control::webhooks::{FORMER_MAX, Record};

/// How long the former secret signs, unless somebody says otherwise, and at the most.
const OVERLAP: Duration = Duration::from_hours(24);
const OVERLAP_MAX: Duration = Duration::from_hours(24 * 30);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rotation {
    #[serde(default)]
    overlap: Option<String>,
    #[serde(default)]
    secret: Option<Value>,
}

pub(crate) async fn rotate(mut call: Call) -> Answer {
    find(&call)?;
    let rotation: Rotation = document::optional(&mut call).await?;
    let overlap = match rotation.overlap {
        None => OVERLAP,
        Some(text) => parse_duration(&text)
            .ok()
            .filter(|overlap| *overlap <= OVERLAP_MAX)
            .ok_or_else(|| body::invalid(format!("/overlap: from 0s to {}", format_duration(OVERLAP_MAX))))?,
    };
    let secret = match rotation.secret {
        None => SigningSecret::from_random(clock::random()),
        Some(text) => parse(&text)?,
    };
    let (record, _turn) = turn(&call).await?;
    let tenant = call.tenant().await?;
    let until = clock::now().plus(overlap);
    let rotated = call.app.webhooks.rotate(tenant, &record, &secret, until, &call.principal.actor).await?;
    let Some(record) = rotated else {
        let detail = format!(
            "{FORMER_MAX} former secrets sign already: wait for the end of an overlap, or send an overlap of 0s"
        );
        return Err(Problem::new(&kinds::CONFLICT, detail));
    };
    told(&call, &record)
}

pub(crate) async fn secret(call: Call) -> Answer {
    let record = find(&call)?;
    told(&call, &record)
}

/// A secret that was brought along.
pub(super) fn parse(text: &Value) -> Result<SigningSecret, Problem> {
    let wrong = |error: String| body::invalid(format!("/secret: {error}"));
    let text = text.as_str().ok_or_else(|| wrong("a text, `whsec_…`".to_owned()))?;
    SigningSecret::parse(text).map_err(wrong)
}

fn told(call: &Call, record: &Record) -> Answer {
    let mut shown = json!({ "id": record.id });
    show(call, record, &mut shown)?;
    Ok(answer(StatusCode::OK, shown.to_string()))
}

/// Adds what a webhook signs with to what is shown of it.
pub(super) fn show(call: &Call, record: &Record, shown: &mut Value) -> Result<(), Problem> {
    let secrets = record.secrets(&call.app.webhooks.means, clock::now()).map_err(|error| internal(&error))?;
    let mut former = Vec::new();
    for secrets in &secrets {
        let secret = secrets.secret.expose();
        let public = secrets.key.as_ref().map(tidings_core::secret::SecretKey::public);
        match secrets.until {
            None => {
                shown["secret"] = secret.into();
                shown["publicKey"] = public.into();
            }
            Some(until) => former.push(json!({ "secret": secret, "publicKey": public, "expiresAt": until })),
        }
    }
    shown["former"] = former.into();
    Ok(())
}
