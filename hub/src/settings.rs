//! Every setting of the hub, once: the flag, its `HUB_…` variable, its key in `hub.toml`, its default and its reason.
//!
//! Strength: flag, then variable, then file, then default. An unknown key in the file is an error: a setting that is
//! silently ignored fails open.

use std::{
    ffi::OsString,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use domain::policy::retries::Schedule;
use ipnet::IpNet;

use self::{guesses::wrong_codes, texts::metrics_token};
use crate::event_log::place::LogUrl;

mod guesses;
mod looking_back;
mod texts;

pub use looking_back::{
    Backup, Chosen, EraseArgs, EventsArgs, EventsCommand, ExportFormat, Replay, Restore, Upgrade, When,
};

/// A self-hosted hub: reach each other's local services on localhost, hand out public, expiring, restricted links.
#[derive(Debug, Parser)]
#[command(name = "hub", version, about, args_override_self = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hub, agent and one share of TARGET (or of a built-in demo site) in one process
    Quickstart(Box<Quickstart>),
    /// Run the server
    Serve(Box<Serve>),
    /// Check the event log offline; changes no byte
    #[command(
        after_help = "Exit codes: 0 clean, 1 the first bad event is named, 2 cannot judge (missing, in use)",
        after_long_help = looking_back::ABOUT_VERIFY
    )]
    Verify(Verify),
    /// Build the views anew from the event log, beside the old ones, and swap
    #[command(after_long_help = looking_back::ABOUT_REBUILD)]
    Rebuild(Rebuild),
    /// Show or export recorded events, offline or while the hub runs
    Events(EventsArgs),
    /// Show a workspace as it was at a moment of the past
    Replay(Replay),
    /// Copy log and keyring while the hub runs, and verify the copy
    Backup(Backup),
    /// Put a backup into an empty data directory
    Restore(Restore),
    /// Erase what is personal in records of the past, for ever
    Erase(EraseArgs),
    /// Show which format the event log is written in, or let this release write its newest
    Upgrade(Upgrade),
    /// Create or list workspaces, whether the hub runs or not
    Workspace(WorkspaceArgs),
    /// Create, list or revoke API keys of a workspace, whether the hub runs or not
    Key(KeyArgs),
    /// Print a commented example of `hub.toml`
    Config(ConfigArgs),
}

#[derive(Debug, Args)]
pub struct Quickstart {
    /// What to share: `host:port` or `:port` on this machine; a demo site when absent
    pub target: Option<String>,
    /// Print one line of JSON and stay
    #[arg(long)]
    pub json: bool,
    /// How the target is spoken to
    #[arg(long, default_value = "auto", value_name = "P")]
    pub protocol: String,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    pub data: DataDir,
    /// The head that an outside witness remembers: the log must reach it
    #[arg(long, value_name = "HASH")]
    pub head: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Rebuild {
    #[command(flatten)]
    pub data: DataDir,
    /// Compare the rebuilt views with the kept ones and keep those; exit code 1 when they differ
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct WorkspaceArgs {
    #[command(subcommand)]
    pub command: WorkspaceCommand,
}

#[derive(Debug, Subcommand)]
pub enum WorkspaceCommand {
    /// Create a workspace and its first admin key, which is shown once
    Create {
        name: String,
        #[command(flatten)]
        data: DataDir,
    },
    /// List the workspaces
    List {
        #[command(flatten)]
        data: DataDir,
    },
}

#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key, which is shown once
    Create {
        name: String,
        /// The workspace's name or id
        #[arg(long, default_value = "default")]
        workspace: String,
        /// What it may do
        #[arg(long, value_delimiter = ',', default_value = "admin", value_parser = ["admin", "write", "read", "agent"])]
        scopes: Vec<String>,
        #[command(flatten)]
        data: DataDir,
    },
    /// List the keys
    List {
        /// The workspace's name or id
        #[arg(long, default_value = "default")]
        workspace: String,
        #[command(flatten)]
        data: DataDir,
    },
    /// Revoke a key
    Revoke {
        /// `key_…`
        id: String,
        /// The workspace's name or id
        #[arg(long, default_value = "default")]
        workspace: String,
        #[command(flatten)]
        data: DataDir,
    },
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with its default
    Example,
}

/// Where a hub keeps everything.
#[derive(Debug, Clone, Args)]
pub struct DataDir {
    /// The data directory
    #[arg(long = "data", env = "HUB_DATA", default_value = "./data", value_name = "DIR")]
    pub path: PathBuf,
    /// Where the event log is, if it is not in the data directory: postgres://USER:PASSWORD@HOST/DATABASE; in HUB_LOG nobody else reads it
    #[arg(long, env = "HUB_LOG", hide_env_values = true, value_name = "URL")]
    pub log: Option<LogUrl>,
}

/// When an access record must be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum AccessLogMode {
    /// Within `access_flush_ms` after the answer: fast
    Batched,
    /// Before the last byte of the answer: no answered request lacks its record
    BeforeResponse,
}

