//! The child that converts layers, in a test binary.

/// Makes the test binary able to start itself again as the child that converts layers, and defines
/// `converter_config() -> bulkhead_image::convert::ConverterConfig` for it. Once, at the root of the test binary; the
/// crate needs `bulkhead-image` as a dependency.
#[macro_export]
macro_rules! layer_child {
    () => {
        /// Not a test of its own: does nothing unless it was started as a child.
        #[test]
        fn layer_child() {
            if std::env::var_os("BULKHEAD_LAYER_JOB").is_some() {
                let _ = bulkhead_image::convert::child_main();
                std::process::exit(0);
            }
        }

        #[allow(
            dead_code,
            clippy::allow_attributes,
            reason = "not every test binary converts in every configuration"
        )]
        fn converter_config() -> bulkhead_image::convert::ConverterConfig {
            let program = std::env::current_exe().unwrap_or_default();
            let arguments = ["layer_child", "--exact", "--nocapture", "--test-threads=1"];
            bulkhead_image::convert::ConverterConfig::new(program, arguments.map(Into::into).to_vec())
        }
    };
}
