//! The commands that look back at the log, keep copies of it, and erase what is personal in it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::DataDir;

/// What `hub verify --help` says beyond the flags.
pub(super) const ABOUT_VERIFY: &str = "\
Reads every byte of the log: checksums, order, the chain of each workspace, and the signed seals over them, one a second.
An event that was changed, removed or put elsewhere is named, and an end that was cut below the last seal. What was
recorded after the last seal can only be missed by a witness: keep the printed head elsewhere and give it with --head.

Examples:
  hub verify
  hub verify --data /backups/hub --head 5d41402abc4b2a76b9719d911017c592…
  hub verify --json | jq -r .head

Exit codes: 0 clean, 1 the first bad event is named, 2 cannot judge (missing, in use)";

/// What `hub rebuild --help` says beyond the flags.
pub(super) const ABOUT_REBUILD: &str = "\
Nothing exists only in a view, so this is always safe; the hub must not run. It also happens by itself, for a view that
another version wrote or that is damaged.

Examples:
  hub rebuild
  hub rebuild --check

Exit codes: 0 done, or the views are equal; 1 they differ, or the log is in use or damaged";

#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(subcommand)]
    pub command: EventsCommand,
}

#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Show the last events, and with --follow those that come
    #[command(after_long_help = "\
A line for each event, oldest first: time, workspace, position, type, stream, author. Positions are those that the API
shows: numbers among the workspace's facts, or among its accesses.

Examples:
  hub events tail -n 20
  hub events tail --follow --workspace acme --types share.created,share.revoked
  hub events tail --json | jq .type

Exit codes: 0 done, 1 the log is missing or damaged, 2 wrong arguments")]
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=10_000))]
        lines: u16,
        /// Go on with events as they are recorded, until interrupted
        #[arg(short, long)]
        follow: bool,
        /// A JSON object for each event instead
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Write events to a file or to standard output, a JSON object a line
    #[command(after_long_help = "\
Oldest first. Every event that was recorded before the command began is in it; what is written afterwards may be.

Examples:
  hub events export > events.ndjson
  hub events export --format cloudevents --workspace acme --since 2026-03-01T00:00:00Z --output acme.ndjson
  hub events export --types share.accessed --personal

Exit codes: 0 done, 1 the log is missing or damaged, or the file cannot be written, 2 wrong arguments")]
    Export {
        /// An object with everything that the log has, or a CloudEvent 1.0
        #[arg(long, default_value = "ndjson", value_name = "FORMAT")]
        format: ExportFormat,
        /// Recorded at this moment or later
        #[arg(long, value_name = "MOMENT", value_parser = moment)]
        since: Option<domain::time::Timestamp>,
        /// Recorded at this moment or earlier
        #[arg(long, value_name = "MOMENT", value_parser = moment)]
        until: Option<domain::time::Timestamp>,
        /// The file to write, which must not be there yet; standard output when absent
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        chosen: Chosen,
    },
}

/// Which events.
#[derive(Debug, Args)]
pub struct Chosen {
    /// Only of this workspace: its name or id
    #[arg(long)]
    pub workspace: Option<String>,
    /// Only of these types; accesses (share.accessed, usage.recorded) are left out unless they are named here
    #[arg(long, value_delimiter = ',', value_name = "TYPE,…")]
    pub types: Vec<String>,
    /// Open what is personal with the keyring beside the log: addresses, user agents, paths, texts
    #[arg(long)]
    pub personal: bool,
    #[command(flatten)]
    pub data: DataDir,
}

/// What an export is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum ExportFormat {
    Ndjson,
    CloudEvents,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
Shows agents, tunnels, shares and keys of a workspace as facts had them then, expiry judged at that time. The log is only
read, and may be in use.

Examples:
  hub replay --at 2026-03-02T10:00:00Z
  hub replay --at 1742 --workspace acme --json

Exit codes: 0 done, 1 the log is missing or damaged or does not reach there, 2 wrong arguments")]
pub struct Replay {
    /// A moment, or a position among the workspace's facts; the end of the log when absent
    #[arg(long, value_name = "MOMENT|POSITION", value_parser = when)]
    pub at: Option<When>,
    /// The workspace's name or id
    #[arg(long, default_value = "default")]
    pub workspace: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDir,
}

/// A moment of the past, said in one of two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Position(u64),
    Moment(domain::time::Timestamp),
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
Destroys the keys that addresses, user agents, paths and texts of these days (UTC) are sealed with. That something
happened stays known, and `hub verify` goes on proving it. Works whether the hub runs or not, and is recorded.

A copy of the keyring elsewhere still opens them, until it is used beside the list of destroyed keys, as `hub restore`
does: erase in your backups too, or let them expire.

Examples:
  hub erase --from 2026-03-01 --until 2026-03-07
  hub erase --workspace acme --share share_0195b2f0a1b27c3d8e4f5a6b7c8d9e0f --from 2026-03-02")]
pub struct EraseArgs {
    /// The workspace's name or id
    #[arg(long, default_value = "default")]
    pub workspace: String,
    /// Only of the visitors of this share
    #[arg(long, value_name = "ID")]
    pub share: Option<String>,
    /// The first day
    #[arg(long, value_name = "DAY")]
    pub from: domain::time::Day,
    /// The last day; the first one when absent
    #[arg(long, value_name = "DAY")]
    pub until: Option<domain::time::Day>,
    #[command(flatten)]
    pub data: DataDir,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
Copies the event log, as it stands at one moment, and the keyring into DIR, and verifies the copy. A running hub goes on
meanwhile. A DIR with an earlier backup of the same log is brought up to date: only what is new is copied.

DIR then holds secrets, as the data directory does. Views are not in it: they are made anew from the log. Keep the head
that is printed elsewhere: `hub verify --data DIR --head HEAD` proves later that the copy still is what it was.

Examples:
  hub backup /backups/hub
  hub backup /backups/hub --json

Exit codes: 0 done and verified, 1 not done")]
pub struct Backup {
    /// Where to
    pub dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDir,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
Verifies the backup in DIR and copies it into the data directory, which must not have a log. Keys that were destroyed
since the backup stay destroyed where their list (keyring.destroyed) is still in the data directory.

Example:
  hub restore /backups/hub --data /var/lib/hub

Exit codes: 0 done, 1 not done, and the data directory is as it was")]
pub struct Restore {
    /// What `hub backup` made
    pub dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataDir,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
A release reads the shapes of events that it will write, and writes them when no older release has read the log for a day:
until then one can go back. Afterwards an older release refuses to start and names the one to use.

Examples:
  hub upgrade                   how the log stands
  hub upgrade --finish          write the newest shapes from now on

Exit codes: 0 done, 1 not done")]
pub struct Upgrade {
    /// Do not wait for the day: older releases do not read the log any more
    #[arg(long)]
    pub finish: bool,
    #[command(flatten)]
    pub data: DataDir,
}

fn moment(text: &str) -> Result<domain::time::Timestamp, String> {
    text.parse().map_err(|error: domain::time::InvalidTimestamp| error.to_string())
}

fn when(text: &str) -> Result<When, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let position = text.parse().ok().filter(|position| *position > 0);
        return position.map(When::Position).ok_or_else(|| "positions begin at 1".to_owned());
    }
    moment(text).map(When::Moment)
}
