//! `tidings keys`: beside a running server over its socket, otherwise on the data folder itself.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use tidings_core::event::Channel;
use tidings_core::key::Scope;
use tidings_core::tenant::TenantName;
use tidings_core::time::parse_duration;
use tidings_log::sqlite::SqliteStore;

use super::client::{Client, block_on};
use super::{Flags, OK};
use crate::clock;
use crate::control::audit::Actor;
use crate::control::keys::{Keys, NewKey, listing};

#[derive(Args)]
pub(crate) struct KeysArguments {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Make a key; it is shown once
    #[command(after_help = "Examples:
  tidings keys create --admin
  tidings keys create --tenant acme-prod --scopes events:write,streams:read --expires 90d")]
    Create(CreateArguments),
    /// List the keys of a tenant, or the operators' without --tenant
    List(OfArguments),
    /// Revoke a key by its id; it opens nothing from then on
    Revoke(RevokeArguments),
}

#[derive(Args)]
struct CreateArguments {
    /// An operator's key: every scope, every tenant
    #[arg(long, conflicts_with_all = ["scopes", "tenant"])]
    admin: bool,
    /// What it allows, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = Scope::parse, required_unless_present = "admin")]
    scopes: Vec<Scope>,
    /// The only channels it sees, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = Channel::parse)]
    channels: Option<Vec<Channel>>,
    /// What it is for
    #[arg(long, default_value = "")]
    description: String,
    /// How long it is good for, as in 90d
    #[arg(long, value_parser = parse_duration)]
    expires: Option<std::time::Duration>,
    #[command(flatten)]
    of: OfArguments,
}

#[derive(Args)]
struct OfArguments {
    /// Whose
    #[arg(long, value_parser = TenantName::parse)]
    tenant: Option<TenantName>,
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RevokeArguments {
    /// Id of the key: the third part of it
    id: String,
    #[command(flatten)]
    of: OfArguments,
}

pub(crate) fn run(arguments: KeysArguments) -> Result<u8> {
    block_on(async {
        match arguments.command {
            KeysCommand::Create(arguments) => create(arguments).await,
            KeysCommand::List(arguments) => list(&arguments).await,
            KeysCommand::Revoke(arguments) => revoke(&arguments).await,
        }
    })
}

/// Where keys are: with the server that has the folder open, or in the folder.
enum Place {
    Server(Client),
    Folder(SqliteStore, String),
}

async fn place(of: &OfArguments, make: bool) -> Result<Place> {
    let flags = Flags { data: of.data.clone(), ..Flags::default() };
    let settings = flags.settings()?;
    if let Some(mut client) = Client::on_folder(&settings.data).await {
        client.speak_of(of.tenant.as_ref().map(ToString::to_string));
        return Ok(Place::Server(client));
    }
    if !tidings_log::sqlite::log_path(&settings.data).exists() {
        if !make {
            bail!("{} holds no log that this user can see: name the data folder with --data", settings.data.display());
        }
        crate::serve::make_folder(&settings.data)?;
    }
    let store = SqliteStore::open(&settings.data, settings.synchronous)?;
    Ok(Place::Folder(store, settings.environment))
}

async fn create(arguments: CreateArguments) -> Result<u8> {
    if !arguments.admin && arguments.of.tenant.is_none() {
        bail!("--tenant: name the tenant that the key belongs to, or make an operator's key with --admin");
    }
    let expires_at = arguments.expires.map(|span| clock::now().plus(span));
    let new = NewKey {
        tenant: arguments.of.tenant.clone(),
        scopes: if arguments.admin { vec![Scope::Admin] } else { arguments.scopes },
        channels: arguments.channels,
        description: arguments.description,
        expires_at,
    };
    if let Err((pointer, message)) = new.check(clock::now()) {
        bail!("{}: {message}", pointer.trim_start_matches('/'));
    }
    let made = match place(&arguments.of, true).await? {
        Place::Server(mut client) => {
            let body = Bytes::from(serde_json::to_vec(&new)?);
            client.json(Method::POST, "/keys", Some(("application/json", body))).await?
        }
        Place::Folder(store, environment) => {
            let keys = Keys::load(&store).await?;
            let (record, key) = keys.create(&store, &environment, new, &Actor::Operator).await?;
            let mut shown = listing(&record);
            shown["key"] = key.into();
            shown
        }
    };
    if arguments.of.json {
        println!("{made}");
    } else {
        println!("{}", made["key"].as_str().context("the server showed no key")?);
        eprintln!("Keep it: it is not shown again. Its id is {}.", made["id"].as_str().unwrap_or_default());
    }
    Ok(OK)
}

async fn list(arguments: &OfArguments) -> Result<u8> {
    let shown: Vec<Value> = match place(arguments, false).await? {
        Place::Server(mut client) => {
            let (mut shown, mut after) = (Vec::new(), String::new());
            loop {
                let page = client.json(Method::GET, &format!("/keys?limit=250&after={after}"), None).await?;
                shown.extend(page["data"].as_array().into_iter().flatten().cloned());
                let Some(next) = page["nextCursor"].as_str() else { break shown };
                next.clone_into(&mut after);
            }
        }
        Place::Folder(store, _) => {
            let keys = Keys::load(&store).await?;
            keys.list(arguments.tenant.as_ref(), "").iter().map(|record| listing(record)).collect()
        }
    };
    if arguments.json {
        println!("{}", json!({ "data": shown }));
        return Ok(OK);
    }
    for key in &shown {
        let scopes: Vec<_> = key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let text = |name: &str| key[name].as_str().unwrap_or("-").to_owned();
        println!(
            "{}  {}  expires {}  {}  {}",
            text("id"),
            text("createdAt"),
            text("expiresAt"),
            scopes.join(","),
            text("description")
        );
    }
    if shown.is_empty() {
        eprintln!("there are none");
    }
    Ok(OK)
}

async fn revoke(arguments: &RevokeArguments) -> Result<u8> {
    let id = &arguments.id;
    match place(&arguments.of, false).await? {
        Place::Server(mut client) => {
            client.json(Method::DELETE, &format!("/keys/{id}"), None).await?;
        }
        Place::Folder(store, _) => {
            let keys = Keys::load(&store).await?;
            if !keys.revoke(&store, arguments.of.tenant.as_ref(), id, &Actor::Operator).await? {
                bail!("there is no such key: name its tenant with --tenant");
            }
        }
    }
    if arguments.of.json {
        println!("{}", json!({ "id": id, "revoked": true }));
    } else {
        println!("{id} is revoked");
    }
    Ok(OK)
}
