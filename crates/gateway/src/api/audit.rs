//! The head of the hash chain, signed.

use ed25519_dalek::Signer as _;
use http::StatusCode;
use serde_json::json;
use tidings_core::chain::hex;

use super::body::answer;
use super::call::Call;
use super::routes::Answer;

/// The newest seal of the tenant's chain. Whoever keeps it can prove later that nothing before it was changed.
pub(crate) async fn head(call: Call) -> Answer {
    let known = call.known_tenant();
    let head = known.map(|tenant| call.app.store.extent(tenant).head);
    let seal = known.and_then(|tenant| call.app.store.sealed(tenant));
    let statement =
        seal.map(|seal| format!("tidings-audit-head/1\n{}\n{}\n{}\n", call.tenant, seal.last, hex(&seal.hash)));
    let signature = statement.as_ref().map(|text| hex(&call.app.audit_key.sign(text.as_bytes()).to_bytes()));
    let body = json!({
        "tenant": call.tenant,
        "offset": head,
        "sealedThrough": seal.map(|seal| seal.last),
        "hash": seal.map(|seal| hex(&seal.hash)),
        "signature": signature,
        "publicKey": hex(call.app.audit_key.verifying_key().as_bytes()),
        "algorithm": "ed25519 over `tidings-audit-head/1\\n<tenant>\\n<sealedThrough>\\n<hash>\\n`",
    });
    Ok(answer(StatusCode::OK, body.to_string()))
}
