//! Which figures made a policy forbid: the comparisons of an attribute with a number, found once at load.

use crate::facts::Inputs;
use bulkhead_model::Reason;
use serde_json::Value;

/// `resource.memoryMib > 2048`, as it stands in a policy that forbids when it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Comparison {
    path: Vec<String>,
    order: Order,
    limit: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Order {
    fn parse(operator: &str) -> Option<Self> {
        Some(match operator {
            ">" => Order::Above,
            ">=" => Order::AtLeast,
            "<" => Order::Below,
            "<=" => Order::AtMost,
            _ => return None,
        })
    }

    /// For `a OP b` read as `b OP a`.
    fn mirrored(self) -> Self {
        match self {
            Order::Above => Order::Below,
            Order::AtLeast => Order::AtMost,
            Order::Below => Order::Above,
            Order::AtMost => Order::AtLeast,
        }
    }

    /// For `!(a OP b)`.
    fn negated(self) -> Self {
        match self {
            Order::Above => Order::AtMost,
            Order::AtLeast => Order::Below,
            Order::Below => Order::AtLeast,
            Order::AtMost => Order::Above,
        }
    }
}

/// Attributes that a plugin can change before a container is made, and what the engine works out of them.
const CHANGEABLE: [&str; 14] = [
    "autoRemove",
    "boot",
    "capAdd",
    "capDrop",
    "cpuMilli",
    "envKeys",
    "memoryMib",
    "noNewPrivileges",
    "pathsUnmasked",
    "privileged",
    "readOnly",
    "runAsRoot",
    "seccomp",
    "usageAfter",
];

/// Whether what a policy says can be another thing once a plugin has changed the container: it looks at something that
/// can be changed. Labels can, too.
pub(crate) fn is_curable(policy: &Value) -> bool {
    policy.get("conditions").is_some_and(looks_at_changeable)
}

fn looks_at_changeable(expression: &Value) -> bool {
    match expression {
        Value::Object(object) => object.iter().any(|(name, value)| {
            let attribute = || value.get("attr").and_then(Value::as_str);
            match name.as_str() {
                "." | "has" if attribute().is_some_and(|attr| CHANGEABLE.contains(&attr)) => true,
                "getTag" | "hasTag" => true,
                _ => looks_at_changeable(value),
            }
        }),
        Value::Array(list) => list.iter().any(looks_at_changeable),
        _ => false,
    }
}

/// Walks the conditions of a policy in Cedar's JSON form (docs.cedarpolicy.com, "JSON policy format").
pub(crate) fn comparisons(policy: &Value) -> Vec<Comparison> {
    let mut found = Vec::new();
    for condition in policy.get("conditions").and_then(Value::as_array).into_iter().flatten() {
        let positive = condition.get("kind").and_then(Value::as_str) == Some("when");
        if let Some(body) = condition.get("body") {
            walk(body, positive, &mut found);
        }
    }
    found
}

fn walk(expression: &Value, positive: bool, found: &mut Vec<Comparison>) {
    let Some((operator, arguments)) = expression.as_object().and_then(|object| object.iter().next()) else {
        return;
    };
    let side = |name: &str| arguments.get(name).unwrap_or(&Value::Null);
    match operator.as_str() {
        "&&" | "||" => {
            walk(side("left"), positive, found);
            walk(side("right"), positive, found);
        }
        "!" => walk(side("arg"), !positive, found),
        _ => {
            let Some(order) = Order::parse(operator) else { return };
            let (left, right) = (side("left"), side("right"));
            let read = match (path(left), literal(right), literal(left), path(right)) {
                (Some(path), Some(limit), _, _) => Some((path, order, limit)),
                (_, _, Some(limit), Some(path)) => Some((path, order.mirrored(), limit)),
                _ => None,
            };
            if let Some((path, order, limit)) = read {
                let order = if positive { order } else { order.negated() };
                found.push(Comparison { path, order, limit });
            }
        }
    }
}

fn literal(expression: &Value) -> Option<i64> {
    expression.get("Value")?.as_i64()
}

fn path(expression: &Value) -> Option<Vec<String>> {
    if let Some(root) = expression.get("Var") {
        return Some(vec![root.as_str()?.to_owned()]);
    }
    let access = expression.get(".")?;
    let mut path = path(access.get("left")?)?;
    path.push(access.get("attr")?.as_str()?.to_owned());
    Some(path)
}

/// Adds what was compared to a reason, where the comparison is what forbade.
pub(crate) fn with_numbers(mut reason: Reason, comparisons: &[Comparison], inputs: &Inputs) -> Reason {
    for Comparison { path, order, limit } in comparisons {
        let Some(value) = inputs.number(path) else { continue };
        let (holds, bound, limit) = match order {
            Order::Above => (value > *limit, "at most", *limit),
            Order::AtLeast => (value >= *limit, "at most", limit.saturating_sub(1)),
            Order::Below => (value < *limit, "at least", *limit),
            Order::AtMost => (value <= *limit, "at least", limit.saturating_add(1)),
        };
        let Some(name) = path.last().filter(|_| holds) else { continue };
        let (name, unit) = unit(name);
        let spaced = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        reason.text.push_str(&format!("; {name} is {value}{spaced}, {bound} {limit}{spaced} passes"));
        reason.subject = name.to_owned();
        reason = reason.number(name, value, unit).number(&format!("{name} {bound}"), limit, unit);
    }
    reason
}

/// Units come last in the schema's names.
fn unit(name: &str) -> (&str, &str) {
    for (suffix, unit) in [("Mib", "MiB"), ("Milli", "thousandths")] {
        if let Some(rest) = name.strip_suffix(suffix) {
            return (rest, unit);
        }
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_at_nothing_that_a_plugin_changes_is_final() {
        let curable = |text: &str| {
            let policy = text.parse::<cedar_policy::Policy>().unwrap();
            is_curable(&policy.to_json().unwrap())
        };
        for text in [
            "forbid (principal, action, resource) when { resource.memoryMib > 5 };",
            "forbid (principal, action, resource) unless { !resource.privileged && principal.operator };",
            "forbid (principal, action, resource) unless { resource.hasTag(\"team\") };",
            "forbid (principal, action, resource) when { context.usageAfter.memoryMib > 5 };",
        ] {
            assert!(curable(text), "{text}");
        }
        for text in [
            "@has(\"memoryMib\") forbid (principal, action, resource);",
            "forbid (principal, action, resource) unless { principal in resource.tenant };",
            "forbid (principal, action, resource) unless { resource.image.pinned };",
        ] {
            assert!(!curable(text), "{text}");
        }
    }
}
