//! What proves a user to a registry.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// Never printed: `Debug` shows the kind only.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    #[default]
    Anonymous,
    Password {
        user: String,
        password: String,
    },
    /// Exchanged for tokens at the registry's token service (OAuth 2.0 refresh token).
    IdentityToken(String),
    /// A bearer token, used as it is.
    RegistryToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password { .. } => "Password(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

impl Credentials {
    /// The header of basic authentication (RFC 7617).
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { user, password } = self else { return None };
        secret_header(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }
}

/// `None` if it has characters that no header may have. Marked so that nothing prints it.
pub(super) fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
