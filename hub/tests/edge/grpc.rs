//! Calls of gRPC: over HTTP/2 all the way, with their trailers, and few connections for many of them.

use std::{
    sync::{atomic::Ordering, mpsc},
    time::Instant,
};

use bytes::Bytes;
use domain::{access::Denied, access::EndedBy, share};
use h2::{RecvStream, server::SendResponse};
use http::Request;
use hub::running::Under;

use crate::{
    h2_side::{Visitor, call_head, message, rest, status, target},
    harness::{PATIENCE, Rig, share_id},
};

fn call(visitor: &Visitor, method: &str) -> Request<()> {
    let mut request = visitor.request("POST", &format!("/shop.Orders/{method}"));
    request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request
}

/// Echoes messages as they come, and ends with a status of its own; `Fail` answers with trailers only.
async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    assert_eq!(head.headers["te"], "trailers");
    if head.uri.path().ends_with("/Fail") {
        let mut only = call_head();
        only.headers_mut().extend(status(9));
        only.headers_mut().insert("grpc-message", "not now".parse().unwrap());
        respond.send_response(only, true).unwrap();
        return;
    }
    if head.uri.path().ends_with("/Reset") {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        return;
    }
    let mut answer = call_head();
    answer.headers_mut().insert("x-authority", head.uri.authority().unwrap().as_str().parse().unwrap());
    let mut answer = respond.send_response(answer, false).unwrap();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        if answer.send_data(data, false).is_err() {
            return;
        }
    }
    let _ = answer.send_trailers(status(0));
}

#[test]
fn messages_go_back_and_forth_while_the_call_runs_and_trailers_end_it() {
    let rig = Rig::new(target(echo));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let (open, mut upload) = visitor.open(call(&visitor, "Chat")).await;
        let response = open.0.await.unwrap();
        let target = rig.routes.tunnel(crate::harness::tunnel_id()).unwrap();
        let target = target.state.open().unwrap().created.target.to_string();
        assert_eq!(response.headers()["x-authority"], target);
        let mut body = response.into_body();
        for n in 0..10 {
            // The next one is sent when the one before it has come back.
            upload.send_data(message(&n.to_string()), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), message(&n.to_string()));
        }
        upload.send_data(Bytes::new(), true).unwrap();
        let (left, trailers) = rest(body).await.unwrap();
        assert!(left.is_empty());
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    });
    let (access, _) = &rig.records(1)[0];
    assert_eq!((access.status_code, access.bytes_in, access.bytes_out, access.ended_by), (200, 60, 60, None));
}

#[test]
fn an_error_in_trailers_only_arrives_as_it_is() {
    let rig = Rig::new(target(echo));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let (open, mut upload) = visitor.open(call(&visitor, "Fail")).await;
        upload.send_data(message("x"), true).unwrap();
        let response = open.0.await.unwrap();
        assert!(response.body().is_end_stream(), "there is nothing but the head");
        assert_eq!(
            (&response.headers()["grpc-status"], &response.headers()["grpc-message"]),
            (&"9".parse().unwrap(), &"not now".parse().unwrap())
        );
    });
}

#[test]
fn the_reason_of_a_targets_reset_reaches_the_visitor() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Arc::new(parking_lot::Mutex::new(wait));
    let rig = Rig::new(target(move |_, mut respond: SendResponse<Bytes>| {
        let wait = std::sync::Arc::clone(&wait);
        async move {
            let mut answer = respond.send_response(call_head(), false).unwrap();
            answer.send_data(message("begin"), false).unwrap();
            tokio::task::spawn_blocking(move || wait.lock().recv().unwrap()).await.unwrap();
            answer.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
        }
    }));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let response = visitor.start(call(&visitor, "Watch")).await.0.await.unwrap();
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), message("begin"));
        go.send(()).unwrap();
        assert_eq!(rest(body).await.unwrap_err().reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    });
    assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Upstream));
}

#[test]
fn many_calls_share_few_connections_to_the_target() {
    let rig = Rig::new(target(echo));
    rig.block_on(async {
        let visitors = [Visitor::to(&rig).await, Visitor::to(&rig).await, Visitor::to(&rig).await];
        let mut running = Vec::new();
        for n in 0..300 {
            let visitor = &visitors[n % 3];
            let (open, mut upload) = visitor.open(call(visitor, "Chat")).await;
            upload.send_data(message(&n.to_string()), false).unwrap();
            let mut body = open.0.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), message(&n.to_string()));
            running.push((body, upload));
        }
        let opened = rig.streams.opened_http2.load(Ordering::SeqCst);
        assert!((3..=4).contains(&opened), "{opened} connections for 300 calls");
        for (body, mut upload) in running {
            upload.send_data(Bytes::new(), true).unwrap();
            assert_eq!(rest(body).await.unwrap().1.unwrap()["grpc-status"], "0");
        }
    });
    assert_eq!(rig.streams.opened.load(Ordering::SeqCst), rig.streams.opened_http2.load(Ordering::SeqCst));
    rig.records(300);
}

