//! What the Control API counts of its requests: by the template of their URL, method and class of status.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use schemas::frames::SESSION_PATH;

use super::{
    count::{ByName, Count, Times},
    families,
    page::Page,
};

/// Methods that the API has; whatever else somebody sends is `other`.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "other"];
/// Classes of status, by their first digit.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// A request to nothing that the API has.
const NO_ROUTE: &str = "none";
/// Problem codes of 429 that no limit per minute gives.
const LOCKOUTS: [&str; 3] = ["too_many_wrong_codes", "too_many_devices", "device_locked_out"];

/// A read takes less than a millisecond, a write as long as the disk, and some wait for an agent (microseconds).
const BOUNDS_US: [u64; 10] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000];

/// The place of a URL in the list that [`ApiCounts`] was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteNumber(pub usize);

/// The counts of the whole API.
#[derive(Debug)]
pub struct ApiCounts {
    /// By number; the last but one is the agents' session, and the last one for what has none.
    routes: Vec<Route>,
    in_flight: Count,
    /// By problem code.
    pub lockouts: ByName,
}

#[derive(Debug)]
struct Route {
    template: &'static str,
    /// In the order of [`METHODS`].
    methods: [Operation; METHODS.len()],
}

#[derive(Debug)]
struct Operation {
    /// In the order of [`CLASSES`].
    answers: [AtomicU64; CLASSES.len()],
    times: Times,
}

/// A request that is not answered yet; counted until dropped, also when its caller leaves.
#[derive(Debug)]
pub struct UnderWay(Arc<super::Metrics>);

impl UnderWay {
    pub fn begin(metrics: &Arc<super::Metrics>) -> Self {
        metrics.api.in_flight.add(1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.api.in_flight.sub(1);
    }
}

impl ApiCounts {
    /// Counts for these templates, in this order.
    pub fn new(templates: Vec<&'static str>) -> Self {
        let operation = |_| Operation { answers: Default::default(), times: Times::new(&BOUNDS_US) };
        let route = |template| Route { template, methods: METHODS.map(operation) };
        Self {
            routes: templates.into_iter().chain([SESSION_PATH, NO_ROUTE]).map(route).collect(),
            in_flight: Count::default(),
            lockouts: ByName::new(&LOCKOUTS),
        }
    }

    /// The number of the one URL that the gateway brings along.
    pub fn session(&self) -> RouteNumber {
        RouteNumber(self.routes.len() - 2)
    }

    /// A request was answered: for which URL (`None`: for none that there is), how, and after how long.
    pub fn answered(&self, route: Option<RouteNumber>, method: &str, status: u16, took: Duration) {
        let known = route.and_then(|RouteNumber(number)| self.routes.get(number));
        let Some(route) = known.or(self.routes.last()) else { return };
        let place = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let operation = &route.methods[place];
        operation.answers[class(status)].fetch_add(1, Relaxed);
        operation.times.add(took);
    }

    /// Only what was asked for has samples: a hub has some hundred operations.
    pub(super) fn show(&self, page: &mut Page) {
        for Route { template, methods } in &self.routes {
            for (method, Operation { answers, times }) in METHODS.into_iter().zip(methods) {
                let times = times.read();
                if times.total() == 0 {
                    continue;
                }
                page.distribution(&families::API_DURATION, &[*template, method], &times);
                for (class, count) in CLASSES.into_iter().zip(answers) {
                    page.count(&families::API_REQUESTS, &[*template, method, class], count.load(Relaxed));
                }
            }
        }
        page.gauge(&families::API_IN_FLIGHT, &[], self.in_flight.now() as f64);
        page.counts(&families::LOCKOUTS, &self.lockouts);
    }
}

/// The place of a status in [`CLASSES`].
pub fn class(status: u16) -> usize {
    usize::from(status / 100).clamp(1, CLASSES.len()) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_invent_makes_no_series() {
        let counts = ApiCounts::new(vec!["/v1/tunnels", "/v1/tunnels/{id}"]);
        let took = Duration::from_millis(3);
        counts.answered(Some(RouteNumber(1)), "GET", 404, took);
        counts.answered(Some(RouteNumber(7)), "BREW", 999, took);
        counts.answered(None, "PROPFIND", 404, took);
        counts.answered(Some(counts.session()), "GET", 101, took);
        let mut page = Page::default();
        counts.show(&mut page);
        let text = page.text().unwrap();
        let of = |line: &str| assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        of("pconnect_api_requests_total{route=\"/v1/tunnels/{id}\",method=\"GET\",class=\"4xx\"} 1");
        of("pconnect_api_requests_total{route=\"none\",method=\"other\",class=\"5xx\"} 1");
        of("pconnect_api_requests_total{route=\"none\",method=\"other\",class=\"4xx\"} 1");
        of("pconnect_api_request_duration_seconds_bucket{route=\"none\",method=\"other\",le=\"0.0025\"} 0");
        of("pconnect_api_request_duration_seconds_bucket{route=\"none\",method=\"other\",le=\"0.005\"} 2");
        of("pconnect_api_request_duration_seconds_count{route=\"none\",method=\"other\"} 2");
        of("pconnect_api_requests_total{route=\"/v1/agents/session\",method=\"GET\",class=\"1xx\"} 1");
        assert!(!text.contains("\"/v1/tunnels\""), "nobody asked for it:\n{text}");
    }
}
