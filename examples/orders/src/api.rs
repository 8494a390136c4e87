//! The API: each mutation changes a row and emits an event, in one transaction.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, Row as _, Transaction};
use tidings_emit::Event;
use tidings_emit::sqlx::emit;

use crate::answer::Failure;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS orders (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer    text   NOT NULL,
  total_cents bigint NOT NULL,
  status      text   NOT NULL DEFAULT 'created'
)";

/// The routes; creates the table.
pub(crate) async fn router(database: PgPool) -> sqlx::Result<Router> {
    sqlx::query(CREATE).execute(&database).await?;
    let router = Router::new()
        .route("/orders", post(create))
        .route("/orders/{id}", get(show))
        .route("/orders/{id}/pay", post(pay))
        .route("/orders/{id}/ship", post(ship))
        .route("/orders/{id}/cancel", post(cancel));
    Ok(router.with_state(database))
}

#[derive(Deserialize)]
struct New {
    customer: String,
    #[serde(rename = "totalCents")]
    total_cents: i64,
}

async fn create(State(database): State<PgPool>, Json(new): Json<New>) -> Result<(StatusCode, Json<Value>), Failure> {
    let mut tx = database.begin().await?;
    let insert = "INSERT INTO orders (customer, total_cents) VALUES ($1, $2) RETURNING id";
    let row = sqlx::query(insert).bind(&new.customer).bind(new.total_cents).fetch_one(&mut *tx).await?;
    let id: i64 = row.try_get(0)?;
    let order = json!({"id": id, "customer": new.customer, "totalCents": new.total_cents, "status": "created"});
    emit(&mut tx, about(id, &new.customer, Event::new("order.created", &order))).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(order)))
}

async fn show(State(database): State<PgPool>, Path(id): Path<i64>) -> Result<Json<Value>, Failure> {
    let select = "SELECT customer, total_cents, status FROM orders WHERE id = $1";
    let row = sqlx::query(select).bind(id).fetch_optional(&database).await?;
    let row = row.ok_or_else(|| Failure(StatusCode::NOT_FOUND, format!("there is no order {id}")))?;
    let (customer, total, status): (String, i64, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(Json(json!({"id": id, "customer": customer, "totalCents": total, "status": status})))
}

async fn pay(State(database): State<PgPool>, Path(id): Path<i64>) -> Result<StatusCode, Failure> {
    change(&database, id, "created", "paid", json!({})).await
}

#[derive(Deserialize)]
struct Shipment {
    #[serde(rename = "trackingNumber")]
    tracking_number: String,
}

async fn ship(
    State(database): State<PgPool>,
    Path(id): Path<i64>,
    Json(shipment): Json<Shipment>,
) -> Result<StatusCode, Failure> {
    change(&database, id, "paid", "shipped", json!({"trackingNumber": shipment.tracking_number})).await
}

async fn cancel(State(database): State<PgPool>, Path(id): Path<i64>) -> Result<StatusCode, Failure> {
    change(&database, id, "created", "cancelled", json!({})).await
}

/// From one status to the next, with the event `order.<next>`.
async fn change(database: &PgPool, id: i64, from: &str, to: &str, mut data: Value) -> Result<StatusCode, Failure> {
    let mut tx = database.begin().await?;
    let customer = step(&mut tx, id, from, to).await?;
    data["id"] = id.into();
    // After the update, which holds the order's row: so its events are in the order of its changes.
    emit(&mut tx, about(id, &customer, Event::new(format!("order.{to}"), &data))).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The customer of the order that was changed.
async fn step(tx: &mut Transaction<'_, Postgres>, id: i64, from: &str, to: &str) -> Result<String, Failure> {
    let update = "UPDATE orders SET status = $3 WHERE id = $1 AND status = $2 RETURNING customer";
    let row = sqlx::query(update).bind(id).bind(from).bind(to).fetch_optional(&mut **tx).await?;
    let row = row.ok_or_else(|| Failure(StatusCode::CONFLICT, format!("there is no order {id} that is {from}")))?;
    Ok(row.try_get(0)?)
}

fn about(id: i64, customer: &str, event: Event) -> Event {
    event.aggregate(format!("order_{id}")).channel(format!("customer:{customer}")).source("/orders")
}
