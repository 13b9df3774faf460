//! ringfence-bench
fn main() {}
