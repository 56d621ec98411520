//! Accesses that leave the log before they were delivered are told as skipped, each once; younger ones are waited for.

use super::*;

const AGE_S: u64 = AGE_MS_MAX.unsigned_abs() / 1_000;

/// What was told of what was left out.
async fn skipped(rig: &Rig) -> Vec<(u64, String, String)> {
    let recorded = rig.recorded("webhook.skipped").await;
    let read = |it: &domain::recorded::Recorded| -> (u64, String, String) {
        let data: serde_json::Value = serde_json::from_str(&it.data).unwrap();
        let text = |field: &str| data[field].as_str().unwrap().to_owned();
        (data["count"].as_u64().unwrap(), text("from"), text("to"))
    };
    recorded.iter().map(read).collect()
}

fn head(rig: &Rig) -> u64 {
    *rig.log.head().borrow()
}

#[test]
fn what_was_delivered_or_concerns_nobody_holds_nothing() {
    in_virtual_time(async |mut rig: Rig| {
        rig.webhook(1, &["share.accessed"]).await;
        rig.webhook(2, &["tunnel.created"]).await;
        let webhooks = rig.start();
        rig.accessed(5, 3).await;
        rig.wait(5).await;
        assert_eq!(rig.came().len(), 1);
        let up_to = head(&rig);
        for force in [false, true] {
            assert_eq!(webhooks.let_go(up_to, force).await, Ok(up_to));
        }
        assert!(skipped(&rig).await.is_empty());
        rig.stop().await;
        assert_eq!(webhooks.let_go(up_to, false).await, Err(NoCourier), "nobody can say");
    });
}

#[test]
fn what_a_webhook_waits_for_is_held_and_let_go_with_its_exact_count() {
    in_virtual_time(async |mut rig: Rig| {
        let off = rig.webhook(1, &["share.accessed"]).await;
        let on = rig.webhook(2, &["share.accessed"]).await;
        rig.change(off, Changes { is_active: Some(false), ..Changes::default() }).await;
        let webhooks = rig.start();
        rig.wait(1).await;
        let first = rig.clock.now();
        rig.accessed(5, 3).await;
        rig.wait(10).await;
        rig.accessed(6, 150).await;
        let last = rig.clock.now();
        let up_to = head(&rig);
        rig.wait(60).await;
        rig.accessed(5, 7).await;
        rig.wait(10).await;
        let free = webhooks.let_go(up_to, false).await.unwrap();
        assert!(free < up_to, "one of them was told nothing yet");
        assert!(skipped(&rig).await.is_empty());
        rig.wait(AGE_S).await;
        for _ in 0..2 {
            assert_eq!(webhooks.let_go(up_to, true).await, Ok(up_to));
        }
        assert_eq!(
            skipped(&rig).await,
            [(153, first.to_string(), last.to_string())],
            "once, and for one of the two"
        );
        rig.forget();
        rig.change(off, Changes { is_active: Some(true), ..Changes::default() }).await;
        rig.wait(60).await;
        let came = rig.came();
        let of = |id: domain::ids::WebhookId| {
            came.iter().filter(|it| it.header("x-webhook-id") == id.to_string()).collect::<Vec<_>>()
        };
        // The seven are too old by now, and are told of as well.
        let told: Vec<_> = of(off).iter().map(|it| it.body["data"]["count"].as_u64()).collect();
        assert_eq!(told, [Some(153), Some(7)]);
        assert!(of(on).is_empty(), "it has had everything");
        rig.stop().await;
    });
}

#[test]
fn messages_that_wait_for_a_dead_endpoint_are_given_up_and_counted() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["*"]).await;
        rig.answers(fails(Problem::Unreachable));
        let webhooks = rig.start();
        for share in 0..4 {
            rig.accessed(share, 10).await;
            rig.wait(2).await;
        }
        let up_to = head(&rig);
        let created = rig.happens(1, "tunnel.created").await;
        rig.wait(60).await;
        assert!(webhooks.let_go(up_to, false).await.unwrap() < up_to);
        rig.wait(2 * 86_400).await;
        assert_eq!(webhooks.let_go(up_to, true).await, Ok(up_to));
        let told = skipped(&rig).await;
        assert_eq!(told.iter().map(|it| it.0).sum::<u64>(), 40, "{told:?}");
        rig.answers(says(200));
        rig.forget();
        rig.change(id, Changes { is_active: Some(true), ..Changes::default() }).await;
        rig.wait(86_400).await;
        let types: Vec<_> = rig.came().iter().map(|it| it.header("x-webhook-event").to_owned()).collect();
        assert!(types.contains(&"webhook.skipped".to_owned()), "{types:?}");
        assert!(rig.came().iter().any(|it| it.id() == created.to_string()), "facts stay in the log");
        assert!(!types.contains(&"share.accessed".to_owned()), "{types:?}");
        rig.stop().await;
    });
}

/// It is noted that something was left out, and the log's answer to the telling is this.
fn a_crash_after(fault: Fault) {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["share.accessed"]).await;
        rig.change(id, Changes { is_active: Some(false), ..Changes::default() }).await;
        let webhooks = rig.start();
        for _ in 0..5 {
            rig.accessed(5, 4).await;
        }
        let up_to = head(&rig);
        rig.wait(AGE_S + 60).await;
        rig.memory.inject_on("webhook-", fault);
        assert_eq!(webhooks.let_go(up_to, true).await, Err(NoCourier), "it does not know");
        rig.crash();
        let webhooks = rig.start();
        rig.wait(5).await;
        for _ in 0..2 {
            assert_eq!(webhooks.let_go(up_to, true).await, Ok(up_to));
            assert_eq!(skipped(&rig).await.iter().map(|it| it.0).collect::<Vec<_>>(), [20]);
        }
        rig.stop().await;
    });
}

#[test]
fn a_crash_between_noting_and_telling_tells_once() {
    a_crash_after(Fault::Refuse("the disk is full".to_owned()));
    a_crash_after(Fault::InDoubtWritten);
    a_crash_after(Fault::InDoubtLost);
}

#[test]
fn what_was_too_old_is_counted_once_although_every_step_is_interrupted() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["tunnel.created"]).await;
        rig.change(id, Changes { is_active: Some(false), ..Changes::default() }).await;
        for n in 0..600 {
            rig.happens(n, "tunnel.created").await;
        }
        rig.wait(AGE_S + 60).await;
        rig.change(id, Changes { is_active: Some(true), ..Changes::default() }).await;
        for round in 0..12_u64 {
            let fault = if round % 2 == 0 { Fault::InDoubtWritten } else { Fault::InDoubtLost };
            rig.memory.inject_on(if round % 3 == 0 { "deliveries-" } else { "webhook-" }, fault);
            rig.start();
            tokio::time::sleep(Duration::from_millis(round * 17)).await;
            rig.crash();
        }
        rig.start();
        rig.wait(600).await;
        let told = skipped(&rig).await;
        assert_eq!(told.iter().map(|it| it.0).sum::<u64>(), 600, "{told:?}");
        rig.stop().await;
    });
}
