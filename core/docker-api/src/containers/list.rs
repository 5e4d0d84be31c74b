//! `GET /containers/json`.

use super::shape::{State, exit, exposed, is_running, summary};
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::query::clip;
use crate::reply;
use bulkhead_model::Container;
use bulkhead_model::health::{self, Health, HealthStatus};
use bulkhead_model::network::{HOST_NETWORK, NO_NETWORK, exposed_port, predefined_id};
use serde_json::{Map, Value, json};

const FILTERS: [&str; 15] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUS: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];

pub async fn get(call: Call) -> Answer {
    let filters = Filters::parse(&call.query, &FILTERS)?;
    let limit: Option<i64> = call.query.number("limit")?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let healths = ["none", "starting", "healthy", "unhealthy"];
    if let Some(wrong) = filters.values("health").iter().find(|word| !healths.contains(&word.as_str())) {
        return Err(ApiError::bad(format!("unrecognized filter value for health: {}", clip(wrong))));
    }
    let mut containers = call.engine().containers(&call.session).await?;
    containers.retain(|container| {
        let word = health::of(container).map_or("none", |health| health.status.word());
        filters.any("health", |wanted| wanted == word)
    });
    let all = call.query.flag("all");
    let mut shown = select(containers, &filters, all || limit.is_some())?;
    shown.truncate(limit.unwrap_or(usize::MAX));
    let now = call.state.clock.now();
    let sizes = call.query.flag("size");
    let mut list = Vec::with_capacity(shown.len());
    for container in &shown {
        let mut item = summary(container, call.version, now);
        if let Some(health) = health::of(container)
            && let Some(map) = item.as_object_mut()
        {
            tell_health(map, container, &health, call.version);
        }
        if sizes && let Some(map) = item.as_object_mut() {
            let usage = call.engine().container_usage(&call.session, container.id.as_str()).await?;
            map.insert("SizeRw".into(), usage.disk_bytes.into());
            map.insert("SizeRootFs".into(), (usage.disk_bytes + usage.image_bytes).into());
        }
        list.push(item);
    }
    reply::ok(&list)
}

/// Behind the time that it is up; newer clients have it apart, too.
fn tell_health(
    item: &mut Map<String, Value>,
    container: &Container,
    health: &Health,
    version: crate::version::ApiVersion,
) {
    let word = health.status.word();
    if State::of(container) == State::Running
        && let Some(Value::String(status)) = item.get_mut("Status")
    {
        let note = if health.status == HealthStatus::Starting { "health: starting" } else { word };
        status.push_str(&format!(" ({note})"));
    }
    if version.since(52) {
        item.insert("Health".into(), json!({ "Status": word, "FailingStreak": health.failing_streak }));
    }
}

/// Those that are asked for, newest first.
fn select(mut containers: Vec<Container>, filters: &Filters, all: bool) -> Result<Vec<Container>, ApiError> {
    for status in filters.values("status") {
        if !STATUS.contains(&status.as_str()) {
            return Err(ApiError::bad(format!("invalid filter 'status={}'", clip(status))));
        }
    }
    for code in filters.values("exited") {
        if code.parse::<i32>().is_err() {
            return Err(ApiError::bad(format!("invalid filter 'exited={}'", clip(code))));
        }
    }
    let all = all || filters.has("status");
    let (names, ids) = (filters.patterns("name")?, filters.patterns("id")?);
    containers.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    // Bounds are places in the sorted list.
    let bound = |text: &String| place(&containers, text);
    let after = filters.values("since").iter().map(bound).collect::<Result<Vec<_>, _>>()?.into_iter().min();
    let before = filters.values("before").iter().map(bound).collect::<Result<Vec<_>, _>>()?.into_iter().max();
    let wanted = |(at, container): &(usize, Container)| {
        let slashed = format!("/{}", container.name);
        (all || is_running(container))
            && after.is_none_or(|bound| *at < bound)
            && before.is_none_or(|bound| *at > bound)
            && names.found_in(&[&container.name, &slashed])
            && ids.found_in(&[container.id.as_str()])
            && matches(container, filters)
    };
    Ok(containers.into_iter().enumerate().filter(wanted).map(|(_, container)| container).collect())
}

/// Where a container stands that a bound names.
fn place(containers: &[Container], text: &str) -> Result<usize, ApiError> {
    let name = text.trim_start_matches('/');
    let exact = containers.iter().position(|one| one.id.as_str() == name || one.name == name);
    let by_prefix =
        || containers.iter().position(|one| !name.is_empty() && one.id.as_str().starts_with(name));
    exact.or_else(by_prefix).ok_or_else(|| ApiError::not_found(format!("No such container: {}", clip(text))))
}

