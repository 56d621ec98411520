//! Recorded events in the order of the log, described.

use domain::workspace::Scope;
use schemas::rest::audit::EventPage;
use serde_json::{Value, json};

use crate::api::describe::{Access, Operation};

fn on(id: &'static str, summary: &'static str) -> Operation {
    Operation::new("Events", id, summary, Access::Scope(Scope::Read)).asks(
        "types",
        json!({ "type": "string", "pattern": "^[a-z_]{1,31}\\.[a-z_]{1,31}(,[a-z_]{1,31}\\.[a-z_]{1,31}){0,49}$" }),
        "Only these types, with commas between. Accesses (`share.accessed`, `usage.recorded`) come only when they are named.",
    )
}

/// Where to begin.
fn from(operation: Operation) -> Operation {
    operation
        .asks(
            "fromPosition",
            json!({ "type": "string", "pattern": "^[1-9][0-9]{0,17}(-[1-9][0-9]{0,17})?$" }),
            "The first position: a number; or what an earlier answer gave as `nextPosition`, which has two where facts and accesses \
             are asked for.",
        )
        .refuses(410, &["history_retired"])
}

fn moment() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

pub fn page() -> Operation {
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 });
    from(on("listEvents", "What was recorded, from a position on"))
        .says(
            "Oldest first. A page may be short, even empty, and have a `Link` to the next. `nextPosition` is where to go on, \
             also when nothing more is there yet; `/v1/events/stream` goes on from there as it happens.",
        )
        .asks("limit", limit, "The most events of one page.")
        .asks(
            "format",
            json!({ "type": "string", "enum": ["json", "ndjson", "cloudevents"] }),
            "A page, an event per line, or a batch of CloudEvents 1.0. Without it, what `Accept` names; else a page.",
        )
        .answers::<EventPage>(200, "Events.")
        .shows("Link")
        .answers_text("Events.", "application/x-ndjson")
        .answers_text("Events.", "application/cloudevents-batch+json")
}

pub fn export() -> Operation {
    from(on("exportEvents", "All that was recorded, as a file"))
        .says(
            "Oldest first, as fast as it is read. An answer that ends without its end mark (the last chunk, or END_STREAM) is \
             not whole: go on with `fromPosition`.",
        )
        .asks("since", moment(), "Recorded at this moment or later.")
        .asks("until", moment(), "Recorded at this moment or earlier.")
        .asks(
            "format",
            json!({ "type": "string", "enum": ["ndjson", "cloudevents"], "default": "ndjson" }),
            "A `RecordedEvent` per line, or a CloudEvent 1.0 per line.",
        )
        .answers_text("The file, as an attachment.", "application/x-ndjson")
        .refuses(503, &["too_many_readings"])
}

pub fn stream() -> Operation {
    let stay = json!({ "type": "integer", "minimum": 0, "maximum": 3600, "default": 3600 });
    from(on("streamEvents", "What is recorded, as it happens"))
        .says(
            "Server-sent events: `event` is the type, `data` a `RecordedEvent`, `id` where to go on. Begins with what comes next, \
             or at `fromPosition`. A client that comes again with `Last-Event-ID` misses nothing. A comment comes every 15 \
             seconds; whoever reads nothing for 30 is cut.",
        )
        .resumable()
        .asks("maxSeconds", stay, "How long to stay; 0: what there is, and then the end.")
        .answers_text("Events, until one of both ends.", "text/event-stream")
        .refuses(503, &["too_many_streams"])
}
