//! What makes a type the plugin that a crate is.

/// Makes the type, which implements [`Admission`](crate::admission::Admission), the plugin that this crate is.
#[macro_export]
macro_rules! admission_plugin {
    ($plugin:ty) => {
        const _: () = {
            $crate::__export_plugin!(Component, $plugin, admission, Admission);
            $crate::__export_admission!(Component, $plugin);
        };
    };
}

/// Makes the type, which implements [`Placement`](crate::placement::Placement), the plugin that this crate is.
#[macro_export]
macro_rules! placement_plugin {
    ($plugin:ty) => {
        const _: () = {
            $crate::__export_plugin!(Component, $plugin, placement, Placement);
            $crate::__export_placement!(Component, $plugin);
        };
    };
}

/// Makes the type, which implements [`Admission`](crate::admission::Admission) and
/// [`Placement`](crate::placement::Placement), the plugin that this crate is. What it says of itself and of its settings is
/// what it says of them for admission.
#[macro_export]
macro_rules! admission_and_placement_plugin {
    ($plugin:ty) => {
        const _: () = {
            $crate::__export_plugin!(Component, $plugin, admission, Admission);
            $crate::__export_admission!(Component, $plugin);
            $crate::__export_placement!(Component, $plugin);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_plugin {
    ($component:ident, $plugin:ty, $point:ident, $implements:ident) => {
        #[cfg_attr(
            not(target_family = "wasm"),
            allow(dead_code, clippy::allow_attributes, reason = "exported below")
        )]
        struct $component;

        const _: () = {
            use $crate::bindings::exports::bulkhead::plugin::lifecycle::{Guest, Manifest, SettingsProblem};
            use $crate::$point::{glue, $implements};

            impl Guest for $component {
                fn describe() -> Manifest {
                    <$plugin as $implements>::ABOUT.into()
                }

                fn check_settings(settings: String) -> Result<(), Vec<SettingsProblem>> {
                    glue::check_settings::<$plugin>(&settings)
                }
            }

            // The names of a component's exports are none for a native library.
            #[cfg(target_family = "wasm")]
    $crate::bindings::export_lifecycle!($component with_types_in $crate::bindings);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_admission {
    ($component:ident, $plugin:ty) => {
        const _: () = {
            use $crate::admission::glue;
            use $crate::admission_bindings::bulkhead::admission::types::{Request, Verdict};
            use $crate::admission_bindings::exports::bulkhead::admission::admit::Guest;
            use $crate::bindings::bulkhead::plugin::types::{CallInfo, PluginError};

            impl Guest for $component {
                fn review(call: CallInfo, request: Request) -> Result<Verdict, PluginError> {
                    glue::review::<$plugin>(&call, &request)
                }
            }

            #[cfg(target_family = "wasm")]
            $crate::admission_bindings::export_admission!($component with_types_in $crate::admission_bindings);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_placement {
    ($component:ident, $plugin:ty) => {
        const _: () = {
            use $crate::bindings::bulkhead::plugin::types::{CallInfo, ContainerSpec, PluginError};
            use $crate::placement::glue;
            use $crate::placement_bindings::bulkhead::placement::types::Ratings;
            use $crate::placement_bindings::exports::bulkhead::placement::place::Guest;

            impl Guest for $component {
                fn rate(call: CallInfo, container: ContainerSpec) -> Result<Ratings, PluginError> {
                    glue::rate::<$plugin>(&call, &container)
                }
            }

            #[cfg(target_family = "wasm")]
            $crate::placement_bindings::export_placement!($component with_types_in $crate::placement_bindings);
        };
    };
}
