//! What can go wrong with an image, in words for the user.

use bulkhead_model::Digest;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The registry has no such image, or does not admit to having it.
    #[error("manifest for `{reference}` not found: {why}")]
    NotFound { reference: String, why: String },
    /// The registry refuses (401 after authentication was tried, or 403).
    #[error("access to `{what}` denied by the registry: {why}")]
    Denied { what: String, why: String },
    /// Wrong user name, password or token at `login`.
    #[error("registry `{registry}` refused the credentials: {why}")]
    Login { registry: String, why: String },
    /// The registry cannot be reached, or does not answer as one.
    #[error("registry `{registry}`: {why}")]
    Registry {
        registry: String,
        why: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// An address that may not be asked.
    #[error("`{host}` may not be reached: {why}")]
    Address { host: String, why: String },
    /// The image has nothing for the platform.
    #[error("no matching manifest for {platform} in the manifest list entries of `{reference}`")]
    Platform { reference: String, platform: String },
    /// A manifest, index, config or archive that breaks the rules.
    #[error("{what}: {why}")]
    Invalid { what: String, why: String },
    /// Something well formed that is not supported, by name.
    #[error("{what} is not supported: {why}")]
    Unsupported { what: String, why: String },
    #[error("{what} has digest {found}, expected {expected}")]
    Digest { what: String, expected: Digest, found: Digest },
    #[error("{what} has {found} bytes, expected {expected}")]
    Size { what: String, expected: u64, found: u64 },
    /// A layer that was refused while it was unpacked.
    #[error("layer refused: {0}")]
    Layer(String),
    /// A cap was reached: which, and how to raise it where that is possible.
    #[error("{what} exceeds the limit of {limit}")]
    Limit { what: String, limit: String },
    #[error("{what} took longer than {seconds} s")]
    Deadline { what: String, seconds: u64 },
    /// The store of layer disks failed.
    #[error("layer disk could not be stored")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{doing}: {source}")]
    Io {
        doing: String,
        #[source]
        source: std::io::Error,
    },
}

impl ImageError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }

    /// Whether the image, not the machine or the network, is at fault: asking again will not help.
    pub fn is_content(&self) -> bool {
        matches!(
            self,
            Self::Invalid { .. }
                | Self::Unsupported { .. }
                | Self::Digest { .. }
                | Self::Size { .. }
                | Self::Layer(_)
                | Self::Limit { .. }
        )
    }
}
