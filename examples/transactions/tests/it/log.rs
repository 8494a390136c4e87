//! From a transaction of sqlx on MariaDB to the log of a Tidings that reads its outbox.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::MySqlPool;
use tidings_emit::Event;
use tidings_emit::sqlx::emit;
use tidings_rigs::MariaDb;

/// Looks at the log, at most, and the pause between two.
const LOOKS: u32 = 2_000;
const PAUSE: Duration = Duration::from_millis(10);

/// Ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `TIDINGS_BIN`, or what `cargo build` has made.
fn tidings() -> PathBuf {
    let built = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/debug/tidings"));
    let program = std::env::var_os("TIDINGS_BIN").map_or_else(built, PathBuf::from);
    assert!(program.exists(), "{}: build it with `cargo build`, or name one in TIDINGS_BIN", program.display());
    program
}

/// The events of the log, the oldest first; none while nothing answers.
fn events(address: SocketAddr) -> Vec<Value> {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(address)?;
        write!(socket, "GET /events?order=asc HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_default();
    let page: Value =
        answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok()).unwrap_or_default();
    page["data"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn what_is_emitted_on_mariadb_is_in_the_log_once_and_in_order() {
    let (mariadb, folder) = (MariaDb::start(), tempfile::tempdir().unwrap());
    let url = mariadb.url();
    let made = Command::new(tidings()).args(["outbox", "install", "--url", &url]).stdout(Stdio::null()).status();
    assert!(made.unwrap().success());
    let settings = folder.path().join("tidings.toml");
    fs::write(&settings, format!("[[outbox]]\nname = \"shop\"\nurl = \"{url}\"\nsource = \"/shop\"\n")).unwrap();
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut server = Command::new(tidings());
    server.args(["serve", "--dev", "--listen", &address.to_string(), "--config"]).arg(settings);
    server.arg("--data").arg(folder.path().join("data")).stdout(Stdio::null()).stderr(Stdio::null());
    // What is called so, and it does not know, is a misspelt setting to it.
    server.env_remove("TIDINGS_BIN");
    let _server = Ends(server.spawn().unwrap());

    let pool = MySqlPool::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE orders (id INT PRIMARY KEY, state VARCHAR(16))").execute(&pool).await.unwrap();
    let mut ids = Vec::new();
    for (number, state) in ["created", "lost", "paid", "shipped"].into_iter().enumerate() {
        let mut tx = pool.begin().await.unwrap();
        sqlx::query("REPLACE INTO orders VALUES (1, ?)").bind(state).execute(&mut *tx).await.unwrap();
        let event = Event::new(format!("order.{state}"), &json!({ "n": number, "city": "Zürich" }));
        let event = event.aggregate("order_1").channel("customer:42").metadata("actor", "u_1");
        let id = emit(&mut tx, event).await.unwrap();
        if state == "lost" {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
            ids.push((id.to_string(), state));
        }
    }
    let mut found = Vec::new();
    for _ in 0..LOOKS {
        found = events(address);
        if found.len() >= ids.len() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    assert_eq!(found.len(), ids.len(), "{found:?}");
    for (sequence, (event, (id, state))) in found.iter().zip(&ids).enumerate() {
        assert_eq!(event["eventId"], **id, "{event}");
        assert_eq!(event["eventType"], format!("order.{state}"), "{event}");
        assert_eq!(event["sequenceNumber"], sequence + 1, "{event}");
        assert_eq!((&event["aggregateId"], &event["source"]), (&json!("order_1"), &json!("/shop")), "{event}");
        assert_eq!(event["channels"], json!(["customer:42"]), "{event}");
        assert_eq!(
            (&event["metadata"], &event["data"]["city"]),
            (&json!({"actor": "u_1"}), &json!("Zürich")),
            "{event}"
        );
    }
    pool.close().await;
}
