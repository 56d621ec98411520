//! What ended so long ago that memory has forgotten it: answered as if it had not.

use domain::{
    ids::{ShareId, TunnelId},
    names::Name,
    share,
};
use futures_util::{StreamExt as _, stream};
use hub::{
    actors::Who,
    core::DEFAULT_WORKSPACE,
    creation::NewShare,
    secrets::{Seed, sha256},
};
use projections::routes::ENDED_KEPT_MAX;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Running, eventually};

/// Makes and revokes a share.
async fn come_and_go(hub: &Running, who: &Who, tunnel_id: TunnelId) {
    let new = NewShare {
        tunnel_id,
        name: Name::parse("brief").unwrap(),
        description: None,
        expires_at: None,
        allowed_paths: None,
        allowed_methods: None,
        rate_limit_per_min: None,
        subdomain: None,
        public: false,
        read_only: true,
    };
    let link = hub.hub.ports.creator.share(who, &Seed::random(), new).await.unwrap();
    let command = share::Command::Revoke { reason: share::RevokeReason::Requested };
    hub.hub.core.executor.share(link.id, who.clone(), command).await.unwrap();
}

#[actix::test]
async fn a_share_that_memory_has_forgotten_is_shown_listed_and_refused_with_its_reason() {
    let hub = Running::start().await;
    let tunnel = hub.tunnel("web").await;
    let share = hub
        .post(
            &format!("/v1/tunnels/{}/share", tunnel.text("id")),
            json!({ "name": "first", "description": "of many", "allowedPaths": ["/api/*"] }),
        )
        .await;
    let (id, token) = (share.text("id"), share.text("token"));
    let path = format!("/v1/shares/{id}");
    assert_eq!(hub.delete(&path).await.status, StatusCode::OK);
    let fresh = hub.get(&path).await;

    let who = Who::hub(hub.hub.core.workspace_named(DEFAULT_WORKSPACE).unwrap(), "test");
    let tunnel_id: TunnelId = tunnel.text("id").parse().unwrap();
    let many = stream::iter(0..ENDED_KEPT_MAX + 1);
    many.for_each_concurrent(512, |_| come_and_go(&hub, &who, tunnel_id)).await;
    let share_id: ShareId = id.parse().unwrap();
    eventually("memory has forgotten it", || async { hub.hub.core.routes.share(share_id).is_none() }).await;
    assert!(hub.hub.core.routes.share_by_token(&sha256(token.as_bytes())).is_none());
    eventually("only so many are kept", || async { hub.hub.core.routes.held().shares <= ENDED_KEPT_MAX })
        .await;

    let shown = hub.get(&path).await;
    assert_eq!((shown.status, &shown.body, &shown.etag), (StatusCode::OK, &fresh.body, &fresh.etag));
    assert_eq!(shown.body["isActive"], false);
    assert_eq!(hub.delete(&path).await.status, StatusCode::OK, "revoked already");
    assert_eq!(hub.get(&format!("{path}/logs")).await.status, StatusCode::OK);
    let info = hub.send(reqwest::Method::GET, &format!("/v1/shared/{token}/info"), &[], None).await;
    assert_eq!((info.status, info.code()), (StatusCode::FORBIDDEN, "share_revoked"));
    let edge = format!("http://{}/shared/{token}/api/x", hub.hub.edge_addr);
    assert_eq!(crate::support::client().get(edge).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    eventually("the refusal is in the share's log", || async {
        hub.get(&format!("{path}/logs")).await.body["logs"][0]["denied"] == "share_revoked"
    })
    .await;
    hub.stop().await;
}
