//! The fence: ringfence.yaml parsed with positions, validated, and queried as a graph
