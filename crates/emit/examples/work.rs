//! Works off a queue until its standard input ends: `work http://127.0.0.1:8080 billing`. Prints each event; one whose data
//! is not what it expects goes back with the reason.

use std::error::Error;

use serde_json::Value;
use tidings_emit::{Consumer, Gateway, Message, Nack};
use tokio::io::{AsyncReadExt as _, stdin};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [url, name] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "work URL CONSUMER")?;
    let consumer = Consumer::new(Gateway::new(&url)?, &name)?;
    let stop = async {
        // Whatever is typed is read away; the end is what is waited for.
        let _ = stdin().read_to_end(&mut Vec::new()).await;
    };
    consumer.run(work, stop).await?;
    Ok(())
}

async fn work(message: Message) -> Result<(), Nack> {
    let event = message.envelope::<Value>().map_err(|error| Nack::new(error.to_string()))?;
    println!("{} {} {}", message.delivery_count, event.event_type, event.data);
    Ok(())
}
