//! The only door to rustls: configurations, resolvers, verifiers
