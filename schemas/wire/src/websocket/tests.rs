//! Bytes in messages: whole in whatever pieces, each direction with an end of its own, and alive in silence.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::{TcpListener, TcpStream},
};

use super::*;

async fn pair() -> (Carrier, Carrier) {
    let (client, server) = tokio::io::duplex(8 * 1024);
    let carrier = |end: DuplexStream| Carrier::Wrapped(Box::new(end));
    (Messages::over(carrier(client), End::Client).await, Messages::over(carrier(server), End::Server).await)
}

async fn sockets() -> (Carrier, Carrier) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Messages::over(client.into(), End::Client).await, Messages::over(server.into(), End::Server).await)
}

#[test]
fn the_answer_to_a_key_is_that_of_the_rfc() {
    assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[tokio::test]
async fn bytes_arrive_whole_both_ways_in_whatever_pieces_and_each_direction_ends_by_itself() {
    for piece in [1, 125, 126, 4_096, 65_536, 200_000] {
        let (client, server) = pair().await;
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let up = async {
            for piece in sent.chunks(piece) {
                to_client.write_all(piece).await.unwrap();
                to_client.flush().await.unwrap();
            }
            to_client.shutdown().await.unwrap();
        };
        let back = async {
            let mut seen = Vec::new();
            from_server.read_to_end(&mut seen).await.unwrap();
            assert!(seen == sent, "{piece}");
            // The client has said all; the server has not.
            to_server.write_all(&seen[..1_000]).await.unwrap();
            to_server.shutdown().await.unwrap();
        };
        let mut answer = Vec::new();
        let ((), (), read) = tokio::join!(up, back, from_client.read_to_end(&mut answer));
        read.unwrap();
        assert!(answer == sent[..1_000], "{piece}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_an_error_and_no_end() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"half of it").await.unwrap();
    client.flush().await.unwrap();
    drop(client);
    let mut seen = Vec::new();
    assert!(server.read_to_end(&mut seen).await.is_err());
    assert_eq!(seen, b"half of it");
    assert!(client_after_end(&mut server).await.is_err());
}

async fn client_after_end(carrier: &mut Carrier) -> io::Result<()> {
    carrier.shutdown().await?;
    carrier.write_all(b"more").await
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_sends_a_ping_now_and_then() {
    let (near, mut far) = tokio::io::duplex(1_024);
    let mut server = Messages::over(Carrier::Wrapped(Box::new(near)), End::Server).await;
    let waiting = tokio::spawn(async move { server.read_u8().await });
    for _ in 0..3 {
        let began = Instant::now();
        // Unmasked, final, a ping without a body (RFC 6455, section 5.2).
        assert_eq!(far.read_u16().await.unwrap(), 0x8900);
        assert_eq!(began.elapsed().as_secs(), PING_EVERY.as_secs());
    }
    waiting.abort();
}

#[tokio::test]
async fn it_goes_from_one_runtime_to_another_between_two_bytes() {
    let (mut client, mut server) = sockets().await;
    client.write_all(b"one").await.unwrap();
    client.flush().await.unwrap();
    let mut seen = [0; 1];
    server.read_exact(&mut seen).await.unwrap();
    let parked = Parked::park(server).unwrap();
    assert!(parked.is_idle_and_alive());
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut server = parked.adopt().unwrap();
            let mut rest = [0; 2];
            server.read_exact(&mut rest).await.unwrap();
            server.write_all(&rest).await.unwrap();
            server.shutdown().await.unwrap();
            rest
        })
    });
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!((other.join().unwrap(), answer.as_slice()), (*b"ne", b"ne".as_slice()));
}

#[tokio::test]
async fn a_reset_passes_through() {
    let (mut client, mut server) = sockets().await;
    client.reset();
    drop(client);
    assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    std::future::poll_fn(|cx| server.poll_broken(cx)).await;
}
