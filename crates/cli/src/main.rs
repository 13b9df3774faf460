//! The `ringfence` binary: arguments, output, wiring; nothing else.
fn main() {}
