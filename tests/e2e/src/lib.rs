//! End-to-end tests: the stock docker CLI against a real server with real machines. All of it is in `tests/e2e`.
