//! What each command does, one file each. Here is what they share: the context, signals, and how a command stays.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    api::Api,
    cli::{Cli, Command, ExposeArgs, LinkAction, ReachArgs},
    failure::{Exit, Failure},
    hub_tls,
    output::Output,
    settings::{Environment, Settings},
};

mod device;
mod expose;
pub(crate) mod identity;
mod link;
mod logout;
mod logs;
mod naming;
mod notices;
mod ports;
mod reach;
mod services;
mod share;
mod status;
mod stay;
mod targets;
mod up;
mod whoami;

/// What every command has at hand.
pub(crate) struct Context<'a> {
    pub(crate) output: &'a Output,
    pub(crate) settings: Settings,
    pub(crate) api: Api,
    stop: watch::Receiver<Option<Exit>>,
}

impl Context<'_> {
    /// Waits for Ctrl-C (130) or SIGTERM (0).
    pub(crate) async fn stopped(&self) -> Exit {
        let mut stop = self.stop.clone();
        match stop.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Interrupted),
            // Without a signal handler nobody can stop us but the system.
            Err(_) => std::future::pending().await,
        }
    }
    /// Runs until it is done or somebody stops it.
    pub(crate) async fn unless_stopped(
        &self,
        work: impl Future<Output = Result<Exit, Failure>>,
    ) -> Result<Exit, Failure> {
        tokio::select! {
            done = work => done,
            exit = self.stopped() => Ok(exit),
        }
    }
    /// As [`Self::unless_stopped`], for a step that gives a value: a stop ends the command there.
    pub(crate) async fn step<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            exit = self.stopped() => Err(Failure::stopped(exit)),
        }
    }
    /// Fails early, with the way to a key, instead of at the first call.
    pub(crate) fn need_key(&self) -> Result<(), Failure> {
        if self.api.has_key() { Ok(()) } else { Err(crate::api::ApiError::NoKey.into()) }
    }
}

/// Runs one command line.
pub(crate) async fn run(cli: &Cli, environment: &Environment, output: &Output) -> Result<Exit, Failure> {
    if let (Some(target), Some(_)) = (&cli.target, &cli.command) {
        return Err(Failure::usage(format!("\"{target}\" stands before a command"))
            .hint("give a command or a target, not both"));
    }
    let settings = Settings::resolve(&cli.global, environment)?;
    let believing = hub_tls::config_for(settings.hub.scheme(), &settings.trust)?;
    let api = Api::new(settings.hub.clone(), settings.api_key.clone(), believing)?;
    let (stop_sender, stop) = watch::channel(None);
    let signals = tokio::spawn(listen_for_signals(stop_sender));
    let context = Context { output, settings, api, stop };
    let result = dispatch(&context, cli).await;
    signals.abort();
    result
}

async fn dispatch(context: &Context<'_>, cli: &Cli) -> Result<Exit, Failure> {
    let Some(command) = &cli.command else {
        return shorthand(context, cli.target.as_deref()).await;
    };
    match command {
        Command::Up(args) => up::run(context, args).await,
        Command::Expose(args) => expose::run(context, args).await,
        Command::Reach(args) => reach::run(context, args).await,
        Command::Link(args) => match &args.action {
            None => link::run(context, args).await,
            Some(LinkAction::List) => context.unless_stopped(link::list(context)).await,
            Some(LinkAction::Revoke { share }) => context.unless_stopped(link::revoke(context, share)).await,
        },
        Command::Status => context.unless_stopped(status::run(context)).await,
        Command::Whoami => context.unless_stopped(whoami::run(context)).await,
        Command::Logs(args) => context.unless_stopped(logs::run(context, args)).await,
        Command::Logout => context.unless_stopped(logout::run(context)).await,
    }
}

// `connect :3000`, `connect prod-db`, `connect`.
async fn shorthand(context: &Context<'_>, target: Option<&str>) -> Result<Exit, Failure> {
    match target {
        None => context.unless_stopped(status::run(context)).await,
        Some(target) if targets::looks_like_one(target) => {
            let args = ExposeArgs {
                target: target.to_owned(),
                protocol: "auto".to_owned(),
                ..ExposeArgs::default()
            };
            expose::run(context, &args).await
        }
        Some(service) => {
            let args = ReachArgs { service: service.to_owned(), timeout: 15, ..ReachArgs::default() };
            reach::run(context, &args).await
        }
    }
}

// The first signal asks; a second one finds the default handlers' work done by us: the process ends at once.
async fn listen_for_signals(stop: watch::Sender<Option<Exit>>) {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return;
    };
    let mut asked = false;
    loop {
        let exit = tokio::select! {
            _ = interrupt.recv() => Exit::Interrupted,
            _ = terminate.recv() => Exit::Success,
            _ = hangup.recv() => Exit::Success,
        };
        if asked {
            std::process::exit(i32::from(exit.code()));
        }
        asked = true;
        stop.send_replace(Some(exit));
    }
}

#[cfg(test)]
mod tests;
