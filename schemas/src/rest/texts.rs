//! How texts look in JSON: the shapes of names, ids, times and words, for the description of the API alone.
//!
//! Bodies carry plain text (the hub checks and converts it at its rim); these types give a field its shape in
//! `/openapi.json` by `#[schema(value_type = …)]`. A pattern says what the hub accepts, no more and no less (of IPv6
//! addresses, whose spellings are many, it names the common ones): `ops/api-fuzz` sends texts from both sides of it.

#![expect(dead_code, reason = "nobody makes one of these: their shapes are what they are for")]

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

/// A name or label of 1 to 100 characters: no control characters, no white space at either end.
#[derive(ToSchema)]
#[schema(
    pattern = r"^[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028-\u202f\u205f\u2066-\u2069\u3000]([^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]{0,98}[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028-\u202f\u205f\u2066-\u2069\u3000])?$"
)]
pub struct Name(String);

/// Up to 500 characters; line breaks are the only control characters.
#[derive(ToSchema)]
#[schema(pattern = r"^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]{0,500}$")]
pub struct Description(String);

/// A number with `m`, `h` or `d`, from `1m` to `365d`.
#[derive(ToSchema)]
#[schema(
    example = "24h",
    pattern = r"^0*([1-9][0-9]{0,4}m|[1-4][0-9]{5}m|5[01][0-9]{4}m|52[0-4][0-9]{3}m|525[0-5][0-9]{2}m|525600m|[1-9][0-9]{0,2}h|[1-7][0-9]{3}h|8[0-6][0-9]{2}h|87[0-5][0-9]h|8760h|[1-9][0-9]?d|[12][0-9]{2}d|3[0-5][0-9]d|36[0-5]d)$"
)]
pub struct Span(String);

/// How long something lives: a number with `m`, `h` or `d`, from `1m` to `365d`, or `never`.
#[derive(ToSchema)]
#[schema(
    example = "24h",
    pattern = r"^(never|0*([1-9][0-9]{0,4}m|[1-4][0-9]{5}m|5[01][0-9]{4}m|52[0-4][0-9]{3}m|525[0-5][0-9]{2}m|525600m|[1-9][0-9]{0,2}h|[1-7][0-9]{3}h|8[0-6][0-9]{2}h|87[0-5][0-9]h|8760h|[1-9][0-9]?d|[12][0-9]{2}d|3[0-5][0-9]d|36[0-5]d))$"
)]
pub struct Lifetime(String);

/// A moment in UTC, with milliseconds.
#[derive(ToSchema)]
#[schema(
    format = DateTime,
    example = "2026-03-02T10:00:00.000Z",
    pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"
)]
pub struct Moment(String);

/// An agent's id: a UUID in lower case.
#[derive(ToSchema)]
#[schema(
    example = "550e8400-e29b-41d4-a716-446655440000",
    pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
)]
pub struct AgentId(String);

/// A workspace's id.
#[derive(ToSchema)]
#[schema(pattern = r"^ws_[0-9a-f]{32}$")]
pub struct WorkspaceId(String);

/// A key's id.
#[derive(ToSchema)]
#[schema(pattern = r"^key_[0-9a-f]{32}$")]
pub struct KeyId(String);

/// A tunnel's id. Services are tunnels.
#[derive(ToSchema)]
#[schema(pattern = r"^tun_[0-9a-f]{32}$")]
pub struct TunnelId(String);

/// A share's id.
#[derive(ToSchema)]
#[schema(pattern = r"^share_[0-9a-f]{32}$")]
pub struct ShareId(String);

/// A request's id, which the hub's operator finds its cause by.
#[derive(ToSchema)]
#[schema(pattern = r"^req_[0-9a-f]{32}$")]
pub struct RequestId(String);

/// An address, or a range of them as CIDR.
#[derive(ToSchema)]
#[schema(
    example = "192.0.2.0/24",
    pattern = r"^(((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(/(3[0-2]|[0-2]?[0-9]))?|(([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,7}:|([0-9A-Fa-f]{1,4}:){1,6}:[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,5}(:[0-9A-Fa-f]{1,4}){1,2}|([0-9A-Fa-f]{1,4}:){1,4}(:[0-9A-Fa-f]{1,4}){1,3}|([0-9A-Fa-f]{1,4}:){1,3}(:[0-9A-Fa-f]{1,4}){1,4}|([0-9A-Fa-f]{1,4}:){1,2}(:[0-9A-Fa-f]{1,4}){1,5}|[0-9A-Fa-f]{1,4}:(:[0-9A-Fa-f]{1,4}){1,6}|:(:[0-9A-Fa-f]{1,4}){1,7}|::)(/(12[0-8]|1[01][0-9]|[0-9]?[0-9]))?)$"
)]
pub struct IpRange(String);

