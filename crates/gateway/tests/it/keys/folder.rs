//! Keys and the data folder: who may open it makes keys, and no secret lies in it.

use super::*;

#[test]
fn the_command_line_makes_keys_beside_a_running_server_and_without_one() {
    let mut server = Server::prepared(false, "");
    let before = server.make_key(&["--admin"]);
    server.start();
    let beside = server.make_key(&["--admin"]);
    let tenants = server.make_key(&["--tenant", "acme", "--scopes", "events:read,events:write"]);
    for key in [&before, &beside] {
        server.client().key(&key.text).get("/keys").expect(200);
    }
    server.client().key(&tenants.text).publish(r#"{"eventType":"a.b","data":1}"#);
    // All are there after a crash.
    server.kill();
    let after = server.make_key(&["--admin"]);
    server.start();
    for key in [&before, &beside, &after] {
        server.client().key(&key.text).get("/keys").expect(200);
    }
    let data = server.data();
    let data = data.to_str().unwrap();
    let listed = |more: &[&str]| {
        let output = server.run(&[&["keys", "list", "--json", "--data", data], more].concat());
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list["data"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut operators = [before.id, beside.id, after.id];
    operators.sort();
    assert_eq!(listed(&[]), operators);
    assert_eq!(listed(&["--tenant", "acme"]), [tenants.id]);
    // The same rules as over the API.
    for wrong in [
        &["--tenant", "acme", "--scopes", "admin"][..],
        &["--tenant", "Acme", "--scopes", "events:read"],
        &["--tenant", "acme", "--scopes", "events:fly"],
        &["--scopes", "events:read"],
        &["--tenant", "acme", "--scopes", "events:read", "--description", &"x".repeat(2_000)],
    ] {
        let output = server.run(&[&["keys", "create", "--data", data], wrong].concat());
        assert!(!output.status.success() && output.stdout.is_empty(), "{wrong:?}");
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(listed(&["--tenant", "acme"]).len(), 1);
}

#[test]
fn a_data_folder_with_a_long_path_has_keys_made_beside_its_server_too() {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("d".repeat(60)).join("e".repeat(60));
    let mut server = Server::prepared(false, "");
    server.keep_in(deep);
    server.start();
    server.operator().get("/keys").expect(200);
}

#[test]
fn the_control_socket_and_the_keys_of_the_folder_are_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::guarded();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server.data()), 0o700);
    for file in ["control.sock", "seal.key"] {
        assert_eq!(mode(&server.data().join(file)), 0o600, "{file}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

#[test]
fn secrets_are_shown_once_and_are_nowhere_else() {
    let mut server = Server::dev();
    let admin = server.make_key(&["--admin", "--description", "for the release"]);
    let operator = server.client().key(&admin.text);
    let key = operator.post("/keys", r#"{"scopes":["events:read"],"tenant":"acme"}"#).expect(201).json();
    let own = "whsec_Q0FOQVJZLUNBTkFSWS1DQU5BUlktQ0FOQVJZLTEyMzQ=";
    let made = operator.post("/webhooks", r#"{"url":"http://127.0.0.1:9/hooks"}"#).expect(201).json();
    let brought = json!({ "url": "http://127.0.0.1:9/hooks", "secret": own }).to_string();
    let brought = operator.post("/webhooks", brought).expect(201).json();
    assert_eq!(brought["secret"], own);
    // A secret that is refused is not told again.
    let bad =
        operator.post("/webhooks", r#"{"url":"http://127.0.0.1:9/hooks","secret":"whsec_refusedCANARY"}"#).expect(422);
    assert!(!bad.text().contains("refusedCANARY"), "{bad}");
    let wrong = admin.text.replace(&admin.text[30..], &"c".repeat(admin.text.len() - 30));
    server.client().key(&wrong).get("/events").expect(401);
    operator.publish(r#"{"eventType":"a.b","data":1}"#);
    let secret_of = |webhook: &Value| {
        operator.get(&format!("/webhooks/{}/secret", webhook["id"].as_str().unwrap())).expect(200).json()["secret"]
            .clone()
    };
    assert_eq!((secret_of(&made), secret_of(&brought)), (made["secret"].clone(), brought["secret"].clone()));
    let texts = [admin.text.as_str(), key["key"].as_str().unwrap(), made["secret"].as_str().unwrap(), own];
    let canaries: Vec<&str> = texts.iter().map(|text| text.rsplit('_').next().unwrap()).collect();
    // A raw key of 32 bytes would show in the folder as bytes, not as text.
    let raw: Vec<Vec<u8>> = canaries[2..].iter().map(|text| decode(text)).collect();
    let mut shown: Vec<(String, Vec<u8>)> = Vec::new();
    for tenant in ["default", "acme", "system"] {
        for path in ["/events?types=*,tidings.*&limit=250", "/webhooks", "/keys", "/audit/head"] {
            shown.push((format!("{tenant} {path}"), operator.tenant(tenant).get(path).expect(200).body));
        }
    }
    shown.push(("/keys".to_owned(), operator.get("/keys").expect(200).body));
    let id = made["id"].as_str().unwrap();
    shown.push(("one webhook".to_owned(), operator.get(&format!("/webhooks/{id}")).expect(200).body));
    let mut stream = Stream::open(&operator, "/events/stream?from=earliest&types=*,tidings.*");
    while stream.next().event.as_deref() != Some("tidings.status") {}
    shown.extend(files(&server.data()).into_iter().map(|file| (file.display().to_string(), fs::read(&file).unwrap())));
    server.kill();
    server.start();
    shown.extend(files(&server.data()).into_iter().map(|file| (file.display().to_string(), fs::read(&file).unwrap())));
    shown.push(("standard error".to_owned(), server.stderr().into_bytes()));
    assert!(shown.iter().any(|(_, bytes)| contains(bytes, b"tidings.key.created")), "the trail is looked at");
    for (place, bytes) in &shown {
        for canary in canaries.iter().map(|text| text.as_bytes()).chain(raw.iter().map(Vec::as_slice)) {
            assert!(!contains(bytes, canary), "{place} holds a secret");
        }
    }
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