/// A switch that reads well in every place it can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl Switch {
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// How telemetry is written to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TelemetryFormat {
    Text,
    Json,
}

/// The settings of a running hub.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    #[command(flatten)]
    pub data: DataDir,
    /// A TOML file with any of these settings (dashes become underscores)
    #[arg(long, env = "HUB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the Control API and the agents are answered; port 0 takes a free one
    #[arg(long, env = "HUB_LISTEN", default_value = "127.0.0.1:7070", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Where visitors of shares are answered
    #[arg(long, env = "HUB_EDGE_LISTEN", default_value = "127.0.0.1:7080", value_name = "ADDR")]
    pub edge_listen: SocketAddr,
    /// PEM file with the certificate of the API and of the edge, followed by its chain; read again when it changes
    #[arg(long, env = "HUB_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with that certificate's private key, which nobody but the hub's user should be able to read
    #[arg(long, env = "HUB_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// PEM file with another certificate for the edge: the one for `*.<base domain>`, say
    #[arg(long, env = "HUB_EDGE_TLS_CERT", value_name = "FILE")]
    pub edge_tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the edge's own certificate
    #[arg(long, env = "HUB_EDGE_TLS_KEY", value_name = "FILE")]
    pub edge_tls_key: Option<PathBuf>,
    /// Names to get a certificate for from an ACME authority, whose terms are thereby agreed to; no wildcards
    #[arg(long, env = "HUB_TLS_ACME_DOMAINS", value_delimiter = ',', value_name = "NAME,…", value_parser = domain_name)]
    pub tls_acme_domains: Vec<String>,
    /// Where the ACME authority sends warnings
    #[arg(long, env = "HUB_TLS_ACME_EMAIL", value_name = "ADDRESS")]
    pub tls_acme_email: Option<String>,
    /// The ACME authority's directory
    #[arg(long, env = "HUB_TLS_ACME_DIRECTORY", default_value = "https://acme-v02.api.letsencrypt.org/directory", value_name = "URL", value_parser = web_url)]
    pub tls_acme_directory: String,
    /// PEM file with the authority of the directory's own certificate; the system's authorities when absent
    #[arg(long, env = "HUB_TLS_ACME_CA", value_name = "FILE")]
    pub tls_acme_ca: Option<PathBuf>,
    /// Listen beyond this machine without TLS: keys and links are then readable on the way
    #[arg(long, env = "HUB_INSECURE_PUBLIC", default_value = "off", default_missing_value = "on", num_args = 0..=1, require_equals = true, value_name = "on|off")]
    pub insecure_public: Switch,
    /// The first admin key instead of a random one; accepted again at every start
    #[arg(long, env = "HUB_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: Option<String>,
    /// The API's address as people and agents see it; the listening address when absent
    #[arg(long, env = "HUB_PUBLIC_URL", value_name = "URL", value_parser = web_url)]
    pub public_url: Option<String>,
    /// What share links begin with; the edge's listening address when absent
    #[arg(long, env = "HUB_LINK_BASE_URL", value_name = "URL", value_parser = web_url)]
    pub link_base_url: Option<String>,
    /// Shares answer at `<slug>.<base domain>`; at `<slug>.localhost` when absent
    #[arg(long, env = "HUB_BASE_DOMAIN", value_name = "DOMAIN", value_parser = domain_name)]
    pub base_domain: Option<String>,
    /// The ports that tunnels get, below Linux's ephemeral ports so that no outgoing connection takes one
    #[arg(long, env = "HUB_TUNNEL_PORTS", default_value = "10000-31999", value_name = "A-B", value_parser = port_range)]
    pub tunnel_ports: RangeInclusive<u16>,
    /// Where private tunnels' ports listen
    #[arg(long, env = "HUB_TUNNEL_BIND", default_value = "127.0.0.1", value_name = "IP")]
    pub tunnel_bind: IpAddr,
    /// Where public TCP and UDP tunnels' ports listen
    #[arg(long, env = "HUB_PUBLIC_TUNNEL_BIND", default_value = "0.0.0.0", value_name = "IP")]
    pub public_tunnel_bind: IpAddr,
    /// How long a peer of a UDP tunnel may be silent, and the tunnel to it, before its session ends
    #[arg(long, env = "HUB_UDP_IDLE_MS", default_value_t = 60_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub udp_idle_ms: u64,
    /// Peers of one UDP tunnel at once; one more ends the session that was silent longest
    #[arg(long, env = "HUB_UDP_SESSIONS_MAX", default_value_t = 1_024, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub udp_sessions_max: u32,
    /// Requests per minute from one address without valid credentials; 0 switches the limit off
    #[arg(long, env = "HUB_LIMIT_PUBLIC_PER_MIN", default_value_t = 100, value_name = "N")]
    pub limit_public_per_min: u32,
    /// Requests per minute of one API key; 0 switches the limit off
    #[arg(long, env = "HUB_LIMIT_KEY_PER_MIN", default_value_t = 1_000, value_name = "N")]
    pub limit_key_per_min: u32,
    /// Requests per minute through one share; 0 switches the limit off
    #[arg(long, env = "HUB_LIMIT_SHARE_PER_MIN", default_value_t = 5_000, value_name = "N")]
    pub limit_share_per_min: u32,
    /// Wrong environment codes that one key may try in 15 minutes; 0 switches the lock-out off
    #[arg(long, env = "HUB_LIMIT_WRONG_CODES_PER_KEY", default_value_t = 10, value_name = "N", value_parser = wrong_codes())]
    pub limit_wrong_codes_per_key: u32,
    /// Wrong environment codes from one address in 15 minutes, before it is one for each key; 0 switches the lock-out off
    #[arg(long, env = "HUB_LIMIT_WRONG_CODES_PER_ADDRESS", default_value_t = 30, value_name = "N", value_parser = wrong_codes())]
    pub limit_wrong_codes_per_address: u32,
    /// Wrong environment codes in one workspace in 15 minutes, before it is one for each key; 0 switches the lock-out off
    #[arg(long, env = "HUB_LIMIT_WRONG_CODES_PER_WORKSPACE", default_value_t = 100, value_name = "N", value_parser = wrong_codes())]
    pub limit_wrong_codes_per_workspace: u32,
    /// Wrong codes of device logins that one workspace may try in 15 minutes; 0 switches the lock-out off
    #[arg(long, env = "HUB_LIMIT_WRONG_DEVICE_CODES", default_value_t = 10, value_name = "N", value_parser = wrong_codes())]
    pub limit_wrong_device_codes: u32,
    /// Machines at one address that may wait for their device logins; 0 switches the limit off
    #[arg(long, env = "HUB_LIMIT_DEVICES_PER_ADDRESS", default_value_t = 20, value_name = "N")]
    pub limit_devices_per_address: u32,
    /// The branding banner in whole HTML documents
    #[arg(long, env = "HUB_BANNER", default_value = "on", value_name = "on|off")]
    pub banner: Switch,
    /// Proxies in front of the hub whose `X-Forwarded-For` is believed (CIDR list)
    #[arg(long, env = "HUB_TRUSTED_PROXIES", value_delimiter = ',', value_name = "CIDR,…")]
    pub trusted_proxies: Vec<IpNet>,
    /// Addresses that webhooks may reach although they are private, and over plain HTTP (CIDR list)
    #[arg(long, env = "HUB_WEBHOOK_ALLOW", value_delimiter = ',', value_name = "CIDR,…")]
    pub webhook_allow: Vec<IpNet>,
    /// The pauses before a failed webhook delivery is tried again
    #[arg(long, env = "HUB_WEBHOOK_RETRY_SCHEDULE", default_value = domain::policy::retries::DEFAULT, value_name = "5s,5m,…")]
    pub webhook_retry_schedule: Schedule,
    /// PEM file with the authorities of webhook receivers' certificates; the system's when absent
    #[arg(long, env = "HUB_WEBHOOK_CA", value_name = "FILE")]
    pub webhook_ca: Option<PathBuf>,
    /// When an access record must be durable
    #[arg(long, env = "HUB_ACCESS_LOG", default_value = "batched", value_name = "MODE")]
    pub access_log: AccessLogMode,
    /// How long after the answer an access record may be on its way to the disk
    #[arg(long, env = "HUB_ACCESS_FLUSH_MS", default_value_t = 20, value_name = "MS")]
    pub access_flush_ms: u64,
    /// Records of accesses go after so many days, at the end of the day; their sums stay; 0 keeps all
    #[arg(long, env = "HUB_ACCESS_RETENTION_DAYS", default_value_t = 0, value_name = "DAYS")]
    pub access_retention_days: u32,
    /// Records of accesses go, the oldest days first, when they take more in the event log; 0 keeps all
    #[arg(long, env = "HUB_ACCESS_RETENTION_BYTES", default_value_t = 0, value_name = "BYTES")]
    pub access_retention_bytes: u64,
    /// How long a client may take for its request head
    #[arg(long, env = "HUB_HEAD_TIMEOUT_MS", default_value_t = 15_000, value_name = "MS")]
    pub head_timeout_ms: u64,
    /// How long a visitor may make no progress before the connection is cut
    #[arg(long, env = "HUB_VISITOR_STALL_MS", default_value_t = 120_000, value_name = "MS")]
    pub visitor_stall_ms: u64,
    /// How long an agent may take to open a stream
    #[arg(long, env = "HUB_OPEN_TIMEOUT_MS", default_value_t = 10_000, value_name = "MS")]
    pub open_timeout_ms: u64,
    /// How long a target may take for its response head
    #[arg(long, env = "HUB_UPSTREAM_TIMEOUT_MS", default_value_t = 60_000, value_name = "MS")]
    pub upstream_timeout_ms: u64,
    /// How long a request waits for an agent that was just lost; 0: not at all
    #[arg(long, env = "HUB_AGENT_WAIT_MS", default_value_t = 2_000, value_name = "MS")]
    pub agent_wait_ms: u64,
    /// The longest request body through a share; 0 is any size
    #[arg(long, env = "HUB_BODY_BYTES_MAX", default_value_t = 0, value_name = "BYTES")]
    pub body_bytes_max: u64,
    /// How long running requests may take to finish after SIGTERM
    #[arg(long, env = "HUB_DRAIN_TIMEOUT_MS", default_value_t = 10_000, value_name = "MS")]
    pub drain_timeout_ms: u64,
    /// This node's name in the log
    #[arg(long, env = "HUB_NODE", default_value = "hub", value_name = "NAME", value_parser = node_name)]
    pub node: String,
    /// A token that `/metrics` wants as `Authorization: Bearer`; without it whoever reaches the API may read metrics
    #[arg(long, env = "HUB_METRICS_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = metrics_token)]
    pub metrics_token: Option<String>,
    /// How telemetry is written to stderr
    #[arg(long, env = "HUB_TELEMETRY", default_value = "text", value_name = "FORMAT")]
    pub telemetry: TelemetryFormat,
}

