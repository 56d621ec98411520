//! Which events outsiders hear of by name: what a webhook can be subscribed to, and what `*` stands for.

/// Every type that a webhook can name, in the order of the documentation. `*` means exactly these.
pub const TYPES: [&str; 24] = [
    "tunnel.created",
    "tunnel.updated",
    "tunnel.connected",
    "tunnel.disconnected",
    "tunnel.paused",
    "tunnel.resumed",
    "tunnel.expired",
    "tunnel.deleted",
    "share.created",
    ACCESSED,
    "share.expired",
    "share.revoked",
    "agent.registered",
    "agent.connected",
    "agent.disconnected",
    "agent.deleted",
    "environment.shared",
    "environment.joined",
    "environment.expired",
    "environment.revoked",
    "service.healthy",
    "service.unhealthy",
    "query.executed",
    "webhook.disabled",
];

/// Visitors used a share: many to a message, and only for those who ask for it.
pub const ACCESSED: &str = "share.accessed";

/// Whether outsiders hear of events of this type.
pub fn is_public(event_type: &str) -> bool {
    TYPES.contains(&event_type)
}

/// What an event of a public type says, for documentation; `None` for another type.
pub fn words(event_type: &str) -> Option<&'static str> {
    Some(match event_type {
        "tunnel.created" => "A tunnel was created.",
        "tunnel.updated" => "A tunnel's name, target, metadata or visibility changed.",
        "tunnel.connected" => "The exposing agent can dial the tunnel's target.",
        "tunnel.disconnected" => {
            "A tunnel cannot be used: its agent left, or cannot or may not dial the target."
        }
        "tunnel.paused" => "A tunnel takes no new connections.",
        "tunnel.resumed" => "A tunnel takes connections again.",
        "tunnel.expired" => "A tunnel's time was over.",
        "tunnel.deleted" => "A tunnel is gone, with its connections and shares.",
        "share.created" => "A link exists.",
        ACCESSED => {
            "Visitors used a link: 1-100 accesses in one message, oldest first, at most one a second for each share."
        }
        "share.expired" => "A link's time was over.",
        "share.revoked" => "A link was revoked.",
        "agent.registered" => "An agent may connect.",
        "agent.connected" => "An agent's session began.",
        "agent.disconnected" => "An agent's session ended.",
        "agent.deleted" => "An agent is gone, with its tunnels.",
        "environment.shared" => "An environment was shared.",
        "environment.joined" => "An agent joined an environment share.",
        "environment.expired" => "An environment share's time was over.",
        "environment.revoked" => "An environment share was revoked.",
        "service.healthy" => "A watched service is well.",
        "service.unhealthy" => "A watched service is not well.",
        "query.executed" => "A visitor of a database's link ran a query.",
        "webhook.disabled" => "A webhook is sent nothing until somebody enables it.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_public_type_has_words_and_no_other_has() {
        assert!(TYPES.iter().all(|it| words(it).is_some()));
        for other in ["*", "", "claim.taken", "key.created", "webhook.test"] {
            assert!(words(other).is_none() && !is_public(other), "{other}");
        }
        let mut sorted = TYPES.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), TYPES.len(), "no type twice");
    }
}
