//! Links: names for another container that one container alone knows.

use super::network::words;
use crate::error::ApiError;
use crate::json::Fields;
use crate::query::clip;
use bulkhead_model::network::{DEFAULT_NETWORK, EndpointWish, Link};

const WITH_HOST: &str = "conflicting options: host type networking can't be used with links. This would result in \
                         undefined behavior";
const NO_VARIABLES: &str = "Links: the names are known in the container; the environment variables of links, which are \
                            deprecated in Docker, are not set";

/// Those of a place.
pub fn links(fields: &Fields) -> Result<Vec<Link>, ApiError> {
    words(fields, "Links")?.iter().map(|text| link(text)).collect()
}

/// Those of the container, which belong to the network that it is on first.
pub fn of_host(
    host: &Fields,
    endpoints: &mut [EndpointWish],
    host_mode: bool,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let links = links(host)?;
    if links.is_empty() {
        return Ok(());
    }
    if host_mode {
        return Err(ApiError::bad(WITH_HOST));
    }
    let Some(main) = endpoints.first_mut() else {
        return Err(ApiError::bad("conflicting options: links and the network mode `none`"));
    };
    // The CLI sends them twice, where the network is not the default one.
    if main.links.is_empty() {
        main.links = links;
    }
    if main.network == DEFAULT_NETWORK {
        warnings.push(NO_VARIABLES.into());
    }
    Ok(())
}

/// `NAME`, `NAME:ALIAS`, or as inspect has it: `/NAME:/OWN/ALIAS`.
fn link(text: &str) -> Result<Link, ApiError> {
    let wrong = || ApiError::bad(format!("bad format for links: {}", clip(text)));
    let (target, alias) = text.split_once(':').unwrap_or((text, text));
    let target = target.strip_prefix('/').unwrap_or(target);
    let alias = alias.rsplit('/').next().unwrap_or_default();
    if target.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(wrong());
    }
    Ok(Link { target: target.to_owned(), alias: alias.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(links: Value) -> Result<Vec<(String, String)>, String> {
        let fields = Fields::of("", json!({ "Links": links })).unwrap();
        let found = super::links(&fields).map_err(|error| error.message)?;
        Ok(found.into_iter().map(|link| (link.target, link.alias)).collect())
    }

    #[test]
    fn links_are_read_as_they_are_written_and_as_they_are_shown() {
        let pair = |target: &str, alias: &str| (target.to_owned(), alias.to_owned());
        assert_eq!(
            read(json!(["db", "db:store", "/db:/web/base"])).unwrap(),
            [pair("db", "db"), pair("db", "store"), pair("db", "base")]
        );
        for wrong in ["a:b:c", ":b", "a:", "/"] {
            let error = read(json!([wrong])).unwrap_err();
            assert_eq!(error, format!("bad format for links: {wrong}"));
        }
    }

    #[test]
    fn links_belong_to_the_first_network() {
        let host = Fields::of("HostConfig.", json!({"Links": ["db"]})).unwrap();
        let wish = |network: &str| EndpointWish { network: network.into(), ..EndpointWish::default() };
        let (mut places, mut warnings) = (vec![wish("bridge"), wish("mine")], Vec::new());
        of_host(&host, &mut places, false, &mut warnings).unwrap();
        assert_eq!((places[0].links.len(), places[1].links.len(), warnings.len()), (1, 0, 1));
        assert!(of_host(&host, &mut [], false, &mut warnings).is_err());
    }
}
