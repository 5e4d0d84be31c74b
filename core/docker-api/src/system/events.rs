//! `GET /events`: what happens, as it happens.

use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::filters::Filters;
use crate::version::ApiVersion;
use crate::{reply, time};
use bulkhead_engine::EventQuery;
use bulkhead_model::Event;
use bulkhead_model::event::EventKind;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderValue, header};
use serde_json::{Value, json};

pub async fn get(call: Call) -> Answer {
    // Unknown keys are let through, as dockerd does: they match nothing that is here.
    let filters = Filters::parse_any(&call.query)?;
    let since = time::parse_bound("since", call.query.get("since"))?;
    let until = time::parse_bound("until", call.query.get("until"))?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(ApiError::bad("`since` time cannot be after `until` time"));
    }
    let events = call.engine().events(&call.session, EventQuery { since, until }).await?;
    let version = call.version;
    let format = Format::of(version, call.header(header::ACCEPT.as_str()).unwrap_or_default());
    let items = events.filter_map(move |event| {
        let item = match event {
            Ok(event) if wanted(&event, &filters, version) => Some(format.item(&shape(&event, version))),
            Ok(_) => None,
            // The stream is over then; its end is all that a client could be told in this format.
            Err(error) => {
                tracing::warn!(error = %crate::error::chain(&error), "events ended");
                None
            }
        };
        std::future::ready(item)
    });
    Ok(reply::stream(&call, format.content_type(), items))
}

/// How events are set apart; negotiated from 1.52 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    JsonLines,
    NewlineDelimited,
    /// RFC 7464: a record separator before each.
    Sequence,
}

impl Format {
    fn of(version: ApiVersion, accept: &str) -> Self {
        if !version.since(52) {
            return Self::Json;
        }
        let offered = |name: &str| accept.contains(name);
        match () {
            () if offered("application/jsonl") => Self::JsonLines,
            () if offered("application/x-ndjson") => Self::NewlineDelimited,
            () if offered("application/json-seq") => Self::Sequence,
            () => Self::JsonLines,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/jsonl",
            Self::NewlineDelimited => "application/x-ndjson",
            Self::Sequence => "application/json-seq",
        })
    }

    fn item(self, value: &Value) -> Bytes {
        let mut bytes = BytesMut::new();
        if self == Self::Sequence {
            bytes.extend_from_slice(b"\x1e");
        }
        bytes.extend_from_slice(value.to_string().as_bytes());
        bytes.extend_from_slice(b"\n");
        bytes.freeze()
    }
}

fn shape(event: &Event, version: ApiVersion) -> Value {
    let mut shape = json!({
        "Type": event.kind.as_str(),
        "Action": event.action,
        "Actor": { "ID": event.actor, "Attributes": event.attributes },
        "scope": "local",
        "time": event.at.timestamp(),
        "timeNano": event.at.timestamp_nanos_opt().unwrap_or(0),
    });
    // Old clients crash without these, newer ones object to them.
    if !version.since(52)
        && matches!(event.kind, EventKind::Container | EventKind::Image)
        && let Some(map) = shape.as_object_mut()
    {
        map.insert("status".into(), event.action.clone().into());
        map.insert("id".into(), event.actor.clone().into());
        if event.kind == EventKind::Container {
            map.insert("from".into(), event.attributes.get("image").cloned().unwrap_or_default().into());
        }
    }
    shape
}

fn wanted(event: &Event, filters: &Filters, version: ApiVersion) -> bool {
    // Docker knows no VCHs; and its clients no image that is created, before 1.46.
    let known = match event.kind {
        EventKind::Container | EventKind::Volume => true,
        EventKind::Image => event.action != "create" || version.since(46),
        EventKind::Vch => false,
    };
    let attribute = |name: &str| event.attributes.get(name).map_or("", String::as_str);
    let by_name = |kind: EventKind, wanted: &str| {
        event.kind == kind && (event.actor.starts_with(wanted) || attribute("name").starts_with(wanted))
    };
    let prefixed = ["health_status", "exec_create", "exec_start"];
    known
        && filters.any("type", |kind| kind == event.kind.as_str())
        && filters.any("scope", |scope| scope == "local")
        && filters.any("event", |action| {
            event.action == action
                || prefixed.contains(&action) && event.action.starts_with(&format!("{action}:"))
        })
        && filters.any("container", |wanted| by_name(EventKind::Container, wanted.trim_start_matches('/')))
        && filters.any("image", |wanted| {
            let name = match event.kind {
                EventKind::Image => attribute("name"),
                EventKind::Container => attribute("image"),
                EventKind::Vch | EventKind::Volume => "",
            };
            let image_id = event.kind == EventKind::Image && event.actor == wanted;
            image_id || name == wanted || without_tag(name) == wanted
        })
        && filters.any("volume", |wanted| by_name(EventKind::Volume, wanted))
        && ["network", "plugin", "daemon", "service", "node", "secret", "config"]
            .iter()
            .all(|key| filters.values(key).is_empty())
        && filters.labels(&event.attributes)
}

fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;
    use crate::version::NEWEST;
    use bulkhead_model::Clock;

    fn die() -> Event {
        let attributes = [("image", "alpine:3"), ("name", "web"), ("exitCode", "0"), ("team", "a")];
        Event {
            vch: bulkhead_model::VchId(Default::default()),
            seq: 1,
            at: Clock::fixed(1_700_000_000).now(),
            kind: EventKind::Container,
            action: "die".into(),
            actor: "ab".repeat(32),
            attributes: attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }

    fn check(json: &str, expect: bool) {
        let encoded: String = json.bytes().map(|b| format!("%{b:02x}")).collect();
        let filters = Filters::parse_any(&Query::parse(&format!("filters={encoded}")).unwrap()).unwrap();
        assert_eq!(wanted(&die(), &filters, NEWEST), expect, "{json}");
    }

    #[test]
    fn filters_select() {
        check(r#"{"type":["container"],"event":{"die":true}}"#, true);
        check(r#"{"type":["image"]}"#, false);
        check(r#"{"event":["start","die"]}"#, true);
        check(r#"{"container":["web"]}"#, true);
        check(r#"{"container":["abab"]}"#, true);
        check(r#"{"container":["db"]}"#, false);
        check(r#"{"image":["alpine"]}"#, true);
        check(r#"{"image":["alpine:3"]}"#, true);
        check(r#"{"image":["nginx"]}"#, false);
        check(r#"{"label":["team=a"]}"#, true);
        check(r#"{"label":["team=a","x"]}"#, false);
        check(r#"{"network":["bridge"]}"#, false);
        check(r#"{"weather":["fine"]}"#, true);
    }

    #[test]
    fn old_clients_get_the_old_fields_too() {
        let old = shape(&die(), ApiVersion::new(1, 51));
        assert_eq!((&old["status"], &old["from"]), (&json!("die"), &json!("alpine:3")));
        let new = shape(&die(), ApiVersion::new(1, 52));
        assert!(new.get("status").is_none() && new.get("id").is_none() && new.get("from").is_none());
        assert_eq!(new["timeNano"], 1_700_000_000_000_000_000_i64);
        assert_eq!(new["Actor"]["Attributes"]["exitCode"], "0");
    }

    #[test]
    fn formats_are_negotiated_from_1_52() {
        assert_eq!(Format::of(ApiVersion::new(1, 51), "application/json-seq"), Format::Json);
        assert_eq!(Format::of(NEWEST, "application/json-seq"), Format::Sequence);
        assert_eq!(Format::of(NEWEST, ""), Format::JsonLines);
    }
}
