//! One agent's control connection: `GET /v1/agents/session`, a WebSocket whose connection is the actor.
//!
//! A peer that stops reading freezes this actor together with its timers, so nothing that must happen is left to it:
//! liveness is the watchdog's ([`super::watchdog`]), the end's facts are the session task's ([`super::settle`]).

use std::{sync::Arc, time::Duration};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Handler, Message, StreamHandler,
    WrapFuture as _,
};
use actix_web::{HttpRequest, HttpResponse, http::header, web};
use actix_web_actors::ws::{self, WebsocketContext};
use bytes::Bytes;
use domain::{agent::DisconnectReason, ids::RequestId};
use schemas::{
    frames::{
        BODY_BYTES_MAX, DataWanted, Frame, Goodbye, GoodbyeCode, HEADER_BYTES, Ping, Pong, SESSION_PATH,
        SUBPROTOCOL,
    },
    problem::Problem,
};
use socket2::Socket;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Gateway,
    acceptor::Connection,
    greeting::{Caller, Greeted},
    sessions::{Answer, Session, assigned, goodbye},
    settle::Report,
};
use crate::secrets::sha256;

/// What the hub wants this connection to do; the mailbox is the session's bounded outbox.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Order {
    Send(Frame),
    Ping,
    /// Tell the agent how many data connections are wanted by now.
    AskForData,
    /// Say goodbye and close.
    Leave(Goodbye),
}

/// The actor.
pub(crate) struct AgentSession {
    gateway: Gateway,
    caller: Caller,
    phase: Phase,
}

enum Phase {
    /// No hello yet; holds the second handle of the socket.
    Expecting(Option<Socket>),
    /// The hello is being judged.
    Greeting,
    Live(Arc<Session>, mpsc::Sender<Report>),
    Over,
}

/// Registers the route and its data on an actix-web application.
pub fn configure(gateway: Gateway) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| {
        config.service(
            web::resource(SESSION_PATH).app_data(web::Data::new(gateway)).route(web::get().to(open)),
        );
    }
}

/// `GET /v1/agents/session`. The application needs a [`Gateway`] as its data, and connections that were accepted by
/// [`super::acceptor`].
///
/// # Errors
/// When the request is no WebSocket handshake; every other refusal is an answer.
pub async fn open(
    request: HttpRequest,
    body: web::Payload,
    gateway: web::Data<Gateway>,
) -> actix_web::Result<HttpResponse> {
    let gateway = gateway.get_ref().clone();
    if gateway.is_draining() {
        return Ok(problem(503, "hub_draining", "The hub is stopping. Connect again in a moment."));
    }
    let Some(caller) = authenticate(&request, &gateway) else {
        return Ok(problem(
            401,
            "agent_token_invalid",
            "This agent token is unknown or no longer good. Register the agent again.",
        ));
    };
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).any(|offer| {
        offer.to_str().is_ok_and(|offer| offer.split(',').any(|name| name.trim() == SUBPROTOCOL))
    });
    if !offered {
        return Ok(problem(
            400,
            "subprotocol_required",
            "Agents speak the WebSocket sub-protocol pconnect.v1.",
        ));
    }
    // An agent has one connection for its session, so the socket's second handle goes with it.
    let Some(socket) = request.conn_data::<Connection>().and_then(Connection::take_socket) else {
        return Ok(problem(400, "connection_reused", "A session needs a connection of its own."));
    };
    let actor = AgentSession { gateway, caller, phase: Phase::Expecting(Some(socket)) };
    ws::WsResponseBuilder::new(actor, &request, body)
        .protocols(&[SUBPROTOCOL])
        .frame_size(HEADER_BYTES + BODY_BYTES_MAX)
        .start()
}

fn authenticate(request: &HttpRequest, gateway: &Gateway) -> Option<Caller> {
    let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let digest = sha256(token.trim().as_bytes());
    let (agent, entry) = gateway.parts().routes.agent_by_token(&digest, gateway.parts().clock.now())?;
    let token_hash = crate::secrets::hex(&digest);
    let token = entry.state.tokens.iter().find(|token| token.token_hash == token_hash)?;
    let workspace = entry.state.registered.as_ref()?.workspace_id;
    Some(Caller { agent, workspace, key: token.key_id, token_hash })
}

