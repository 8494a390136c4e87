//! All documents of a kind, read in pages.

use super::{Document, Kind, Owner, Store, Unavailable};
use crate::event::Tenant;

/// Documents read at once.
const PAGE: usize = 1_000;

/// Shows every tenant's documents of a kind to `visit`, tenant by tenant: what it costs grows with how many there are.
pub async fn walk(store: &dyn Store, kind: Kind, mut visit: impl FnMut(Tenant, Document)) -> Result<(), Unavailable> {
    for (tenant, _) in store.tenants() {
        let mut after = String::new();
        loop {
            let page = store.list(kind, Some(Owner::Tenant(tenant)), &after, PAGE).await?;
            let full = page.len() >= PAGE;
            if let Some(last) = page.last() {
                after = last.id.to_string();
            }
            for document in page {
                visit(tenant, document);
            }
            if !full {
                break;
            }
        }
    }
    Ok(())
}
