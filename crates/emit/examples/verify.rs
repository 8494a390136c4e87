//! Says of deliveries whether they are signed: reads `{"secret", "headers", "body"}` a line, writes true or false a line.
//! `body` is base64, names of headers are in lower case.

use std::collections::HashMap;
use std::io::{self, BufRead as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tidings_emit::Verifier;

#[derive(Deserialize)]
struct Request {
    secret: String,
    headers: HashMap<String, String>,
    body: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in io::stdin().lock().lines() {
        let Request { secret, headers, body } = serde_json::from_str(&line?)?;
        let body = STANDARD.decode(body)?;
        let verifier = Verifier::new([secret.as_str()])?;
        println!("{}", verifier.verify(|name| headers.get(name).map(String::as_str), &body).is_ok());
    }
    Ok(())
}
