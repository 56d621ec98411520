//! Staying: a command that lives as long as its session, and says when the session's state changes.

use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Context, identity::Identity, notices::Notices};
use crate::{
    failure::{Exit, Failure},
    holder::{Membership, Place, Role, View, agent::AgentLaunch, session::SessionState},
};

/// Joins the agent session of this machine.
pub(crate) async fn join(context: &Context<'_>, identity: &Identity) -> Membership {
    let settings = &context.settings;
    let place = settings.config.as_ref().map(|config| {
        Place::new(
            settings.runtime_folder.as_deref(),
            config.path(),
            settings.hub.as_str(),
            &identity.agent.id,
        )
    });
    let launch = AgentLaunch::new(context.api.clone(), settings.config.clone(), identity).await;
    Membership::join(place, launch)
}

/// Runs a command's work within a membership, and leaves it in order whatever the end.
pub(crate) async fn within(
    context: &Context<'_>,
    membership: Membership,
    work: impl AsyncFnOnce(&Membership) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    let result = context.unless_stopped(work(&membership)).await;
    membership.leave().await;
    result
}

/// Stays until the hub refuses the session for good, and says what becomes of the session and of a service.
pub(crate) async fn stay(
    context: &Context<'_>,
    membership: &Membership,
    mut notices: Option<Notices<'_>>,
) -> Result<Exit, Failure> {
    let mut view = membership.view();
    let mut said = None;
    loop {
        let now = view.borrow_and_update().clone();
        if said.as_ref() != Some(&now) {
            say(context, said.as_ref(), &now)?;
            said = Some(now.clone());
        }
        if now.session == SessionState::Stopped {
            return Ok(Exit::Success);
        }
        let look_again = match &mut notices {
            Some(notices) => notices.say(context, &now.known, Instant::now())?,
            None => None,
        };
        tokio::select! {
            changed = view.changed() => if changed.is_err() {
                return Err(Failure::new("session_ended", "The agent session has ended"));
            },
            () = reached(look_again) => {}
        }
    }
}

async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn say(context: &Context<'_>, before: Option<&View>, now: &View) -> Result<(), Failure> {
    let output = context.output;
    if before.is_none_or(|before| before.role != now.role) {
        output.detail(|_| {
            let role = match now.role {
                Role::Seeking => "looking who holds the agent session of this machine",
                Role::Holder => "this process holds the agent session of this machine",
                Role::Attached => "attached to the connect process that holds the agent session",
            };
            role.to_owned()
        });
    }
    for lost in now.lost.iter().filter(|lost| before.is_none_or(|before| !before.lost.contains(*lost))) {
        output.warn(&format!("Not brought back: {lost}"));
    }
    if before.is_some_and(|before| before.session == now.session) {
        return Ok(());
    }
    let was_connected = before.is_some_and(|before| before.session.is_connected());
    match &now.session {
        SessionState::Connecting { attempt, last_error } => {
            if output.is_json() {
                let line = json!({ "event": "connecting", "attempt": attempt, "lastError": last_error });
                return output.data(&line, |_| String::new());
            }
            match last_error {
                Some(error) => output.note(|face| {
                    format!(
                        "{} Not connected to the hub ({}), trying again",
                        face.warning(),
                        face.remote(error)
                    )
                }),
                // Between two holders the session is new, but no connection was lost.
                None if was_connected && now.role != Role::Seeking => output
                    .note(|face| format!("{} Connection to the hub lost, connecting again", face.warning())),
                None => output.detail(|_| format!("connecting to {}", context.settings.hub)),
            }
            Ok(())
        }
        SessionState::Connected { epoch } => {
            if output.is_json() {
                return output.data(&json!({ "event": "connected", "epoch": epoch }), |_| String::new());
            }
            output.note(|face| {
                format!("{} Connected to {}", face.ok(), face.remote(context.settings.hub.as_str()))
            });
            Ok(())
        }
        SessionState::Stopped => {
            if output.is_json() {
                return output.data(&json!({ "event": "stopped", "by": "command" }), |_| String::new());
            }
            output.note(|face| format!("{} Stopped by a command that came over the hub", face.warning()));
            Ok(())
        }
        SessionState::Refused { code, message } => Err(refused(code, message)),
    }
}

/// The hub's refusal of a session as a failure.
pub(crate) fn refused(code: &str, message: &str) -> Failure {
    let failure = Failure::new(code.to_owned(), message);
    match code {
        "unauthorized" => failure.hint("log in again: connect up --api-key pc_…"),
        "no_agent_socket" => failure.hint("set XDG_RUNTIME_DIR to a folder of your own, with a short path"),
        "held_elsewhere" => failure.hint(
            "end connect there, or give this machine an identity of its own: connect logout, then connect up",
        ),
        _ => failure,
    }
}
