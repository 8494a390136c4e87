"""Ships an order from Python, by plain SQL: the change and the event in one transaction.

    DATABASE_URL=… python3 ship.py ORDER TRACKING_NUMBER        (pip install psycopg)
"""

import json
import os
import sys

import psycopg

order, tracking_number = int(sys.argv[1]), sys.argv[2]
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:  # commits at the end, or rolls back
    row = connection.execute(
        "UPDATE orders SET status = 'shipped' WHERE id = %s AND status = 'paid' RETURNING customer", [order]
    ).fetchone()
    if row is None:
        sys.exit(f"there is no order {order} that is paid")
    connection.execute(
        "SELECT tidings.emit('order.shipped', %s::json, aggregate_id => %s, channels => %s, source => '/ship.py')",
        [json.dumps({"id": order, "trackingNumber": tracking_number}), f"order_{order}", [f"customer:{row[0]}"]],
    )
