//! `RestartPolicy`, of creations and updates alike.

use super::fields::{self, Rule::Mapped};
use crate::error::ApiError;
use crate::json::Fields;
use crate::query::clip;
use bulkhead_model::RestartPolicy;

const FIELDS: &[(&str, fields::Rule)] = &[("Name", Mapped), ("MaximumRetryCount", Mapped)];

/// `None`: nothing was said.
pub fn policy(prefix: &str, owner: &Fields) -> Result<Option<RestartPolicy>, ApiError> {
    let value = owner.get("RestartPolicy");
    if value.is_null() {
        return Ok(None);
    }
    let prefix = format!("{prefix}RestartPolicy.");
    let policy = Fields::of(&prefix, value.clone())?;
    fields::check(&prefix, &policy, FIELDS)?;
    let name = policy.text("Name")?.unwrap_or_default();
    let retries = policy.integer("MaximumRetryCount")?.unwrap_or(0);
    let of_name = match name.as_str() {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => {
            let retries_max = u32::try_from(retries).map_err(|_| {
                ApiError::bad("invalid restart policy: maximum retry count cannot be negative")
            })?;
            return Ok(Some(RestartPolicy::OnFailure { retries_max }));
        }
        other => {
            return Err(ApiError::bad(format!(
                "invalid restart policy: unknown policy '{}'; use one of 'no', 'always', 'on-failure', or \
                 'unless-stopped'",
                clip(other)
            )));
        }
    };
    if retries != 0 {
        return Err(ApiError::bad(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    Ok((!name.is_empty()).then_some(of_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(value: Value) -> Result<Option<RestartPolicy>, String> {
        let host = Fields::of("HostConfig.", json!({ "RestartPolicy": value })).unwrap();
        policy("HostConfig.", &host).map_err(|error| error.message)
    }

    #[test]
    fn policies_are_read() {
        assert_eq!(check(Value::Null), Ok(None));
        assert_eq!(check(json!({})), Ok(None));
        assert_eq!(check(json!({"Name": "", "MaximumRetryCount": 0})), Ok(None));
        assert_eq!(check(json!({"name": "no"})), Ok(Some(RestartPolicy::No)));
        assert_eq!(check(json!({"Name": "always"})), Ok(Some(RestartPolicy::Always)));
        assert_eq!(check(json!({"Name": "unless-stopped"})), Ok(Some(RestartPolicy::UnlessStopped)));
        let twice = json!({"Name": "on-failure", "MaximumRetryCount": 2});
        assert_eq!(check(twice), Ok(Some(RestartPolicy::OnFailure { retries_max: 2 })));
    }

    #[test]
    fn wrong_ones_are_refused_by_name() {
        for (value, text) in [
            (json!({"Name": "sometimes"}), "unknown policy 'sometimes'; use one of 'no', 'always'"),
            (json!({"Name": "always", "MaximumRetryCount": 1}), "can only be used with 'on-failure'"),
            (json!({"MaximumRetryCount": 1}), "can only be used with 'on-failure'"),
            (json!({"Name": "on-failure", "MaximumRetryCount": -1}), "cannot be negative"),
            (json!({"Name": "no", "Delay": 3}), "HostConfig.RestartPolicy.Delay is not known"),
            (json!("always"), "HostConfig.RestartPolicy must be an object"),
        ] {
            let error = check(value.clone()).unwrap_err();
            assert!(error.contains(text), "{value}: {error}");
        }
    }
}
