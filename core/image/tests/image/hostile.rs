//! Archives that strangers could send.
