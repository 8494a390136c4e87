//! Settings of the way in: TLS, and pages of other origins.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use super::{Values, list, optional};
use crate::api::cors::{Origins, origin};

/// HTTPS beside clear text.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) listen: SocketAddr,
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

pub(super) fn origins(values: &Values) -> Result<Origins> {
    list(values, "cors.origins", origin).map(Origins::new)
}

pub(super) fn tls(values: &Values) -> Result<Option<Tls>> {
    let Some(listen) = optional(values, "tls.listen") else { return Ok(None) };
    let listen = listen.parse().map_err(|error| anyhow!("setting `tls.listen` = {listen:?}: {error}"))?;
    let (Some(cert), Some(key)) = (optional(values, "tls.cert_file"), optional(values, "tls.key_file")) else {
        bail!("setting `tls.listen` takes `tls.cert_file` and `tls.key_file` too");
    };
    Ok(Some(Tls { listen, cert_file: cert.into(), key_file: key.into() }))
}
