//! `connect`: exposes local services through a hub, reaches others', hands out links.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(agent_cli::run(std::env::args_os().collect()).code())
}
