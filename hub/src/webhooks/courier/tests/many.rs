//! Many webhooks cost the log one reader.

use domain::ids::WorkspaceId;

use super::*;

/// Webhooks of as many workspaces.
const WEBHOOKS: u128 = 1_000;

#[test]
fn a_thousand_webhooks_do_not_read_the_log_a_thousand_times() {
    in_virtual_time(async |mut rig: Rig| {
        for n in 1..=WEBHOOKS {
            rig.webhook_in(WorkspaceId::new(Uuid::from_u128(n)), n, &["tunnel.created"]).await;
        }
        rig.start();
        rig.wait(5).await;
        let before = rig.memory.given();
        for round in 0..100 {
            for n in 1..=10 {
                let of = WorkspaceId::new(Uuid::from_u128(round * 10 % WEBHOOKS + n));
                let stream = StreamName::parse("tunnel-of-somebody").unwrap();
                rig.happens_in(of, stream, "tunnel.created", "{}").await;
            }
            rig.wait(1).await;
        }
        let read = rig.memory.given() - before;
        assert_eq!(rig.came().len(), 1_000, "each was told its own");
        // Each fact once to be sorted, and once to make its message from.
        assert!(read < 5_000, "{read} events were read");
        rig.stop().await;
    });
}
