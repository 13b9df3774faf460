//! The compiled, signed configuration that enforcement points run from, and its verification
