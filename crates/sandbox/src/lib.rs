//! The shim: a service in its own namespaces behind a sensed sink, Landlock and seccomp
