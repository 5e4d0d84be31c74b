//! Made from `sdk/wit`: admission. Types that all plugins have are those of [`crate::bindings`].

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
    inline: "package bulkhead:sdk-admission; world admission-only { export bulkhead:admission/admit@0.1.0; }",
    world: "bulkhead:sdk-admission/admission-only",
    with: { "bulkhead:plugin/types@0.1.0": crate::bindings::bulkhead::plugin::types },
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_admission",
    default_bindings_module: "bulkhead_sdk::admission_bindings",
});
