//! One id has one spelling.

use super::*;

#[test]
fn an_id_reads_back_as_it_was_shown() {
    let uuid = Uuid::from_u128(0x0192_f0c1_0000_7000_8000_0000_0000_0001);
    let tunnel = TunnelId::new(uuid);
    assert_eq!(tunnel.to_string(), "tun_0192f0c1000070008000000000000001");
    assert_eq!(tunnel.to_string().parse(), Ok(tunnel));
    let agent = AgentId::new(uuid);
    assert_eq!(agent.to_string(), "0192f0c1-0000-7000-8000-000000000001");
    assert_eq!(agent.to_string().parse(), Ok(agent));
}

#[test]
fn one_id_has_one_spelling() {
    for text in [
        "tun_123",
        "tun_",
        "",
        "share_0192f0c1000070008000000000000001",
        "tun_0192F0C1000070008000000000000001",
        "tun_0192f0c1-0000-7000-8000-000000000001",
        "tun_0192f0c10000700080000000000000011",
    ] {
        assert!(text.parse::<TunnelId>().is_err(), "{text} was read as a tunnel id");
    }
    for text in [
        "0192F0C1-0000-7000-8000-000000000001",
        "{0192f0c1-0000-7000-8000-000000000001}",
        "0192f0c1000070008000000000000001",
    ] {
        assert!(text.parse::<AgentId>().is_err(), "{text} was read as an agent id");
    }
}