/// A host name or an address; an IPv6 address may stand in brackets.
#[derive(ToSchema)]
#[schema(
    example = "localhost",
    pattern = r"^((?![^:]{254}[^:]|[^:]{253}[^.:]$)(?!(.*\.)?([0-9]+|0[xX][0-9A-Fa-f]*)\.?$)([0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?\.)*[0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?\.?|((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])|(([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,7}:|([0-9A-Fa-f]{1,4}:){1,6}:[0-9A-Fa-f]{1,4}|::1|::)|\[(([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,7}:|([0-9A-Fa-f]{1,4}:){1,6}:[0-9A-Fa-f]{1,4}|::1|::)\])$"
)]
pub struct Host(String);

/// `host:port`; an IPv6 address stands in brackets.
#[derive(ToSchema)]
#[schema(
    example = "localhost:3000",
    pattern = r"^((?![^:]{254}[^:]|[^:]{253}[^.:]:)(?!(.*\.)?([0-9]+|0[xX][0-9A-Fa-f]*)\.?:)([0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?\.)*[0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?\.?|((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])|\[(([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|([0-9A-Fa-f]{1,4}:){1,7}:|([0-9A-Fa-f]{1,4}:){1,6}:[0-9A-Fa-f]{1,4}|::1|::)\]):0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
)]
pub struct HostAndPort(String);

/// A path of up to 500 characters, in which `*` stands for any characters of one segment and a trailing `/*` for everything below. Written
/// without percent-encoding, query, or what servers disagree about.
#[derive(ToSchema)]
#[schema(
    example = "/api/*",
    pattern = "^(?!.*([.\\s](/|$)|\\*\\*|//))/[^\\u0000-\\u001f\\u007f-\\u009f?#%\\\\;\\u00a5\\u00ad\\u034f\\u037e\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2024-\\u2026\\u2028-\\u202e\\u2044\\u2047-\\u2049\\u2060-\\u206f\\u20a9\\u2100\\u2101\\u2105\\u2106\\u2215\\u2216\\u2488-\\u249b\\u29f5\\u29f8\\u29f9\\u3164\\u33c2\\u33c7\\u33d8\\ufe00-\\ufe19\\ufe30-\\ufe6f\\ufeff\\uff00-\\uffff\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{1f100}\u{e0000}-\u{e0fff}]{0,499}$"
)]
pub struct PathRule(String);

/// The first label of a host name, 3 to 63 characters: lower-case letters, digits and hyphens inside, but none as third and fourth
/// character. Names that a hub's operator needs (`www`, `api`, `mail`) cannot be had, and taken ones are refused.
#[derive(ToSchema)]
#[schema(
    example = "acme-demo",
    pattern = r"^(?!(abuse|account|accounts|acme-challenge|admin|administrator|agent|agents|api|app|assets|auth|autoconfig|autodiscover|billing|blog|broadcasthost|cdn|connect|dashboard|debug|demo|device|dns|docs|download|downloads|edge|email|example|ftp|git|graphql|health|help|hostmaster|hub|image|images|imap|info|internal|invalid|isatap|link|links|livez|local|localdomain|localhost|login|logout|mail|metrics|mta-sts|news|noc|noreply|ns0|ns1|ns2|ns3|ns4|oauth|openapi|ops|pay|payment|pop|pop3|postmaster|private-connect|privateconnect|proxy|public|readyz|register|root|secure|security|server|share|shared|shares|signin|signup|smtp|ssh|ssl|sso|static|status|support|sysadmin|system|test|tunnel|tunnels|usenet|uucp|vpn|web|webhook|webhooks|webmail|webmaster|wpad|www)$)[a-z0-9][a-z0-9-]([a-z0-9]([a-z0-9-]{0,59}[a-z0-9])?|-[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?)$"
)]
pub struct Subdomain(String);

