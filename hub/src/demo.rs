//! The demo site that `hub quickstart` shares when it is given no target: one page that says what just happened.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long to leave a listener alone that fails to accept.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Private Connect demo</title>
<style>
body { font: 1.1rem/1.6 system-ui, sans-serif; margin: 8vh auto; max-width: 44rem; padding: 0 1rem; }
pre { background: #f3f3f3; border-radius: .4rem; padding: 1rem; overflow: auto; }
</style>
</head>
<body>
<h1>It works.</h1>
<p>This page is served on the loopback address of the machine where the hub runs.
You see it through a share: visitor, hub, agent, target.</p>
<pre>you  ->  hub (share edge)  ->  agent  ->  this demo site</pre>
<p>Share something of your own:</p>
<pre>connect expose localhost:3000 --link</pre>
</body>
</html>
"#;

/// Serves the page on a free loopback port until it is told to stop.
///
/// # Errors
/// No loopback port could be bound.
pub async fn start(tasks: &TaskTracker, stop: CancellationToken) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let owner = tasks.clone();
    tasks.spawn(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((socket, _)) = accepted else {
                // Out of descriptors: give others the time to close some.
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            let stop = stop.clone();
            owner.spawn(async move {
                let serving = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(socket), service_fn(answer));
                stop.run_until_cancelled(serving).await
            });
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let response = Response::builder();
    let response = match request.uri().path() {
        "/" => response.header(header::CONTENT_TYPE, "text/html; charset=utf-8").body(Full::from(PAGE)),
        "/hello.txt" => response.header(header::CONTENT_TYPE, "text/plain").body(Full::from("hello\n")),
        _ => response.status(404).header(header::CONTENT_TYPE, "text/plain").body(Full::from("not found\n")),
    };
    Ok(response.expect("status and headers are constants"))
}
