//! `POST /v1/vchs`: a new VCH. Answers when its listeners are there.

use super::{settings, view};
use crate::error::Problem;
use crate::extract::Body;
use crate::state::AdminState;
use crate::view::{VchAsk, VchView};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bulkhead_engine::{NewVch, VchUsage};
use bulkhead_model::Caller;

/// Tenants are names for people; longer ones are mistakes.
const TENANT_CHARS_MAX: usize = 80;

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Body(ask): Body<VchAsk>,
) -> Result<(StatusCode, Json<VchView>), Problem> {
    let new = check(ask)?;
    settings::check_addresses_free(&state, None, &new.settings).await?;
    let vch = state.engine.vch_create(&caller, new).await?;
    state.endpoints_follow(vch.id, true).await;
    let endpoints = state.endpoints_of(vch.id);
    let usage = VchUsage::default();
    Ok((StatusCode::CREATED, Json(view(vch, &usage, endpoints))))
}

fn check(ask: VchAsk) -> Result<NewVch, Problem> {
    let name = ask.name.parse().map_err(|error| Problem::invalid(format!("{error}")))?;
    let class = ask.class.parse().map_err(|error| Problem::invalid(format!("{error}")))?;
    let tenant = ask.tenant;
    if tenant.is_empty() || tenant.chars().count() > TENANT_CHARS_MAX || tenant.chars().any(char::is_control)
    {
        return Err(Problem::invalid(format!(
            "invalid tenant: expected 1 to {TENANT_CHARS_MAX} printable characters"
        )));
    }
    settings::check(&ask.settings)?;
    Ok(NewVch { name, class, tenant, settings: ask.settings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::VchSettings;

    fn ask(settings: VchSettings) -> VchAsk {
        VchAsk { name: "dev".into(), class: "dev".into(), tenant: "team".into(), settings }
    }

    #[test]
    fn the_defaults_pass() {
        check(ask(VchSettings::default())).unwrap();
    }

    #[test]
    fn names_are_strict() {
        let named = |name: &str| VchAsk { name: name.into(), ..ask(VchSettings::default()) };
        assert!(check(named("../x")).unwrap_err().detail.contains("not a VCH name"));
        let tenant = VchAsk { tenant: "a\nb".into(), ..ask(VchSettings::default()) };
        assert!(check(tenant).unwrap_err().detail.contains("tenant"));
    }
}
