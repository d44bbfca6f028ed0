//! Pool policy.
#![forbid(unsafe_code)]
