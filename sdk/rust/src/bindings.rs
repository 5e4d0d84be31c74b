//! Made from `sdk/wit`.

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
    path: ["../wit/plugin", "../wit/admission"],
    world: "bulkhead:admission/admission",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_admission",
    default_bindings_module: "bulkhead_sdk::bindings",
});
