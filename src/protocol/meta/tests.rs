//! Meta commands: options, flags, replies.
