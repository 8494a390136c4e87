//! Every setting: its key, its default, what it is.

/// One setting: its key in the file, its default, what it is.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
}

/// Every setting.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting { key: "listen", default: "127.0.0.1:8080", help: "address and port of the HTTP API" },
    Setting { key: "data", default: "./tidings-data", help: "folder with everything that is kept" },
    Setting { key: "dev", default: "false", help: "no keys, plain http webhooks; on loopback addresses only" },
    Setting { key: "environment", default: "live", help: "second part of API keys made here: tdg_<environment>_…" },
    Setting { key: "source", default: "/", help: "`source` of events whose producer gives none (URI reference)" },
    Setting { key: "seal_key_file", default: "", help: "file with the sealing key; made as DATA/seal.key if not set" },
    Setting { key: "threads", default: "0", help: "threads that serve requests; 0: one for each core" },
    Setting { key: "log_format", default: "pretty", help: "pretty or json" },
    Setting { key: "limits.data_bytes", default: "262144", help: "largest `data` of an event, in bytes" },
    Setting { key: "limits.body_bytes", default: "8388608", help: "largest body of a request, in bytes" },
    Setting { key: "limits.batch_events", default: "10000", help: "most events in one request" },
    Setting { key: "limits.connections", default: "12000", help: "most connections at a time" },
    Setting { key: "limits.streams", default: "10000", help: "most event streams at a time" },
    Setting {
        key: "limits.tenant_streams",
        default: "0",
        help: "most event streams of a tenant; 0: as many as there may be",
    },
    Setting {
        key: "limits.address_streams",
        default: "0",
        help: "most event streams from an address (IPv6: a /64); 0: as many as there may be, as behind a proxy",
    },
    Setting { key: "limits.body_timeout", default: "30s", help: "time for a request's body to arrive" },
    Setting {
        key: "cors.origins",
        default: "",
        help: "origins whose pages may read answers, exactly: https://app.example.com, …",
    },
    Setting { key: "tls.listen", default: "", help: "address and port for HTTPS with HTTP/2; empty: none" },
    Setting { key: "tls.cert_file", default: "", help: "PEM file of its certificate, and those up to the root" },
    Setting { key: "tls.key_file", default: "", help: "PEM file of its private key" },
    Setting {
        key: "egress.allow",
        default: "",
        help: "networks beyond the public internet that webhooks may reach: 10.1.0.0/16, 10.1.2.3:8080, …",
    },
    Setting { key: "egress.deny", default: "", help: "networks that webhooks may not reach, although public" },
    Setting { key: "egress.http", default: "false", help: "whether webhooks may go out in clear text" },
    Setting { key: "egress.ports", default: "", help: "the only ports that webhooks may reach, as in 443,8443" },
    Setting { key: "egress.nat64", default: "", help: "prefixes of this network's NAT64, as in 64:ff9b::/96" },
    Setting { key: "egress.ca_file", default: "", help: "PEM file of authorities to trust beside the system's" },
    Setting { key: "egress.keep_answers", default: "true", help: "whether the text that endpoints answer is kept" },
    Setting {
        key: "delivery.contact",
        default: "",
        help: "whom to tell of webhooks that name nobody in `notify`: mailto:… or https://…",
    },
    Setting { key: "smtp.host", default: "", help: "mail server; empty: no mail" },
    Setting { key: "smtp.port", default: "587", help: "its port" },
    Setting { key: "smtp.security", default: "starttls", help: "starttls, tls or none" },
    Setting { key: "smtp.user", default: "", help: "user name, if it asks for one" },
    Setting { key: "smtp.password_file", default: "", help: "file with the password" },
    Setting { key: "smtp.ca_file", default: "", help: "PEM file of an authority to trust beside the system's" },
    Setting { key: "smtp.from", default: "", help: "sender of mails" },
    Setting { key: "health.queue_depth", default: "1000", help: "waiting deliveries above which health is degraded" },
    Setting { key: "health.dead_letters", default: "", help: "open dead letters above which it is; empty: never" },
    Setting { key: "health.lag", default: "", help: "events behind the head above which it is; empty: never" },
    Setting { key: "health.latency", default: "", help: "average time to delivery above which it is; empty: never" },
    Setting {
        key: "health.outbox_delay",
        default: "1m",
        help: "time from a commit in an outbox to the log above which it is; empty: never",
    },
    Setting {
        key: "health.outbox_wal_bytes",
        default: "10737418240",
        help: "bytes that a database keeps for the slot of an outbox above which it is; empty: never",
    },
    Setting {
        key: "outbox",
        default: "",
        help: "outboxes that are read: [[outbox]] with name, url, password_file, ca_file, tenant, source, mode",
    },
    Setting { key: "metrics.open", default: "false", help: "whether GET /metrics takes no key" },
    Setting {
        key: "telemetry.otlp",
        default: "",
        help: "collector of traces, as in http://localhost:4318; empty: none",
    },
    Setting { key: "telemetry.sample", default: "100", help: "of a hundred traces begun here, how many are recorded" },
    Setting {
        key: "log.synchronous",
        default: "full",
        help: "full: acknowledged means on disk; off: UNSAFE, loses acknowledged events",
    },
    Setting {
        key: "retention.age",
        default: "",
        help: "events older than this are removed, at least 1d; empty: kept for ever",
    },
    Setting { key: "retention.events", default: "0", help: "most events kept for each tenant; 0: all" },
];