fn problem(status: u16, code: &str, message: &str) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).expect("a constant of this file");
    let mut answer = HttpResponse::build(status);
    if status == actix_web::http::StatusCode::UNAUTHORIZED {
        answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
    }
    answer.json(Problem {
        status_code: status.as_u16(),
        error: status.canonical_reason().unwrap_or_default().to_owned(),
        code: code.to_owned(),
        message: message.to_owned(),
        request_id: RequestId::new(Uuid::now_v7()).to_string(),
        details: vec![],
        retry_after: None,
    })
}

impl Actor for AgentSession {
    type Context = WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let settings = self.gateway.settings();
        ctx.set_mailbox_capacity(settings.outbox_max);
        // This timer may stand on the actor: before the welcome there is nothing that a peer could refuse to read.
        ctx.run_later(Duration::from_millis(settings.handshake_ms_max), |actor, ctx| {
            if matches!(actor.phase, Phase::Expecting(_) | Phase::Greeting) {
                actor.break_off(ctx, "no hello in time");
            }
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // The session's task notices by the end of this channel, also when the actor is dropped unheard.
        self.phase = Phase::Over;
    }
}

impl Handler<Order> for AgentSession {
    type Result = ();

    fn handle(&mut self, order: Order, ctx: &mut Self::Context) {
        match (order, &self.phase) {
            (Order::Leave(goodbye), _) => self.leave(ctx, goodbye),
            (Order::Send(frame), Phase::Live(..)) => send(ctx, &frame),
            (Order::Ping, Phase::Live(..)) => {
                send(ctx, &Frame::Ping(Ping { nonce: self.gateway.monotonic_ms() }));
            }
            (Order::AskForData, Phase::Live(session, _)) => {
                let wanted = session.wanted.swap(0, std::sync::atomic::Ordering::AcqRel);
                let count = u16::try_from(wanted).unwrap_or(u16::MAX);
                send(ctx, &Frame::DataWanted(DataWanted { count }));
            }
            (_, Phase::Expecting(_) | Phase::Greeting | Phase::Over) => {}
        }
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for AgentSession {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, ctx: &mut Self::Context) {
        match message {
            Ok(ws::Message::Binary(bytes)) => self.receive(&bytes, ctx),
            Ok(ws::Message::Ping(bytes)) => ctx.pong(&bytes),
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(reason)) => {
                ctx.close(reason);
                self.phase = Phase::Over;
                ctx.stop();
            }
            Ok(ws::Message::Text(_) | ws::Message::Continuation(_)) => {
                self.break_off(ctx, "frames are whole binary messages");
            }
            Err(ws::ProtocolError::Io(_)) => {
                self.phase = Phase::Over;
                ctx.stop();
            }
            Err(_) => self.break_off(ctx, "no WebSocket message, or one over the limit"),
        }
    }
}

impl AgentSession {
    fn receive(&mut self, bytes: &Bytes, ctx: &mut WebsocketContext<Self>) {
        let frame = match Frame::decode(bytes) {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => return self.break_off(ctx, &error.to_string()),
        };
        match (&mut self.phase, frame) {
            (Phase::Expecting(socket), Frame::Hello(hello)) => {
                let Some(socket) = socket.take() else { return };
                self.phase = Phase::Greeting;
                // Judged by a task of the gateway: a connection that breaks in the middle must not leave half a
                // session behind. Nothing else is read meanwhile.
                let greeting = self.gateway.spawn(super::greeting::greet(
                    self.gateway.clone(),
                    self.caller.clone(),
                    hello,
                    ctx.address(),
                    socket,
                ));
                ctx.wait(greeting.into_actor(self).map(|greeted, actor, ctx| match greeted {
                    Ok(Ok(greeted)) => actor.welcome(greeted, ctx),
                    Ok(Err(goodbye)) => actor.leave(ctx, goodbye),
                    Err(_) => actor.leave(ctx, goodbye(DisconnectReason::Drained)),
                }));
            }
            (Phase::Live(session, states), frame) => {
                let (session, states) = (Arc::clone(session), states.clone());
                self.live(&session, &states, frame, ctx);
            }
            (Phase::Expecting(_) | Phase::Greeting, _) => self.break_off(ctx, "the first frame is a hello"),
            (Phase::Over, _) => {}
        }
    }

