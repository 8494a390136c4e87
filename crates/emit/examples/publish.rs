//! Publishes each line of the standard input as an event: `publish http://127.0.0.1:8080 note.written`.

use std::error::Error;
use std::io::{self, BufRead as _};

use tidings_emit::{Event, Gateway, Publisher};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [url, event_type] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "publish URL TYPE")?;
    let publisher = Publisher::start(Gateway::new(&url)?);
    let mut pending = Vec::new();
    for line in io::stdin().lock().lines() {
        // Waits if more is under way than may be; what queues goes with one request.
        pending.push(publisher.enqueue(Event::new(&event_type, &line?)).await?);
    }
    for pending in pending {
        let receipt = pending.await?;
        println!("{} {}", receipt.offset, receipt.event_id);
    }
    Ok(())
}
