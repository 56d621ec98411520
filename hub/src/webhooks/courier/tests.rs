//! What receivers get, and when, whatever they answer and whatever crashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use domain::{
    delivery::{AGE_MS_MAX, Problem, Said},
    recorded::StreamName,
    webhook::{Changes, Command, DisableReason},
};
use uuid::Uuid;

use super::super::{
    NoCourier,
    rig::{Came, Rig, at_once, fails, in_virtual_time, says},
    sending::Reply,
};
use crate::event_log::memory::Fault;

mod letting_go;
mod many;

fn sequences(came: &[Came]) -> Vec<u64> {
    came.iter().map(Came::sequence).collect()
}

/// Each message's first appearance, in the order in which they came.
fn firsts(came: &[Came]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    came.iter().map(|it| it.id().to_owned()).filter(|id| seen.insert(id.clone())).collect()
}

#[test]
fn every_matching_event_is_delivered_once_and_in_order_and_no_other() {
    in_virtual_time(async |mut rig: Rig| {
        rig.happens(1, "tunnel.created").await;
        let id = rig.webhook(1, &["tunnel.created", "tunnel.paused"]).await;
        rig.start();
        let mut expected = Vec::new();
        for n in 0..20 {
            let event_type = if n % 3 == 0 { "tunnel.created" } else { "tunnel.paused" };
            expected.push(rig.happens(n, event_type).await.to_string());
            rig.happens(n, "tunnel.resumed").await;
            let foreign = domain::ids::WorkspaceId::new(Uuid::from_u128(8));
            let stream = StreamName::parse("tunnel-of-another").unwrap();
            rig.happens_in(foreign, stream, "tunnel.paused", "{}").await;
        }
        rig.wait(5).await;
        let came = rig.came();
        let ids: Vec<_> = came.iter().map(|it| it.body["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, expected, "nothing from before the webhook, nothing of another workspace");
        assert_eq!(sequences(&came), (1..=20).collect::<Vec<_>>());
        let first = &came[0];
        assert_eq!(first.header("x-webhook-event"), "tunnel.created");
        assert_eq!(first.header("x-webhook-id"), id.to_string());
        assert_eq!(
            (&first.body["type"], &first.body["event"]),
            (&"tunnel.created".into(), &"tunnel.created".into())
        );
        assert_eq!(first.body["workspaceId"], rig.workspace.to_string());
        assert_eq!(first.body["data"]["tunnelId"], "tun_00000000000000000000000000000000");
        rig.stop().await;
    });
}

#[test]
fn a_message_is_signed_anew_at_every_try_and_its_id_stays() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["*"]).await;
        rig.answers(says(500));
        rig.start();
        rig.happens(1, "tunnel.created").await;
        rig.wait(400).await;
        let came = rig.came();
        assert_eq!(came.len(), 3, "at once, after 5 s, after 5 min");
        let key = rig.secrets().key(id, Uuid::from_u128(40));
        for it in &came {
            let stamp: i64 = it.header("webhook-timestamp").parse().unwrap();
            assert_eq!(stamp, it.at.millis() / 1_000, "the time of the try");
            assert_eq!(it.header("webhook-signature"), key.standard(it.id(), stamp, &it.raw));
            assert_eq!(it.header("x-webhook-signature"), key.of_body(&it.raw));
            assert_eq!((it.id(), &it.raw), (came[0].id(), &came[0].raw));
        }
        rig.stop().await;
    });
}

#[test]
fn retries_come_on_schedule_within_the_jitter_and_end_with_a_dead_letter() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["*"]).await;
        let mut problems = [Problem::TimedOut, Problem::BrokenOff, Problem::NotHttp, Problem::Unreachable]
            .into_iter()
            .cycle();
        rig.script(move |_| at_once(problems.next().map_or(says(302), fails)));
        rig.start();
        rig.happens(1, "tunnel.created").await;
        rig.wait(5 * 86_400).await;
        let came = rig.came();
        let pauses: Vec<i64> =
            came.windows(2).map(|pair| pair[1].at.millis() - pair[0].at.millis()).collect();
        let planned: Vec<i64> =
            [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400].map(|s| s * 1_000).into();
        assert_eq!(pauses.len(), planned.len(), "{pauses:?}");
        for (pause, planned) in pauses.iter().zip(planned) {
            assert!((pause - planned).abs() <= planned / 10 + 50, "{pause} ms for {planned} ms");
        }
        assert!(pauses.iter().any(|pause| pause % 1_000 != 0), "no jitter: {pauses:?}");
        // One message is no reason to give the endpoint up: the next one is tried.
        rig.answers(says(200));
        rig.happens(2, "tunnel.created").await;
        rig.wait(1).await;
        assert_eq!(sequences(&rig.came()).last(), Some(&2));
        assert!(rig.routes.webhook(id).unwrap().state.live().unwrap().is_active());
        rig.stop().await;
    });
}

