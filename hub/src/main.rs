//! The hub's process: read what was asked, do it, exit with its code.

use std::process::ExitCode;

use hub::{
    offline, quickstart,
    settings::{self, Cli, Command, ConfigCommand, TelemetryFormat},
    startup::Hub,
    telemetry,
};

/// The edge allocates per request; mimalloc made that measurably cheaper than the system's allocator (ADR 0003).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::read().and_then(|cli| run(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            telemetry::fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let format = match &command {
        Command::Quickstart(args) => args.settings.telemetry,
        Command::Serve(args) => args.settings.telemetry,
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
        | Command::Config(_) => TelemetryFormat::Text,
    };
    telemetry::start(format);
    let system = actix_rt::System::new();
    match command {
        Command::Quickstart(args) => system.block_on(quickstart::run(*args)).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => system.block_on(serve(args.settings)).map(|()| ExitCode::SUCCESS),
        Command::Verify(args) => Ok(system.block_on(offline::run_verify(&args))),
        Command::Rebuild(args) => system.block_on(offline::run_rebuild(&args)),
        Command::Events(args) => offline::events::run(args.command).map(|()| ExitCode::SUCCESS),
        Command::Replay(args) => offline::replay::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Backup(args) => {
            system.block_on(offline::copies::run_backup(&args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Restore(args) => offline::copies::run_restore(&args).map(|()| ExitCode::SUCCESS),
        Command::Erase(args) => system.block_on(offline::run_erase(args)).map(|()| ExitCode::SUCCESS),
        Command::Upgrade(args) => system.block_on(offline::run_upgrade(args)).map(|()| ExitCode::SUCCESS),
        Command::Workspace(args) => {
            system.block_on(offline::run_workspace(args.command)).map(|()| ExitCode::SUCCESS)
        }
        Command::Key(args) => system.block_on(offline::run_key(args.command)).map(|()| ExitCode::SUCCESS),
        Command::Config(args) => match args.command {
            ConfigCommand::Example => {
                offline::say(settings::example().trim_end());
                Ok(ExitCode::SUCCESS)
            }
        },
    }
}

async fn serve(settings: settings::Settings) -> anyhow::Result<()> {
    let mut hub = Hub::start(settings, false).await?;
    offline::say(&format!("listening api={} edge={}", hub.api_url(), hub.edge_url()));
    hub.until_signal().await;
    hub.stop().await;
    Ok(())
}
