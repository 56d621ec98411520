//! What is freed is what was seen, on real actors and a real log.

use std::{net::Ipv4Addr, sync::Arc};

use domain::{
    agent::{self, AgentRegistered, Token},
    ids::AgentId,
    names::Name,
    target::{Protocol, Target},
    tunnel::TunnelUpdated,
};
use tempfile::TempDir;

use super::*;
use crate::{
    core::Core,
    creation::{CreateError, NewTunnel, PortPool},
    secrets::Seed,
};

struct Rig {
    core: Core,
    creator: Creator,
    who: Who,
    agent: AgentId,
    _data: TempDir,
}

impl Rig {
    async fn new() -> Self {
        let data = TempDir::new().unwrap();
        let core = Core::open(data.path()).await.unwrap();
        let workspace = core.create_workspace("acme").await.unwrap();
        let who = Who::hub(workspace, "test");
        let agent = AgentId::new(Uuid::now_v7());
        let now = core.clock.now();
        let registered = AgentRegistered {
            agent_id: agent,
            workspace_id: workspace,
            label: name("laptop"),
            name: name("alice"),
            client_type: None,
            ephemeral: false,
            token: Token { token_hash: "ab".repeat(32), expires_at: now.plus_ms(60_000), key_id: None },
        };
        let command = agent::Command::Register { agent: registered, now, takeover: agent::Takeover::Any };
        core.executor.agent(agent, who.clone(), command).await.unwrap();
        let ports = PortPool::new(10_000..=31_999, Ipv4Addr::LOCALHOST.into(), std::iter::empty());
        let creator =
            Creator::new(core.executor.clone(), Arc::clone(&core.routes), core.clock.clone(), ports);
        Self { core, creator, who, agent, _data: data }
    }

    async fn tunnel(&self, called: &str) -> Result<TunnelId, CreateError> {
        let new = NewTunnel {
            agent_id: self.agent,
            name: Some(name(called)),
            target: Target::parse("localhost:3000").unwrap(),
            protocol: Protocol::Http,
            is_public: false,
            expires_at: None,
        };
        self.creator.tunnel(&self.who, &Seed::random(), new).await.map(|(id, _)| id)
    }

    async fn rename(&self, id: TunnelId, called: &str) {
        let update = TunnelUpdated { name: Some(name(called)), ..TunnelUpdated::default() };
        self.creator.update(&self.who, id, update).await.unwrap();
    }

    fn key(&self, called: &str) -> String {
        name_key(self.who.workspace, called)
    }

    fn holding(&self, called: &str) -> Option<ClaimTaken> {
        holding(&self.creator.routes, &claim_stream(ClaimKind::TunnelName, &self.key(called)))
    }

    async fn release(&self, called: &str, id: TunnelId) {
        let (key, holder) = (self.key(called), id.to_string());
        release(&self.creator, self.who.clone(), ClaimKind::TunnelName, &key, &holder).await.unwrap();
    }

    async fn stop(self) {
        self.core.close().await;
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[actix::test]
async fn a_tunnel_that_took_its_old_name_back_between_look_and_release_keeps_it() {
    let rig = Rig::new().await;
    let id = rig.tunnel("a").await.unwrap();
    rig.rename(id, "b").await;
    // The follower has looked: the tunnel is named b, so a is to be freed.
    let seen = rig.holding("a").unwrap();
    assert!(!holds(&rig.creator.routes, &seen));
    rig.rename(id, "a").await;
    // Only now its release gets through.
    let stream = claim_stream(ClaimKind::TunnelName, &rig.key("a"));
    free(&rig.creator, rig.who.clone(), stream, seen).await.unwrap();
    assert_eq!(rig.holding("a").unwrap().holder, id.to_string());
    assert_eq!(rig.tunnel("a").await, Err(CreateError::NameTaken(name("a"))));
    rig.stop().await;
}

#[actix::test]
async fn a_name_is_freed_once_its_tunnel_has_another_and_not_before() {
    let rig = Rig::new().await;
    let id = rig.tunnel("a").await.unwrap();
    rig.release("a", id).await;
    assert!(rig.holding("a").is_some(), "it is in use");
    rig.rename(id, "b").await;
    rig.release("a", id).await;
    assert_eq!(rig.holding("a"), None);
    let other = rig.tunnel("a").await.unwrap();
    rig.release("a", id).await;
    assert_eq!(rig.holding("a").unwrap().holder, other.to_string(), "it is another's now");
    rig.stop().await;
}

#[actix::test]
async fn nothing_is_freed_while_a_renaming_is_between_its_claim_and_its_change() {
    let rig = Rig::new().await;
    let id = rig.tunnel("a").await.unwrap();
    rig.rename(id, "b").await;
    let kept = rig.creator.keep_name(id).await;
    let claim = ClaimTaken { command_id: Uuid::now_v7(), ..rig.holding("a").unwrap() };
    let stream = claim_stream(ClaimKind::TunnelName, &rig.key("a"));
    let again = claim::Command::TakeAgain { claim, now: rig.core.clock.now() };
    rig.core.executor.claim(stream, rig.who.clone(), again).await.unwrap();
    {
        let release = rig.release("a", id);
        tokio::pin!(release);
        assert!(futures_util::poll!(release.as_mut()).is_pending(), "it waits for the renaming");
        let back = TunnelUpdated { name: Some(name("a")), ..TunnelUpdated::default() };
        let command = domain::tunnel::Command::Update(back);
        rig.core.executor.tunnel(id, rig.who.clone(), command).await.unwrap();
        drop(kept);
        release.await;
    }
    assert_eq!(rig.holding("a").unwrap().holder, id.to_string());
    rig.stop().await;
}

#[actix::test]
async fn an_ended_holders_claim_is_freed_also_when_nobody_had_confirmed_it() {
    let rig = Rig::new().await;
    let id = rig.tunnel("a").await.unwrap();
    let delete = domain::tunnel::Command::Delete { reason: domain::tunnel::DeleteReason::Requested };
    rig.core.executor.tunnel(id, rig.who.clone(), delete).await.unwrap();
    rig.release("a", id).await;
    assert_eq!(rig.holding("a"), None);
    let (key, holder) = (rig.key("a"), id.to_string());
    let late = confirm(&rig.core.executor, rig.who.clone(), ClaimKind::TunnelName, &key, holder).await;
    assert_eq!(late, Ok(()), "a confirmation that comes too late is no trouble");
    rig.stop().await;
}
