//! The decoders as a hostile other side meets them. `cfg(test)` only tells the lints that helpers here are tests, too.

#[cfg(test)]
mod hostile;
