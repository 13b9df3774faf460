//! The data plane: gateway and sidecar pipelines

pub mod h1;
pub mod normalize;
pub mod view;