#[test]
fn a_receiver_that_is_gone_gets_nothing_more_until_somebody_enables_it() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["tunnel.created"]).await;
        rig.answers(says(410));
        rig.start();
        rig.happens(1, "tunnel.created").await;
        rig.happens(2, "tunnel.created").await;
        rig.wait(86_400).await;
        assert_eq!(rig.came().len(), 1);
        let disabled = rig.routes.webhook(id).unwrap().state.live().unwrap().disabled;
        assert_eq!(disabled, Some(DisableReason::Gone));
        assert_eq!(rig.recorded("webhook.disabled").await.len(), 1);
        rig.crash();
        rig.start();
        rig.happens(3, "tunnel.created").await;
        rig.wait(86_400).await;
        assert_eq!(rig.came().len(), 1, "not after a restart either");
        rig.answers(says(200));
        rig.change(id, Changes { is_active: Some(true), ..Changes::default() }).await;
        rig.wait(5).await;
        assert_eq!(sequences(&rig.came()), [1, 2, 3], "what happened meanwhile has waited");
        rig.stop().await;
    });
}

#[test]
fn a_crash_between_a_receivers_last_word_and_its_record_sends_nothing_more() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["*"]).await;
        rig.answers(says(410));
        rig.start();
        // The courier notes the answer, and cannot record that the webhook is disabled.
        rig.memory.inject_on("webhook-", Fault::Refuse("the disk is full".to_owned()));
        rig.happens(1, "tunnel.created").await;
        rig.happens(2, "tunnel.created").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        rig.crash();
        rig.start();
        rig.wait(60).await;
        assert_eq!(rig.came().len(), 1);
        assert!(!rig.routes.webhook(id).unwrap().state.live().unwrap().is_active());
        rig.stop().await;
    });
}

#[test]
fn a_receiver_that_asks_for_time_gets_it() {
    in_virtual_time(async |mut rig: Rig| {
        rig.webhook(1, &["*"]).await;
        let mut asked = 0;
        rig.script(move |_| {
            asked += 1;
            let busy = Reply { said: Said::Status(503), asked_ms: Some(120_000) };
            at_once(if asked == 1 { busy } else { says(204) })
        });
        rig.start();
        rig.happens(1, "tunnel.created").await;
        rig.happens(2, "tunnel.created").await;
        rig.wait(300).await;
        let times: Vec<i64> = rig.came().iter().map(Came::seconds).collect();
        assert_eq!(times[0], 0);
        assert!((120..=122).contains(&times[1]) && (120..=122).contains(&times[2]), "{times:?}");
        rig.stop().await;
    });
}

#[test]
fn an_endpoint_that_is_down_is_tried_by_its_oldest_message_and_drains_in_order_without_a_flood() {
    in_virtual_time(async |mut rig: Rig| {
        rig.webhook(1, &["*"]).await;
        rig.answers(fails(Problem::Unreachable));
        rig.start();
        for n in 0..1_200 {
            rig.happens(n, "tunnel.created").await;
        }
        rig.wait(3 * 3_600).await;
        let tries = rig.came().len();
        assert!(tries < 15, "{tries} tries for 1,200 messages");
        rig.answers(says(200));
        rig.forget();
        rig.wait(6 * 3_600).await;
        let came = rig.came();
        assert_eq!(sequences(&came), (1..=1_200).collect::<Vec<_>>());
        for window in came.windows(101) {
            let span = window[100].at.millis() - window[0].at.millis();
            assert!(span >= 990, "a hundred messages in {span} ms");
        }
        let all = came[1_199].at.millis() - came[0].at.millis();
        assert!(all < 60_000, "the backlog took {all} ms");
        rig.stop().await;
    });
}

