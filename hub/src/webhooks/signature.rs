//! Secrets of webhooks, and what is signed with them.
//!
//! A secret is drawn from the webhook's id and the number of the draw with a key of the keyring: it is in no event, view
//! or backup of the log, and a repeated command gives the same one. Signatures are those of Standard Webhooks 1.0, and
//! the older form of a hexadecimal HMAC of the body alone.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::ids::WebhookId;
use ring::hmac;
use uuid::Uuid;

use crate::secrets::{Secret, hex};

/// How secrets of webhooks begin.
const PREFIX: &str = "whsec_";

/// Draws the secrets of this hub's webhooks.
#[derive(Debug)]
pub struct Secrets(hmac::Key);

impl Secrets {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn bytes(&self, webhook: WebhookId, draw: Uuid) -> hmac::Tag {
        hmac::sign(&self.0, format!("webhook {webhook} {draw}").as_bytes())
    }

    /// A secret as its receiver is told it, once.
    pub fn shown(&self, webhook: WebhookId, draw: Uuid) -> Secret {
        Secret::brought(&format!("{PREFIX}{}", STANDARD.encode(self.bytes(webhook, draw))))
    }

    /// What a secret signs with: the decoded bytes.
    pub fn key(&self, webhook: WebhookId, draw: Uuid) -> SigningKey {
        SigningKey(hmac::Key::new(hmac::HMAC_SHA256, self.bytes(webhook, draw).as_ref()))
    }
}

/// A decoded secret.
#[derive(Debug)]
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// One entry of `webhook-signature`.
    pub fn standard(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp_s}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
    /// The value of `X-Webhook-Signature`.
    pub fn of_body(&self, body: &[u8]) -> String {
        format!("sha256={}", hex(hmac::sign(&self.0, body).as_ref()))
    }
}

/// The headers that carry a message's signatures; of several secrets the current one comes first.
pub fn headers(keys: &[SigningKey], id: &str, timestamp_s: i64, body: &[u8]) -> Vec<(&'static str, String)> {
    let all: Vec<String> = keys.iter().map(|key| key.standard(id, timestamp_s, body)).collect();
    let mut headers = vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp_s.to_string()),
        ("webhook-signature", all.join(" ")),
    ];
    let mut of_body = keys.iter().map(|key| key.of_body(body));
    headers.extend(of_body.next().map(|value| ("x-webhook-signature", value)));
    // One header has one value there: receivers that have not changed over yet find theirs in this one.
    headers.extend(of_body.next().map(|value| ("x-webhook-signature-previous", value)));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(secret: &str) -> SigningKey {
        let bytes = STANDARD.decode(secret.strip_prefix(PREFIX).unwrap()).unwrap();
        SigningKey(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
    }

    #[test]
    fn a_signature_is_the_one_of_the_standards_own_example() {
        // The vector of the public libraries' tests.
        let key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = key.standard("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_has_32_bytes_and_is_another_for_every_webhook_and_draw() {
        let secrets = Secrets::new(&[7; 32]);
        let (webhook, draw) = (WebhookId::new(Uuid::from_u128(1)), Uuid::from_u128(2));
        let shown = secrets.shown(webhook, draw);
        let bytes = STANDARD.decode(shown.reveal().strip_prefix(PREFIX).unwrap()).unwrap();
        assert_eq!(bytes.len(), 32);
        assert_eq!(shown, secrets.shown(webhook, draw), "drawn again it is the same");
        assert_ne!(shown, secrets.shown(webhook, Uuid::from_u128(3)));
        assert_ne!(shown, secrets.shown(WebhookId::new(Uuid::from_u128(4)), draw));
        assert_ne!(shown, Secrets::new(&[8; 32]).shown(webhook, draw));
        let of_shown = key_of(shown.reveal()).of_body(b"x");
        assert_eq!(secrets.key(webhook, draw).of_body(b"x"), of_shown, "both sign with the decoded bytes");
    }

    #[test]
    fn during_a_rotation_both_secrets_sign() {
        let secrets = Secrets::new(&[7; 32]);
        let webhook = WebhookId::new(Uuid::from_u128(1));
        let keys = [2, 1].map(|draw| secrets.key(webhook, Uuid::from_u128(draw)));
        let headers = headers(&keys, "evt_1", 5, b"{}");
        let value = |name: &str| headers.iter().find(|(it, _)| *it == name).map(|(_, value)| value.clone());
        let standard = value("webhook-signature").unwrap();
        assert_eq!(standard.split(' ').count(), 2);
        assert!(standard.starts_with(&keys[0].standard("evt_1", 5, b"{}")));
        assert_eq!(value("x-webhook-signature"), Some(keys[0].of_body(b"{}")));
        assert_eq!(value("x-webhook-signature-previous"), Some(keys[1].of_body(b"{}")));
    }
}
