//! What `serve` prints when it is ready.

use std::net::SocketAddr;

use crate::app::App;

pub(crate) fn print(app: &App, address: SocketAddr) {
    let folder = app.settings.data.display();
    tracing::info!(%address, data = %folder, dev = app.settings.dev, "ready");
    if app.settings.dev {
        development(address, &folder.to_string());
    } else if app.keys.is_empty() {
        eprintln!("No API key exists yet. Make the first one with:\n\n  tidings keys create --admin --data {folder}\n");
    }
}

fn development(address: SocketAddr, folder: &str) {
    eprintln!(
        "
  Tidings is ready on http://{address}, data in {folder}

  DEVELOPMENT SERVER: no keys, plain http webhooks to loopback addresses. Never expose it.

  Watch what happens (leave it running):
    curl -N http://{address}/events/stream

  Have it sent to an endpoint of yours, signed; the answer shows the signing secret once:
    curl http://{address}/webhooks -H 'content-type: application/json' -d '{{\"url\":\"http://localhost:3000/hooks\",\"eventTypes\":[\"order.*\"]}}'

  Tell it that something happened:
    curl http://{address}/events -H 'content-type: application/json' -d '{{\"eventType\":\"order.created\",\"aggregateId\":\"order_1\",\"data\":{{\"total\":42}}}}'
"
    );
}
