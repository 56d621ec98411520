//! Every command and flag of `connect`, as data for the parser.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::output::{Format, Talk, Wish};

/// Reach each other's local services through a hub, and share them by link.
#[derive(Debug, Parser)]
#[command(
    name = "connect",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "\
Examples:
  connect up --api-key pc_…                        log in and stay connected
  connect up                                       the same without a key: somebody approves a code
  connect expose localhost:5432 --name prod-db     let teammates reach a database
  connect reach prod-db                            reach it as localhost:5432
  connect expose localhost:3000 --link             a public link for a day
  connect :3000                                    short for: connect expose localhost:3000

Environment:
  CONNECT_HUB_URL      the hub, as --hub
  CONNECT_CA           the authority of the hub's certificate, as --ca
  PRIVATECONNECT_TOKEN the API key, as --api-key
  NO_COLOR             no colour, as --no-color"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    /// host:port or :port exposes it, a service's name reaches it, nothing shows the status
    pub target: Option<String>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every command takes, before or after its name.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Hub to talk to [env: CONNECT_HUB_URL] [default: http://127.0.0.1:7070]
    #[arg(short = 'H', long, global = true, value_name = "URL", help_heading = "Global options")]
    pub hub: Option<String>,
    /// PEM file with the authority of an https hub's certificate, instead of the system's authorities [env: CONNECT_CA]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub ca: Option<PathBuf>,
    /// Config file [default: $XDG_CONFIG_HOME/private-connect/config.toml]
    #[arg(short, long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// API key [env: PRIVATECONNECT_TOKEN]; the variable does not show up in the list of processes
    #[arg(long, global = true, value_name = "KEY", help_heading = "Global options")]
    pub api_key: Option<String>,
    /// Print JSON and nothing else: one document, or one object per line for commands that stay
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Only results, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Say more about what is done
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// No colour [env: NO_COLOR]
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_color: bool,
    /// Plain ASCII: no emoji, no boxes
    #[arg(long, global = true, help_heading = "Global options")]
    pub plain: bool,
}

impl Global {
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
    pub fn talk(&self) -> Talk {
        match (self.quiet, self.verbose) {
            (true, _) => Talk::Quiet,
            (false, false) => Talk::Normal,
            (false, true) => Talk::Verbose,
        }
    }
    pub fn wish(&self) -> Wish {
        Wish { no_color: self.no_color, plain: self.plain }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log in and stay connected; brings back what this machine exposed
    Up(UpArgs),
    /// Make a local service reachable through the hub
    Expose(ExposeArgs),
    /// Open a local port to a service that somebody exposes
    Reach(ReachArgs),
    /// Make a public link to a service; list and revoke links
    Link(LinkArgs),
    /// Show the hub, this agent and the services
    Status,
    /// Show whose API key this is
    Whoami,
    /// Show who used a link
    Logs(LogsArgs),
    /// Forget the API key and this agent's identity
    Logout,
}

impl Command {
    /// The names, for suggestions.
    pub const NAMES: [&'static str; 8] =
        ["up", "expose", "reach", "link", "status", "whoami", "logs", "logout"];
}

#[derive(Debug, Clone, Default, Args)]
pub struct UpArgs {
    /// What this machine is called in lists [default: its host name]
    #[arg(long)]
    pub label: Option<String>,
    /// Whose agent this is; teammates see it
    #[arg(long)]
    pub name: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct ExposeArgs {
    /// What to expose: host:port, :port or port; IPv6 in brackets
    pub target: String,
    /// Name of the service [default: by database port, project, or port]
    #[arg(long)]
    pub name: Option<String>,
    /// auto, tcp, udp, http or https
    #[arg(long, default_value = "auto")]
    pub protocol: String,
    /// Give it a permanent public URL
    #[arg(long)]
    pub public: bool,
    /// Give it a public link that expires
    #[arg(long)]
    pub link: bool,
    /// How long the link lives: 1h, 24h, 7d, 30d, never
    #[arg(long, requires = "link", value_name = "TIME", default_value = "24h")]
    pub link_expires: String,
    /// Accept certificates of an https target by the issuers in this PEM file too
    #[arg(long, value_name = "FILE", conflicts_with = "target_insecure")]
    pub target_ca: Option<PathBuf>,
    /// Do not check the certificate of an https target
    #[arg(long)]
    pub target_insecure: bool,
    /// Another target that the hub may have dialled from here (repeatable)
    #[arg(long, value_name = "HOST:PORT")]
    pub allow_target: Vec<String>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct ReachArgs {
    /// Name of the service (or its id)
    pub service: String,
    /// Local port [default: the last one used, then the service's own, then one derived from its name]
    #[arg(short, long)]
    pub port: Option<u16>,
    /// Only run the diagnostics
    #[arg(long)]
    pub check: bool,
    /// Trust this key of the exposing agent and no other; `connect status` shows it there
    #[arg(long, value_name = "SHA256:…", value_parser = fingerprint)]
    pub fingerprint: Option<String>,
    /// Seconds that the diagnostics may take
    // The hub gives the exposing agent 10: it should have the time to say so.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub timeout: u64,
}

fn fingerprint(text: &str) -> Result<String, String> {
    let is_one = text.strip_prefix("SHA256:").is_some_and(|hash| {
        hash.len() == 43
            && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    });
    if is_one { Ok(text.to_owned()) } else { Err("a fingerprint is `SHA256:` and 43 characters".to_owned()) }
}

#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub struct LinkArgs {
    #[command(subcommand)]
    pub action: Option<LinkAction>,
    /// A service's name, or a host:port, which is then exposed
    #[arg(required = true)]
    pub target: Option<String>,
    /// How long the link lives: 1h, 24h, 7d, 30d, never
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub expires: String,
    /// Methods that pass, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "GET,POST")]
    pub methods: Vec<String>,
    /// Paths that pass, separated by commas; each starts with /
    #[arg(long, value_delimiter = ',', value_name = "/api/*,/health")]
    pub paths: Vec<String>,
    /// Requests per minute, 1 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rate_limit: Option<u16>,
    /// Name of the service when a host:port is exposed
    #[arg(long)]
    pub name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum LinkAction {
    /// Show the links of this workspace
    List,
    /// End a link at once
    Revoke {
        /// Id, name or subdomain of the link
        share: String,
    },
}

#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Id, name or subdomain of the link
    pub share: String,
    /// Stay and show new ones
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the latest to show
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
}
