// Ships an order from Node.js, by plain SQL: the change and the event in one transaction.
//
//     DATABASE_URL=… node ship.mjs ORDER TRACKING_NUMBER       (npm install pg)
import pg from "pg";

const [order, trackingNumber] = process.argv.slice(2);
const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
try {
  await client.query("BEGIN");
  const { rows } = await client.query(
    "UPDATE orders SET status = 'shipped' WHERE id = $1 AND status = 'paid' RETURNING customer",
    [order],
  );
  if (rows.length === 0) throw new Error(`there is no order ${order} that is paid`);
  await client.query(
    "SELECT tidings.emit('order.shipped', $1::json, aggregate_id => $2, channels => $3, source => '/ship.mjs')",
    [JSON.stringify({ id: Number(order), trackingNumber }), `order_${order}`, [`customer:${rows[0].customer}`]],
  );
  await client.query("COMMIT");
} finally {
  await client.end(); // rolls back what was not committed
}
