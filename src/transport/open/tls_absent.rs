//! In the place of `tls`, for an nginx that was built without TLS: nothing.
