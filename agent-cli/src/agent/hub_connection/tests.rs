//! Connections to hubs that speak TLS, to hubs that do not, and to hubs that nobody vouches for.

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use wire::tls::{VERSIONS, provider, trust::Trust};

use super::*;

/// A hub that says one byte, and whoever believes its certificate.
async fn hub(names: &[&str]) -> (HubAddress, Arc<ClientConfig>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), made.cert.pem()).unwrap();
    let believing = config(&Trust::File(file.path().to_owned()).client_config().unwrap());
    let mut accepting = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], made.signing_key.into())
        .unwrap();
    accepting.alpn_protocols = vec![AGENT.to_vec()];
    let accepting = Arc::new(accepting);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            if let Ok(mut encrypted) = tls::accept(Arc::clone(&accepting), socket).await {
                let resumed = u8::from(encrypted.is_resumed());
                encrypted.write_all(&[resumed]).await.unwrap();
                encrypted.flush().await.unwrap();
                kept.push(encrypted);
            }
        }
    });
    (HubAddress::parse(&url).unwrap(), believing)
}

#[tokio::test]
async fn later_connections_of_an_agent_take_up_the_session_of_the_first() {
    let (hub, config) = hub(&["127.0.0.1"]).await;
    let mut resumed = Vec::new();
    for _ in 0..3 {
        let mut connection = connect(&hub, &config).await.unwrap();
        resumed.push(connection.read_u8().await.unwrap());
    }
    assert_eq!(resumed, [0, 1, 1]);
}

#[tokio::test]
async fn a_hub_that_is_not_believed_is_not_spoken_to_and_the_error_says_what_to_do() {
    let (named, believing_it) = hub(&["127.0.0.1"]).await;
    let (misnamed, believing_the_other) = hub(&["hub.example"]).await;
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_hub = HubAddress::parse(&format!("https://{}", plain.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = plain.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Closed after the other side: what was written would be lost otherwise.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    for (hub, config, words) in [
        (&named, &believing_the_other, "--ca FILE"),
        (&misnamed, &believing_the_other, "not for 127.0.0.1 but for hub.example"),
        (&plain_hub, &believing_it, "begins with http://"),
    ] {
        let error = connect(hub, config).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
