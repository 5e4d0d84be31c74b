//! Figures in the format of Prometheus.

use bulkhead_engine::{Happening, Phase};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::time::Duration;

/// Cloning shares the figures.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<ListenerLabels, Histogram>,
    open: Family<ListenerLabels, Gauge>,
    vchs: Gauge,
    containers: Family<ContainerLabels, Gauge>,
    policy_problem: Gauge,
    decisions: Family<DecisionLabels, Counter>,
    policy_failures: Family<PolicyLabels, Counter>,
    reviews: Family<ReviewLabels, Counter>,
    review_seconds: Family<BindingLabels, Histogram>,
    starts: Family<StartLabels, Counter>,
    start_seconds: Histogram,
    phase_seconds: Family<PhaseLabels, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    action: String,
    verdict: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    policy: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    binding: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BindingLabels {
    binding: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StartLabels {
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    listener: String,
    method: String,
    /// The route, not the path: few values.
    endpoint: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ContainerLabels {
    vch: String,
    status: String,
}

/// A millisecond to half a minute; docker's long waits are above.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Metrics {
    pub fn new(version: &str, back_end: &str, accelerator: &str) -> Self {
        let mut registry = Registry::with_prefix("bulkhead");
        let requests = Family::<RequestLabels, Counter>::default();
        let seconds = Family::<ListenerLabels, Histogram>::new_with_constructor(histogram);
        let open = Family::<ListenerLabels, Gauge>::default();
        let containers = Family::<ContainerLabels, Gauge>::default();
        let (vchs, policy_problem) = (Gauge::default(), Gauge::default());
        let build = Info::new(vec![
            ("version", version.to_owned()),
            ("back_end", back_end.to_owned()),
            ("accelerator", accelerator.to_owned()),
        ]);
        registry.register("build", "What runs here", build);
        registry.register("requests", "Requests answered", requests.clone());
        registry.register_with_unit(
            "request",
            "Time until a request was answered",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("requests_open", "Requests not answered yet", open.clone());
        registry.register("vchs", "Virtual container hosts", vchs.clone());
        registry.register("containers", "Containers by status", containers.clone());
        registry.register(
            "policies_not_in_force",
            "1 while the policy files are wrong and older policies decide",
            policy_problem.clone(),
        );
        let decisions = Family::<DecisionLabels, Counter>::default();
        registry.register("decisions", "Questions to the policies", decisions.clone());
        let policy_failures = Family::<PolicyLabels, Counter>::default();
        registry.register(
            "policy_failures",
            "Policies that could not be evaluated, each of which denied a request",
            policy_failures.clone(),
        );
        let reviews = Family::<ReviewLabels, Counter>::default();
        registry.register("plugin_calls", "Questions to plugins", reviews.clone());
        // 10 µs to 10 s.
        let review_seconds = Family::<BindingLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_01, 2.0, 20))
        });
        registry.register_with_unit(
            "plugin_call",
            "Time until a plugin answered",
            Unit::Seconds,
            review_seconds.clone(),
        );
        let starts = Family::<StartLabels, Counter>::default();
        registry.register("machine_starts", "Runs of containers that were begun", starts.clone());
        // A tenth of a second to almost two minutes.
        let start_seconds = Histogram::new(exponential_buckets(0.1, 2.0, 11));
        registry.register_with_unit(
            "machine_start",
            "Time from the machine's beginning until the container's process ran",
            Unit::Seconds,
            start_seconds.clone(),
        );
        let phase_seconds = Family::<PhaseLabels, Histogram>::new_with_constructor(histogram);
        registry.register_with_unit(
            "start_phase",
            "Time that a part of a container's start took",
            Unit::Seconds,
            phase_seconds.clone(),
        );
        Self(Arc::new(Inner {
            registry,
            requests,
            seconds,
            open,
            vchs,
            containers,
            policy_problem,
            decisions,
            policy_failures,
            reviews,
            review_seconds,
            starts,
            start_seconds,
            phase_seconds,
        }))
    }

    pub fn request_began(&self, listener: &str) {
        self.0.open.get_or_create(&ListenerLabels { listener: listener.into() }).inc();
    }

    pub fn request_ended(&self, listener: &str, method: &str, endpoint: &str, status: u16, took: Duration) {
        let listener = listener.to_owned();
        self.0.open.get_or_create(&ListenerLabels { listener: listener.clone() }).dec();
        self.0
            .seconds
            .get_or_create(&ListenerLabels { listener: listener.clone() })
            .observe(took.as_secs_f64());
        let labels = RequestLabels { listener, method: method.into(), endpoint: endpoint.into(), status };
        self.0.requests.get_or_create(&labels).inc();
    }

    pub fn happened(&self, happening: Happening) {
        let started = |outcome: &str| {
            self.0.starts.get_or_create(&StartLabels { outcome: outcome.into() }).inc();
        };
        match happening {
            Happening::Decided { action, allowed } => {
                let verdict = if allowed { "allow" } else { "deny" }.to_owned();
                let labels = DecisionLabels { action: action.name().into(), verdict };
                self.0.decisions.get_or_create(&labels).inc();
            }
            Happening::PolicyFailed { policy } => {
                self.0.policy_failures.get_or_create(&PolicyLabels { policy }).inc();
            }
            Happening::Reviewed { binding, said, took } => {
                let labels = ReviewLabels { binding: binding.clone(), outcome: said };
                self.0.reviews.get_or_create(&labels).inc();
                self.0.review_seconds.get_or_create(&BindingLabels { binding }).observe(took.as_secs_f64());
            }
            Happening::Started { took } => {
                started("ran");
                self.0.start_seconds.observe(took.as_secs_f64());
            }
            Happening::Phase(Phase { name, took }) => {
                self.0.phase_seconds.get_or_create(&PhaseLabels { phase: name }).observe(took.as_secs_f64());
            }
            Happening::StartFailed => started("failed"),
        }
    }

    /// Replaces what is known of VCHs: name, status, number.
    pub fn set_containers(&self, vchs: usize, containers: &[(String, &'static str, u64)]) {
        self.0.vchs.set(i64::try_from(vchs).unwrap_or(i64::MAX));
        self.0.containers.clear();
        for (vch, status, count) in containers {
            let labels = ContainerLabels { vch: vch.clone(), status: (*status).into() };
            self.0.containers.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    pub fn set_policy_problem(&self, problem: bool) {
        self.0.policy_problem.set(i64::from(problem));
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing into a string cannot fail.
        text::encode(&mut out, &self.0.registry).ok();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::Action;

    #[test]
    fn requests_are_counted_by_route() {
        let metrics = Metrics::new("1.2.3", "sim", "sim");
        metrics.request_began("vch dev");
        metrics.request_ended("vch dev", "GET", "/containers/{id}/json", 200, Duration::from_millis(3));
        metrics.set_containers(1, &[("dev".into(), "running", 2)]);
        metrics.happened(Happening::Decided { action: Action::ContainerStart, allowed: false });
        metrics.happened(Happening::PolicyFailed { policy: "caps".into() });
        metrics.happened(Happening::Started { took: Duration::from_millis(1500) });
        metrics.happened(Happening::Phase(Phase { name: "greet", took: Duration::from_millis(3) }));
        metrics.happened(Happening::StartFailed);
        let text = metrics.render();
        for line in [
            r#"bulkhead_decisions_total{action="container.start",verdict="deny"} 1"#,
            r#"bulkhead_policy_failures_total{policy="caps"} 1"#,
            r#"bulkhead_machine_starts_total{outcome="ran"} 1"#,
            r#"bulkhead_machine_starts_total{outcome="failed"} 1"#,
            r#"bulkhead_machine_start_seconds_bucket{le="0.8"} 0"#,
            r#"bulkhead_machine_start_seconds_bucket{le="1.6"} 1"#,
            r#"bulkhead_start_phase_seconds_bucket{le="0.002",phase="greet"} 0"#,
            r#"bulkhead_start_phase_seconds_bucket{le="0.004",phase="greet"} 1"#,
            r#"bulkhead_build_info{version="1.2.3",back_end="sim",accelerator="sim"} 1"#,
            r#"bulkhead_requests_total{listener="vch dev",method="GET",endpoint="/containers/{id}/json",status="200"} 1"#,
            r#"bulkhead_requests_open{listener="vch dev"} 0"#,
            r#"bulkhead_containers{vch="dev",status="running"} 2"#,
            "bulkhead_vchs 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n---\n{text}");
        }
    }
}