fn matches(container: &Container, filters: &Filters) -> bool {
    let named = |text: &str| {
        let text = if text.contains('/') { text.to_owned() } else { format!("{text}/tcp") };
        exposed_port(&text)
    };
    let exposes = |text: &str| named(text).is_some_and(|port| exposed(container).any(|one| one == port));
    let publishes = |text: &str| {
        named(text).is_some_and(|(port, protocol)| {
            container.published.iter().any(|one| one.container_port == port && one.protocol == protocol)
        })
    };
    let is_on = |text: &str| {
        if container.spec.network.host {
            return text == HOST_NETWORK || text == predefined_id(container.vch, HOST_NETWORK).as_str();
        }
        container.endpoints.iter().any(|endpoint| {
            endpoint.wish.network == text || (text.len() >= 12 && endpoint.network.as_str().starts_with(text))
        }) || (container.endpoints.is_empty()
            && (text == NO_NETWORK || text == predefined_id(container.vch, NO_NETWORK).as_str()))
    };
    filters.labels(&container.spec.labels)
        && filters.any("status", |status| status == State::of(container).word())
        && filters.any("exited", |code| {
            State::of(container) == State::Exited
                && exit(container).is_some_and(|exit| exit.code.to_string() == code)
        })
        && filters.any("ancestor", |image| is_ancestor(container, image))
        && filters.any("network", is_on)
        && filters.any("expose", exposes)
        && filters.any("publish", publishes)
        && filters.any("isolation", |isolation| isolation == "default")
        && filters.any("is-task", |value| matches!(value, "false" | "0"))
        && filters.any("volume", |wanted| {
            let mut mounts = container.spec.mounts.iter();
            mounts.any(|mount| mount.name.as_str() == wanted || mount.target == wanted)
        })
}

fn is_ancestor(container: &Container, text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let by_id = hex.len() >= 4 && container.image.hex().starts_with(hex);
    let by_name = text
        .parse::<bulkhead_model::Reference>()
        .is_ok_and(|reference| reference.or_latest().familiar() == container.image_name);
    by_id || by_name || text == container.image_name
}

#[cfg(test)]
mod tests {
    use super::super::shape::tests::{at, container, exited};
    use super::*;
    use crate::query::Query;
    use bulkhead_model::lifecycle::Status;

    fn check(json: &str, all: bool, expect: &[&str]) {
        let encoded: String = json.bytes().map(|b| format!("%{b:02x}")).collect();
        let filters =
            Filters::parse(&Query::parse(&format!("filters={encoded}")).unwrap(), &FILTERS).unwrap();
        let mut containers = vec![
            container("old", exited(3, true)),
            container(
                "web",
                Status::Running { run: 1, started_at: at(60), stop_signalled: false, paused: false },
            ),
            container("new", Status::Created),
        ];
        for (age, container) in [300, 200, 100].into_iter().zip(&mut containers) {
            container.created_at = at(age);
        }
        let names: Vec<String> =
            select(containers, &filters, all).unwrap().into_iter().map(|container| container.name).collect();
        assert_eq!(names, expect, "{json}");
    }

    #[test]
    fn filters_select() {
        check("{}", false, &["web"]);
        check("{}", true, &["new", "web", "old"]);
        check(r#"{"status":["exited"]}"#, false, &["old"]);
        check(r#"{"exited":["3"]}"#, true, &["old"]);
        check(r#"{"exited":["0"]}"#, true, &[]);
        check(r#"{"name":["^/?(old|new)$"]}"#, true, &["new", "old"]);
        check(r#"{"label":{"team=a":true}}"#, false, &["web"]);
        check(r#"{"label":["team=b"]}"#, true, &[]);
        check(r#"{"since":["old"]}"#, true, &["new", "web"]);
        check(r#"{"before":["new"]}"#, true, &["web", "old"]);
        check(r#"{"ancestor":["alpine"]}"#, false, &["web"]);
        check(r#"{"ancestor":["nginx"]}"#, false, &[]);
        check(r#"{"network":["none"],"expose":["80"]}"#, false, &["web"]);
        check(r#"{"volume":["data"]}"#, true, &[]);
    }

    #[test]
    fn wrong_values_are_refused() {
        for json in [r#"{"status":["stopped"]}"#, r#"{"exited":["x"]}"#, r#"{"since":["nobody"]}"#] {
            let encoded: String = json.bytes().map(|b| format!("%{b:02x}")).collect();
            let filters =
                Filters::parse(&Query::parse(&format!("filters={encoded}")).unwrap(), &FILTERS).unwrap();
            assert!(select(Vec::new(), &filters, true).is_err(), "{json}");
        }
    }
}