#[test]
fn an_endpoint_that_takes_nothing_for_five_days_is_disabled_with_an_event() {
    in_virtual_time(async |mut rig: Rig| {
        let (dead, other) =
            (rig.webhook(1, &["tunnel.created"]).await, rig.webhook(2, &["webhook.disabled"]).await);
        rig.script(|came| at_once(if came.url.contains("//1.") { says(500) } else { says(200) }));
        rig.start();
        for n in 0..5 {
            rig.happens(n, "tunnel.created").await;
        }
        rig.wait(9 * 86_400).await;
        let state = |id| rig.routes.webhook(id).unwrap().state.live().unwrap().disabled;
        assert_eq!((state(dead), state(other)), (Some(DisableReason::Failing), None));
        let told: Vec<_> = rig.came().into_iter().filter(|it| it.url.contains("//2.")).collect();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].body["data"]["webhookId"], dead.to_string());
        assert_eq!(told[0].body["data"]["reason"], "failing");
        rig.stop().await;
    });
}

#[test]
fn a_slow_or_dead_endpoint_delays_no_other() {
    in_virtual_time(async |mut rig: Rig| {
        for n in 1..=20 {
            rig.webhook(n, &["tunnel.created"]).await;
        }
        rig.script(|came| {
            if came.url.contains("//20.") {
                at_once(says(200))
            } else {
                (Duration::from_secs(15), fails(Problem::TimedOut))
            }
        });
        rig.start();
        for n in 0..50 {
            rig.happens(n, "tunnel.created").await;
        }
        rig.wait(5).await;
        let well = rig.came().into_iter().filter(|it| it.url.contains("//20.")).count();
        assert_eq!(well, 50, "within five seconds, beside nineteen that do not answer");
        rig.stop().await;
    });
}

#[test]
fn nothing_is_lost_or_reordered_by_crashes_however_the_receiver_fails() {
    in_virtual_time(async |mut rig: Rig| {
        rig.schedule("1s,2s,4s,8s,16s,32s,64s");
        let id = rig.webhook(1, &["tunnel.created"]).await;
        let mut count = 0_u32;
        rig.script(move |_| {
            count += 1;
            match count % 7 {
                0 => (Duration::from_secs(15), fails(Problem::TimedOut)),
                1 => at_once(says(500)),
                2 => at_once(Reply { said: Said::Status(429), asked_ms: Some(3_000) }),
                3 => at_once(fails(Problem::BrokenOff)),
                _ => (Duration::from_millis(u64::from(count % 5) * 30), says(200)),
            }
        });
        let mut expected = Vec::new();
        for round in 0..50_u64 {
            rig.start();
            for n in 0..4 {
                expected.push(rig.happens(n, "tunnel.created").await.to_string());
            }
            tokio::time::sleep(Duration::from_millis(20 + round * 137 % 3_000)).await;
            rig.crash();
        }
        rig.answers(says(200));
        rig.start();
        rig.wait(7_200).await;
        let came = rig.came();
        assert_eq!(firsts(&came), expected, "each first came in its order, and none was skipped");
        let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
        for it in &came {
            assert_eq!(*numbers.entry(it.id()).or_insert(it.sequence()), it.sequence(), "{}", it.id());
        }
        // And every one was taken in the end.
        rig.stop().await;
        let known = super::stored::read(&rig.log, id).await.unwrap().unwrap();
        assert_eq!(known.backlog.pending(), 0);
    });
}

#[test]
fn a_hub_that_stops_in_peace_sends_nothing_twice() {
    in_virtual_time(async |mut rig: Rig| {
        rig.webhook(1, &["*"]).await;
        rig.script(|_| (Duration::from_millis(100), says(200)));
        for round in 0..10 {
            rig.start();
            for n in 0..5 {
                rig.happens(n, "tunnel.created").await;
            }
            tokio::time::sleep(Duration::from_millis(250 + round * 7)).await;
            rig.stop().await;
        }
        rig.start();
        rig.wait(30).await;
        assert_eq!(sequences(&rig.came()), (1..=50).collect::<Vec<_>>());
        rig.stop().await;
    });
}

