//! Integration tests of the engine live in `tests/it`; there is nothing to link against.
