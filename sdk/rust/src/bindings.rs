//! Made from `sdk/wit`: what all plugins have. The points have theirs apart, so that a plugin can have one or several.

#![allow(
    clippy::all,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes_without_reason,
    missing_debug_implementations,
    reason = "generated"
)]

wit_bindgen::generate!({
    path: "../wit/plugin",
    world: "bulkhead:plugin/plugin",
    generate_all,
    generate_unused_types: true,
    pub_export_macro: true,
    export_macro_name: "export_lifecycle",
    default_bindings_module: "bulkhead_sdk::bindings",
});