#[test]
fn a_log_that_takes_no_writes_for_a_while_costs_nothing_but_time() {
    in_virtual_time(async |mut rig: Rig| {
        rig.webhook(1, &["*"]).await;
        rig.start();
        let mut expected = Vec::new();
        for n in 0..30 {
            expected.push(rig.happens(n, "tunnel.created").await.to_string());
            let fault = match n % 4 {
                0 => Fault::Refuse("full".to_owned()),
                1 => Fault::InDoubtWritten,
                2 => Fault::InDoubtLost,
                _ => Fault::Conflict,
            };
            rig.memory.inject_on("deliveries-", fault);
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        rig.wait(120).await;
        assert_eq!(firsts(&rig.came()), expected);
        rig.stop().await;
    });
}

#[test]
fn what_was_too_long_ago_is_left_out_and_said() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["tunnel.created"]).await;
        rig.change(id, Changes { is_active: Some(false), ..Changes::default() }).await;
        rig.start();
        let first = rig.clock.now();
        for n in 0..600 {
            rig.happens(n, "tunnel.created").await;
        }
        let last = rig.clock.now();
        rig.wait(u64::try_from(AGE_MS_MAX / 1_000).unwrap() - 60).await;
        let kept = rig.happens(1, "tunnel.created").await;
        rig.wait(120).await;
        assert!(rig.came().is_empty(), "it is not active");
        rig.change(id, Changes { is_active: Some(true), ..Changes::default() }).await;
        rig.wait(30).await;
        let came = rig.came();
        let types: Vec<_> = came.iter().map(|it| it.header("x-webhook-event").to_owned()).collect();
        assert_eq!(types, ["tunnel.created", "webhook.skipped"]);
        assert_eq!(came[0].id(), kept.to_string());
        let data = &came[1].body["data"];
        assert_eq!(data["count"], 600);
        assert_eq!((&data["from"], &data["to"]), (&first.to_string().into(), &last.to_string().into()));
        assert_eq!(rig.recorded("webhook.skipped").await.len(), 1, "once, however many steps it took");
        rig.stop().await;
    });
}

#[test]
fn accesses_are_gathered_to_one_message_a_second_for_each_share() {
    in_virtual_time(async |mut rig: Rig| {
        rig.webhook(1, &["share.accessed"]).await;
        rig.webhook(2, &["tunnel.created"]).await;
        rig.start();
        for _ in 0..40 {
            rig.accessed(5, 2).await;
            rig.accessed(6, 1).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        rig.wait(10).await;
        let came = rig.came();
        for share in [5_u128, 6] {
            let id = domain::ids::ShareId::new(Uuid::from_u128(share)).to_string();
            let of_share: Vec<&Came> =
                came.iter().filter(|it| it.body["data"]["shareId"] == id.as_str()).collect();
            for pair in of_share.windows(2) {
                let pause = pair[1].at.millis() - pair[0].at.millis();
                assert!(pause >= 990, "two messages about one share in {pause} ms");
            }
            let accesses: Vec<String> = of_share
                .iter()
                .flat_map(|it| it.body["data"]["accesses"].as_array().unwrap())
                .map(|it| it["id"].as_str().unwrap().to_owned())
                .collect();
            let distinct: BTreeSet<&String> = accesses.iter().collect();
            assert_eq!(distinct.len(), accesses.len());
            assert_eq!(accesses.len(), if share == 5 { 80 } else { 40 });
        }
        assert!(came.iter().all(|it| it.url.contains("//1.")), "nobody else asked for accesses");
        rig.stop().await;
    });
}

#[test]
fn a_share_that_is_used_too_much_holds_up_nothing_else() {
    in_virtual_time(async |mut rig: Rig| {
        rig.webhook(1, &["*"]).await;
        rig.start();
        for _ in 0..60 {
            rig.accessed(5, 100).await;
        }
        rig.wait(2).await;
        rig.forget();
        let fact = rig.happens(1, "tunnel.created").await.to_string();
        rig.wait(3).await;
        assert!(rig.came().iter().any(|it| it.id() == fact), "it did not wait for 6,000 accesses");
        rig.wait(90).await;
        let sizes: Vec<usize> =
            rig.came().iter().filter_map(|it| Some(it.body["data"]["accesses"].as_array()?.len())).collect();
        assert!(sizes.iter().all(|size| *size == 100) && sizes.len() >= 56, "{sizes:?}");
        rig.stop().await;
    });
}

#[test]
fn a_change_of_what_is_wanted_counts_from_there_on() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["tunnel.created"]).await;
        // Nobody reads while all of this happens.
        let before = rig.happens(1, "tunnel.created").await;
        rig.happens(1, "tunnel.paused").await;
        let types = |it: &str| domain::webhook::Filter::parse(&[it.to_owned()]).ok();
        rig.change(id, Changes { events: types("tunnel.paused"), ..Changes::default() }).await;
        rig.happens(1, "tunnel.created").await;
        let after = rig.happens(1, "tunnel.paused").await;
        rig.start();
        rig.wait(5).await;
        let ids: Vec<_> = rig.came().iter().map(|it| it.id().to_owned()).collect();
        assert_eq!(ids, [before.to_string(), after.to_string()]);
        rig.stop().await;
    });
}

