//! `X-Registry-Auth`: base64 of a JSON object, in the variants that clients are known to send.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bulkhead_engine::Credentials;
use serde::Deserialize;

/// Longer ones are no honest header; tokens have some kilobytes.
const HEADER_BYTES_MAX: usize = 64 << 10;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
const STD: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

/// As in the header and in the body of `POST /auth`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct AuthConfig {
    username: Option<String>,
    password: Option<String>,
    /// Base64 of `user:password`, in place of the two.
    auth: Option<String>,
    pub serveraddress: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// Of a header; what cannot be decoded is anonymous, as in dockerd.
pub fn from_header(header: Option<&str>) -> Credentials {
    header.and_then(decode).unwrap_or_default().into_credentials()
}

fn decode(header: &str) -> Option<AuthConfig> {
    let header = header.trim();
    if header.is_empty() || header.len() > HEADER_BYTES_MAX {
        return None;
    }
    let bytes = URL.decode(header).or_else(|_| STD.decode(header)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

impl AuthConfig {
    pub fn into_credentials(self) -> Credentials {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = filled(self.registrytoken) {
            return Credentials::RegistryToken(token);
        }
        if let Some(token) = filled(self.identitytoken) {
            return Credentials::IdentityToken(token);
        }
        let pair = filled(self.username).map(|user| (user, self.password.unwrap_or_default()));
        let packed = filled(self.auth).and_then(|auth| {
            let text = String::from_utf8(STD.decode(auth).ok()?).ok()?;
            text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
        });
        match pair.or(packed) {
            Some((user, password)) => Credentials::Password { user, password },
            None => Credentials::Anonymous,
        }
    }
}

/// The registry that a server address names: `https://index.docker.io/v1/` is Docker Hub, as is none.
pub fn registry(address: Option<&str>) -> String {
    let address = address.unwrap_or_default();
    let bare =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    match bare.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => bulkhead_model::reference::DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str) -> String {
        match from_header(Some(header)) {
            Credentials::Anonymous => "anonymous".into(),
            Credentials::Password { user, password } => format!("{user}:{password}"),
            Credentials::IdentityToken(token) => format!("identity {token}"),
            Credentials::RegistryToken(token) => format!("registry {token}"),
        }
    }

    #[test]
    fn every_encoding_that_clients_send() {
        let json = r#"{"username":"ann","password":"p?>~ÿ","serveraddress":"x"}"#;
        for text in [URL.encode(json), STD.encode(json), URL.encode(json).trim_end_matches('=').to_owned()] {
            assert_eq!(check(&text), "ann:p?>~ÿ", "{text}");
        }
        for text in ["", "e30=", "e30", "!!!", "bnVsbA==", "IiI="] {
            assert_eq!(check(text), "anonymous", "{text}");
        }
        assert_eq!(check(&URL.encode(r#"{"identitytoken":"t","username":"<token>"}"#)), "identity t");
        assert_eq!(check(&URL.encode(r#"{"registrytoken":"t","username":null}"#)), "registry t");
        let packed = format!(r#"{{"auth":"{}"}}"#, STD.encode("ann:a:b"));
        assert_eq!(check(&STD.encode(packed)), "ann:a:b");
    }

    #[test]
    fn server_addresses() {
        for (address, expect) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("https://reg.example:443/v2/", "reg.example:443"),
        ] {
            assert_eq!(registry(Some(address)), expect);
        }
    }
}
