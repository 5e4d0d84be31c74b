//! What an operator may set.

use crate::error::Problem;
use crate::state::AdminState;
use bulkhead_model::volume::VOLUME_BYTES_MIN;
use bulkhead_model::{VchId, VchSettings};
use std::net::SocketAddr;

/// Volume stores of one VCH.
const VOLUME_STORES_MAX: usize = 32;

/// What no VCH could live with is refused.
pub(crate) fn check(settings: &VchSettings) -> Result<(), Problem> {
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
    if settings.volume_stores.len() > VOLUME_STORES_MAX {
        let stores = settings.volume_stores.len();
        return Err(Problem::invalid(format!("{stores} volume stores: at most {VOLUME_STORES_MAX}")));
    }
    for (name, store) in &settings.volume_stores {
        let text = store.folder.as_deref().map(|folder| folder.to_str().unwrap_or_default());
        let clean = |text: &str| text.starts_with('/') && !text.chars().any(char::is_control);
        if !text.is_none_or(clean) {
            return Err(Problem::invalid(format!(
                "the folder of volume store {name} must be an absolute path in UTF-8"
            )));
        }
    }
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
pub(crate) async fn check_addresses_free(
    state: &AdminState,
    own: Option<VchId>,
    settings: &VchSettings,
) -> Result<(), Problem> {
    for vch in state.engine.all_vchs().await?.into_iter().filter(|vch| Some(vch.id) != own) {
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
    use bulkhead_model::VolumeStore;

    fn refused(settings: &VchSettings) -> String {
        check(settings).unwrap_err().detail
    }

    #[test]
    fn plain_tcp_is_for_loopback() {
        let at =
            |address: &str| VchSettings { insecure_listen: Some(address.into()), ..VchSettings::default() };
        check(&at("127.0.0.1:2375")).unwrap();
        check(&at("[::1]:2375")).unwrap();
        for address in ["0.0.0.0:2375", "192.0.2.1:2375", "[::]:2375", "[::ffff:192.0.2.1]:2375"] {
            assert!(refused(&at(address)).contains("only loopback"), "{address}");
        }
        assert!(refused(&at("localhost:2375")).contains("not ADDRESS:PORT"));
        assert!(refused(&at("127.0.0.1:0")).contains("no port"));
    }

    #[test]
    fn settings_that_no_container_could_live_with_are_refused() {
        assert!(
            refused(&VchSettings { default_memory_bytes: 1, ..VchSettings::default() })
                .contains("default_memory_bytes")
        );
        assert!(
            refused(&VchSettings { containers_max: 0, ..VchSettings::default() }).contains("containers_max")
        );
    }

    #[test]
    fn folders_of_volume_stores_are_paths() {
        let at = |folder: &str| {
            let mut settings = VchSettings::default();
            let store = VolumeStore { folder: Some(folder.into()), bytes_max: None };
            settings.volume_stores.insert("fast".parse().unwrap(), store);
            settings
        };
        check(&at("/mnt/fast")).unwrap();
        for folder in ["", "fast", "../fast", "/mnt/\n"] {
            assert!(refused(&at(folder)).contains("fast must be an absolute path"), "{folder:?}");
        }
        let many = (0..40).map(|n| (format!("s{n}").parse().unwrap(), VolumeStore::default())).collect();
        assert!(
            refused(&VchSettings { volume_stores: many, ..VchSettings::default() }).contains("at most 32")
        );
    }
}
