//! An outbox from the command line to the log.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use serde_json::{Value, json};
use tidings_rigs::{MariaDb, Postgres};

use crate::support::server::Server;
use crate::support::until;

pub(crate) const ARRIVAL: Duration = Duration::from_secs(20);

/// A cluster with a database `shop`, its roles, and a server that reads its outbox, which is not made yet.
fn shop() -> (Postgres, Server) {
    let postgres = Postgres::start();
    postgres.sql("postgres", "CREATE DATABASE shop");
    for role in ["shop", "tidings", "stranger"] {
        postgres.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    }
    let url = postgres.url_as("tidings", "shop");
    let settings =
        format!("[[outbox]]\nname = \"shop\"\nurl = \"{url}\"\ntenant = \"acme-test\"\nsource = \"/shop\"\n");
    let server = Server::with(true, &settings);
    (postgres, server)
}

pub(crate) fn outbox(server: &Server, arguments: &[&str]) -> String {
    let output = server.run(&[&["outbox"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn install(postgres: &Postgres, server: &Server) {
    let made = outbox(server, &["install", "--url", &postgres.url("shop"), "--role", "shop", "--reader", "tidings"]);
    assert!(made.contains("made"), "{made}");
}

fn emit(postgres: &Postgres, number: usize) -> String {
    let sql = format!("SET ROLE shop; SELECT tidings.emit('order.created', '{number}', aggregate_id => 'order_1')");
    postgres.sql("shop", &sql)
}

#[test]
fn an_application_tells_in_sql_and_a_subscriber_reads_it() {
    let (postgres, server) = shop();
    let client = server.client().tenant("acme-test");
    // The server was there first: it says what is missing, and finds the outbox once that is made.
    let health = until("told", ARRIVAL, || {
        let health = client.get("/health/events").json();
        (health["outboxes"]["failing"] == 1).then_some(health)
    });
    assert_eq!(health["outboxes"]["reading"], 0);
    install(&postgres, &server);
    let id = emit(&postgres, 1);
    let event =
        until("an event", ARRIVAL, || Some(client.get(&format!("/events/{id}"))).filter(|answer| answer.status == 200));
    let event = event.json();
    assert_eq!(
        (&event["aggregateId"], &event["source"], &event["data"]),
        (&json!("order_1"), &json!("/shop"), &json!(1))
    );
    let health = client.get("/health/events").expect(200).json();
    assert_eq!((&health["outboxes"]["reading"], &health["outboxes"]["failing"]), (&json!(1), &json!(0)));
    let metrics = client.get("/metrics").expect(200);
    assert!(metrics.text().contains("tidings_outbox_rows_total{outbox=\"shop\"} 1\n"), "{metrics}");
    assert!(server.stderr().contains("tidings outbox install"), "{}", server.stderr());
}

#[test]
fn roles_have_the_rights_they_need_and_no_more() {
    let (postgres, server) = shop();
    install(&postgres, &server);
    emit(&postgres, 1);
    let refused = |role: &str, sql: &str| {
        let block = format!(
            "SET ROLE {role}; DO $$ BEGIN EXECUTE $sql$ {sql} $sql$; RAISE 'it may'; \
             EXCEPTION WHEN insufficient_privilege THEN NULL; END $$"
        );
        postgres.sql("shop", &block);
    };
    for sql in
        ["SELECT * FROM tidings.outbox", "DELETE FROM tidings.outbox", "SELECT tidings.mark('x', true, '1:1:', 1)"]
    {
        refused("shop", sql);
    }
    for sql in ["SELECT tidings.emit('a.b', '1')", "DELETE FROM tidings.outbox", "TRUNCATE tidings.outbox_0"] {
        refused("tidings", sql);
    }
    refused("stranger", "SELECT tidings.emit('a.b', '1')");
}

#[test]
fn the_command_line_makes_shows_prints_and_takes_away() {
    let (postgres, server) = shop();
    let url = postgres.url("shop");
    let printed = outbox(&server, &["install", "--print", "--role", "shop", "--reader", "tidings"]);
    postgres.sql("shop", &printed);
    let again = outbox(&server, &["install", "--url", &url, "--role", "stranger"]);
    assert!(again.contains("was there"), "{again}");
    postgres.sql("shop", "SET ROLE stranger; SELECT tidings.emit('a.b', '1')");
    let client = server.client().tenant("acme-test");
    until("an event", ARRIVAL, || (client.get("/events").json()["data"].as_array()?.len() == 1).then_some(()));
    let status: Value = serde_json::from_str(&outbox(&server, &["status", "--url", &url, "--json"])).unwrap();
    assert_eq!(status["layout"], 1, "{status}");
    assert!(status["reader"].is_string() && status["bytes"].as_u64().unwrap() > 0, "{status}");
    drop(server);
    let server = Server::dev();
    emit(&postgres, 2);
    let refused = server.run(&["outbox", "uninstall", "--url", &url]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--lose-rows"), "{refused:?}");
    outbox(&server, &["uninstall", "--url", &url, "--lose-rows"]);
    let gone = server.run(&["outbox", "status", "--url", &url]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("tidings outbox install"), "{gone:?}");
    let refused = server.run(&["outbox", "install", "--url", &format!("{url}?sslmode=require")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("TLS"), "{refused:?}");
}

#[test]
fn a_row_in_quarantine_is_seen_mended_and_discarded_by_whoever_may() {
    let (postgres, server) = shop();
    install(&postgres, &server);
    let insert = "INSERT INTO tidings.outbox (event_type, aggregate_id, data) VALUES
        ('Bad', 'order_1', '{\"n\": 1.10}'), ('order.paid', 'order_1', '2'), ('Worse', 'order_2', '3')";
    postgres.sql("shop", insert);
    let client = server.client().tenant("acme-test");
    let rows = until("rows", ARRIVAL, || {
        let rows = client.get("/quarantine").expect(200).json()["data"].clone();
        (rows.as_array()?.len() == 3).then_some(rows)
    });
    let of = |row: usize, member: &str| rows[row][member].as_str().unwrap_or_default().to_owned();
    assert_eq!([of(0, "state"), of(1, "state"), of(2, "state")], ["rejected", "waiting", "rejected"]);
    assert_eq!((of(0, "data"), of(0, "eventType")), ("{\"n\": 1.10}".to_owned(), "Bad".to_owned()));
    assert_eq!(client.get("/quarantine?source=other").json()["data"], json!([]));
    let first = format!("/quarantine/{}", of(0, "id"));
    assert_eq!(client.get(&first).expect(200).json(), rows[0]);
    // Another tenant sees nothing of it.
    assert_eq!(server.client().get("/quarantine").json()["data"], json!([]));
    server.client().tenant("system").get(&first).expect(404);
    client.post(&format!("{first}/replay"), "").expect(422);
    client.post(&format!("/quarantine/{}/replay", of(1, "id")), "").expect(409);
    let mended = r#"{"event":{"eventType":"order.created","aggregateId":"order_1","data":1.10}}"#;
    assert_eq!(client.post(&format!("{first}/replay"), mended).expect(200).json()["released"], 1);
    let events = client.get("/aggregates/order_1/events").expect(200);
    assert!(events.text().contains("\"data\":1.10"), "{events}");
    assert_eq!(events.json()["data"][1]["eventType"], "order.paid");
    let last = format!("/quarantine/{}/discard", of(2, "id"));
    client.post(&last, r#"{"reason":" "}"#).expect(422);
    client.post(&last, r#"{"reason":"a test"}"#).expect(200);
    client.post(&last, r#"{"reason":"a test"}"#).expect(404);
    let told = client.get("/events?types=tidings.source.*").expect(200).json();
    let types: Vec<_> = told["data"].as_array().unwrap().iter().map(|event| event["eventType"].clone()).collect();
    let rejected = "tidings.source.rejected";
    assert_eq!(types, [rejected, rejected, "tidings.source.replayed", "tidings.source.discarded"]);
    let outbox = client.get("/outboxes").expect(200).json()["data"][0].clone();
    assert_eq!(
        (&outbox["name"], &outbox["state"], &outbox["quarantined"]),
        (&json!("shop"), &json!("reading"), &json!(0))
    );
}

#[test]
fn quarantine_of_one_source_is_read_in_pages_also_after_rows_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let urls = ["aside", "shop"].map(|name| (name, format!("sqlite://{}", folder.path().join(name).display())));
    let settings = urls.each_ref().map(|(name, url)| format!("[[outbox]]\nname = \"{name}\"\nurl = \"{url}\"\n"));
    for (name, _) in &urls {
        let file = rusqlite::Connection::open(folder.path().join(name)).unwrap();
        file.pragma_update(None, "journal_mode", "WAL").unwrap();
    }
    let server = Server::with(true, &settings.concat());
    for (name, url) in &urls {
        outbox(&server, &["install", "--url", url]);
        let file = rusqlite::Connection::open(folder.path().join(name)).unwrap();
        for _ in 0..3 {
            file.execute("INSERT INTO tidings_outbox (event_type, data) VALUES ('Bad', '1')", []).unwrap();
        }
    }
    let client = server.client();
    let rows = until("rows", ARRIVAL, || {
        let rows = client.get("/quarantine").expect(200).json()["data"].clone();
        (rows.as_array()?.len() == 6).then_some(rows)
    });
    let ids: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    let mut after = ids[0].to_owned();
    let mut found = Vec::new();
    loop {
        let page = client.get(&format!("/quarantine?source=shop&limit=1&after={after}")).expect(200).json();
        found.extend(page["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["nextCursor"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(found, ids[3..]);
    let page = client.get(&format!("/quarantine?source=aside&after={}", ids[3])).expect(200).json();
    assert_eq!(page, json!({ "data": [], "nextCursor": null }));
}

#[test]
fn a_file_of_sqlite_is_relayed_through_kills_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.pragma_update(None, "journal_mode", "WAL").unwrap();
    let url = format!("sqlite://{}", path.display());
    let mut server = Server::with(true, &format!("[[outbox]]\nname = \"shop\"\nurl = \"{url}\"\n"));
    let made = outbox(&server, &["install", "--url", &url]);
    assert!(made.contains("made"), "{made}");
    assert!(outbox(&server, &["install", "--url", &url]).contains("was there"));
    assert!(outbox(&server, &["install", "--url", &url, "--print"]).contains("CREATE TABLE"));
    let refused = server.run(&["outbox", "install", "--url", &url, "--role", "shop"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--role"), "{refused:?}");
    for number in 0..200 {
        let sql = "INSERT INTO tidings_outbox (event_type, aggregate_id, data) VALUES ('order.created', 'a', ?1)";
        file.execute(sql, [number.to_string()]).unwrap();
        if number % 50 == 25 {
            server.kill();
            server.start();
        }
    }
    let client = server.client();
    let found = until("all events", ARRIVAL, || {
        let found = client.get("/events?limit=250").json()["data"].as_array()?.clone();
        (found.len() >= 200).then_some(found)
    });
    let mut numbers: Vec<_> = found.iter().map(|event| event["data"].as_i64().unwrap()).collect();
    // The newest may come first.
    if numbers[0] > numbers[1] {
        numbers.reverse();
    }
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    let status: Value = serde_json::from_str(&outbox(&server, &["status", "--url", &url, "--json"])).unwrap();
    assert!(status["reader"].is_string(), "{status}");
}

/// Runs statements on MariaDB, each on its own.
fn on_mariadb(url: &str, statements: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = mysql_async::Conn::from_url(url).await.unwrap();
        for sql in statements {
            connection.query_drop(*sql).await.unwrap();
        }
        connection.disconnect().await.unwrap();
    });
}

#[test]
fn an_outbox_on_mariadb_is_made_read_and_taken_away() {
    let mariadb = MariaDb::start();
    let url = mariadb.url();
    let (relay, password) = (mariadb.url_of("tidings", "shop"), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(password.path(), "s3cret\n").unwrap();
    on_mariadb(&url, &["CREATE USER shop@localhost", "CREATE USER tidings@localhost IDENTIFIED BY 's3cret'"]);
    let settings = format!(
        "[[outbox]]\nname = \"shop\"\nurl = \"{relay}\"\npassword_file = \"{}\"\nsource = \"/shop\"\n",
        password.path().display()
    );
    let server = Server::with(true, &settings);
    let roles = ["--role", "shop@localhost", "--reader", "tidings@localhost"];
    let made = outbox(&server, &[&["install", "--url", &url], &roles[..]].concat());
    assert!(made.contains("made"), "{made}");
    assert!(outbox(&server, &[&["install", "--url", &url], &roles[..]].concat()).contains("was there"));
    let printed = outbox(&server, &[&["install", "--print", "--url", "mysql://localhost/shop"], &roles[..]].concat());
    assert!(printed.contains("CREATE TABLE") && printed.contains("TO `shop`@`localhost`"), "{printed}");
    let emit = "INSERT INTO tidings_outbox (event_type, aggregate_id, data) VALUES ('order.created', 'order_1', '1')";
    on_mariadb(&mariadb.url_of("shop", "shop"), &["BEGIN", emit, "ROLLBACK", "BEGIN", emit, "COMMIT"]);
    let client = server.client();
    let event = until("an event", ARRIVAL, || client.get("/events").json()["data"].get(0).cloned());
    assert_eq!((&event["sequenceNumber"], &event["source"]), (&json!(1), &json!("/shop")));
    let status = until("nothing left", ARRIVAL, || {
        let status: Value = serde_json::from_str(&outbox(&server, &["status", "--url", &url, "--json"])).unwrap();
        (status["waiting"] == 0).then_some(status)
    });
    assert!(status["reader"].is_string() && status["oldestSeconds"].is_null(), "{status}");
    outbox(&server, &["uninstall", "--url", &url]);
    let gone = server.run(&["outbox", "status", "--url", &url]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("tidings outbox install"), "{gone:?}");
    let refused = server.run(&["outbox", "install", "--url", &format!("{url}?require_ssl=true")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("clear text"), "{refused:?}");
}

#[test]
fn quarantine_is_worked_off_from_the_command_line() {
    let (postgres, server) = shop();
    install(&postgres, &server);
    let insert = "INSERT INTO tidings.outbox (event_type, aggregate_id, data) VALUES
        ('Bad', 'order_1', '{\"n\": 1.10}'), ('order.paid', 'order_1', '2'), ('Worse', 'order_2', '3')";
    postgres.sql("shop", insert);
    let url = format!("http://{}", server.address);
    let quarantine = |arguments: &[&str]| {
        server.run(&[&["outbox", "quarantine"], arguments, &["--url", &url, "--tenant", "acme-test"]].concat())
    };
    let text = |arguments: &[&str]| String::from_utf8(quarantine(arguments).stdout).unwrap();
    let listed = until("rows", ARRIVAL, || Some(text(&["list"])).filter(|listed| listed.lines().count() == 3));
    assert!(listed.contains("rejected") && listed.contains("/eventType: "), "{listed}");
    assert_eq!(text(&["list", "--source", "other"]), "");
    let rows: Value = serde_json::from_str(&text(&["list", "--json", "--source", "shop"])).unwrap();
    let id = |row: usize| rows[row]["id"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&text(&["show", id(0), "--json"])).unwrap();
    assert_eq!(shown, rows[0]);
    let still = quarantine(&["retry", "--all"]);
    assert_eq!(still.status.code(), Some(1), "{still:?}");
    let told = String::from_utf8_lossy(&still.stderr);
    assert!(told.contains(id(0)) && told.contains(id(2)) && !told.contains(id(1)), "{told}");
    let event = r#"{"eventType":"order.created","aggregateId":"order_1","data":1.10}"#;
    assert_eq!(quarantine(&["replay", id(0), id(1), "--event", event]).status.code(), Some(1), "one row at a time");
    let mended: Value = serde_json::from_str(&text(&["replay", id(0), "--event", event, "--json"])).unwrap();
    assert_eq!(mended, json!({"id": id(0), "released": 1}));
    let events = server.client().tenant("acme-test").get("/aggregates/order_1/events").expect(200);
    assert!(events.text().contains("\"data\":1.10"), "never rewritten: {events}");
    assert!(text(&["discard", id(2), "--reason", "a test"]).contains(id(2)));
    assert_eq!(text(&["list"]), "");
}

#[test]
fn a_table_is_watched_listed_and_watched_no_more_from_the_command_line() {
    let (postgres, server) = shop();
    install(&postgres, &server);
    let url = postgres.url("shop");
    postgres.sql("shop", "CREATE TABLE orders (id integer PRIMARY KEY, status text, password_hash text)");
    let watch = ["watch-table", "orders", "--resource", "order", "--except", "password_hash", "--url", &url];
    let printed = outbox(&server, &[&watch[..], &["--print"]].concat());
    assert!(printed.contains("CREATE TRIGGER tidings_watch"), "{printed}");
    assert!(!outbox(&server, &["status", "--url", &url]).contains("watches"), "nothing was changed");
    outbox(&server, &watch);
    assert!(outbox(&server, &["status", "--url", &url]).contains("watches              orders as order\n"));
    let status: Value = serde_json::from_str(&outbox(&server, &["status", "--url", &url, "--json"])).unwrap();
    assert_eq!(status["watched"], json!([{"table": "orders", "resource": "order"}]));
    postgres.sql("shop", "INSERT INTO orders VALUES (1, 'new', 'secret')");
    let client = server.client().tenant("acme-test");
    let event = until("an event", ARRIVAL, || client.get("/events").json()["data"].get(0).cloned());
    assert_eq!((&event["eventType"], &event["data"]), (&json!("order.created"), &json!({"id": 1, "status": "new"})));
    let refused = server.run(&["outbox", "watch-table", "orders", "--resource", "order", "--key", "no", "--url", &url]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("id, status, password_hash"), "{refused:?}");
    assert!(outbox(&server, &["unwatch-table", "orders", "--url", &url]).contains("no more"));
    assert!(outbox(&server, &["unwatch-table", "orders", "--url", &url]).contains("not watched"));

    // The same on the others, as far as the command line goes.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT)").unwrap();
    let mariadb = MariaDb::start();
    on_mariadb(&mariadb.url(), &["CREATE TABLE orders (id INT PRIMARY KEY, status TEXT)"]);
    for url in [format!("sqlite://{}", path.display()), mariadb.url()] {
        let watch = ["watch-table", "orders", "--resource", "order", "--url", &url];
        let refused = server.run(&[&["outbox"], &watch[..]].concat());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("tidings outbox install"), "{refused:?}");
        outbox(&server, &["install", "--url", &url]);
        assert!(outbox(&server, &[&watch[..], &["--print"]].concat()).contains("order.updated"));
        outbox(&server, &watch);
        assert!(outbox(&server, &["status", "--url", &url]).contains("watches              orders as order\n"));
        assert!(outbox(&server, &["unwatch-table", "orders", "--print", "--url", &url]).contains("DROP TRIGGER"));
        assert!(outbox(&server, &["unwatch-table", "orders", "--url", &url]).contains("no more"));
    }
}