fn node_name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if plain && (1..=64).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("must be 1-64 letters, digits, hyphens or dots".to_owned())
    }
}

/// What links begin with. Refused here, or every link that the hub ever hands out is broken.
fn web_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let plain =
        rest.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'@' | b'"' | b'<' | b'>'));
    if plain && !rest.is_empty() && !rest.starts_with(['/', ':']) {
        Ok(url.to_owned())
    } else {
        Err("must be like https://hub.example.com".to_owned())
    }
}

fn domain_name(text: &str) -> Result<String, String> {
    let domain = text.trim_matches('.').to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if domain.len() <= 253 && domain.split('.').all(label) {
        Ok(domain)
    } else {
        Err("must be like share.example.com, without a scheme or a port".to_owned())
    }
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let parse = |part: &str| part.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').ok_or("must be two ports as in 10000-31999")?;
    match (parse(first), parse(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err("must be two ports from 1 to 65535, the smaller first".to_owned()),
    }
}

impl Cli {
    /// Reads the command line, the environment and the file that they name.
    ///
    /// # Errors
    /// The file is missing, broken, or has a key that is no setting. Flags that are wrong end the process with code 2,
    /// as clap does.
    pub fn read() -> anyhow::Result<Self> {
        let typed: Vec<OsString> = std::env::args_os().collect();
        let cli = Self::parse_from(&typed);
        let Some(file) = cli.config_file() else { return Ok(cli) };
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("while reading the settings file {}", file.display()))?;
        let flags = flags_of_file(&text, |name| std::env::var_os(name).is_some())
            .with_context(|| format!("in the settings file {}", file.display()))?;
        // The file's settings go right behind the subcommand: what was typed comes later and wins.
        let mut args = typed;
        args.splice(2..2, flags);
        Ok(Self::parse_from(args))
    }

    fn config_file(&self) -> Option<&Path> {
        match &self.command {
            Command::Quickstart(args) => args.settings.config.as_deref(),
            Command::Serve(args) => args.settings.config.as_deref(),
            Command::Verify(_)
            | Command::Rebuild(_)
            | Command::Events(_)
            | Command::Replay(_)
            | Command::Backup(_)
            | Command::Restore(_)
            | Command::Erase(_)
            | Command::Upgrade(_)
            | Command::Workspace(_)
            | Command::Key(_)
            | Command::Config(_) => None,
        }
    }
}

