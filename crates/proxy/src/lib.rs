//! The data plane: gateway and sidecar pipelines