    fn welcome(&mut self, greeted: Greeted, ctx: &mut WebsocketContext<Self>) {
        if !matches!(self.phase, Phase::Greeting) {
            return;
        }
        send(ctx, &Frame::Welcome(greeted.welcome));
        let routes = &self.gateway.parts().routes;
        for tunnel in routes.tunnels_of(self.caller.agent) {
            if let Some(details) = routes.tunnel(tunnel).as_ref().and_then(|entry| entry.state.open()) {
                send(ctx, &assigned(details));
            }
        }
        for order in self.gateway.waiting_orders(self.caller.agent) {
            send(ctx, &order);
        }
        self.phase = Phase::Live(greeted.session, greeted.states);
    }

    fn live(
        &mut self,
        session: &Arc<Session>,
        states: &mpsc::Sender<Report>,
        frame: Frame,
        ctx: &mut WebsocketContext<Self>,
    ) {
        match frame {
            Frame::Ping(Ping { nonce }) => send(ctx, &Frame::Pong(Pong { nonce })),
            Frame::Pong(_) => {
                session.answered_ms.store(self.gateway.monotonic_ms(), std::sync::atomic::Ordering::Release);
                session.answered.notify_waiters();
            }
            Frame::Goodbye(_) => {
                self.gateway.close(session, DisconnectReason::Left, None);
                self.phase = Phase::Over;
                ctx.close(None);
                ctx.stop();
            }
            Frame::TunnelState(state) => self.report(ctx, states, Report::Tunnel(state)),
            Frame::CommandTaken(taken) => self.report(ctx, states, Report::CommandTaken(taken.command)),
            Frame::CommandEnded(ended) => self.report(ctx, states, Report::CommandEnded(ended)),
            Frame::PortOpened(opened) => {
                session.questions.answer(opened.request, Answer::Port(opened.outcome));
            }
            Frame::CheckResult(result) => {
                session.questions.answer(result.request, Answer::Check(result.json));
            }
            Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::TunnelAssigned(_)
            | Frame::TunnelWithdrawn(_)
            | Frame::DataWanted(_)
            | Frame::OpenPort(_)
            | Frame::OpenUdpPort(_)
            | Frame::ClosePort(_)
            | Frame::Check(_)
            | Frame::CommandOrdered(_)
            | Frame::CheckReach(_)
            | Frame::StreamOpen(_)
            | Frame::StreamAccepted(_)
            | Frame::StreamRefused(_)
            | Frame::StreamAdopt(_)
            | Frame::LinkBegin(_)
            | Frame::LinkAdopt(_) => self.break_off(ctx, "a frame that an agent does not send here"),
        }
    }

    fn report(&mut self, ctx: &mut WebsocketContext<Self>, states: &mpsc::Sender<Report>, said: Report) {
        if states.try_send(said).is_err() {
            self.break_off(ctx, "more news than the log can take");
        }
    }

    fn break_off(&mut self, ctx: &mut WebsocketContext<Self>, what: &str) {
        tracing::info!(agent = %self.caller.agent, what, "agent session broke the protocol");
        if let Phase::Live(session, _) = &self.phase {
            self.gateway.close(session, DisconnectReason::Protocol, None);
        }
        self.leave(ctx, Goodbye { code: GoodbyeCode::Protocol, message: what.to_owned(), retry_after_ms: 0 });
    }

    fn leave(&mut self, ctx: &mut WebsocketContext<Self>, goodbye: Goodbye) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        send(ctx, &Frame::Goodbye(goodbye));
        ctx.close(None);
        self.phase = Phase::Over;
        ctx.stop();
    }
}

fn send(ctx: &mut WebsocketContext<AgentSession>, frame: &Frame) {
    match frame.encode() {
        Ok(bytes) => ctx.binary(bytes),
        // What the hub sends is under the limit by its own limits on names, hosts and messages.
        Err(error) => tracing::error!(%error, kind = frame.kind(), "a frame of the hub is too long"),
    }
}
