//! May they? Cedar policies beside the fence, judged against a schema that the fence generates.
#![forbid(unsafe_code)]

pub mod index;