#[test]
fn a_replay_sends_again_what_is_wanted_now_and_goes_on() {
    in_virtual_time(async |mut rig: Rig| {
        let start = *rig.log.head().borrow();
        let old = rig.happens(1, "tunnel.created").await;
        let id = rig.webhook(1, &["tunnel.created", "tunnel.paused"]).await;
        let webhooks = rig.start();
        let one = rig.happens(1, "tunnel.paused").await;
        rig.wait(5).await;
        let types = domain::webhook::Filter::parse(&["tunnel.created".to_owned()]).ok();
        rig.change(id, Changes { events: types, ..Changes::default() }).await;
        let two = rig.happens(2, "tunnel.created").await;
        rig.wait(5).await;
        webhooks.replay(id, start).await.unwrap();
        rig.wait(5).await;
        rig.crash();
        rig.start();
        let three = rig.happens(3, "tunnel.created").await;
        rig.wait(5).await;
        let ids: Vec<_> = rig.came().iter().map(|it| it.id().to_owned()).collect();
        let expected = [one, two, old, two, three].map(|it| it.to_string());
        assert_eq!(ids, expected, "what it is no longer subscribed to is not replayed");
        assert_eq!(sequences(&rig.came()), [1, 2, 3, 4, 5]);
        rig.stop().await;
    });
}

#[test]
fn a_redelivery_is_the_same_message_and_waits_for_nobody() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["*"]).await;
        let webhooks = rig.start();
        rig.happens(1, "tunnel.created").await;
        rig.wait(1).await;
        let (first, position) = (rig.came()[0].clone(), *rig.log.head().borrow());
        // The endpoint is down, and its backlog waits.
        rig.answers(says(500));
        for n in 0..5 {
            rig.happens(n, "tunnel.created").await;
        }
        rig.wait(3_600).await;
        rig.forget();
        let noted = rig.recorded("tunnel.created").await[0].position;
        assert!(noted <= position);
        let again = |n: u128| super::super::Again {
            delivery_id: domain::ids::DeliveryId::new(Uuid::from_u128(n)),
            message_id: first.id().parse().unwrap(),
            event_type: "tunnel.created".to_owned(),
            source: domain::delivery::Source::Event { position: noted },
        };
        webhooks.redeliver(id, again(1)).await.unwrap();
        webhooks.redeliver(id, again(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let came = rig.came();
        assert_eq!(came.len(), 1, "asked for twice under one id it is one");
        assert_eq!((came[0].id(), &came[0].body["data"]), (first.id(), &first.body["data"]));
        // Switched off it is still sent what somebody asks for.
        rig.change(id, Changes { is_active: Some(false), ..Changes::default() }).await;
        rig.forget();
        webhooks.redeliver(id, again(2)).await.unwrap();
        rig.wait(3_600).await;
        let numbers = sequences(&rig.came());
        assert_eq!(numbers.iter().filter(|it| **it == 8).count(), 1, "{numbers:?}");
        rig.stop().await;
        assert_eq!(webhooks.redeliver(id, again(3)).await, Err(NoCourier));
    });
}

#[test]
fn both_secrets_sign_for_a_day_after_a_rotation() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["*"]).await;
        rig.start();
        let draw = Uuid::from_u128(41);
        rig.tell(id, Command::RotateSecret { draw, now: rig.clock.now() }).await;
        rig.happens(1, "tunnel.created").await;
        rig.wait(86_400).await;
        rig.happens(1, "tunnel.created").await;
        rig.wait(1).await;
        let counts: Vec<usize> =
            rig.came().iter().map(|it| it.header("webhook-signature").split(' ').count()).collect();
        assert_eq!(counts, [2, 1]);
        let newest = &rig.came()[1];
        assert_eq!(newest.header("x-webhook-signature"), rig.secrets().key(id, draw).of_body(&newest.raw));
        rig.stop().await;
    });
}

#[test]
fn a_deleted_webhook_is_sent_nothing() {
    in_virtual_time(async |mut rig: Rig| {
        let id = rig.webhook(1, &["*"]).await;
        rig.answers(says(500));
        rig.start();
        rig.happens(1, "tunnel.created").await;
        rig.wait(1).await;
        rig.tell(id, Command::Delete).await;
        rig.happens(2, "tunnel.created").await;
        rig.wait(86_400).await;
        assert_eq!(rig.came().len(), 1);
        rig.stop().await;
    });
}
