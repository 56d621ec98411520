//! Logging in a machine that has no key: it shows a code, somebody with a key approves it, and the key is saved.

use std::time::Duration;

use schemas::rest::{DeviceCode, StartDeviceLogin};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Context,
    identity::{host_name, say_not_saved},
};
use crate::{
    api::ApiError,
    failure::Failure,
    settings::{Secret, Settings},
};

/// The shortest and longest wait between two questions, whatever the hub says.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(60);

impl<'a> Context<'a> {
    /// The same with a key, after a login where there is none.
    pub(super) async fn logged_in(
        &self,
        label: Option<&str>,
        name: Option<&str>,
    ) -> Result<Context<'a>, Failure> {
        let (output, stop) = (self.output, self.stop.clone());
        if self.api.has_key() {
            return Ok(Context { output, settings: self.settings.clone(), api: self.api.clone(), stop });
        }
        let key = log_in(self, label, name).await?;
        save(self, &key).await;
        let api = self.api.with_key(key.clone());
        let settings = Settings { api_key: Some(key), ..self.settings.clone() };
        Ok(Context { output, settings, api, stop })
    }
}

async fn log_in(context: &Context<'_>, label: Option<&str>, name: Option<&str>) -> Result<Secret, Failure> {
    let begin = StartDeviceLogin {
        label: label.map(str::to_owned).or_else(host_name),
        agent_name: name.map(str::to_owned),
    };
    let code = match context.api.start_device_login(&begin).await {
        // A hub that knows keys alone.
        Err(error) if error.status() == Some(404) => return Err(ApiError::NoKey.into()),
        begun => begun?,
    };
    show(context, &code)?;
    let ends = Instant::now() + Duration::from_secs(code.expires_in);
    let mut interval = Duration::from_secs(code.interval).clamp(INTERVAL_MIN, INTERVAL_MAX);
    while Instant::now() < ends {
        sleep(interval).await;
        match context.api.get_device_token(&code.device_code).await {
            Ok(token) => return Ok(Secret::new(token.api_key)),
            Err(ApiError::Refused(problem)) => match problem.code.as_str() {
                "authorization_pending" => {}
                "slow_down" | "rate_limited" => {
                    let wanted = problem.retry_after.map_or(interval * 2, Duration::from_secs);
                    interval = wanted.clamp(interval, INTERVAL_MAX);
                }
                "access_denied" => {
                    return Err(Failure::new("access_denied", "The login was denied"));
                }
                "expired_token" => break,
                _ => return Err(ApiError::Refused(problem).into()),
            },
            // A hub that restarts, a network that comes and goes: the code is good until it ends.
            Err(error @ ApiError::Unreachable { .. }) => {
                context.output.detail(|_| format!("the hub is not reached: {error:?}"));
            }
            Err(error @ (ApiError::Strange { .. } | ApiError::NoKey)) => return Err(error.into()),
        }
    }
    Err(Failure::new("expired_token", "Nobody approved this machine in time")
        .hint("run connect up again, or log in with a key: connect up --api-key pc_…"))
}

fn show(context: &Context<'_>, code: &DeviceCode) -> Result<(), Failure> {
    let event = json!({
        "event": "device_code",
        "userCode": code.user_code,
        "verificationUrl": code.verification_url,
        "expiresIn": code.expires_in,
    });
    context.output.data(&event, |face| {
        format!(
            "To let this machine in, open {}\nand approve the code {} within {} minutes.",
            face.remote(&code.verification_url),
            face.remote(&code.user_code),
            code.expires_in / 60
        )
    })
}

/// At once: the hub gives the key no second time.
async fn save(context: &Context<'_>, key: &Secret) {
    let Some(config) = &context.settings.config else { return };
    let hub = context.settings.hub.as_str().to_owned();
    let saved = config.change(|config| {
        config.hub = Some(hub.clone());
        config.hubs.entry(hub).or_default().api_key = Some(key.reveal().to_owned());
    });
    if let Err(failure) = saved.await {
        say_not_saved(context, &failure);
    }
}
