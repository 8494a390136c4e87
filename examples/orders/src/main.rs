//! An API whose mutations emit events in their own transaction, and a subscriber that receives them. Two roles of one
//! program, as two services would be: `orders api`, which has a live page too, and `orders subscriber`.
//! `examples/orders/run` starts both, and all around.

mod answer;
mod api;
mod live;
mod subscriber;

use std::env;

use anyhow::{Context as _, Result, bail};
use sqlx::PgPool;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let setting = |name: &str| env::var(name).with_context(|| format!("the variable {name} is not set"));
    let database = PgPool::connect(&setting("DATABASE_URL")?).await.context("the database")?;
    let router = match env::args().nth(1).as_deref() {
        Some("api") => {
            let tidings = live::Tidings { url: setting("TIDINGS_URL")?, key: env::var("TIDINGS_KEY").ok() };
            api::router(database).await?.merge(live::router(tidings))
        }
        Some("subscriber") => subscriber::router(database, &setting("WEBHOOK_SECRET")?).await?,
        _ => bail!(
            "orders api, with DATABASE_URL, LISTEN, TIDINGS_URL and perhaps TIDINGS_KEY, \
             or orders subscriber, with DATABASE_URL, LISTEN and WEBHOOK_SECRET"
        ),
    };
    let socket = TcpListener::bind(setting("LISTEN")?).await?;
    println!("listening on http://{}", socket.local_addr()?);
    Ok(axum::serve(socket, router).await?)
}
