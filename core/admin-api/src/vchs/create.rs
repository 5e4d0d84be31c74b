//! `POST /v1/vchs`: a new VCH. Answers when its listeners are there.

use super::view;
use crate::error::Problem;
use crate::extract::Body;
use crate::state::AdminState;
use crate::view::{VchAsk, VchView};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bulkhead_engine::{NewVch, VchUsage};
use bulkhead_model::volume::VOLUME_BYTES_MIN;
use bulkhead_model::{Caller, VchSettings};
use std::net::SocketAddr;

/// Tenants are names for people; longer ones are mistakes.
const TENANT_CHARS_MAX: usize = 80;

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Body(ask): Body<VchAsk>,
) -> Result<(StatusCode, Json<VchView>), Problem> {
    let new = check(ask)?;
    check_addresses_free(&state, &new.settings).await?;
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
    check_settings(&ask.settings)?;
    Ok(NewVch { name, class, tenant, settings: ask.settings })
}

fn check_settings(settings: &VchSettings) -> Result<(), Problem> {
    let at_least = |what: &str, value: u64, least: u64, unit: &str| {
        if value < least {
            Err(Problem::invalid(format!("{what} is {value}: at least {least} {unit}")))
        } else {
            Ok(())
        }
    };
    at_least("default_cpu_milli", settings.default_cpu_milli.into(), 10, "thousandths of a vCPU")?;
    at_least("default_memory_bytes", settings.default_memory_bytes, 6 << 20, "bytes")?;
    at_least("disk_bytes", settings.disk_bytes, 16 << 20, "bytes")?;
    at_least("log_bytes", settings.log_bytes, 64 << 10, "bytes")?;
    at_least("volume_bytes", settings.volume_bytes, VOLUME_BYTES_MIN, "bytes")?;
    at_least("containers_max", settings.containers_max.into(), 1, "container")?;
    if let Some(text) = &settings.tls_listen {
        address("tls_listen", text)?;
    }
    if let Some(text) = &settings.insecure_listen {
        let address = address("insecure_listen", text)?;
        if !address.ip().is_loopback() {
            return Err(Problem::invalid(format!(
                "plain TCP on `{address}` is refused: without TLS only loopback addresses may be used"
            ))
            .remedy("use --tls, or an address like 127.0.0.1"));
        }
    }
    Ok(())
}

fn address(what: &str, text: &str) -> Result<SocketAddr, Problem> {
    let address: SocketAddr =
        text.parse().map_err(|_| Problem::invalid(format!("{what} `{text}` is not ADDRESS:PORT")))?;
    if address.port() == 0 {
        return Err(Problem::invalid(format!("{what} `{text}` has no port")));
    }
    Ok(address)
}

/// Two VCHs cannot listen on one address; told here, where somebody reads it.
async fn check_addresses_free(state: &AdminState, settings: &VchSettings) -> Result<(), Problem> {
    for vch in state.engine.all_vchs().await? {
        let taken = [&vch.settings.tls_listen, &vch.settings.insecure_listen];
        let mut wanted = [&settings.tls_listen, &settings.insecure_listen].into_iter().flatten();
        if let Some(address) =
            wanted.find(|address| taken.into_iter().flatten().any(|other| other == *address))
        {
            return Err(Problem::conflict(format!("the address {address} is in use by VCH `{}`", vch.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(settings: VchSettings) -> VchAsk {
        VchAsk { name: "dev".into(), class: "dev".into(), tenant: "team".into(), settings }
    }

    fn refused(settings: VchSettings) -> String {
        check(ask(settings)).unwrap_err().detail
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

    #[test]
    fn plain_tcp_is_for_loopback() {
        let at =
            |address: &str| VchSettings { insecure_listen: Some(address.into()), ..VchSettings::default() };
        check(ask(at("127.0.0.1:2375"))).unwrap();
        check(ask(at("[::1]:2375"))).unwrap();
        for address in ["0.0.0.0:2375", "192.0.2.1:2375", "[::]:2375", "[::ffff:192.0.2.1]:2375"] {
            assert!(refused(at(address)).contains("only loopback"), "{address}");
        }
        assert!(refused(at("localhost:2375")).contains("not ADDRESS:PORT"));
        assert!(refused(at("127.0.0.1:0")).contains("no port"));
    }

    #[test]
    fn settings_that_no_container_could_live_with_are_refused() {
        assert!(
            refused(VchSettings { default_memory_bytes: 1, ..VchSettings::default() })
                .contains("default_memory_bytes")
        );
        assert!(
            refused(VchSettings { containers_max: 0, ..VchSettings::default() }).contains("containers_max")
        );
    }
}