/// How a tunnel's target is spoken to; `auto` looks.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Protocol {
    Auto,
    Tcp,
    Udp,
    Http,
    Https,
}

/// What a tunnel does now.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum TunnelStatus {
    Active,
    Paused,
    Connecting,
    Error,
}

/// What a tunnel's status can be set to.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum TunnelSwitch {
    Active,
    Paused,
}

/// What a key may do: `admin` everything, `write` includes `read`, `agent` registers and runs agents.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Scope {
    Admin,
    Write,
    Read,
    Agent,
}

/// A method that a share lets through; HEAD goes with GET.
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// What a short-lived agent runs for.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub enum ClientType {
    Cursor,
    ClaudeCode,
    Codex,
    Devin,
    GithubActions,
    Cli,
    Sdk,
    Other,
}

/// Whether an agent's `connect` is there.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum AgentStatus {
    Online,
    Offline,
}

/// The code of an environment share. In paths case does not matter.
#[derive(ToSchema)]
#[schema(example = "x7k9m2", pattern = r"^[a-hjkmnp-z1-9]{6}$")]
pub struct EnvironmentCode(String);

/// A number with `m`, `h` or `d`, from `1m` to `7d`.
#[derive(ToSchema)]
#[schema(
    example = "24h",
    pattern = r"^0*([1-9][0-9]{0,3}m|100[0-7][0-9]m|10080m|[1-9][0-9]?h|1[0-5][0-9]h|16[0-8]h|[1-7]d)$"
)]
pub struct WeekSpan(String);

/// Whether an agent has joined, or the owner has to approve it first.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum JoinState {
    Joined,
    Pending,
}

/// What the owner decided.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Decision {
    Approved,
    Denied,
}

/// Why a subdomain cannot be chosen; `current`: the service has it.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum SubdomainState {
    Invalid,
    Reserved,
    Taken,
    Quarantined,
    Current,
}

/// How far a look at a service goes; `full`: as far as its protocol does.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum LookMode {
    Full,
    Tcp,
    Tls,
    Http,
}

/// What watching a service has shown.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum HealthState {
    Healthy,
    Unhealthy,
    Unknown,
}

/// A command's id.
#[derive(ToSchema)]
#[schema(pattern = r"^cmd_[0-9a-f]{32}$")]
pub struct CommandId(String);

/// A message's id.
#[derive(ToSchema)]
#[schema(pattern = r"^msg_[0-9a-f]{32}$")]
pub struct MessageId(String);

/// What an agent can be told to do.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum CommandAction {
    Restart,
    Stop,
    Expose,
    Reach,
    Status,
}

/// What an agent can be told to do without saying more.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum PlainAction {
    Restart,
    Stop,
    Status,
}

/// The one action that exposes.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum ExposeAction {
    Expose,
}

/// The one action that reaches.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum ReachAction {
    Reach,
}

/// How far a command has come.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum CommandStatus {
    Queued,
    Delivered,
    Done,
    Failed,
    Expired,
}

/// A secret that a machine without a key asks for its key with.
#[derive(ToSchema)]
#[schema(pattern = r"^pcd_[0-9A-Za-z_-]{43}$")]
pub struct DeviceCodeText(String);

/// A code that a machine shows to a person.
#[derive(ToSchema)]
#[schema(example = "BCDF-GHJK", pattern = r"^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$")]
pub struct UserCode(String);

/// An event's id.
#[derive(ToSchema)]
#[schema(pattern = r"^evt_[0-9a-f]{32}$")]
pub struct EventId(String);

/// Streams of one kind have numbers of their own.
#[derive(ToSchema)]
#[schema(pattern = r"^(facts|accesses)$")]
pub struct Family(String);

/// A number, from 1; one of facts and one of accesses, with a hyphen between, where both are asked for.
#[derive(ToSchema)]
#[schema(example = "1", pattern = r"^[1-9][0-9]{0,17}(-[1-9][0-9]{0,17})?$")]
pub struct FeedPosition(String);

/// A day.
#[derive(ToSchema)]
#[schema(format = Date, example = "2026-03-02", pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
pub struct Day(String);

/// A webhook's id.
#[derive(ToSchema)]
#[schema(pattern = r"^wh_[0-9a-f]{32}$")]
pub struct WebhookId(String);

