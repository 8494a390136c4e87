//! The subscriber: verifies, processes once, keeps order. It has a board of what it knows of each order.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use sqlx::{PgPool, Row as _};
use tidings_emit::sqlx::{first, order};
use tidings_emit::{Envelope, Order, Verifier, sql};

use crate::answer::Failure;

/// The name under which it remembers what it has processed.
const NAME: &str = "board";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS board (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  order_id text   NOT NULL,
  sequence bigint NOT NULL,
  type     text   NOT NULL,
  place    text   NOT NULL
)";

#[derive(Clone)]
struct Desk {
    database: PgPool,
    verifier: Verifier,
}

/// The routes; creates the tables.
pub(crate) async fn router(database: PgPool, secret: &str) -> anyhow::Result<Router> {
    sqlx::raw_sql(sql::INBOX).execute(&database).await?;
    sqlx::query(CREATE).execute(&database).await?;
    let verifier = Verifier::new([secret]).map_err(anyhow::Error::msg)?;
    let router = Router::new().route("/hooks", post(receive)).route("/board", get(board));
    Ok(router.with_state(Desk { database, verifier }))
}

/// A delivery: its row on the board, and that it was processed, are committed together.
async fn receive(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Result<StatusCode, Failure> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let delivery = desk.verifier.verify(header, &body);
    let delivery = delivery.map_err(|error| Failure(StatusCode::BAD_REQUEST, error.to_string()))?;
    let event = Envelope::<Value>::read(&body);
    let event = event.map_err(|error| Failure(StatusCode::BAD_REQUEST, error.to_string()))?;
    let mut tx = desk.database.begin().await?;
    if !first(&mut tx, NAME, &delivery.id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    if let (Some(aggregate), Some(sequence)) = (&event.aggregate_id, event.sequence_number) {
        // Late events stand on the board too, and say so: nothing is dropped.
        let place = match order(&mut tx, NAME, aggregate, sequence).await? {
            Order::Next | Order::First => "next",
            Order::Gap { .. } => "after a gap",
            Order::Late { .. } => "late",
        };
        sqlx::query("INSERT INTO board (order_id, sequence, type, place) VALUES ($1, $2, $3, $4)")
            .bind(aggregate)
            .bind(i64::try_from(sequence).unwrap_or(i64::MAX))
            .bind(&event.event_type)
            .bind(place)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was processed, in that order.
async fn board(State(desk): State<Desk>) -> Result<Json<Value>, Failure> {
    let rows =
        sqlx::query("SELECT order_id, sequence, type, place FROM board ORDER BY id").fetch_all(&desk.database).await?;
    let told = |row: &sqlx::postgres::PgRow| -> sqlx::Result<Value> {
        let (id, sequence): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (event_type, place): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        Ok(json!({"orderId": id, "sequenceNumber": sequence, "eventType": event_type, "place": place}))
    };
    Ok(Json(rows.iter().map(told).collect::<sqlx::Result<Vec<_>>>()?.into()))
}
