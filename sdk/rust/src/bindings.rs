//! Made from `sdk/wit`.

#![allow(missing_docs, clippy::all, unsafe_code, reason = "generated")]

wit_bindgen::generate!({
    path: ["../wit/plugin", "../wit/admission"],
    world: "bulkhead:admission/admission",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_admission",
    default_bindings_module: "bulkhead_sdk::bindings",
});