/// A delivery's id.
#[derive(ToSchema)]
#[schema(pattern = r"^dlv_[0-9a-f]{32}$")]
pub struct DeliveryId(String);

/// A webhook's secret: the base64 of 32 bytes after its prefix.
#[derive(ToSchema)]
#[schema(pattern = r"^whsec_[0-9A-Za-z+/]{43}=$")]
pub struct WebhookSecret(String);

/// An absolute `https://` URL without user name and fragment, of up to 2,000 characters; private addresses and ports where no web
/// server listens are refused.
#[derive(ToSchema)]
#[schema(
    example = "https://hooks.your-team.example/private-connect",
    pattern = r"^(?=.{1,2000}$)https://(?=[^/?]{1,253}([/?]|$))(?!([^/?]*\.)?[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]([/?]|$))([0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?\.)*[A-Za-z]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?(/([0-9A-Za-z._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?(\?([0-9A-Za-z._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?$"
)]
pub struct WebhookUrl(String);

/// A type of events that webhooks can be sent.
#[derive(ToSchema)]
pub enum EventType {
    #[schema(rename = "tunnel.created")]
    TunnelCreated,
    #[schema(rename = "tunnel.updated")]
    TunnelUpdated,
    #[schema(rename = "tunnel.connected")]
    TunnelConnected,
    #[schema(rename = "tunnel.disconnected")]
    TunnelDisconnected,
    #[schema(rename = "tunnel.paused")]
    TunnelPaused,
    #[schema(rename = "tunnel.resumed")]
    TunnelResumed,
    #[schema(rename = "tunnel.expired")]
    TunnelExpired,
    #[schema(rename = "tunnel.deleted")]
    TunnelDeleted,
    #[schema(rename = "share.created")]
    ShareCreated,
    #[schema(rename = "share.accessed")]
    ShareAccessed,
    #[schema(rename = "share.expired")]
    ShareExpired,
    #[schema(rename = "share.revoked")]
    ShareRevoked,
    #[schema(rename = "agent.registered")]
    AgentRegistered,
    #[schema(rename = "agent.connected")]
    AgentConnected,
    #[schema(rename = "agent.disconnected")]
    AgentDisconnected,
    #[schema(rename = "agent.deleted")]
    AgentDeleted,
    #[schema(rename = "environment.shared")]
    EnvironmentShared,
    #[schema(rename = "environment.joined")]
    EnvironmentJoined,
    #[schema(rename = "environment.expired")]
    EnvironmentExpired,
    #[schema(rename = "environment.revoked")]
    EnvironmentRevoked,
    #[schema(rename = "service.healthy")]
    ServiceHealthy,
    #[schema(rename = "service.unhealthy")]
    ServiceUnhealthy,
    #[schema(rename = "query.executed")]
    QueryExecuted,
    #[schema(rename = "webhook.disabled")]
    WebhookDisabled,
}

/// A type of events, or `*` for all of them.
pub struct EventTypeOrAll;

impl PartialSchema for EventTypeOrAll {
    fn schema() -> RefOr<Schema> {
        let mut shape = EventType::schema();
        if let RefOr::T(Schema::Object(object)) = &mut shape {
            object.description = Some("A type of events, or `*` for all of them.".to_owned());
            object.enum_values.get_or_insert_default().insert(0, "*".into());
        }
        shape
    }
}

impl ToSchema for EventTypeOrAll {}

/// Why a webhook is sent nothing: somebody switched it off, its receiver answered 410, or nothing got through for days.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DisableReason {
    Requested,
    Gone,
    Failing,
}

/// How a delivery stands.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DeliveryStatus {
    Pending,
    Retrying,
    Delivered,
    DeadLettered,
}

/// Why a receiver gave no answer.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DeliveryProblem {
    UrlRefused,
    Unresolved,
    AddressRefused,
    Unreachable,
    Tls,
    TimedOut,
    BrokenOff,
    NotHttp,
    SourceLost,
}

/// Why a delivery was given up.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum GaveUp {
    Exhausted,
    Gone,
    SourceLost,
    Inactive,
}

/// A moment in RFC 3339 form, of any offset.
#[derive(ToSchema)]
#[schema(format = DateTime, example = "2026-03-02T10:00:00Z")]
pub struct AnyMoment(String);
