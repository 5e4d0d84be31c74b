//! Made from `sdk/wit`: placement. Types that all plugins have are those of [`crate::bindings`].

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
    path: ["../wit/plugin", "../wit/placement"],
    inline: "package bulkhead:sdk-placement; world placement-only { import bulkhead:placement/candidates@0.1.0; export bulkhead:placement/place@0.1.0; }",
    world: "bulkhead:sdk-placement/placement-only",
    with: { "bulkhead:plugin/types@0.1.0": crate::bindings::bulkhead::plugin::types },
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_placement",
    default_bindings_module: "bulkhead_sdk::placement_bindings",
});