#[test]
fn a_call_that_the_visitor_gives_up_is_given_up_at_the_target() {
    let (ended, has_ended) = mpsc::channel();
    let rig = Rig::new(target(move |request, mut respond: SendResponse<Bytes>| {
        let ended = ended.clone();
        async move {
            let _answer = respond.send_response(call_head(), false).unwrap();
            let error = rest(request.into_body()).await.unwrap_err();
            ended.send((Instant::now(), error.reason())).unwrap();
        }
    }));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let (open, mut upload) = visitor.open(call(&visitor, "Watch")).await;
        let response = open.0.await.unwrap();
        let left = Instant::now();
        upload.send_reset(h2::Reason::CANCEL);
        drop(response);
        let ended = tokio::task::spawn_blocking(move || has_ended.recv_timeout(PATIENCE).unwrap());
        let (at, reason) = ended.await.unwrap();
        assert!((at - left).as_secs_f32() < 1.0);
        assert_eq!(reason, Some(h2::Reason::CANCEL));
        // The connection to the target serves on.
        assert_eq!(rig.streams.opened_http2.load(Ordering::SeqCst), 1);
    });
    assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Visitor));
}

#[test]
fn a_refusal_is_a_status_of_grpc() {
    let rig = Rig::new(target(echo));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        rig.streams.is_connected.store(false, Ordering::SeqCst);
        let refused = visitor.start(call(&visitor, "Chat")).await.whole().await;
        assert_eq!((refused.status.as_u16(), refused.grpc_status()), (200, Some("14")));
        assert_eq!(refused.headers["content-type"], "application/grpc");
        rig.streams.is_connected.store(true, Ordering::SeqCst);
        let reason = share::RevokeReason::Requested;
        rig.apply_to_share(share::Event::Revoked(share::ShareRevoked { reason }));
        let refused = visitor.start(call(&visitor, "Chat")).await.whole().await;
        assert_eq!(refused.grpc_status(), Some("7"));
        assert_eq!(refused.headers["grpc-message"], "This link was revoked by its owner.");
    });
    // The record says what it would have been for anybody else.
    let records = rig.records(2);
    let told: Vec<_> = records.iter().map(|(access, _)| (access.status_code, access.denied)).collect();
    assert_eq!(told, [(503, Some(Denied::AgentOffline)), (403, Some(Denied::ShareRevoked))]);
}

#[test]
fn a_running_call_ends_with_its_share_and_says_why() {
    let rig = Rig::new(target(echo));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let (open, mut upload) = visitor.open(call(&visitor, "Chat")).await;
        let mut body = open.0.await.unwrap().into_body();
        upload.send_data(message("x"), false).unwrap();
        body.data().await.unwrap().unwrap();
        let revoked = Instant::now();
        let reason = share::RevokeReason::Requested;
        rig.apply_to_share(share::Event::Revoked(share::ShareRevoked { reason }));
        rig.running.end(Under::Share(share_id()));
        let (_, trailers) = rest(body).await.unwrap();
        assert_eq!(trailers.unwrap()["grpc-status"], "7");
        assert!(revoked.elapsed().as_secs_f32() < 1.0);
    });
    assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Revoked));
}

#[test]
fn a_target_that_does_not_speak_http_2_is_unavailable() {
    let rig = Rig::new(crate::harness::answering(|_, _| crate::harness::ok("no")));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let failed = visitor.start(call(&visitor, "Chat")).await.whole().await;
        assert_eq!(failed.grpc_status(), Some("14"));
        assert_eq!(visitor.get("/").await.text(), "no", "other requests go as HTTP/1.1");
    });
}

#[test]
fn a_connection_that_the_target_closed_is_opened_anew() {
    let rig = Rig::new(target(|request: Request<RecvStream>, mut respond: SendResponse<Bytes>| async move {
        let mut answer = call_head();
        answer.headers_mut().extend(status(0));
        // A connection error takes the whole connection along.
        if request.uri().path().ends_with("/Last") {
            answer.headers_mut().insert("x-last", "1".parse().unwrap());
        }
        respond.send_response(answer, true).unwrap();
    }));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        for _ in 0..3 {
            let whole = visitor.start(call(&visitor, "Get")).await.whole().await;
            assert_eq!(whole.grpc_status(), Some("0"));
        }
        assert_eq!(rig.streams.opened_http2.load(Ordering::SeqCst), 1);
    });
}