/// The settings of a TOML text as flags, except those that a variable overrides.
fn flags_of_file(text: &str, is_set: impl Fn(&str) -> bool) -> anyhow::Result<Vec<OsString>> {
    let table: toml::Table = text.parse()?;
    let settings = serve_command();
    let mut flags = Vec::new();
    for (key, value) in table {
        let arg = settings.get_arguments().find(|arg| {
            arg.get_long().is_some_and(|long| {
                long.replace('-', "_") == key && !matches!(long, "config" | "help" | "version")
            })
        });
        let Some(arg) = arg else { bail!("`{key}` is no setting; `hub config example` shows them all") };
        if arg.get_env().and_then(|name| name.to_str()).is_some_and(&is_set) {
            continue;
        }
        let long = arg.get_long().expect("found by its long name");
        flags.push(format!("--{long}={}", plain(&key, &value)?).into());
    }
    Ok(flags)
}

fn plain(key: &str, value: &toml::Value) -> anyhow::Result<String> {
    Ok(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(switch) => if *switch { "on" } else { "off" }.to_owned(),
        toml::Value::Array(items) => {
            items.iter().map(|item| plain(key, item)).collect::<anyhow::Result<Vec<_>>>()?.join(",")
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => {
            bail!("`{key}` must be a text, a whole number, true or false, or a list")
        }
    })
}

fn serve_command() -> clap::Command {
    let mut cli = Cli::command();
    cli.build();
    cli.find_subcommand("serve").expect("declared above").clone()
}

/// A commented `hub.toml` with every setting: what `hub config example` prints.
pub fn example() -> String {
    let mut text = String::from(
        "# Settings of the hub. Strength: flag, then HUB_ variable, then this file, then the default shown here.\n",
    );
    for arg in serve_command().get_arguments() {
        let Some(long) = arg.get_long().filter(|long| !matches!(*long, "config" | "help" | "version")) else {
            continue;
        };
        let env = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default = arg.get_default_values().first().and_then(|value| value.to_str());
        let value = match default {
            Some(value) if value.parse::<i64>().is_ok() => value.to_owned(),
            Some(value) => format!("\"{value}\""),
            None if arg.get_value_delimiter().is_some() => "[]".to_owned(),
            None => "\"\"".to_owned(),
        };
        writeln!(text, "\n# {help} ({env})\n#{} = {value}", long.replace('-', "_"))
            .expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests;
