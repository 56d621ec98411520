//! The agent and its command line: `connect` is a thin binary over this, the hub's quickstart uses [`agent`] alone.

pub mod agent;
pub mod api;
pub mod cli;
mod commands;
pub mod failure;
pub mod holder;
mod hub_tls;
pub mod output;
pub mod settings;

use std::ffi::OsString;

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, error::ErrorKind};

use crate::{
    cli::Cli,
    failure::{Exit, Failure},
    output::{Format, Output, Talk, Wish},
    settings::Environment,
};

/// Runs one command line, `arguments[0]` being the program's name. Everything it says has been said when it returns.
pub fn run(arguments: Vec<OsString>) -> Exit {
    let environment = Environment::of_process();
    // Needed to say what is wrong with the flags themselves.
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let (wants_json, wish) = (has("--json"), Wish { no_color: has("--no-color"), plain: has("--plain") });
    let format = if wants_json { Format::Json } else { Format::Text };
    let early = Output::of_process(wish, &environment, format, Talk::Normal);
    let colour = if wish.no_color || environment.get("NO_COLOR").is_some() {
        ColorChoice::Never
    } else {
        ColorChoice::Auto
    };
    let parsed = Cli::command().color(colour).try_get_matches_from(arguments);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return ended(&early, early.help(&error.render().to_string()).map(|()| Exit::Success));
        }
        Err(error) if wants_json => return ended(&early, Err(parse_failure(&error))),
        Err(error) => {
            // The parser's own form has usage and suggestions, in colour where stderr has it.
            let _ = error.print();
            return Exit::Usage;
        }
    };
    let output = Output::of_process(cli.global.wish(), &environment, cli.global.format(), cli.global.talk());
    output.follow_telemetry();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(commands::run(&cli, &environment, &output));
            // Nothing that is left may keep the process: what matters was awaited.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::new("runtime", "the system has no resources to run").because(&error)),
    };
    ended(&output, result)
}

fn ended(output: &Output, result: Result<Exit, Failure>) -> Exit {
    match result {
        Ok(exit) => exit,
        Err(failure) => {
            output.failure(&failure);
            failure.exit
        }
    }
}

fn parse_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let message = text.lines().next().unwrap_or_default();
    Failure::usage(message.strip_prefix("error: ").unwrap_or(message)).hint("connect --help")
}
